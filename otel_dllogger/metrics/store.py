"""A store of the last value of every series, and of what the package knows about each rank.

``log`` only writes here: a dict update and a few counters. Names, labels and the
OpenTelemetry objects are made at collection (``instruments.py``).
"""

from __future__ import annotations

import threading
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Any

from otel_dllogger import settings
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.naming import (
    MAX_LABEL_CHARACTERS,
    MappedMetric,
    MetricMetadata,
    find_stage,
    label_text,
    map_metric,
    parse_metadata,
    unit_text,
)
from otel_dllogger.metrics.phases import MAX_NAMES, TRAIN
from otel_dllogger.metrics.rank_state import RankState
from otel_dllogger.metrics.steps import StepMeaning
from otel_dllogger.record import (
    HANG,
    OK,
    OPEN,
    VALIDATION,
    Event,
    Info,
    Metadata,
    Phase,
    Record,
    parse_rank,
)
from otel_dllogger.runtime import fork
from otel_dllogger.runtime.interruptions import let_through
from otel_dllogger.runtime.locks import LockTimeout, locked
from otel_dllogger.values import is_finite, to_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from otel_dllogger.metrics.step_durations import StepDurations
    from otel_dllogger.record import Entry, Position, SeriesMetadata

DEFAULT_MAX_SERIES = 10_000

MAX_LONG_NAMES_CHARACTERS = 4 << 20
"""The most characters of a store's long names together, some of which are data by mistake."""

MAX_METADATA_CHARACTERS = 1_000
"""The most characters of a unit, goal, stage or scope that are looked at."""

_MAX_PARAMETER_DEPTH = 8
"""The most levels of nested hyper-parameters that are looked into."""

_SERIES_OF_A_RANK = 18
"""Series that a rank has before it logs a metric.

``dllogger_records_total`` counts as 4, ``dllogger_phase_seconds_total`` as 3.
"""

_SERIES_OF_A_PHASE = 3
"""Series of a phase: its time, whether it is open, and how often it ended well."""

_SERIES_OF_AN_EVENT = 2

GOES_ON_US = 300_000_000
"""Microseconds after which a rank that was told to end, and still logs, does not end."""

_SERIES_OF_A_PROCESS = 3
"""The time spent in ``log``, the GPU and ``target_info``; one series per reason comes on top."""


class SeriesStore:
    """The last value of every series of one run.

    No foreign code is called while the lock is held, and only plain numbers and text are kept:
    neither a log call nor a scrape can reach a user's code in here.

    Args:
        run: The run's name, label ``run``.
        rank: The rank of records that do not name one.
        start_us: When the run started, microseconds since the Unix epoch.
        max_series: How many series there may be; any beyond that are counted as dropped.
        tell: Takes a decision about what steps mean, in one line; None to warn of it.
        durations: Keeps how long the steps of a rank took; None to keep nothing of that.
    """

    def __init__(
        self,
        *,
        run: str,
        rank: int,
        start_us: int,
        max_series: int = DEFAULT_MAX_SERIES,
        tell: Callable[[str], object] | None = None,
        durations: type[StepDurations] | None = None,
    ) -> None:
        self.run = run
        self.ranks: dict[int, RankState] = {}
        self.metadata: dict[str, MetricMetadata] = {}
        self.changed_metadata: set[str] = set()
        self.on_new_series: Callable[[], object] = lambda: None
        self._raw_metadata: dict[str, dict[str, Any]] = {}
        self._names: dict[str, str] = {}  # the logged names, if the keys differ from them
        self._minimize: dict[str, bool] = {}
        self.max_series = max_series
        self.durations = durations
        self._series_of_a_rank = _SERIES_OF_A_RANK + (0 if durations is None else durations.series)
        self._series = len(DIAGNOSTICS.dropped) + _SERIES_OF_A_PROCESS + self._series_of_a_rank
        self._name_characters = 0
        self._full = False
        self.silent = False
        self.closed = False
        self.open_phases: Callable[[], dict[str, int | None]] = dict
        """Returns the open phases of this process, as ``OpenPhases.times_us`` does."""
        self.told_us: int | None = None  # when a signal told the process to end
        self.revision = 0
        """How many times there were new series, or new names for old ones."""
        self._lock = threading.RLock()
        self._is_taking = False
        self._interrupting: deque[Callable[[], object]] = deque()
        self._step_setting = settings.step_meaning()
        self._tell = tell or partial(DIAGNOSTICS.warn, "steps")
        self._stages: dict[str, str | None] = {}  # of metrics whose steps have three elements
        self._own = self._new_rank(rank, start_us)
        self.ranks[rank] = self._own
        fork.register(self)

    def take(self, entry: Entry | SeriesMetadata) -> RankState | None:
        """Take the entry of one call of a Logger, or of one line of a log.

        Returns:
            The rank to which the values of a step belong. None for other entries, if there is no
            room for the rank, and in a signal handler that interrupts another call, which then
            takes the entry at its end.
        """
        if isinstance(entry, Record):
            if entry.is_pair or not entry.is_parameter:
                return self._take_record(entry)
            self._locked(self._parameters, "parameter", entry.plain, entry.time_us)
        elif isinstance(entry, Metadata):  # later ones add to and override earlier ones
            self._locked(self._metadata_call, entry.name, entry.plain)
        elif isinstance(entry, Info):  # the numbers of a dict or Namespace are parameters
            self._locked(self._parameters, "info", entry.plain, entry.time_us)
        elif isinstance(entry, Phase):
            self.take_phase(entry)
        elif isinstance(entry, Event):
            self._locked(self._event, entry.name, entry.time_us)
        else:
            self._locked(self._describe, entry.key, entry.metadata, entry.name)
        return None

    def _take_record(self, record: Record) -> RankState | None:
        _plain, numbers, finite, _flat = record.values or record.convert()
        position = None if record.is_pair else record.position
        revision = self.revision
        try:
            state: RankState | None = locked(
                self._lock, self._record_alone, record, numbers, position, finite
            )
        except LockTimeout:
            self._interrupting.append(partial(self._record, record, numbers, position, finite))
            return None
        if self._interrupting:
            self._take_interrupting()
        if revision != self.revision:
            self.on_new_series()
        return state

    def _record_alone(
        self,
        record: Record,
        numbers: Mapping[str, float],
        position: Position | None,
        finite: bool,
    ) -> RankState | None:
        """Do what ``_alone`` does for ``_record``, which is called most, with one call less."""
        if self._is_taking:
            raise LockTimeout
        self._is_taking = True
        try:
            return self._record(record, numbers, position, finite)
        finally:
            self._is_taking = False

    def _record(
        self,
        record: Record,
        numbers: Mapping[str, float],
        position: Position | None,
        finite: bool,
    ) -> RankState | None:
        state = self._own
        if "rank" in numbers:
            rank, numbers = _take_rank(numbers)
            found = self._rank_state(rank, record.time_us)
            if found is None:
                self._overflow(len(numbers))
                return None
            state = found
        state.logs += 1
        state.last_log_us = record.time_us
        if position is None:
            cell = state.iterations
            step = record.step
            if step != state.place:
                if step[1] == state.iteration or state.meaning.pair_total is not None:
                    state.move_odd_pair(step, record.elapsed_us)
                else:
                    state.place = step
                    state.epoch, state.iteration = step
                    state.finished = False
                    state.advance(step[0], step[1], record.elapsed_us)
        else:
            cell = self._move(state, record, position, numbers)
        size = len(cell)
        if self._full:
            numbers = self._known(cell, numbers)
        cell.update(numbers)
        if len(cell) != size:
            self._admit_names(state, cell, list(cell)[size:])
        if not finite:
            _count_nonfinite(state, cell, numbers)
        if self._minimize:
            self._improve(state, numbers)
        return state

    def _move(
        self, state: RankState, record: Record, position: Position, numbers: Mapping[str, float]
    ) -> dict[str, float]:
        """Move a rank to a step that is not a pair, and return the cell for its values."""
        if position.granularity is VALIDATION:
            position = state.meaning.position_of(record, self._stage_of(numbers))
        if position != state.place:
            state.move(position, record.elapsed_us)
        return state.cells[position.granularity]

    def _locked(self, take: Callable[..., object], *arguments: Any) -> None:
        """Call a function that changes the store while nothing else does.

        A signal handler may interrupt its own thread in here. Its change is then made at the end
        of the interrupted one, since otherwise an addition that it interrupts would lose counts.

        Args:
            take: The function, which must not call foreign code.
            arguments: Its arguments.
        """
        revision = self.revision
        try:
            locked(self._lock, self._alone, take, *arguments)
        except LockTimeout:
            self._interrupting.append(partial(take, *arguments))
            return
        if self._interrupting:
            self._take_interrupting()
        if revision != self.revision:
            self.on_new_series()

    def _alone(self, take: Callable[..., object], *arguments: Any) -> None:
        """Call a function under the lock, unless it is a signal handler that interrupts one."""
        if self._is_taking:
            raise LockTimeout  # as in a thread that waits for this one
        self._is_taking = True
        try:
            take(*arguments)
        finally:
            self._is_taking = False

    def _take_interrupting(self) -> None:
        while self._interrupting:
            try:
                take = self._interrupting.popleft()
            except IndexError as error:  # another thread was quicker
                let_through(error)
                return
            self._locked(take)

    def take_phase(self, phase: Phase) -> None:
        """Take a phase that ended or is announced; the same as ``take``, and faster."""
        revision = self.revision
        try:
            locked(self._lock, self._phase_alone, phase)
        except LockTimeout:
            self._interrupting.append(partial(self._phase, phase))
            return
        if self._interrupting:
            self._take_interrupting()
        if revision != self.revision:
            self.on_new_series()

    def _phase_alone(self, phase: Phase) -> None:
        """Do what ``_alone`` does for ``_phase``, in a tenth less of the time of a phase."""
        if self._is_taking:
            raise LockTimeout
        self._is_taking = True
        try:
            self._phase(phase)
        finally:
            self._is_taking = False

    def _phase(self, phase: Phase) -> None:
        state = self._own
        if phase.outcome is not OPEN:
            state.last_log_us = phase.time_us
        phases = state.phases
        # The usual case needs no look at what there is room for.
        is_known = phase.outcome is OK and phase.name in phases.counts and not phase.is_overlapping
        has_series = is_known or self._has_series_of(phase, state)
        phases.take(phase, has_series=has_series)

    def _has_series_of(self, phase: Phase, state: RankState) -> bool:
        """Return whether a phase has series, new ones if there is room for them."""
        name, phases = phase.name, state.phases
        times = phases.overlapped_us if phase.is_overlapping else phases.times_us
        if name in times or (name == TRAIN and not phase.is_overlapping):
            if phase.outcome in (OK, OPEN) or phase.outcome in phases.counts.get(name, ()):
                return True
            series = 1
        elif not phases.has_room_for(name):
            self._refuse_name("phases")
            return False
        else:
            series = _SERIES_OF_A_PHASE
        if self._has_room_for(name) and self._admit(series):
            self.revision += 1
            return True
        self._overflow(1)
        return False

    def _event(self, name: str, time_us: int) -> None:
        state = self._own
        is_hang = name == HANG
        if not is_hang:  # which says that there is no sign of life
            state.last_log_us = time_us
        if name not in state.events:
            if not is_hang and len(state.events) >= MAX_NAMES:
                self._refuse_name("events")
                return
            if not (self._has_room_for(name) and self._admit(_SERIES_OF_AN_EVENT)):
                self._overflow(1)
                return
            self.revision += 1
        state.events[name] = state.events.get(name, 0) + 1
        state.event_times_us[name] = time_us

    def _metadata_call(self, key: str, plain: object) -> None:
        self._own.calls["metadata"] += 1
        self._describe(key, plain, key)

    def _describe(self, key: str, plain: object, name: str) -> None:
        if not isinstance(plain, dict):
            return
        raw = self._raw_metadata.get(key)
        if raw is None:
            if len(self._raw_metadata) >= self.max_series or not self._has_room_for(key):
                self._overflow(1)
                return
            raw = self._raw_metadata[key] = {}
        if name != key:
            self._names[key] = name
        raw.update((word, _fit(plain[word])) for word in _METADATA_KEYS if word in plain)
        metadata = parse_metadata(raw)
        if metadata == self.metadata.get(key, MetricMetadata()):
            return
        self.metadata[key] = metadata
        self._stages.clear()
        self.changed_metadata.add(key)
        self._set_goal(key, metadata.goal)
        self.revision += 1

    def map(self, key: str) -> MappedMetric:
        """Return how a metric is exported according to its current metadata.

        Args:
            key: The metric's key in the store.
        """
        return map_metric(self._names.get(key, key), self.metadata.get(key, MetricMetadata()))

    def unit_text(self, key: str) -> str:
        """Return a metric's unit as it was given, as text for a label; empty if there is none.

        Args:
            key: The metric's key in the store.
        """
        return label_text(unit_text(self._raw_metadata.get(key, {}).get("unit")))

    def to_plain(self) -> dict[str, Any]:
        """Return the whole content as types of Python's JSON: dicts, lists, any number."""
        with self._lock:
            return {
                "metadata": self._raw_metadata,
                "names": self._names,
                "ranks": {rank: state.to_plain() for rank, state in self.ranks.items()},
            }

    def load_plain(self, plain: dict[str, Any]) -> None:
        """Restore a new store from the result of ``to_plain``, written to JSON and read back.

        Raises:
            LookupError, TypeError, ValueError: If ``plain`` is anything else.
        """
        with self._lock:
            for key, raw in plain["metadata"].items():
                self._describe(key, raw, plain["names"].get(key, key))
            for text, state_plain in plain["ranks"].items():
                state = self._rank_state(int(text), 0)
                if state is None:
                    continue
                state.load_plain(state_plain)
                self._series += sum(map(len, state.cells.values()))
                self._series += len(state.nonfinite) + len(state.best) + len(state.parameters)
            self.revision += 1
        self.on_new_series()

    def finish(self) -> None:
        """Note that the run finished successfully, unless the process was told to end."""
        for state in self.rank_states():
            if not self.is_terminated(state):
                state.finished = True

    def is_terminated(self, state: RankState | None = None) -> bool:
        """Return whether a rank ends because its process was told to, and has not finished.

        Args:
            state: The rank; by default that of the process.
        """
        state = state or self._own
        return not state.finished and self.is_told_to_end(state)

    def is_told_to_end(self, state: RankState | None = None) -> bool:
        """Return whether the process was told to end, and a rank does not go on.

        One that goes on has logged something more than five minutes later. What it logs before
        that belongs to its end, such as the step that it was in.

        Args:
            state: The rank; by default that of the process.
        """
        state = state or self._own
        if self.told_us is None:
            return False
        return state.last_log_us is None or state.last_log_us - self.told_us < GOES_ON_US

    def seconds_since_last_log(self, now_s: float) -> float | None:
        """Return the seconds since the latest record, or None before the first.

        Args:
            now_s: The current time, seconds since the Unix epoch.
        """
        times = [s.last_log_us for s in self.rank_states() if s.last_log_us is not None]
        return round(now_s - max(times) / 1e6, 3) if times else None

    def rank_states(self) -> list[RankState]:
        """Return the ranks as they are now."""
        return list(self.ranks.values())

    def _new_rank(self, rank: int, start_us: int) -> RankState:
        meaning = StepMeaning(self._step_setting, self._tell)
        durations = None if self.durations is None else self.durations()
        return RankState(rank, start_us, meaning, durations)

    def phases_of(self, state: RankState) -> tuple[dict[str, int], dict[str, bool]]:
        """Return the time in each phase of a rank, and whether the phase is open.

        The times include those of open phases, and are microseconds.
        """
        times_us = state.phases.all_us()
        opened = dict.fromkeys(sorted(state.phases.names), False)
        for name in state.phases.open_names:
            opened[name] = True
        if state is self._own:
            for name, open_us in self.open_phases().items():
                if state.phases.has_room_for(name):
                    opened[name] = True
                    if open_us is not None:
                        times_us[name] = times_us.get(name, 0) + open_us
        return times_us, opened

    def _stage_of(self, numbers: Mapping[str, float]) -> str | None:
        """Return the stage of metrics that were logged together, None if they have none.

        If they have several, it is not ``train``: a validation may repeat the training's last
        loss.
        """
        found = None
        for key in numbers:
            if key not in self._stages:
                if len(self._stages) >= self.max_series:
                    self._stages.clear()
                name = self._names.get(key, key)
                self._stages[key] = find_stage(name, self.metadata.get(key, MetricMetadata()))
            stage = self._stages[key]
            if stage is not None and stage != "train":
                return stage
            found = stage or found
        return found

    def _rank_state(self, rank: int | None, time_us: int) -> RankState | None:
        if rank is None:
            return self._own
        state = self.ranks.get(rank)
        if state is None and self._admit(self._series_of_a_rank):
            state = self.ranks[rank] = self._new_rank(rank, time_us)
            self.revision += 1
        return state

    def _known(self, cell: dict[str, float], numbers: Mapping[str, float]) -> Mapping[str, float]:
        """Return only the values with known names, when there is no room for new ones."""
        known = {name: value for name, value in numbers.items() if name in cell}
        if len(known) < len(numbers):
            self._overflow(len(numbers) - len(known))
        return known

    def _admit_names(self, state: RankState, cell: dict[str, float], names: list[str]) -> None:
        for name in names:
            # One series for the value and, for a new metric, one for its count of NaN and Inf.
            is_new = name not in state.nonfinite
            if (not is_new or self._has_room_for(name)) and self._admit(2 if is_new else 1):
                state.nonfinite.setdefault(name, 0)
                self.revision += 1
            else:
                del cell[name]
                self._overflow(1)

    def _admit(self, series: int) -> bool:
        if self._series + series > self.max_series:
            self._full = True
            return False
        self._series += series
        return True

    def _has_room_for(self, name: str) -> bool:
        if len(name) <= MAX_LABEL_CHARACTERS:
            return True  # the limit on the number of series bounds these
        if self._name_characters + len(name) > MAX_LONG_NAMES_CHARACTERS:
            return False
        self._name_characters += len(name)
        return True

    def _overflow(self, count: int) -> None:
        DIAGNOSTICS.count(
            "series_limit",
            f"more than {self.max_series} series in this process, or long names of more than "
            f"{MAX_LONG_NAMES_CHARACTERS >> 20} MiB in total: new ones are not exported; log fewer "
            "and shorter names, or raise max_series",
            count=count,
        )

    @staticmethod
    def _refuse_name(what: str) -> None:
        """Count a phase or an event whose name is one too many."""
        DIAGNOSTICS.count(
            "series_limit",
            f"a rank has more than {MAX_NAMES} names of {what}: those after them are only in the "
            "log; put what varies, such as a file or a number, into an event's data",
        )

    def _improve(self, state: RankState, numbers: Mapping[str, float]) -> None:
        """Keep the best finite value of the metrics whose goal is known."""
        goals = self._minimize
        names = goals if len(goals) < len(numbers) else numbers
        best = state.best
        for name in names:
            minimize = goals.get(name)
            value = numbers.get(name)
            # NaN and Inf, like ``is_finite``: a call for each metric with a goal would be slow.
            if minimize is None or value is None or value - value != 0.0:
                continue
            last = best.get(name)
            if last is None:
                if name not in state.nonfinite:  # the metric itself is beyond the limit
                    continue
                if self._admit(1):
                    best[name] = value
                    self.revision += 1
                else:
                    self._overflow(1)
            elif value < last if minimize else value > last:
                best[name] = value

    def _set_goal(self, name: str, goal: str | None) -> None:
        minimize = None if goal is None else goal == "minimize"
        if minimize == self._minimize.get(name):
            return
        for state in self.ranks.values():
            if state.best.pop(name, None) is not None:
                self._series -= 1
                self._full = False
        if minimize is None:
            del self._minimize[name]
            return
        self._minimize[name] = minimize
        for state in self.ranks.values():
            for cell in state.cells.values():
                if name in cell:
                    self._improve(state, {name: cell[name]})

    def _parameters(self, kind: str, plain: object, time_us: int) -> None:
        self._own.calls[kind] += 1
        self._own.last_log_us = time_us
        self._add_parameters(self._own, plain)

    def _add_parameters(self, state: RankState, plain: object) -> None:
        """Store parameters: each has one value, the last one, whether a number or text."""
        for name, value in open_parameters(plain):
            number = to_number(value)
            if number is not None and is_finite(number):
                state.texts.pop(name, None)
                known = name in state.parameters
                if known or (self._has_room_for(name) and self._admit(1)):
                    state.parameters[name] = number
                else:
                    self._overflow(1)
            elif isinstance(value, str) and number is None:
                if state.parameters.pop(name, None) is not None:
                    self._series -= 1
                    self._full = False
                if name in state.texts or (
                    len(state.texts) < self.max_series and self._has_room_for(name)
                ):
                    state.texts[name] = label_text(value)

    def after_fork_in_child(self) -> None:
        """Export nothing from now on, and do not wait for a thread of the parent."""
        self._lock = threading.RLock()
        self._is_taking = False
        self.silent = True  # the series are the parent's to export
        self.on_new_series = lambda: None


def open_parameters(plain: object) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested parameters as ``optimizer.lr``, without lists and secrets.

    A parameter whose name suggests a secret is left out entirely. A secret within a text, such
    as a command line or a URL, is replaced by ``[redacted]``.

    Args:
        plain: Converted data; anything but a dict has no parameters.
    """
    from otel_dllogger.redaction import redact, redact_forms  # noqa: PLC0415 - 5 ms
    from otel_dllogger.secret_names import is_secret_name  # noqa: PLC0415 - as above

    for name, value in _leaves(plain, "", 0):
        if not is_secret_name(name, value):
            yield redact_forms(name), redact(value) if isinstance(value, str) else value


def _leaves(plain: object, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if not isinstance(plain, dict) or depth >= _MAX_PARAMETER_DEPTH:
        return
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.", depth + 1)
        elif not isinstance(value, list):
            yield f"{prefix}{key}", value


_METADATA_KEYS = ("unit", "GOAL", "goal", "STAGE", "stage", "SCOPE", "scope")


def _take_rank(numbers: Mapping[str, float]) -> tuple[int | None, dict[str, float]]:
    """Return a record's rank and its other numbers: the rank is a label, not a metric."""
    rest = {name: value for name, value in numbers.items() if name != "rank"}
    return parse_rank(numbers["rank"]), rest


def _fit(value: object) -> object:
    """Return what is kept of a metadata value: the beginning of a text, otherwise nothing."""
    return value[:MAX_METADATA_CHARACTERS] if isinstance(value, str) else None


def _count_nonfinite(
    state: RankState, cell: dict[str, float], numbers: Mapping[str, float]
) -> None:
    for name, value in numbers.items():
        if not is_finite(value) and name in cell:
            state.nonfinite[name] += 1

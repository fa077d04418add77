"""The ranks of many runs in one process, each in the state that its logs show."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DAMAGE
from otel_dllogger.identity import Topology, host_name
from otel_dllogger.logs.parsers.formats import REPEATING, FileRecord
from otel_dllogger.logs.reader import MAX_NAMES, ProcessStart
from otel_dllogger.metrics.data_points import DataPoints, Series, Value
from otel_dllogger.metrics.exported_store import ExportedStore
from otel_dllogger.metrics.internal import DROPPED_TEXT, InternalMetric, ObservationSchedule
from otel_dllogger.metrics.store import DEFAULT_MAX_SERIES, SeriesStore
from otel_dllogger.record import Entry, Record, SeriesMetadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.logs.run_identity import RunIdentity
    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.metrics.step_durations import StepDurations

_LAST_TIME_US = 2**63 // 1000 - 1  # nanoseconds of 64 bits: the year 2262

Point = tuple[Series, int, Value]
"""A series, microseconds since the Unix epoch, and a value."""

Observation = tuple[int, int]
"""When a rank's internal metrics are observed, and how many items it has taken by then."""


def time_within_range(time_us: int) -> int:
    """Return a time of a log; one that no target can have becomes the nearest one that it can."""
    return min(max(time_us, 0), _LAST_TIME_US)


class LoggedRank(ExportedStore):
    """One rank of one run: what it logged, and its identity.

    Args:
        run: The run's name.
        rank: The rank.
        host: Where it runs.
        max_series: The most series that it may have.
        durations: Keeps how long its steps took; None to keep nothing of that.

    Attributes:
        key: The run's name and the rank.
        heartbeat_s: When one of its files last grew, seconds since the Unix epoch.
        dropped: Lines that gave no record although they should have, by reason.
        numbers: For a reader's use: what it numbers the series as. It is emptied when metadata
            that came late moves series to other names.
        history: Of formats whose files repeat the history, the last iteration of each metric.
        saves: How often it was saved; of two saved texts, the one with more saves is newer.
        schedule: When its internal metrics are due, by the times of its items.
    """

    __slots__ = (
        "_last_us",
        "_moved_us",
        "_points",
        "dropped",
        "heartbeat_s",
        "history",
        "key",
        "numbers",
        "rank",
        "run",
        "saves",
        "schedule",
    )

    def __init__(
        self,
        run: str,
        rank: int,
        host: str,
        *,
        max_series: int = DEFAULT_MAX_SERIES,
        durations: type[StepDurations] | None = None,
    ) -> None:
        store = SeriesStore(
            run=run,
            rank=rank,
            start_us=0,
            max_series=max_series,
            tell=lambda _line: None,  # ``LogFindings`` tells what was decided about steps
            durations=durations,
        )
        topology = Topology(run, rank, -1, rank + 1, 1, host, -1)
        super().__init__(store, topology)
        self.run = run
        self.rank = rank
        self.key = (run, rank)
        self.heartbeat_s = 0.0
        self.dropped: dict[str, int] = {}
        self.numbers: dict[Series, int] = {}
        self.saves = 0
        self.history: dict[str, float] = {}
        self._points = DataPoints(self, start_us=0, of_process=False)
        self.schedule = ObservationSchedule()
        self._moved_us = -1
        self._last_us = -1  # the latest time so far, whatever came after it

    @property
    def state(self) -> RankState:
        """Return what the rank logged last."""
        return self.store.ranks[self.rank]

    def take(self, item: RankEntry) -> RankState | None:
        """Take one item of a log; return the rank's state if it is a record of a step."""
        if isinstance(item, ProcessStart):
            self._start(item)
            return None
        if isinstance(item, FileRecord) and item.log_format in REPEATING:
            self._leave_out_repeated(item)
            if not item.data:
                return None
        if not isinstance(item, SeriesMetadata):
            self._begin(item)
        if isinstance(item, FileRecord) and item.interpolated:
            item.elapsed_us = 0  # such a time does not show how long a step took
        return self.store.take(item)

    def _take(self, item: RankEntry) -> RankState | None:
        state = self.take(item)
        if self.store.changed_metadata and self.apply_late_metadata():
            self.numbers.clear()
        return state

    def values(self, item: RankEntry) -> Iterator[tuple[Series, float]]:
        """Take one item of a log, and yield the values in it if it is a record of a step."""
        state = self._take(item)
        if state is not None and isinstance(item, Record):
            yield from self._points.logged(item, state)

    def _leave_out_repeated(self, record: FileRecord) -> None:
        """Leave out of a record what another file had of its iteration, or of a later one."""
        granularity, place = record.position
        at = place[1] if place else None
        if at is None:
            at = float("inf")  # the summary comes once
        fresh = {}
        for name, value in record.data.items():
            key = f"{granularity} {name}"
            if name == "rank" or at > self.history.get(key, -1.0):
                fresh[name] = value
                if name != "rank" and len(self.history) < MAX_NAMES:
                    self.history[key] = at
        record.data = fresh if fresh.keys() - {"rank"} else {}
        record.values = None

    def points(self, item: RankEntry) -> Iterator[Point]:
        """Take one item of a log, and yield the points that it makes.

        Each value has the record's time. The internal metrics have one point at the first quarter
        minute after a record, as if they were scraped then.
        """
        time_us = None
        if not isinstance(item, (SeriesMetadata, ProcessStart)):
            time_us = time_within_range(item.time_us)
            self._last_us = max(self._last_us, time_us)
        if time_us is not None and self.schedule.is_due(time_us):
            yield from self.observed()
        state = self._take(item)
        if time_us is not None:
            self.schedule.note(time_us)
        if state is None or time_us is None or not isinstance(item, Record):
            return
        for series, value in self._points.logged(item, state):
            yield series, time_us, value
        for series, value in self._points.moved(state):
            self._moved_us = time_us
            yield series, time_us, value

    @property
    def next_observation(self) -> Observation | None:
        """Return the observation that is due, None if nothing came since the last one."""
        due_us = self.schedule.due_us
        return None if due_us is None else (due_us, self.state.entries)

    def observed(self, *, at_end: bool = False) -> Iterator[Point]:
        """Yield the internal metrics, unless they were observed since the last record.

        Args:
            at_end: Give them the time of the latest item, since no later one is known; otherwise
                they have that of the quarter minute after it.
        """
        time_us = self.schedule.take()
        if time_us is not None:
            if at_end and self._last_us >= 0:
                time_us = self._last_us
            # If epoch and iteration already have a point at this time, a second one adds nothing.
            with_place = time_us // 1000 != self._moved_us // 1000
            for series, value in self._points.observed(with_place=with_place):
                yield series, time_us, value

    def _begin(self, item: Entry) -> None:
        """Note when the rank started, from its first item that has a time."""
        state = self.state
        if not state.start_us:
            state.start_us = self._points.start_us = item.time_us - item.elapsed_us

    def _start(self, started: ProcessStart) -> None:
        """Note that another process started.

        The first process of a file counts only if it started after the rank's last record.
        """
        state, attempts = self.state, started.attempts
        if not attempts and state.last_log_us is not None:
            attempts = int(started.start_us >= state.last_log_us)
        if attempts:
            attempt = max(self.topology.attempt + attempts, 1)
            self.topology = dataclasses.replace(self.topology, attempt=attempt)
            state.start_us = started.start_us
            state.begin_process()

    def to_text(self) -> str:
        """Return everything that is known of the rank, for a checkpoint."""
        self.saves += 1
        # Python's own JSON preserves NaN, numbers of any length and lone surrogates.
        return json.dumps(
            {
                "attempt": self.topology.attempt,
                "host": self.topology.host,
                "heartbeat_s": self.heartbeat_s,
                "saves": self.saves,
                "observe_at_us": self.schedule.due_us,
                "dropped": self.dropped,
                "history": self.history,
                "store": self.store.to_plain(),
            },
            separators=(",", ":"),
        )

    def load_text(self, text: str) -> None:
        """Load what ``to_text`` returned into a new rank.

        Raises:
            LookupError, TypeError, ValueError: If the text is anything else.
        """
        plain = json.loads(text)
        self.store.load_plain(plain["store"])
        self.topology = dataclasses.replace(
            self.topology, attempt=int(plain["attempt"]), host=str(plain["host"])
        )
        self.heartbeat_s = float(plain["heartbeat_s"])
        self.saves = int(plain["saves"])
        due_us = plain["observe_at_us"]
        self.schedule.due_us = None if due_us is None else int(due_us)
        self._points.start_us = self.state.start_us
        self.history = {str(name): float(at) for name, at in plain["history"].items()}
        self.dropped = {reason: int(count) for reason, count in plain["dropped"].items()}


FAILED = "backend_failed"

DROPPED_REASONS = (FAILED, *DAMAGE)
"""Reasons why a line gave no record although it should have; each is exported, even at 0."""


def _dropped(exported: ExportedStore) -> Iterator[tuple[dict[str, str], float]]:
    if isinstance(exported, LoggedRank):
        for reason in DROPPED_REASONS:
            labels = {**exported.process_labels(), "reason": reason}
            yield labels, float(exported.dropped.get(reason, 0))


DROPPED = InternalMetric("dllogger.dropped", DROPPED_TEXT, _dropped, is_counter=True)
"""The lines of a rank's log that gave no record although they should have."""


class Ranks:
    """The ranks of many runs.

    Args:
        max_series: The most series that one rank may have.
        durations: Keeps how long the steps of a rank took; None to keep nothing of that.
    """

    def __init__(
        self,
        *,
        max_series: int = DEFAULT_MAX_SERIES,
        durations: type[StepDurations] | None = None,
    ) -> None:
        self._max_series = max_series
        self._durations = durations
        self._host = host_name()
        self._runs: dict[str, dict[int, LoggedRank]] = {}

    def __iter__(self) -> Iterator[LoggedRank]:
        """Iterate over the ranks of all runs."""
        return (rank for ranks in list(self._runs.values()) for rank in list(ranks.values()))

    def of(self, identity: RunIdentity, number: int) -> LoggedRank:
        """Return a rank, a new one if it is not known yet.

        Args:
            identity: The identity of the file that has lines of the rank.
            number: The rank, which need not be the file's.
        """
        found = self.find(identity.run, number)
        if found is None:
            found = self.make(identity, number)
            self.put(found)
        return found

    def find(self, run: str, rank: int) -> LoggedRank | None:
        """Return a rank, None if it is not known yet."""
        return self._runs.get(run, {}).get(rank)

    def make(self, identity: RunIdentity, number: int) -> LoggedRank:
        """Return a new rank without keeping it; if no host is named, it is on this host."""
        return self._new(identity.run, number, identity.host or self._host)

    def _new(self, run: str, number: int, host: str) -> LoggedRank:
        return LoggedRank(run, number, host, max_series=self._max_series, durations=self._durations)

    def put(self, rank: LoggedRank) -> None:
        """Keep a rank, in place of any other with its number."""
        ranks = self._runs.setdefault(rank.run, {})
        ranks[rank.rank] = rank
        # A log does not say how many ranks there are.
        size = max(ranks) + 1
        for each in ranks.values():
            if each.topology.world_size != size:
                each.topology = dataclasses.replace(each.topology, world_size=size)

    def begin_anew(self, rank: LoggedRank) -> LoggedRank:
        """Replace a rank with a fresh one, whose counters begin at 0."""
        fresh = self._new(rank.run, rank.rank, rank.topology.host)
        fresh.saves = rank.saves
        self.put(fresh)
        return fresh

    def forget(self, rank: LoggedRank) -> None:
        """Stop keeping a rank."""
        ranks = self._runs.get(rank.run, {})
        if ranks.pop(rank.rank, None) is not None and not ranks:
            del self._runs[rank.run]

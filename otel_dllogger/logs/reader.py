"""Turn a file's lines into what each rank's store takes: records, and metadata of the series."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import (
    DLLOGGER_JSON,
    MMENGINE_TEXT,
    FileRecord,
    conventional_metadata,
)
from otel_dllogger.record import Entry, Event, Metadata, Phase, SeriesMetadata
from otel_dllogger.values import key_text, to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otel_dllogger.logs.run_identity import RunIdentity

SEPARATOR = "\0"
"""Separates name and stage in a key; no name of a text log holds it, and no sane name does."""

MAX_NAMES = 10_000
"""Names of a file that are remembered, counted for each rank; also ranks, and METADATA."""

MAX_NAME_CHARACTERS = 1_000
"""Characters of a name that is remembered, and of a value in METADATA."""

_MAX_RANK = 10**9 - 1
_MAX_STARTS = 16
_ROUNDING_US = 10  # times and elapsed times are rounded to a microsecond each
_STAGES = ("train", "val", "test")

# If a line has no such field, it is worked out from the first record's time (``FileContext``).
_ELAPSED = b'"elapsedtime"'

# What a store keeps of METADATA. If both spellings are given, the first one holds.
_SPELLINGS = {
    "unit": ("unit",),
    "GOAL": ("GOAL", "goal"),
    "STAGE": ("STAGE", "stage"),
    "SCOPE": ("SCOPE", "scope"),
}
_KEYS = tuple(key for spellings in _SPELLINGS.values() for key in spellings)


@dataclasses.dataclass(frozen=True, slots=True)
class ProcessStart:
    """The start of another process, whose first record is next, as the file shows it.

    Attributes:
        start_us: When the process started, microseconds since the Unix epoch.
        attempts: By how much the rank's attempt changes; 0 for the first process of a file,
            since the file does not show whether there were others before it.
    """

    start_us: int
    attempts: int


RankEntry = Entry | SeriesMetadata | ProcessStart
"""What a rank takes: the entries of lines, and what else the reader knows."""


def key_of(name: str, stage: str | None) -> str:
    """Return the key that a metric has in records.

    Args:
        name: The name that it was logged under.
        stage: The stage, if it is in the line's header, so that records of several stages
            have the same name; None otherwise.
    """
    return name if stage is None else f"{name}{SEPARATOR}{stage}"


class FileReader:
    """A reader of one file's lines, in their order.

    A METADATA line goes to the file's rank, whose store counts and applies it. In three cases
    what it says is also returned as a ``SeriesMetadata``: for the other ranks of the file, since
    it holds for them as well; for series whose key is not their name; and if its ``goal`` or
    ``stage`` in lower case must replace what a convention said. A ``SeriesMetadata`` also comes
    before the first record that has a metric, unless there is nothing to say.

    For MMEngine's metrics, ``STAGE`` is the header's, whatever METADATA says, and the keys
    differ from the names (``key_of``).

    Args:
        identity: The file's run, rank and host.
        zone: The zone of times without an offset, as ``times.parse_zone`` takes it; None
            for the state's, or the machine's own.
        conventions: Whether names say something about their metrics (``conventional_metadata``).
        name: The last two names of the file's path.
        run_start_us: When the run started, as ``run_start.find_start_us`` finds it, for lines
            without times; microseconds since the Unix epoch.
        iteration_us: How long an iteration took, as ``run_start.find_iteration_us`` finds it.
        state: The ``state`` of an earlier reader of the file, to continue from; empty for 0.
        context: Makes the file's context; takes the arguments of ``FileContext``.

    Attributes:
        context: What is known of the file so far.

    Raises:
        ConfigurationError: If there is no such zone.
    """

    def __init__(
        self,
        identity: RunIdentity,
        *,
        zone: str | None = None,
        conventions: bool = True,
        name: str = "",
        run_start_us: int | None = None,
        iteration_us: float | None = None,
        state: dict[str, Any] | None = None,
        context: Callable[..., FileContext] = FileContext,
    ) -> None:
        self.identity = identity
        self._conventions = conventions
        self._ranks: dict[int, _Rank] = {}
        self._raw: dict[str, dict[str, str | None]] = {}
        if not state:
            self.context = context(
                zone=zone, name=name, run_start_us=run_start_us, iteration_us=iteration_us
            )
        else:
            fields = state["context"]
            self.context = context(**fields if zone is None else {**fields, "zone": zone})
            self._raw = {name: dict(raw) for name, raw in state["metadata"].items()}
            self._ranks = {rank: _Rank(**known) for rank, known in state["ranks"]}
        self.context.rank = identity.rank
        self._names = sum(len(rank.known) - 1 for rank in self._ranks.values())

    @property
    def skipped(self) -> dict[str, int]:
        """Return how often something gave no entry, by reason (``REASONS[LINE]``)."""
        return dict(self.context.skipped)

    @property
    def entries(self) -> dict[str, int]:
        """Return how many entries the lines held, by format; ``""`` stands for INFO lines."""
        return dict(self.context.entries)

    @property
    def attempts(self) -> dict[int, int]:
        """Return how often each rank's process was started, as far as the file shows."""
        return {number: rank.attempt for number, rank in self._ranks.items()}

    @property
    def state(self) -> dict[str, Any]:
        """Return what a reader needs to continue from here, for Python's own JSON encoder.

        Other encoders may refuse the lone surrogates that names can hold.
        """
        return {
            "context": dataclasses.asdict(self.context),
            "metadata": {name: dict(raw) for name, raw in self._raw.items()},
            "ranks": [[number, rank.to_plain()] for number, rank in self._ranks.items()],
        }

    def observe(self, *, size_bytes: int, modified_us: int) -> None:
        """Note the file's state, as ``FileContext.observe`` does."""
        self.context.observe(size_bytes=size_bytes, modified_us=modified_us)

    def read(self, line: bytes) -> list[tuple[int, RankEntry]]:
        """Read one line.

        Args:
            line: The line, with or without its newline.

        Returns:
            The items that it gives, each with the rank whose store takes it.
        """
        items: list[tuple[int, RankEntry]] = []
        for entry in parse_line(line, self.context):
            if type(entry) is FileRecord:
                self._read_record(entry, line, items)
            elif type(entry) is Metadata:
                self._read_metadata(entry, items)
            elif isinstance(entry, (Phase, Event)):
                self._follow(self.context.rank, entry, line, items)
                items.append((self.context.rank, entry))
            else:
                items.append((self.context.rank, entry))
        self.context.rank = self.identity.rank  # a tag holds for its line
        return items

    def _read_record(
        self, record: FileRecord, line: bytes, items: list[tuple[int, RankEntry]]
    ) -> None:
        data = record.data
        # Shortcuts: for record.rank, and past follow() where that would do nothing.
        number = record.rank if type(data) is not dict or "rank" in data else record.file_rank
        rank = self._follow(number, record, line, items)
        if record.header_stage is not None:
            record = _with_keys(record)
        _plain, numbers, _finite, _flat = record.values or record.convert()
        if not rank.known.issuperset(numbers) and not record.is_parameter:
            self._name(number, rank, record, items)
        items.append((number, record))

    def _follow(
        self,
        number: int,
        entry: FileRecord | Phase | Event,
        line: bytes,
        items: list[tuple[int, RankEntry]],
    ) -> _Rank:
        """Return what is known of an entry's rank, and note the start of its process."""
        rank = self._ranks.get(number) or self._new_rank(number)
        time_us = entry.time_us
        if not rank.floor_us <= time_us - entry.elapsed_us < rank.last_us and _ELAPSED in line:
            attempt, is_first = rank.attempt, not rank.starts_us
            rank.follow(entry)
            if is_first or rank.attempt != attempt:
                started = ProcessStart(time_us - entry.elapsed_us, rank.attempt - attempt)
                items.append((number, started))
        rank.last_us = time_us
        return rank

    def _new_rank(self, number: int) -> _Rank:
        rank = _Rank()
        if len(self._ranks) < MAX_NAMES and number <= _MAX_RANK:
            self._ranks[number] = rank
        return rank

    def _name(
        self, number: int, rank: _Rank, record: FileRecord, items: list[tuple[int, RankEntry]]
    ) -> None:
        """Add what is known of the metrics that are new in a rank's records."""
        stage = record.header_stage
        for key in record.numbers:
            if key in rank.known:
                continue
            if (
                self._names < MAX_NAMES
                and len(key) <= MAX_NAME_CHARACTERS
                and number in self._ranks
            ):
                rank.known.add(key)
                self._names += 1
            elif stage is None:
                # It would come with each record, and undo METADATA, which is not kept either.
                continue
            self._tell(number, key, stage, items, record.log_format)

    def _tell(
        self,
        number: int,
        key: str,
        stage: str | None,
        items: list[tuple[int, RankEntry]],
        log_format: str = MMENGINE_TEXT,
    ) -> None:
        """Add what is known of one key."""
        name = key
        if stage is None:
            log_format = DLLOGGER_JSON
        else:
            name = key.removesuffix(key_of("", stage))
        metadata: dict[str, Any] = {}
        if self._conventions:
            metadata.update(conventional_metadata(name, log_format, stage))
        metadata.update(_canonical(self._raw.get(name, {})))
        if stage is not None:
            metadata["STAGE"] = stage.upper()
        if metadata:  # always, if the key is not the name
            items.append((number, SeriesMetadata(key, name, metadata)))

    def _read_metadata(self, entry: Metadata, items: list[tuple[int, RankEntry]]) -> None:
        own = self.context.rank
        items.append((own, entry))
        plain = to_plain(entry.metadata)
        if not isinstance(plain, dict):
            return
        said = {key: _fit_text(plain[key]) for key in _KEYS if key in plain}
        name = key_text(entry.metric)
        raw = self._raw.get(name, {})
        before = _canonical(raw)
        raw.update(said)
        if before == _canonical(raw) or name == "rank":
            return
        if len(self._raw) < MAX_NAMES and len(name) <= MAX_NAME_CHARACTERS:
            self._raw.setdefault(name, raw)
        # A store that applies the line is right already, unless "goal" overrides "GOAL" in it.
        is_applied = said.keys().isdisjoint(("goal", "stage", "scope"))
        for number, rank in self._ranks.items():
            for stage in (None, *_STAGES):
                key = key_of(name, stage)
                if key in rank.known and not (is_applied and number == own and stage is None):
                    self._tell(number, key, stage, items)


class _Rank:
    """What is known of one rank in a file.

    Args:
        attempt: The attempt, from 1, that the last record belongs to.
        last_us: The time of the last record; -1 before the first.
        starts_us: When the processes started; the running one comes last.
        known: The keys of its metrics.

    Attributes:
        floor_us: A process that started earlier is not the running one.
    """

    __slots__ = ("attempt", "floor_us", "known", "last_us", "starts_us")

    def __init__(
        self,
        *,
        attempt: int = 1,
        last_us: int = -1,
        starts_us: Iterable[int] = (),
        known: Iterable[str] = (),
    ) -> None:
        self.attempt = attempt
        self.last_us = last_us
        self.starts_us = list(starts_us)
        self.known = {"rank", *known}  # not a metric, but in many records
        self._set_floor()

    def to_plain(self) -> dict[str, Any]:
        """Return the arguments that make an equal object."""
        return {
            "attempt": self.attempt,
            "last_us": self.last_us,
            "starts_us": list(self.starts_us),
            "known": sorted(self.known),
        }

    def follow(self, entry: FileRecord | Phase | Event) -> None:
        """Note when the process of an entry started, by the entry's own clock.

        It is the next process if it started after the last entry was written. If the clock is set,
        the start moves by as much, which is less than a long run has lasted. If an entry of an
        earlier process comes after all, the later processes ran beside it: they are not attempts.

        Args:
            entry: The entry.
        """
        start_us = entry.time_us - entry.elapsed_us
        if entry.elapsed_us < 0 or start_us < 0:  # damage
            return
        starts = self.starts_us
        if not starts:
            self.attempt += 0 <= self.last_us <= start_us
            starts.append(start_us)
        elif start_us >= self.last_us and start_us > starts[-1] + _ROUNDING_US:
            self.attempt += 1
            starts.append(start_us)
            del starts[:-_MAX_STARTS]
        elif start_us < starts[-1]:
            nearest = min(range(len(starts)), key=lambda i: abs(starts[i] - start_us))
            self.attempt -= len(starts) - 1 - nearest
            del starts[nearest + 1 :]
        self._set_floor()

    def _set_floor(self) -> None:
        self.floor_us = self.starts_us[-1] - _ROUNDING_US if len(self.starts_us) > 1 else 0


def _with_keys(record: FileRecord) -> FileRecord:
    """Return a record of MMEngine with keys in place of names."""
    data = {
        name if name == "rank" else key_of(name, record.header_stage): value
        for name, value in record.data.items()
    }
    keyed = FileRecord(record.time_us, record.elapsed_us, record.step, data)
    keyed.log_format = record.log_format
    keyed.file_rank = record.file_rank
    keyed.header_stage = record.header_stage
    keyed.interpolated = record.interpolated
    return keyed


def _canonical(raw: Mapping[str, str | None]) -> dict[str, str | None]:
    """Return METADATA with each key in one spelling, as ``naming.parse_metadata`` reads it."""
    return {
        key: raw[spelling]
        for key, spellings in _SPELLINGS.items()
        for spelling in reversed(spellings)
        if spelling in raw
    }


def _fit_text(value: object) -> str | None:
    """Return what is kept of a value in METADATA; None for anything but text."""
    return value[:MAX_NAME_CHARACTERS] if isinstance(value, str) else None

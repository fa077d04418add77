"""Turn logs into rows: one for each value, sorted by time within bounded memory.

Records are sorted by a database, each with all of its values in one blob: a row of the database
for each value would take several times as long.
"""

from __future__ import annotations

import math
import sqlite3
import struct
import warnings
from array import array
from collections import deque
from datetime import datetime, timedelta, timezone
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.errors import ConfigurationError, count_of
from otel_dllogger.logs.ranks import time_within_range
from otel_dllogger.logs.row import EVENT, OVERLAPPED_PHASE, PARAMETER, PHASE, LogRow
from otel_dllogger.logs.scratch import describe_full_disk, open_scratch
from otel_dllogger.logs.whole_logs import NO_VALUE, WholeLogs, find_logs
from otel_dllogger.metrics.naming import label_text
from otel_dllogger.metrics.store import open_parameters
from otel_dllogger.record import OPEN, Event, Info, Phase, Record, step_position
from otel_dllogger.values import to_number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from typing_extensions import Self

    from otel_dllogger.logs.ranks import LoggedRank
    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.logs.source import Source
    from otel_dllogger.logs.whole_logs import FoundLog, ReadLogs

_MEMORY_BYTES = 64 << 20
_BATCH_BYTES = 1 << 20  # of records that are passed to the database at once
_REMEMBERED = 65_536  # records of one time among which a repeated one is looked for
_STEP = struct.Struct("<dd8s")  # epoch, iteration, and a hash of a step that is more than those
_PAIR = bytes(8)
_VALUE_BYTES = array("I").itemsize + array("d").itemsize
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SCHEMA = "CREATE TABLE records (time_us INTEGER NOT NULL, record BLOB NOT NULL);"
_SORTED = "SELECT time_us, record FROM records ORDER BY time_us, rowid"


class _Columns(NamedTuple):
    """What all rows of one series have in common."""

    run: str
    rank: int
    stage: str
    granularity: str
    metric: str
    unit: str


class _Seen:
    """The last records of one time, as hashes: a log of one single time must not fill the memory.

    Most times have only one record, and nothing is hashed for them.
    """

    def __init__(self) -> None:
        self._known: set[bytes] = set()
        self._order: deque[bytes] = deque()

    @property
    def is_empty(self) -> bool:
        """Return whether no record was added."""
        return not self._order

    def clear(self) -> None:
        """Forget them, since another time begins."""
        self._known.clear()
        self._order.clear()

    def add(self, record: bytes) -> bool:
        """Add a record; return whether it was not there."""
        digest = blake2b(record, digest_size=16).digest()
        if digest in self._known:
            return False
        self._known.add(digest)
        self._order.append(digest)
        if len(self._order) > _REMEMBERED:
            self._known.remove(self._order.popleft())
        return True


class RowReader:
    """A reader of logs that returns the values in them as rows.

    Args:
        source: How to read them.
        since_us: Earlier values are left out; microseconds since the Unix epoch.
        until_us: Values from this time on are left out.
        progress: Called with how many bytes were read since the last call.
        memory_bytes: Bytes of records that are held in memory.

    Raises:
        ConfigurationError: If a pattern or the zone is invalid.
    """

    def __init__(
        self,
        source: Source,
        *,
        since_us: int | None = None,
        until_us: int | None = None,
        progress: Callable[[int], object] = lambda _bytes: None,
        memory_bytes: int = _MEMORY_BYTES,
    ) -> None:
        self.repeated = 0
        """Records that were left out since they are there twice; known once all were returned."""
        self._logs = WholeLogs(source, progress=progress)
        self._since_us = -math.inf if since_us is None else since_us
        self._until_us = math.inf if until_us is None else until_us
        self._numbers: dict[_Columns, int] = {}
        self._waiting: list[tuple[int, bytes]] = []
        self._room = _BATCH_BYTES
        self._database = open_scratch(_SCHEMA, memory_bytes=memory_bytes)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory and the disk."""
        self._database.close()

    def run(self, logs: Iterable[FoundLog]) -> ReadLogs:
        """Read logs to their ends.

        Args:
            logs: In the order of ``find_logs``.

        Returns:
            What was found.

        Raises:
            ConfigurationError: If a log cannot be read, or the disk cannot take more.
        """
        for rank, item in self._logs.read(logs):
            self._add(rank, item)
        self._flush()
        return self._logs.found

    def sorted(self) -> Iterator[LogRow]:
        """Yield the rows that were read, by time; those of one time as they were read.

        Raises:
            ConfigurationError: If the disk cannot take more, or what was written cannot be read.
        """
        columns = list(self._numbers)
        for time_us, record in self._records():
            time = _EPOCH + timedelta(microseconds=time_us)
            epoch, iteration = map(_coordinate, _STEP.unpack_from(record)[:2])
            numbers, values = array("I"), array("d")
            end = len(record) - (len(record) - _STEP.size) // _VALUE_BYTES * values.itemsize
            numbers.frombytes(record[_STEP.size : end])
            values.frombytes(record[end:])
            for number, value in zip(numbers, values, strict=True):
                run, rank, stage, granularity, metric, unit = columns[number]
                yield LogRow(
                    time, run, rank, stage, granularity, epoch, iteration, metric, unit, value
                )

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Yield the records by time, each once."""
        last_us, first = -1, b""
        seen = _Seen()
        try:
            for time_us, record in self._database.execute(_SORTED):
                if time_us != last_us:  # as nearly always
                    last_us, first = time_us, record
                    seen.clear()
                else:
                    if seen.is_empty:
                        seen.add(first)
                    if not seen.add(record):
                        self.repeated += 1
                        continue
                yield time_us, record
        except sqlite3.Error as error:
            raise ConfigurationError(describe_full_disk(error)) from error

    def _add(self, rank: LoggedRank, item: RankEntry) -> None:
        numbers, values = array("I"), array("d")
        known = rank.numbers
        epoch = iteration = None
        step = _PAIR
        for series, value in rank.values(item):
            number = known.get(series)
            if number is None:
                labels, unit = series.describe().attributes, series.describe().unit_text
                number = known[series] = self._number(
                    rank, labels.get("stage", ""), labels["granularity"], labels["metric"], unit
                )
            numbers.append(number)
            values.append(value)
        if isinstance(item, Record) and not item.is_parameter:
            epoch, iteration = item.position.place or (None, None)
            if item.is_pair:  # which may be (iteration, all iterations)
                epoch, iteration = rank.state.epoch, rank.state.iteration
            else:  # two validation iterations may share their epoch and iteration
                step = blake2b(repr(item.step).encode(errors="replace"), digest_size=8).digest()
        elif isinstance(item, (Phase, Event)):
            for granularity, unit, value in _phase_or_event(item):
                numbers.append(self._number(rank, "", granularity, label_text(item.name), unit))
                values.append(value)
            epoch, iteration = step_position(item.step).place or (None, None)
        elif isinstance(item, (Info, Record)):
            for name, value in _parameters(rank, item):
                numbers.append(self._number(rank, "", PARAMETER, label_text(name), ""))
                values.append(value)
        else:
            return
        if numbers:
            epoch = math.nan if epoch is None else epoch
            iteration = math.nan if iteration is None else iteration
            at = _STEP.pack(epoch, iteration, step)
            self._keep(time_within_range(item.time_us), at, numbers, values)

    def _keep(self, time_us: int, at: bytes, numbers: array[int], values: array[float]) -> None:
        """Keep the values of one entry until they are sorted."""
        if not self._since_us <= time_us < self._until_us:
            self._logs.found.left_out += len(numbers)
            return
        record = at + numbers.tobytes() + values.tobytes()
        self._waiting.append((time_us, record))
        self._room -= len(record)
        if self._room <= 0:
            self._flush()

    def _number(
        self, rank: LoggedRank, stage: str, granularity: str, metric: str, unit: str
    ) -> int:
        columns = _Columns(rank.run, rank.rank, stage, granularity, metric, unit)
        return self._numbers.setdefault(columns, len(self._numbers))

    def _flush(self) -> None:
        try:
            self._database.executemany("INSERT INTO records VALUES (?, ?)", self._waiting)
        except sqlite3.Error as error:
            raise ConfigurationError(describe_full_disk(error)) from error
        self._waiting.clear()
        self._room = _BATCH_BYTES


def read_source(source: Source) -> Iterator[LogRow]:
    """Read logs as ``otel_dllogger.logs.read`` does.

    Args:
        source: Which logs, and how to read them.

    Raises:
        ConfigurationError: If it is invalid, there is no log, or one cannot be read.
    """
    return _rows(source, find_logs(source))


def _rows(source: Source, logs: list[FoundLog]) -> Iterator[LogRow]:
    with RowReader(source) as reader:
        found = reader.run(logs)
        more = (
            f" (and {count_of(len(found.made_up) - 1, 'more log')})"
            if len(found.made_up) > 1
            else ""
        )
        made_up = [f"{said}{more}" for said in found.made_up[:1]]
        for line in (*made_up, *found.guesses("pattern='log_{rank}.json'"), found.damage()):
            if line:
                warnings.warn(line, stacklevel=2)
        is_empty = True
        for row in reader.sorted():
            is_empty = False
            yield row
    if is_empty:
        raise ConfigurationError(f"{' '.join(source.paths)}: {NO_VALUE}")


def _parameters(rank: LoggedRank, item: Info | Record) -> Iterator[tuple[str, float]]:
    """Yield the hyper-parameters of an entry that its rank has taken and that are numbers.

    Those that are secrets, or for which the rank has no room, are not among what it has taken.
    """
    taken = rank.state.parameters
    for name, value in open_parameters(item.plain):
        number = to_number(value)
        if number is not None and taken.get(name) == number:
            yield name, number


def _phase_or_event(item: Phase | Event) -> Iterator[tuple[str, str, float]]:
    """Yield granularity, unit and value; nothing for a phase that has not ended."""
    if isinstance(item, Event):
        yield EVENT, "", 1.0
    elif item.outcome != OPEN:
        yield OVERLAPPED_PHASE if item.is_overlapping else PHASE, "s", item.self_us / 1e6


def _coordinate(packed: float) -> float | None:
    """Return an epoch or iteration, as an int if it is whole; None for the NaN of none."""
    if math.isnan(packed):
        return None
    return int(packed) if packed.is_integer() else packed

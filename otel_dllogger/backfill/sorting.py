"""Sort samples by series and time, with SQLite and within bounded memory.

Samples are gathered by series. When there are too many for the memory, they go into a temporary
database, as chunks: the samples of one series within ten minutes, as columns of times and values.
SQLite sorts the chunks, on disk if they exceed its cache; only chunks of the same series and ten
minutes are merged here. A row for every sample would take three to five times as long.
"""

from __future__ import annotations

import dataclasses
import math
import operator
import sqlite3
from array import array
from bisect import bisect_left
from collections import Counter
from itertools import compress, groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from otel_dllogger.errors import BackfillError
from otel_dllogger.logs.scratch import describe_full_disk, open_scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from typing_extensions import Self

MEMORY_BYTES = 64 << 20
CHUNK_SAMPLES = 1 << 16
"""The most samples of a chunk."""
SLOT_MS = 10 * 60 * 1000
"""Samples in different slots of ten minutes are never merged."""

_ROW_SAMPLES = 1 << 13  # SQLite keeps a row of every sorted run in memory at once
_SAMPLE_BYTES = 16
_SERIES_BYTES = 400  # two arrays that are not empty, with what the allocator adds
_SCHEMA = """
CREATE TABLE series (number INTEGER PRIMARY KEY, position INTEGER NOT NULL);
CREATE TABLE chunks (slot INTEGER NOT NULL, series INTEGER NOT NULL, samples BLOB NOT NULL);
"""
_SORTED = """
SELECT period(slot), series, slot, samples FROM chunks JOIN series ON number = series
ORDER BY 1, position, slot, chunks.rowid
"""

_Row = tuple[int, int, int, bytes]


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class SeriesName:
    """The name of a series as on a metrics page; only family and labels distinguish two.

    Attributes:
        family: The Prometheus name; that of a counter with its ``_total``.
        labels: Names and values, sorted by name.
        kind: ``gauge``, ``counter``, or ``unknown`` for a series of a classic histogram: together
            they would have to be sorted by time first, which no database needs.
        help: What it is, in words.
        unit: The unit as Prometheus names end in it, such as ``seconds``; empty if there is none.
    """

    family: str
    labels: tuple[tuple[str, str], ...]
    kind: Literal["gauge", "counter", "unknown"] = dataclasses.field(default="gauge", compare=False)
    help: str = dataclasses.field(default="", compare=False)
    unit: str = dataclasses.field(default="", compare=False)


class Chunk(NamedTuple):
    """Samples of one series, with ascending times and no time twice.

    Attributes:
        series: What they belong to.
        times_ms: Milliseconds since the Unix epoch, typecode ``q``.
        values: As many, typecode ``d``; some may not be finite.
    """

    series: SeriesName
    times_ms: array[int]
    values: array[float]


class SampleSorter:
    """A sorter that takes samples in any order and returns them by family, series and time.

    Of two samples of one series in one millisecond, Prometheus' resolution, the one that was
    added last is kept. What exceeds the memory goes into a file in SQLite's folder for temporary
    files: ``TMPDIR``, else ``/var/tmp``. It has no name, and is gone with the process.

    Args:
        memory_bytes: Bytes of samples that are held in memory.
    """

    def __init__(self, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self.duplicates = 0
        """Samples replaced by a later one of the same time; known once all were returned."""
        self._ids: dict[SeriesName, int] = {}
        self._names: list[SeriesName] = []
        self._times: list[array[int]] = []
        self._values: list[array[float]] = []
        self._touched: list[int] = []
        self._samples_by_slot: Counter[int] = Counter()
        self._spilled = 0
        self._is_complete = False
        self._room = self._room_when_empty = max(memory_bytes // _SAMPLE_BYTES, 1)
        self._database = open_scratch(_SCHEMA, memory_bytes=memory_bytes // 4)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory and the disk."""
        self._database.close()
        self._times.clear()
        self._values.clear()

    @property
    def samples(self) -> int:
        """Return how many samples were added."""
        return self._spilled + sum(len(self._times[number]) for number in self._touched)

    def series_id(self, series: SeriesName) -> int:
        """Return the number by which ``append`` knows a series."""
        number = self._ids.get(series)
        if number is None:
            number = self._ids[series] = len(self._names)
            self._names.append(series)
            self._times.append(array("q"))
            self._values.append(array("d"))
        return number

    def append(self, number: int, time_ms: int, value: float) -> None:
        """Add a sample.

        Args:
            number: What ``series_id`` returned for its series.
            time_ms: Milliseconds since the Unix epoch.
            value: Its value, which need not be finite.

        Raises:
            BackfillError: If the disk cannot take more.
        """
        times_ms = self._times[number]
        if not times_ms:
            self._touched.append(number)
            self._room -= _SERIES_BYTES // _SAMPLE_BYTES
        times_ms.append(time_ms)
        self._values[number].append(value)
        self._room -= 1
        if self._room <= 0:
            self._spill()

    def extend(self, number: int, times_ms: Sequence[int], values: Sequence[float]) -> None:
        """Add many samples of a series at once, but only as many as fit easily into memory.

        Args:
            number: What ``series_id`` returned for it.
            times_ms: Milliseconds since the Unix epoch.
            values: As many.

        Raises:
            BackfillError: If the disk cannot take more.
        """
        column_ms = self._times[number]
        if not column_ms and times_ms:
            self._touched.append(number)
            self._room -= _SERIES_BYTES // _SAMPLE_BYTES
        column_ms.extend(times_ms)
        self._values[number].extend(values)
        self._room -= len(times_ms)
        if self._room <= 0:
            self._spill()

    def samples_by_slot(self) -> dict[int, int]:
        """Return how many samples there are, by the first millisecond of their slot.

        Nothing can be added after this call. Duplicates may be counted.
        """
        self._complete()
        return {slot * SLOT_MS: count for slot, count in self._samples_by_slot.items()}

    def sorted(self) -> Iterator[Chunk]:
        """Yield what was added; nothing can be added after this call.

        Returns:
            Chunks by family, then by series, then by time; no more than ``CHUNK_SAMPLES`` each.

        Raises:
            BackfillError: If the disk cannot take more, or what was written cannot be read.
        """
        for _, chunks in self.sorted_by(lambda _first_ms: 0):
            yield from chunks

    def sorted_by(self, period: Callable[[int], int]) -> Iterator[tuple[int, Iterator[Chunk]]]:
        """Yield what was added period by period, each as ``sorted`` does.

        Args:
            period: Returns the number of a slot's period, given the slot's first millisecond.

        Returns:
            The number of each period, ascending, and its chunks, which have to be taken before
            the next period is.

        Raises:
            BackfillError: If the disk cannot take more, or what was written cannot be read.
        """
        self._complete()
        self._database.create_function("period", 1, lambda slot: period(slot * SLOT_MS))
        for number, rows in groupby(self._rows(), itemgetter(0)):
            yield number, self._chunks(rows)

    def _rows(self) -> Iterator[_Row]:
        try:
            # Not ``yield from``, which would close the cursor of a database that is closed already.
            for row in self._database.execute(_SORTED):  # noqa: UP028
                yield row
        except sqlite3.Error as error:
            raise _disk_error(error) from error

    def _chunks(self, rows: Iterable[_Row]) -> Iterator[Chunk]:
        for number, rows_of_series in groupby(rows, itemgetter(1)):
            series = self._names[number]
            times_ms, values = array("q"), array("d")
            for _slot, rows_of_slot in groupby(rows_of_series, itemgetter(2)):
                slot_ms, slot_values = self._merge(row[-1] for row in rows_of_slot)
                for start in range(0, len(slot_ms), CHUNK_SAMPLES):
                    end = start + CHUNK_SAMPLES
                    times_ms += slot_ms[start:end]
                    values += slot_values[start:end]
                    if len(times_ms) >= CHUNK_SAMPLES:
                        yield Chunk(series, times_ms[:CHUNK_SAMPLES], values[:CHUNK_SAMPLES])
                        del times_ms[:CHUNK_SAMPLES], values[:CHUNK_SAMPLES]
            if times_ms:
                yield Chunk(series, times_ms, values)

    def _complete(self) -> None:
        """Move what is left in memory to the database, and tell it the order of the series."""
        if self._is_complete:
            return
        self._is_complete = True
        self._spill()
        keys = [(name.family, name.labels) for name in self._names]  # tuples compare much faster
        order = enumerate(sorted(range(len(keys)), key=keys.__getitem__))
        self._execute_many("INSERT INTO series (position, number) VALUES (?, ?)", order)

    def _spill(self) -> None:
        """Move what is in memory to the database."""
        self._execute_many("INSERT INTO chunks VALUES (?, ?, ?)", self._take_rows())
        self._room = self._room_when_empty

    def _execute_many(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        try:
            self._database.executemany(statement, rows)
        except sqlite3.Error as error:
            raise _disk_error(error) from error

    def _take_rows(self) -> Iterator[tuple[int, int, bytes]]:
        for number in self._touched:
            times_ms, values = self._times[number], self._values[number]
            self._times[number], self._values[number] = array("q"), array("d")
            self._spilled += len(times_ms)
            for start in range(0, len(times_ms), _ROW_SAMPLES):
                end = start + _ROW_SAMPLES
                piece_ms, piece = self._in_order(times_ms[start:end], values[start:end])
                yield from self._split(number, piece_ms, piece)
        self._touched.clear()

    def _split(
        self, number: int, times_ms: array[int], values: array[float]
    ) -> Iterator[tuple[int, int, bytes]]:
        """Yield a row for every slot in which a series has samples."""
        start = 0
        while start < len(times_ms):
            slot = times_ms[start] // SLOT_MS
            end = bisect_left(times_ms, (slot + 1) * SLOT_MS, start)
            self._samples_by_slot[slot] += end - start
            yield slot, number, times_ms[start:end].tobytes() + values[start:end].tobytes()
            start = end

    def _merge(self, rows: Iterable[bytes]) -> tuple[array[int], array[float]]:
        """Return the samples of one series and slot, whose rows are in the order of addition."""
        times_ms, values = array("q"), array("d")
        for samples in rows:
            middle = len(samples) // 2
            times_ms.frombytes(samples[:middle])
            values.frombytes(samples[middle:])
        return self._in_order(times_ms, values)

    def _in_order(
        self, times_ms: array[int], values: array[float]
    ) -> tuple[array[int], array[float]]:
        if all(map(operator.lt, times_ms, islice(times_ms, 1, None))):
            return times_ms, values
        latest = dict(zip(times_ms, values, strict=True))  # of equal times the last value wins
        self.duplicates += len(times_ms) - len(latest)
        ordered_ms = array("q", sorted(latest))
        return ordered_ms, array("d", map(latest.__getitem__, ordered_ms))


def finite_only(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Leave out samples that are not finite, as a metrics page does, and chunks without any.

    Args:
        chunks: Samples.
    """
    for chunk in chunks:
        # The sum of finite values may overflow; that only makes it slower.
        if math.isfinite(sum(chunk.values)):
            if chunk.values:
                yield chunk
        elif chosen := keep(chunk, map(math.isfinite, chunk.values)):
            yield chosen


def keep(chunk: Chunk, kept: Iterable[object]) -> Chunk | None:
    """Return the samples to keep, None if there are none.

    Args:
        chunk: Samples.
        kept: For each sample, whether to keep it.
    """
    kept = list(kept)
    times_ms = array("q", compress(chunk.times_ms, kept))
    values = array("d", compress(chunk.values, kept))
    return Chunk(chunk.series, times_ms, values) if times_ms else None


def _disk_error(error: sqlite3.Error) -> BackfillError:
    return BackfillError(describe_full_disk(error))

"""Samples of any number in the order of their series and times, within bounded memory.

What exceeds the memory goes to disk in runs, each sorted by series, as columns of times and
values. In the end the runs are read side by side. Samples of a series come nearly in the order
of their times, so most runs of a series follow each other and are copied, not merged.
"""

from __future__ import annotations

import dataclasses
import operator
import os
import tempfile
from array import array
from bisect import bisect_right
from itertools import islice
from typing import TYPE_CHECKING, Any

from otel_dllogger.backfill.series import Chunk
from otel_dllogger.errors import BackfillError, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Self

    from otel_dllogger.backfill.series import SeriesName

MEMORY_BYTES = 64 << 20
CHUNK_SAMPLES = 1 << 16
"""Samples of a chunk at most."""

_SAMPLE_BYTES = 16
_SERIES_BYTES = 400  # two arrays that are not empty, with what the allocator adds
_PIECE_SAMPLES = 1 << 17  # sorted at once: as objects they take ten times their bytes
_ENTRY = 4  # series, samples, first and last time: what a run says of a segment
_ENTRY_BYTES = _ENTRY * 8
_ENTRIES_AT_ONCE = 512
_WRITE_BYTES = 1 << 20


@dataclasses.dataclass(slots=True)
class _Segment:
    """Samples of one series in the order of their times, in memory or in the spill file."""

    first_ms: int
    last_ms: int
    samples: int
    offset: int = 0  # in the spill file: all times, then all values
    times_ms: array[int] | None = None
    values: array[float] | None = None


class SampleSorter:
    """Take samples in any order; give them by family, series and time.

    Of two samples of one series in one millisecond, Prometheus' resolution, the one that was
    added last stays.

    Args:
        directory: Where to put what exceeds the memory, in a file without a name, which is
            gone with the process, however that ends.
        memory_bytes: Bytes of samples that are held in memory.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self.duplicates = 0
        """Samples that gave way to a later one of the same time; known when all came out."""
        self._directory = os.fspath(directory)
        self._memory_bytes = memory_bytes
        self._ids: dict[SeriesName, int] = {}
        self._names: list[SeriesName] = []
        self._keys: list[tuple[Any, ...]] = []  # a dataclass compares twenty times as slowly
        self._times: list[array[int]] = []
        self._values: list[array[float]] = []
        self._touched: list[int] = []
        self._spilled = 0
        self._runs: list[_Run] = []
        self._file: Any = None
        self._end = 0
        self._room = self._room_when_empty = max(memory_bytes // _SAMPLE_BYTES, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the memory and the disk."""
        if self._file is not None:
            self._file.close()
            self._file = None
        self._runs.clear()
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
            self._keys.append((series.family, series.labels))
            self._times.append(array("q"))
            self._values.append(array("d"))
        return number

    def add(self, series: SeriesName, time_us: int, value: float) -> None:
        """Add a sample.

        Args:
            series: What it belongs to.
            time_us: Microseconds since the Unix epoch.
            value: Its value, which need not be finite.

        Raises:
            BackfillError: If the disk takes no more.
        """
        self.append(self.series_id(series), time_us // 1000, value)

    def append(self, number: int, time_ms: int, value: float) -> None:
        """Add a sample, faster.

        Args:
            number: What ``series_id`` returned for its series.
            time_ms: Milliseconds since the Unix epoch.
            value: Its value, which need not be finite.

        Raises:
            BackfillError: If the disk takes no more.
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
        """Add many samples of a series at once, as many as memory can well hold.

        Args:
            number: What ``series_id`` returned for it.
            times_ms: Milliseconds since the Unix epoch.
            values: As many.

        Raises:
            BackfillError: If the disk takes no more.
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

    def sorted(self) -> Iterator[Chunk]:
        """Give everything, once: after it nothing more can be added.

        Returns:
            Chunks by family, then by series, then by time; no more than ``CHUNK_SAMPLES`` each.

        Raises:
            BackfillError: If the disk takes no more.
        """
        order = sorted(range(len(self._names)), key=self._keys.__getitem__)
        in_memory = set(self._touched)
        cursors = [_Cursor(self._pread, run) for run in self._runs]
        for number in order:
            segments: list[_Segment] = []
            for cursor in cursors:
                segments += cursor.take(number)
            if number in in_memory:
                segments += self._sorted_segments(number)
            name = self._names[number]
            for times_ms, values in self._merge(segments):
                yield Chunk(name, times_ms, values)

    @property
    def _fd(self) -> int:
        if self._file is None:
            self._guard(self._open)
        return int(self._file.fileno())

    def _pread(self, size: int, offset: int) -> bytes:
        found: bytes = self._guard(_pread, self._fd, size, offset)
        return found

    def _open(self) -> None:
        self._file = tempfile.TemporaryFile(  # noqa: SIM115 - close() ends it
            dir=self._directory, prefix="otel-dllogger-", buffering=0
        )

    def _guard(self, act: Any, *arguments: Any) -> Any:
        try:
            return act(*arguments)
        except OSError as error:
            raise BackfillError(
                f"{self._directory} does not take what exceeds the memory ({in_words(error)}): "
                "make room there, or name another folder with TMPDIR"
            ) from error

    def _sorted_segments(self, number: int) -> Iterator[_Segment]:
        """Take a series' columns out of the memory, as few segments as may be."""
        times_ms, values = self._times[number], self._values[number]
        self._times[number], self._values[number] = array("q"), array("d")
        if _ascends(times_ms):
            yield _segment(times_ms, values)
            return
        for start in range(0, len(times_ms), _PIECE_SAMPLES):
            piece_ms = times_ms[start : start + _PIECE_SAMPLES]
            piece = values[start : start + _PIECE_SAMPLES]
            if not _ascends(piece_ms):
                # Of equal times the last value wins.
                latest = dict(zip(piece_ms, piece, strict=True))
                self.duplicates += len(piece) - len(latest)
                piece_ms = array("q", sorted(latest))
                piece = array("d", map(latest.__getitem__, piece_ms))
            yield _segment(piece_ms, piece)

    def _spill(self) -> None:
        """Write what is in memory as a run."""
        self._touched.sort(key=self._keys.__getitem__)
        start = self._end
        entries = array("q")
        pending = bytearray()
        for number in self._touched:
            self._spilled += len(self._times[number])
            for segment in self._sorted_segments(number):
                entries.extend((number, segment.samples, segment.first_ms, segment.last_ms))
                pending += memoryview(segment.times_ms or b"")
                pending += memoryview(segment.values or b"")
                if len(pending) > _WRITE_BYTES:
                    self._guard(self._write, pending)
                    pending.clear()
        self._touched.clear()
        directory = self._end + len(pending)
        pending += memoryview(entries)
        self._guard(self._write, pending)
        self._runs.append(_Run(start, directory, len(entries) // _ENTRY))
        self._room = self._room_when_empty

    def _write(self, pending: bytearray) -> None:
        with memoryview(pending) as rest:
            written = 0
            while written < len(rest):
                written += os.write(self._fd, rest[written:])
        self._end += written

    def _merge(self, segments: list[_Segment]) -> Iterator[tuple[array[int], array[float]]]:
        """Give one series; only segments that overlap in time are merged."""
        overlapping: list[int] = []
        last_ms = 0
        for i in sorted(range(len(segments)), key=lambda i: segments[i].first_ms):
            if overlapping and segments[i].first_ms > last_ms:
                yield from self._merge_overlapping([segments[j] for j in sorted(overlapping)])
                overlapping.clear()
            last_ms = max(last_ms, segments[i].last_ms) if overlapping else segments[i].last_ms
            overlapping.append(i)
        if overlapping:
            yield from self._merge_overlapping([segments[j] for j in sorted(overlapping)])

    def _merge_overlapping(
        self, segments: list[_Segment]
    ) -> Iterator[tuple[array[int], array[float]]]:
        """Give segments that are in the order of their addition, as one."""
        share = max(self._memory_bytes // (_SAMPLE_BYTES * 8 * len(segments)), 256)
        readers = [_Reader(self, segment, min(share, CHUNK_SAMPLES)) for segment in segments]
        if len(readers) == 1:
            while readers[0].fill():
                yield readers[0].take_all()
            return
        while readers := [reader for reader in readers if reader.fill()]:
            # Up to here every segment is in memory.
            until_ms = min(reader.times_ms[-1] for reader in readers)
            latest: dict[int, float] = {}
            taken = 0
            for reader in readers:
                taken += reader.move(until_ms, latest)
            self.duplicates += taken - len(latest)
            times_ms = array("q", sorted(latest))
            values = array("d", map(latest.__getitem__, times_ms))
            for at in range(0, len(times_ms), CHUNK_SAMPLES):
                yield times_ms[at : at + CHUNK_SAMPLES], values[at : at + CHUNK_SAMPLES]

    def read(self, segment: _Segment, start: int, count: int) -> tuple[array[int], array[float]]:
        """Return some samples of a segment.

        Args:
            segment: Which.
            start: How many to pass over.
            count: How many to return.
        """
        if segment.times_ms is not None and segment.values is not None:
            return segment.times_ms[start : start + count], segment.values[start : start + count]
        times_ms, values = array("q"), array("d")
        at = segment.offset + 8 * start
        if count == segment.samples:  # one call in place of two: many segments are short
            both = self._pread(_SAMPLE_BYTES * count, at)
            times_ms.frombytes(both[: 8 * count])
            values.frombytes(both[8 * count :])
            return times_ms, values
        times_ms.frombytes(self._pread(8 * count, at))
        values.frombytes(self._pread(8 * count, at + 8 * segment.samples))
        return times_ms, values


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """Say where a run stands in the spill file: its segments, then a directory of them."""

    offset: int
    directory: int
    entries: int


class _Cursor:
    """Go through a run, series by series."""

    def __init__(self, pread: Callable[[int, int], bytes], run: _Run) -> None:
        self._pread = pread
        self._offset = run.offset
        self._directory = run.directory
        self._left = run.entries
        self._entries = array("q")
        self._at = 0

    def take(self, number: int) -> Iterator[_Segment]:
        """Give the segments of a series, where it is the run's next one."""
        while self._look() and self._entries[self._at] == number:
            _, samples, first_ms, last_ms = self._entries[self._at : self._at + _ENTRY]
            yield _Segment(first_ms, last_ms, samples, self._offset)
            self._offset += samples * _SAMPLE_BYTES
            self._at += _ENTRY

    def _look(self) -> bool:
        if self._at == len(self._entries):
            count = min(self._left, _ENTRIES_AT_ONCE)
            self._entries = array("q", self._pread(count * _ENTRY_BYTES, self._directory))
            self._directory += count * _ENTRY_BYTES
            self._left -= count
            self._at = 0
        return self._at < len(self._entries)


class _Reader:
    """Read a segment from its beginning, some samples at a time."""

    def __init__(self, sorter: SampleSorter, segment: _Segment, samples: int) -> None:
        self._sorter = sorter
        self._segment = segment
        self._samples = samples
        self._next = 0
        self.times_ms = array("q")
        self.values = array("d")

    def fill(self) -> bool:
        """Have samples at hand; tell whether there are any left."""
        if not self.times_ms:
            count = min(self._samples, self._segment.samples - self._next)
            if count:
                self.times_ms, self.values = self._sorter.read(self._segment, self._next, count)
                self._next += count
        return bool(self.times_ms)

    def take_all(self) -> tuple[array[int], array[float]]:
        """Return what is at hand."""
        taken = self.times_ms, self.values
        self.times_ms, self.values = array("q"), array("d")
        return taken

    def move(self, until_ms: int, into: dict[int, float]) -> int:
        """Move what is at hand up to a time; return how much that is."""
        count = bisect_right(self.times_ms, until_ms)
        into.update(zip(islice(self.times_ms, count), islice(self.values, count), strict=True))
        del self.times_ms[:count], self.values[:count]
        return count


def _segment(times_ms: array[int], values: array[float]) -> _Segment:
    return _Segment(times_ms[0], times_ms[-1], len(times_ms), times_ms=times_ms, values=values)


def _ascends(times_ms: array[int]) -> bool:
    return all(map(operator.lt, times_ms, islice(times_ms, 1, None)))


def _pread(fd: int, size: int, offset: int) -> bytes:
    parts = []
    while size:
        part = os.pread(fd, size, offset)
        if not part:
            raise OSError("the file has become shorter")
        parts.append(part)
        offset += len(part)
        size -= len(part)
    return b"".join(parts)

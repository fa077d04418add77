"""Samples in order of their series, given back by the time in which they are."""

from __future__ import annotations

import heapq
from array import array
from bisect import bisect_left
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from otel_dllogger.backfill.series import Chunk

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from otel_dllogger.backfill.series import SeriesName

PART_MS = 2 * 60 * 60 * 1000
"""Milliseconds of a part: Prometheus' shortest block."""

_MEMORY_BYTES = 16 << 20
_HEAD_BYTES = 16


class Parts:
    """Hold a file for every two hours that have samples.

    ``promtool`` reads its whole input once for every block that it makes of it; so it gets
    no more at once than a block is made of.

    Args:
        directory: An empty folder.
        memory_bytes: Bytes that are held back, so that few writes are short.
    """

    def __init__(
        self, directory: str | os.PathLike[str], *, memory_bytes: int = _MEMORY_BYTES
    ) -> None:
        self.samples: dict[int, int] = {}
        """How many samples a part has, by its number: its first millisecond / ``PART_MS``."""
        self._directory = Path(directory)
        self._memory_bytes = memory_bytes
        self._pending: dict[int, bytearray] = {}
        self._pending_bytes = 0
        self._names: list[SeriesName] = []

    def add(self, chunk: Chunk) -> None:
        """Add samples, whose series stands behind all those before it.

        Raises:
            OSError: If the disk takes no more.
        """
        if not self._names or self._names[-1] != chunk.series:
            self._names.append(chunk.series)
        number = len(self._names) - 1
        times_ms, values = chunk.times_ms, chunk.values
        start = 0
        while start < len(times_ms):
            part = times_ms[start] // PART_MS
            end = bisect_left(times_ms, (part + 1) * PART_MS, start)
            pending = self._pending.setdefault(part, bytearray())
            size = len(pending)
            pending += array("q", (number, end - start)).tobytes()
            pending += memoryview(times_ms)[start:end]
            pending += memoryview(values)[start:end]
            self._pending_bytes += len(pending) - size
            self.samples[part] = self.samples.get(part, 0) + end - start
            start = end
        if self._pending_bytes > self._memory_bytes:
            self.flush()

    def flush(self) -> None:
        """Write what was held back.

        Raises:
            OSError: If the disk takes no more.
        """
        for part, pending in self._pending.items():
            with self._path(part).open("ab") as file:
                file.write(pending)
        self._pending.clear()
        self._pending_bytes = 0

    def chunks(self, parts: Iterable[int]) -> Iterator[Chunk]:
        """Give the samples of some parts by family, series and time.

        Args:
            parts: Their numbers.
        """
        # Equal series come in the order of the files, which is that of the times.
        files = [self._read(part) for part in sorted(parts)]
        for number, times_ms, values in heapq.merge(*files, key=itemgetter(0)):
            yield Chunk(self._names[number], times_ms, values)

    def remove(self, parts: Iterable[int]) -> None:
        """Free the disk of some parts."""
        for part in parts:
            self._path(part).unlink()

    def _path(self, part: int) -> Path:
        return self._directory / str(part)

    def _read(self, part: int) -> Iterator[tuple[int, array[int], array[float]]]:
        with self._path(part).open("rb") as file:
            while head := file.read(_HEAD_BYTES):
                number, samples = array("q", head)
                times_ms, values = array("q"), array("d")
                times_ms.frombytes(file.read(8 * samples))
                values.frombytes(file.read(8 * samples))
                yield number, times_ms, values

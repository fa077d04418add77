"""The record of the samples that earlier backfills have put into a Prometheus data folder.

It is a database of the times of each series, next to the blocks. It is trusted only where
there are blocks: what Prometheus, or somebody else, has deleted since counts as missing.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from array import array
from bisect import bisect_left
from itertools import accumulate, chain
from operator import sub
from typing import TYPE_CHECKING

from otel_dllogger.backfill.openmetrics import format_series
from otel_dllogger.backfill.sorting import keep

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from otel_dllogger.backfill.sorting import Chunk

_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS installed (
  series BLOB NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
  times BLOB NOT NULL, PRIMARY KEY (series, first_ms, last_ms, times)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moving (block TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class Installed:
    """The samples that are there; new ones are recorded in one transaction.

    Args:
        path: The database; made if it is not there.

    Raises:
        sqlite3.Error: If it is not a database, or cannot be written. Every method can raise this.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._blocks: list[tuple[int, int]] = []
        self._database = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            self._prepare()
        except BaseException:
            self._database.close()
            raise

    def _prepare(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"its version is {version}, not {_VERSION}")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(f"{_SCHEMA}PRAGMA user_version = {_VERSION};")

    def close(self) -> None:
        """Close it; what was not committed is forgotten."""
        self._database.close()

    def moving(self) -> list[str]:
        """Return the blocks that an earlier backfill had begun to move."""
        return [block for (block,) in self._database.execute("SELECT block FROM moving")]

    def begin(self, blocks: Iterable[tuple[int, int]]) -> None:
        """Begin a backfill.

        Args:
            blocks: The first time and the end of each block that is there.
        """
        self._blocks = list(blocks)
        self._database.execute("BEGIN IMMEDIATE")

    def missing(self, chunk: Chunk) -> Chunk | None:
        """Return the samples that are not there, None if all are.

        Args:
            chunk: Samples.
        """
        there: set[int] = set()
        for (times,) in self._database.execute(
            "SELECT times FROM installed WHERE series = ? AND first_ms <= ? AND last_ms >= ?",
            (_key(chunk), chunk.times_ms[-1], chunk.times_ms[0]),
        ):
            there.update(self._in_blocks(_unpack(times)))
        return keep(chunk, [time_ms not in there for time_ms in chunk.times_ms])

    def add(self, chunk: Chunk) -> None:
        """Record samples that will be there after ``commit``.

        Args:
            chunk: Samples.
        """
        times_ms = chunk.times_ms
        self._database.execute(
            "INSERT OR IGNORE INTO installed VALUES (?, ?, ?, ?)",
            (_key(chunk), times_ms[0], times_ms[-1], _pack(times_ms)),
        )

    def commit(self, blocks: Iterable[str]) -> None:
        """Promise that these blocks will be moved, now or by the next backfill.

        Args:
            blocks: Their names.
        """
        self._database.executemany("INSERT INTO moving VALUES (?)", ((name,) for name in blocks))
        self._database.execute("COMMIT")

    def moved(self) -> None:
        """Record that all blocks are where they belong."""
        self._database.execute("DELETE FROM moving")

    def _in_blocks(self, times_ms: array[int]) -> Iterator[int]:
        """Yield the times for which there are blocks."""
        for first_ms, end_ms in self._blocks:
            if times_ms and first_ms <= times_ms[-1] and times_ms[0] < end_ms:
                start, end = bisect_left(times_ms, first_ms), bisect_left(times_ms, end_ms)
                yield from times_ms[start:end]


def _key(chunk: Chunk) -> bytes:
    return hashlib.blake2b(format_series(chunk.series).encode(), digest_size=16).digest()


def _pack(times_ms: array[int]) -> bytes:
    steps_ms = array("q", map(sub, times_ms, chain((0,), times_ms)))
    return zlib.compress(steps_ms.tobytes(), 1)


def _unpack(times: bytes) -> array[int]:
    try:
        return array("q", accumulate(array("q", zlib.decompress(times))))
    except (zlib.error, TypeError, ValueError, OverflowError) as error:
        raise sqlite3.DatabaseError(f"a series of it is damaged: {error}") from error

"""Which samples earlier backfills have put into a Prometheus data folder.

A database of the times of each series, next to the blocks. It is believed only as far as
there are blocks: what Prometheus has deleted since, or somebody else, counts as missing.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate, chain, islice
from operator import sub
from typing import TYPE_CHECKING

from otel_dllogger.backfill.openmetrics import format_series
from otel_dllogger.backfill.series import keep

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable

    from otel_dllogger.backfill.series import Chunk

_VERSION = 1
_CACHED_COLUMNS = 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS columns (
  number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, times BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS installed (
  series BLOB NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
  column_number INTEGER NOT NULL, PRIMARY KEY (series, first_ms, last_ms, column_number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS moving (block TEXT PRIMARY KEY) WITHOUT ROWID;
"""


class Installed:
    """Know the samples that are there, and take down new ones in one transaction.

    Args:
        path: The database; made if it is not there.

    Raises:
        sqlite3.Error: If it is none, or cannot be written. So raises every method.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, timeout=0)
        try:
            self._prepare()
        except BaseException:
            self._database.close()
            raise
        self._blocks: list[tuple[int, int]] = []
        self._columns: dict[int, array[int]] = {}
        self._series: tuple[str, bytes] = ("", b"")
        self._column: tuple[array[int], int] | None = None

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
            blocks: The times of the blocks that are there: the first, and the end.
        """
        merged: list[tuple[int, int]] = []
        for first_ms, end_ms in sorted(blocks):
            if merged and first_ms <= merged[-1][1]:
                merged[-1] = merged[-1][0], max(end_ms, merged[-1][1])
            else:
                merged.append((first_ms, end_ms))
        self._blocks = merged
        self._database.execute("BEGIN IMMEDIATE")

    def missing(self, chunk: Chunk) -> Chunk | None:
        """Return the samples that are not there, None if all are.

        Args:
            chunk: Samples.
        """
        times_ms = chunk.times_ms
        rows = self._database.execute(
            "SELECT column_number FROM installed WHERE series = ? AND first_ms <= ?"
            " AND last_ms >= ?",
            (self._key(chunk), times_ms[-1], times_ms[0]),
        ).fetchall()
        columns = [self._covered(number) for (number,) in rows]
        if not any(columns):
            return chunk
        if any(column == times_ms for column in columns):
            return None
        there: set[int] = set()
        for column in columns:
            start, end = bisect_left(column, times_ms[0]), bisect_right(column, times_ms[-1])
            there.update(islice(column, start, end))
        return keep(chunk, [time_ms not in there for time_ms in times_ms])

    def add(self, chunk: Chunk) -> None:
        """Take down samples that will be there after ``commit``.

        Args:
            chunk: Samples.
        """
        times_ms = chunk.times_ms
        # What is logged together has the same times: one column for all.
        if self._column is None or self._column[0] != times_ms:
            self._column = times_ms, self._column_number(times_ms)
        self._database.execute(
            "INSERT OR IGNORE INTO installed VALUES (?, ?, ?, ?)",
            (self._key(chunk), times_ms[0], times_ms[-1], self._column[1]),
        )

    def commit(self, blocks: Iterable[str]) -> None:
        """Promise that these blocks will be moved, now or by the next backfill.

        Args:
            blocks: Their names.
        """
        self._database.executemany("INSERT INTO moving VALUES (?)", ((name,) for name in blocks))
        self._database.execute("COMMIT")

    def moved(self) -> None:
        """Say that all blocks are where they belong."""
        self._database.execute("DELETE FROM moving")

    def _key(self, chunk: Chunk) -> bytes:
        name = format_series(chunk.series)
        if name != self._series[0]:
            self._series = name, hashlib.blake2b(name.encode(), digest_size=16).digest()
        return self._series[1]

    def _column_number(self, times_ms: array[int]) -> int:
        digest = hashlib.blake2b(times_ms.tobytes(), digest_size=16).digest()
        found = self._database.execute("SELECT number FROM columns WHERE digest = ?", (digest,))
        row = found.fetchone()
        if row is not None:
            return int(row[0])
        steps_ms = array("q", map(sub, times_ms, chain((0,), times_ms)))
        added = self._database.execute(
            "INSERT INTO columns (digest, times) VALUES (?, ?)",
            (digest, zlib.compress(steps_ms.tobytes(), 1)),
        )
        return added.lastrowid or 0

    def _covered(self, number: int) -> array[int]:
        """Return the times of a column for which there are blocks."""
        column = self._columns.get(number)
        if column is None:
            (raw,) = self._database.execute(
                "SELECT times FROM columns WHERE number = ?", (number,)
            ).fetchone()
            try:
                times_ms = array("q", accumulate(array("q", zlib.decompress(raw))))
            except (zlib.error, TypeError, ValueError, OverflowError) as error:
                raise sqlite3.DatabaseError(f"a column of it is damaged: {error}") from error
            column = array("q")
            for first_ms, end_ms in self._blocks:
                column += times_ms[bisect_left(times_ms, first_ms) : bisect_left(times_ms, end_ms)]
            if len(self._columns) == _CACHED_COLUMNS:
                del self._columns[next(iter(self._columns))]
            self._columns[number] = column
        return column

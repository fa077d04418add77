"""One followed file: how far it was read, and its next whole lines."""

from __future__ import annotations

import dataclasses
import os
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_dllogger.diagnostics import LINE_TOO_LONG, NUL_FILLED
from otel_dllogger.logs.tail.checkpoint import Entry
from otel_dllogger.logs.tail.fingerprint import WINDOW_BYTES, Key, Mark, Position, digest
from otel_dllogger.logs.tail.lines import Cut, cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.tail.anomalies import FileAnomalies

APPEARED, RESTARTED, GONE = "appeared", "restarted", "gone"

NUL_VISITS = 5
"""Looks at a NUL byte before it is believed: a network file system may yet fill it."""

Stamp = tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Hold whole lines of one file, one after the other.

    Attributes:
        file: The file; its ``state`` is the reader's to use.
        path: Where it was when they were read.
        start: Where the first line begins.
        end: Where the last one ends.
        lines: The lines without their newlines.
    """

    file: FollowedFile
    path: str
    start: Position
    end: Position
    lines: list[bytes]

    def positions(self) -> Iterator[Position]:
        """Return where each line ends, which tells every line from all others."""
        device, inode, generation, offset, checksum = self.start
        for line in self.lines:
            offset += len(line) + 1
            checksum = zlib.crc32(b"\n", zlib.crc32(line, checksum))
            yield Position(device, inode, generation, offset, checksum)


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """Say that a file began, began anew or ended.

    Attributes:
        kind: ``APPEARED``: it is followed from now on, from ``file.position``, with the
            ``state`` of the checkpoint; ``RESTARTED``: another content is read, from 0,
            with an empty ``state``; ``GONE``: nothing more comes of it.
        file: The file.
        path: Where it is, or was.
        generation: Its generation.
    """

    kind: str
    file: FollowedFile
    path: str
    generation: int


class Reading(NamedTuple):
    """Hold what one look into a file gave.

    Attributes:
        batches: The lines.
        read_bytes: How much was read for them.
        more: Whether there may be more to read at once.
        again: Whether to look again in the next round, even if nothing seems to change.
    """

    batches: list[Batch]
    read_bytes: int
    more: bool
    again: bool


class FollowedFile:
    """Hold one file that is followed.

    Attributes:
        path: Where it is, as far as is known.
        key: Its device and inode.
        generation: The number of what it holds; a rewritten file gets another one.
        state: What the caller keeps for this generation, as JSON has it; it is saved with
            the commit after the next lines.
        version: The inode's version, None where it is unknown.
        origin: Where it was found last by the paths that are followed.
        mark: How far it was read.
        skipping: Whether that is within a line that is too long.
        stamp: Its size and time when it was last looked for.
        visited_stamp: The same when it was last looked into.
        missing: For how many rounds it was not found anywhere.
        is_known: Whether the caller was told of it.
        saved: Its entry in the checkpoint, None if it has none.
        saved_generation: The generation of that.
    """

    __slots__ = (
        "_nul_at",
        "_nul_visits",
        "generation",
        "is_known",
        "key",
        "mark",
        "missing",
        "origin",
        "path",
        "saved",
        "saved_generation",
        "skipping",
        "stamp",
        "state",
        "version",
        "visited_stamp",
    )

    def __init__(self, key: Key, path: str, generation: int) -> None:
        self.key = key
        self.path = path
        self.origin = path
        self.version: int | None = None
        self.stamp: Stamp | None = None
        self.visited_stamp: Stamp | None = None
        self.missing = 0
        self.is_known = False
        self.saved: bytes | None = None
        self.saved_generation = 0
        self.begin(generation)

    def __repr__(self) -> str:
        return f"<{self.path!r} generation {self.generation} offset {self.mark.offset}>"

    def begin(self, generation: int) -> None:
        """Begin at 0 with another content."""
        self.generation = generation
        self.mark = Mark()
        self.skipping = False
        self.state: dict[str, Any] = {}
        self._nul_at = -1
        self._nul_visits = 0

    @classmethod
    def restore(cls, entry: Entry) -> FollowedFile:
        """Return the file of a checkpoint's entry."""
        file = cls(entry.key, entry.path, entry.generation)
        file.origin = entry.origin
        file.version = entry.version
        file.mark = entry.mark
        file.skipping = entry.skipping
        file.state = entry.state
        return file

    def entry(self) -> Entry:
        """Return what a checkpoint keeps once all that was read is delivered."""
        return Entry(
            self.key,
            self.version,
            self.path,
            self.origin,
            self.generation,
            self.mark,
            self.skipping,
            self.state,
        )

    def birth_entry(self) -> Entry:
        """Return what a checkpoint keeps before the first line of a generation is delivered.

        It begins at 0, but only with the content that has this number.
        """
        mark = Mark(head_bytes=self.mark.head_bytes, head=self.mark.head)
        return dataclasses.replace(self.entry(), mark=mark, skipping=False, state={})

    @property
    def position(self) -> Position:
        """Return how far it was read."""
        return Position(*self.key, self.generation, self.mark.offset, self.mark.checksum)

    def read(
        self, fd: int, *, want_bytes: int, max_line_bytes: int, anomalies: FileAnomalies
    ) -> Reading | None:
        """Read the next whole lines.

        Args:
            fd: The file.
            want_bytes: How much to read, unless a line is longer.
            max_line_bytes: The longest line that is not passed over.
            anomalies: Where to count what is unusual.

        Returns:
            What was read, None if the file does not hold what it did before.

        Raises:
            OSError: If the file cannot be read.
        """
        read_bytes = 0
        while True:
            mark = self.mark
            data = os.pread(fd, mark.tail_bytes + want_bytes, mark.begin)
            if not mark.holds(fd, data):
                return None
            fresh = data[mark.tail_bytes :]
            read_bytes += len(fresh)
            full = len(fresh) == want_bytes
            found = cut(
                fresh,
                max_line_bytes=max_line_bytes,
                full=full,
                skipping=self.skipping,
                trusted_nul=self._nul_at - mark.offset if self._nul_visits >= NUL_VISITS else -1,
            )
            if not full or found.taken or found.waits_at is not None or want_bytes > max_line_bytes:
                break
            want_bytes = max_line_bytes + 1
        anomalies.count(LINE_TOO_LONG, found.too_long)
        self._wait_for_nuls(found)
        self.skipping = found.skipping
        batches, checksum = self._batches(found, fresh)
        if found.taken:
            self.mark = mark.advance(data, found.taken, checksum)
        if found.nuls:
            anomalies.count(NUL_FILLED)
            if full and found.taken == len(fresh):
                self._pass_over_hole(fd)
        more = found.nuls > 0 or (full and found.taken > 0)
        again = found.taken > 0 or found.waits_at is not None
        return Reading(batches, read_bytes, more, again)

    def _batches(self, found: Cut, fresh: bytes) -> tuple[list[Batch], int]:
        """Return the lines with their positions, and the checksum of all that is taken."""
        batches = []
        offset, checksum = self.mark.offset, self.mark.checksum
        done = 0
        for piece in found.pieces:
            before = zlib.crc32(fresh[done : piece.start], checksum)
            checksum = zlib.crc32(fresh[piece.start : piece.end], before)
            done = piece.end
            start = Position(*self.key, self.generation, offset + piece.start, before)
            end = Position(*self.key, self.generation, offset + piece.end, checksum)
            batches.append(Batch(self, self.path, start, end, piece.lines))
        return batches, zlib.crc32(fresh[done : found.taken - found.nuls], checksum)

    def _wait_for_nuls(self, found: Cut) -> None:
        """Count the looks at a NUL byte that stays."""
        if found.waits_at is None:
            self._nul_at, self._nul_visits = -1, 0
            return
        at = self.mark.offset + found.waits_at
        self._nul_visits = self._nul_visits + 1 if at == self._nul_at else 1
        self._nul_at = at

    def _pass_over_hole(self, fd: int) -> None:
        """Go on to where the next bytes are that somebody wrote.

        A writer that does not append leaves a hole as long as the log was before it was
        emptied. To read it would take as long.
        """
        offset = self.mark.offset
        try:
            target = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # nothing but the hole, or a file system that does not say
            return
        if target >= offset + WINDOW_BYTES:
            tail = os.pread(fd, WINDOW_BYTES, target - WINDOW_BYTES)
            self.mark = dataclasses.replace(
                self.mark, offset=target, tail_bytes=len(tail), tail=digest(tail)
            )

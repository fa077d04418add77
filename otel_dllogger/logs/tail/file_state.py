"""One tailed file: how far it was read, and its next whole lines."""

from __future__ import annotations

import dataclasses
import os
import zlib
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_dllogger.diagnostics import LINE_TOO_LONG, NUL_FILLED
from otel_dllogger.logs.tail.anomalies import FileAnomalies
from otel_dllogger.logs.tail.fingerprint import (
    WINDOW_BYTES,
    FileKey,
    FilePosition,
    Fingerprint,
    digest,
)
from otel_dllogger.logs.tail.framing import HEAD_BYTES, LINES, Framing, find_framing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.tail.anomalies import FileAnomalies
    from otel_dllogger.logs.tail.split_lines import SplitLines

APPEARED, RESTARTED, GONE = "appeared", "restarted", "gone"

NUL_VISITS = 5
"""How often a NUL byte is seen before it is trusted: a network file system may still fill it."""

Stamp = tuple[int, int]


@dataclasses.dataclass(frozen=True, slots=True)
class LineBatch:
    """Whole lines of one file, one after the other; in a binary file, frames stand for them.

    Attributes:
        file: The file; its ``state`` is for the caller to use.
        path: Where it was when they were read.
        start: Where the first line begins.
        end: Where the last one ends.
        lines: The lines without their newlines.
        separator: What follows each line in the file.
    """

    file: TailedFile
    path: str
    start: FilePosition
    end: FilePosition
    lines: list[bytes]
    separator: bytes = b"\n"

    def positions(self) -> Iterator[FilePosition]:
        """Yield where each line ends, which distinguishes it from all others."""
        device, inode, generation, offset, checksum = self.start
        for line in self.lines:
            offset += len(line) + len(self.separator)
            checksum = zlib.crc32(self.separator, zlib.crc32(line, checksum))
            yield FilePosition(device, inode, generation, offset, checksum)


@dataclasses.dataclass(frozen=True, slots=True)
class FileEvent:
    """The news that a file appeared, restarted or is gone.

    Attributes:
        kind: ``APPEARED``: it is followed from now on, from ``file.position``, with the
            ``state`` of the checkpoint; ``RESTARTED``: new content is read, from 0,
            with an empty ``state``; ``GONE``: no more lines come from it.
        file: The file.
        path: Where it is, or was.
        generation: Its generation.
    """

    kind: str
    file: TailedFile
    path: str
    generation: int


class ReadResult(NamedTuple):
    """The result of reading from a file once.

    Attributes:
        batches: The lines.
        read_bytes: How much was read for them.
        more: Whether there may be more to read right away.
        again: Whether to look again in the next round, even if nothing seems to change.
    """

    batches: list[LineBatch]
    read_bytes: int
    more: bool
    again: bool


class TailedFile:
    """A file that is followed.

    Attributes:
        path: Where it is, as last known.
        key: Its device and inode.
        generation: The number of its content; a rewritten file gets another one.
        state: What the caller keeps for this generation, as plain JSON; it is saved with the
            commit after the next lines.
        version: The inode's version, None if it is unknown.
        found_path: Where it was last found under the paths that are followed.
        fingerprint: How far it was read.
        skipping: Whether that offset is within a line that is too long.
        stamp: Its size and modification time when it was last looked for.
        visited_stamp: The same when it was last read.
        missing: For how many rounds it was not found anywhere.
        is_known: Whether the caller was told about it.
        saved: Its entry in the checkpoint, None if it has none.
        saved_generation: The generation in that entry.
    """

    __slots__ = (
        "_framing",
        "_nul_at",
        "_nul_visits",
        "fingerprint",
        "found_path",
        "generation",
        "is_known",
        "key",
        "missing",
        "path",
        "saved",
        "saved_generation",
        "skipping",
        "stamp",
        "state",
        "version",
        "visited_stamp",
    )

    def __init__(self, key: FileKey, path: str, generation: int) -> None:
        self.key = key
        self.path = path
        self.found_path = path
        self.version: int | None = None
        self.stamp: Stamp | None = None
        self.visited_stamp: Stamp | None = None
        self.missing = 0
        self.is_known = False
        self.saved: bytes | None = None
        self.saved_generation = 0
        self.begin(generation)

    def __repr__(self) -> str:
        return f"<{self.path!r} generation {self.generation} offset {self.fingerprint.offset}>"

    def begin(self, generation: int) -> None:
        """Begin at 0 with new content."""
        self.generation = generation
        self.fingerprint = Fingerprint()
        self.skipping = False
        self.state: dict[str, Any] = {}
        self._framing: Framing | None = None
        self._nul_at = -1
        self._nul_visits = 0

    @property
    def position(self) -> FilePosition:
        """Return how far it was read."""
        return FilePosition(
            *self.key, self.generation, self.fingerprint.offset, self.fingerprint.checksum
        )

    def read(
        self, fd: int, *, want_bytes: int, max_line_bytes: int, anomalies: FileAnomalies
    ) -> ReadResult | None:
        """Read the next whole lines.

        Args:
            fd: The file.
            want_bytes: How much to read, unless a line is longer.
            max_line_bytes: The longest line that is not skipped.
            anomalies: Where to count what is unusual.

        Returns:
            What was read, None if the file no longer holds what was read before.

        Raises:
            OSError: If the file cannot be read.
        """
        read_bytes = 0
        fingerprint = self.fingerprint
        if self._framing is None:
            self._framing = find_framing(os.pread(fd, HEAD_BYTES, 0))
        framing = self._framing or LINES
        trusted_nul = self._nul_at - fingerprint.offset if self._nul_visits >= NUL_VISITS else -1
        while True:
            data = os.pread(fd, fingerprint.tail_bytes + want_bytes, fingerprint.begin)
            if not fingerprint.matches(fd, data):
                return None
            fresh = data[fingerprint.tail_bytes :]
            read_bytes += len(fresh)
            full = len(fresh) == want_bytes
            found = framing.split(
                fresh,
                max_line_bytes=max_line_bytes,
                full=full,
                skipping=self.skipping,
                trusted_nul=trusted_nul,
            )
            is_stuck = not (found.taken or found.jump or found.waits_at is not None)
            if not full or not is_stuck or want_bytes > max_line_bytes:
                break
            want_bytes = max_line_bytes + 1
        anomalies.count(LINE_TOO_LONG, found.too_long)
        self._wait_for_nuls(found)
        self.skipping = found.skipping
        batches, checksum = self._batches(found, fresh, framing.separator)
        if found.taken:
            self.fingerprint = fingerprint.advance(data, found.taken, checksum)
        if found.nuls:
            anomalies.count(NUL_FILLED)
            if full and found.taken == len(fresh):
                self._pass_over_hole(fd)
        has_jumped = found.jump > 0 and self._pass_over(fd, found.jump)
        more = found.nuls > 0 or has_jumped or (full and found.taken > 0)
        again = found.taken > 0 or has_jumped or found.waits_at is not None
        return ReadResult(batches, read_bytes, more, again)

    def _batches(
        self, found: SplitLines, fresh: bytes, separator: bytes
    ) -> tuple[list[LineBatch], int]:
        """Return the lines with their positions, and the checksum of all that is taken."""
        batches = []
        offset, checksum = self.fingerprint.offset, self.fingerprint.checksum
        done = 0
        for block in found.blocks:
            before = zlib.crc32(fresh[done : block.start], checksum)
            checksum = zlib.crc32(fresh[block.start : block.end], before)
            done = block.end
            start = FilePosition(*self.key, self.generation, offset + block.start, before)
            end = FilePosition(*self.key, self.generation, offset + block.end, checksum)
            batches.append(LineBatch(self, self.path, start, end, block.lines, separator))
        return batches, zlib.crc32(fresh[done : found.taken - found.nuls], checksum)

    def _wait_for_nuls(self, found: SplitLines) -> None:
        """Count how often the same NUL byte was seen."""
        if found.waits_at is None:
            self._nul_at, self._nul_visits = -1, 0
            return
        at = self.fingerprint.offset + found.waits_at
        self._nul_visits = self._nul_visits + 1 if at == self._nul_at else 1
        self._nul_at = at

    def _pass_over_hole(self, fd: int) -> None:
        """Skip to the next bytes that were really written.

        A writer that does not append leaves a hole as long as the log was before it was
        emptied. Reading the hole would take as long as reading that log.
        """
        offset = self.fingerprint.offset
        try:
            target = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # nothing but the hole, or a file system that does not say
            return
        if target >= offset + WINDOW_BYTES:
            self._move_to(fd, target)

    def _pass_over(self, fd: int, length: int) -> bool:
        """Skip bytes that are not read; return whether all of them were there."""
        target = self.fingerprint.offset + length
        is_whole = os.fstat(fd).st_size >= target
        if is_whole:
            self._move_to(fd, target)
        return is_whole

    def _move_to(self, fd: int, target: int) -> None:
        tail = os.pread(fd, WINDOW_BYTES, target - WINDOW_BYTES)
        self.fingerprint = dataclasses.replace(
            self.fingerprint, offset=target, tail_bytes=len(tail), tail=digest(tail)
        )

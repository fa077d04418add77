"""The fingerprint of a file: its inode, and hashes of what was read, to detect a rewrite.

An inode alone is not enough, since ext4 gives the inode of a deleted file to the next file
at once. Neither is content alone, since files begin alike. So a file is identified by device
and inode, by the inode's version if the file system has one, by a hash of its first bytes
and by a hash of the bytes before the offset. If any of them differs, a new generation has
begun, and it is read from 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from typing import NamedTuple

WINDOW_BYTES = 1024
"""Bytes that are hashed at the beginning of a file, and before the offset."""


class FileKey(NamedTuple):
    """What identifies a file on this machine for as long as it exists.

    Attributes:
        device: The device's number.
        inode: The inode's number.
    """

    device: int
    inode: int


class FilePosition(NamedTuple):
    """Where a line ends, unique among all lines of all files that were ever followed.

    Two lines with equal positions are one line that was delivered twice. The checksum
    distinguishes what a file held before and after a rewrite that went unnoticed.

    Attributes:
        device: The device's number.
        inode: The inode's number.
        generation: A number that no other file and no earlier content of this one has.
        offset: Bytes from the beginning of the file to the end of the line.
        checksum: CRC-32 of these bytes, without those that were passed over.
    """

    device: int
    inode: int
    generation: int
    offset: int
    checksum: int


@dataclasses.dataclass(frozen=True, slots=True)
class Fingerprint:
    """How far a file was read, and hashes of what must precede that.

    Attributes:
        offset: Bytes that were read.
        checksum: As in ``FilePosition``.
        head_bytes: How many of the first bytes are hashed; 1 KiB once that many were read.
        head: Their hash.
        tail_bytes: How many bytes before the offset are hashed.
        tail: Their hash.
    """

    offset: int = 0
    checksum: int = 0
    head_bytes: int = 0
    head: str = ""
    tail_bytes: int = 0
    tail: str = ""

    @property
    def begin(self) -> int:
        """Return the offset to read from, so that the hashed bytes before are read too."""
        return self.offset - self.tail_bytes

    def matches(self, fd: int, data: bytes) -> bool:
        """Return whether what was read is still there before the offset.

        The beginning of the file is checked after ``data`` was read: if it is right, the file was
        not emptied before that.

        Args:
            fd: The file.
            data: The bytes from ``begin`` on: the hashed ones and more.

        Raises:
            OSError: If the file cannot be read.
        """
        if self.tail_bytes and digest(data[: self.tail_bytes]) != self.tail:
            return False
        if not self.head_bytes:
            return True
        head = os.pread(fd, self.head_bytes, 0) if self.begin else data[: self.head_bytes]
        return digest(head) == self.head

    def at_start(self) -> Fingerprint:
        """Return the fingerprint of the same content before anything was read from it."""
        return Fingerprint(head_bytes=self.head_bytes, head=self.head)

    def advance(self, data: bytes, taken: int, checksum: int) -> Fingerprint:
        """Return the fingerprint after more bytes were read.

        Args:
            data: The bytes from ``begin`` on.
            taken: How many of the bytes after the offset were read.
            checksum: The checksum at the new offset.
        """
        offset = self.offset + taken
        before = data[: self.tail_bytes + taken]
        head_bytes, head = self.head_bytes, self.head
        if not self.begin and head_bytes < min(offset, WINDOW_BYTES):
            head_bytes = min(offset, WINDOW_BYTES)
            head = digest(before[:head_bytes])
        tail = before[-WINDOW_BYTES:]
        return Fingerprint(offset, checksum, head_bytes, head, len(tail), digest(tail))


def digest(data: bytes) -> str:
    """Return a hash that two different windows do not share by accident."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()

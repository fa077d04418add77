"""Open a bounded number of files, never blocking, and only the file that was meant."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_dllogger.logs.tail.file_state import TailedFile
    from otel_dllogger.logs.tail.fingerprint import FileKey

# _IOR('v', 1, long) of linux/fs.h. A file system that does not support it refuses it, and the
# version is unknown.
_FS_IOC_GETVERSION = 0x80087601

_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW | os.O_NONBLOCK


class OpenFiles:
    """Open descriptors; the least recently used one is closed to make room for a new one.

    Keeping a descriptor open is useful: its file can be read to the end even after it was
    deleted, and the inode cannot be given to another file meanwhile.

    Args:
        limit: The most that may be open.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._fds: dict[FileKey, int] = {}  # the one used last is at the end

    def __len__(self) -> int:
        return len(self._fds)

    def get(self, key: FileKey) -> int | None:
        """Return an open descriptor, None if there is none."""
        return self._fds.get(key)

    def open(self, file: TailedFile) -> tuple[int, bool]:
        """Return the descriptor of a file, which is then the last to be closed.

        Args:
            file: The file; if it has to be opened, its ``version`` is set.

        Returns:
            The descriptor, and whether the inode was given to another file meanwhile.

        Raises:
            OSError: If it cannot be opened.
        """
        fd = self._fds.pop(file.key, None)
        known = file.version
        if fd is None:
            self.shrink(self._limit - 1)
            fd = open_regular(file.path, file.key)
            file.version = inode_version(fd)
        self._fds[file.key] = fd
        return fd, None not in (known, file.version) and known != file.version

    def drop(self, key: FileKey) -> None:
        """Close a descriptor, if it is open."""
        fd = self._fds.pop(key, None)
        if fd is not None:
            with contextlib.suppress(OSError):  # nothing was written, nothing can be lost
                os.close(fd)

    def shrink(self, most: int) -> None:
        """Close the least recently used descriptors until at most ``most`` are open."""
        while len(self._fds) > most:
            self.drop(next(iter(self._fds)))


def open_regular(path: str, key: FileKey) -> int:
    """Open a file for reading if it is the one that was meant; never block.

    Args:
        path: The file, not a link.
        key: What it must be.

    Returns:
        The descriptor.

    Raises:
        OSError: If it cannot be opened.
        FileNotFoundError: Also if another file is there by now.
    """
    fd = os.open(path, _OPEN_FLAGS)
    try:
        status = os.fstat(fd)
    except OSError:
        os.close(fd)
        raise
    if key == (status.st_dev, status.st_ino) and stat.S_ISREG(status.st_mode):
        return fd
    os.close(fd)
    raise FileNotFoundError(f"{path} is now another file")


def inode_version(fd: int) -> int | None:
    """Return the number that distinguishes two uses of one inode, None if there is none.

    Source: ioctl_iflags(2) and linux/fs.h, FS_IOC_GETVERSION: ext4, XFS and btrfs give an
    inode a new one whenever they give it to a new file.
    """
    if sys.platform != "linux":  # where the number of this call may mean another one
        return None
    answer = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETVERSION, answer)
    except OSError:
        return None
    return int.from_bytes(answer, "little") or None

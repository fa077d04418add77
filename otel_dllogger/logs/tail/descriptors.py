"""A bounded number of open files: the one not used for longest is closed for a new one."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from otel_dllogger.logs.tail.fingerprint import inode_version, open_regular

if TYPE_CHECKING:
    from otel_dllogger.logs.tail.file_state import FollowedFile
    from otel_dllogger.logs.tail.fingerprint import Key


class Descriptors:
    """Keep descriptors open while there is room.

    An open descriptor is worth something: what it leads to can be read to its end after
    it was deleted, and its inode cannot be given to another file.

    Args:
        limit: How many are open at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._fds: dict[Key, int] = {}  # the one used last is at the end

    def __len__(self) -> int:
        return len(self._fds)

    def get(self, key: Key) -> int | None:
        """Return an open descriptor, None if there is none."""
        return self._fds.get(key)

    def open(self, file: FollowedFile) -> tuple[int, bool]:
        """Return a descriptor, which is then the last to be closed.

        Args:
            file: The file; where it has to be opened, it learns its inode's version.

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

    def drop(self, key: Key) -> None:
        """Close a descriptor, if it is open."""
        fd = self._fds.pop(key, None)
        if fd is not None:
            with contextlib.suppress(OSError):  # nothing was written, nothing can be lost
                os.close(fd)

    def shrink(self, most: int) -> None:
        """Close those not used for longest until there are at most so many."""
        while len(self._fds) > most:
            self.drop(next(iter(self._fds)))

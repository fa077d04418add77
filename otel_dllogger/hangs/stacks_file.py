"""The file next to a log to which the stacks of a rank are appended."""

from __future__ import annotations

import errno
import faulthandler
import os
import stat

MAX_BYTES = 8 << 20
"""The size from which on the file is emptied before more is appended, which may be 6 MiB."""

_IN_ITS_PLACE = "remove what is in its place"
_NO_ROOM = "free some space"
_STEPS = {
    errno.EISDIR: _IN_ITS_PLACE,
    errno.ELOOP: _IN_ITS_PLACE,
    errno.ENXIO: _IN_ITS_PLACE,  # a pipe that nobody reads
    errno.ENODEV: _IN_ITS_PLACE,
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EFBIG: "make it shorter, or raise the limit on the size of files",
}
_WORDS = {errno.ELOOP: "it is a symbolic link", errno.ENXIO: "it is a pipe or a socket"}


class StacksFile:
    """A file that is open before it is needed, since nothing can be opened once the GIL is held.

    Args:
        path: The file. It is made when it is opened, and removed at the end if it is empty.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._identity: tuple[int, int] | None = None

    def open(self) -> int:
        """Return its descriptor; it is opened again if other code closed it or removed the file.

        Raises:
            OSError: If it cannot be opened.
        """
        status = self._status()
        if status is not None and status.st_nlink > 0:
            return self._fd
        if status is not None:
            os.close(self._fd)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        self._fd = os.open(self.path, flags | os.O_NOFOLLOW, 0o666)
        status = os.fstat(self._fd)
        self._identity = status.st_dev, status.st_ino
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise OSError(errno.ENODEV, "it is not a file")
        return self._fd

    def size(self) -> int:
        """Return its size in bytes."""
        status = self._status()
        return 0 if status is None else status.st_size

    def append_stacks(self, heading: str) -> None:
        """Append the stacks of all threads.

        Args:
            heading: The line above them.

        Raises:
            OSError: If the file cannot be written.
        """
        fd = self.open()
        if self.size() > MAX_BYTES:
            os.ftruncate(fd, 0)
        os.write(fd, f"{heading}\n".encode("utf-8", "backslashreplace"))
        faulthandler.dump_traceback(file=fd, all_threads=True)
        os.write(fd, b"\n")

    def append_line(self, line: str) -> None:
        """Append a line.

        Raises:
            OSError: If the file cannot be written.
        """
        os.write(self.open(), f"{line}\n\n".encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Close it, and remove it if it is empty.

        Raises:
            OSError: If it cannot be removed.
        """
        status = self._status()
        if status is None:
            return
        fd, self._fd = self._fd, -1
        try:
            if status.st_size == 0 and os.path.samestat(status, os.lstat(self.path)):
                os.unlink(self.path)  # noqa: PTH108 - pathlib takes longer to import
        except FileNotFoundError:
            pass
        finally:
            os.close(fd)

    def _status(self) -> os.stat_result | None:
        """Return the status of what is open; None if nothing is, or something that is not ours."""
        try:
            status = os.fstat(self._fd)
        except OSError:
            return None
        return status if (status.st_dev, status.st_ino) == self._identity else None


def explain_unwritable(error: OSError) -> tuple[str, str]:
    """Return why a file of stacks cannot be written, and what to do about it.

    Args:
        error: What a method of ``StacksFile`` raised.
    """
    number = error.errno or 0
    reason = _WORDS.get(number) or error.strerror or type(error).__name__
    return reason, _STEPS.get(number, "make its folder writable")

"""A file that lines are appended to: whole, in order, and in the kernel on return.

There is no buffer in user space, so nothing is lost to SIGKILL or written twice by a
forked child. What the kernel refuses (a full disk, a quota, EIO) is kept in order,
within bounded memory, and offered again with the next line.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

from otel_dllogger.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PENDING_BYTES = 8 * 1024 * 1024
"""Bytes that are kept for a disk that is full; beyond it the oldest lines are dropped."""

MAX_LINES_A_CALL = 256
"""Kept lines that one call writes at most, so that no call pays for a long outage alone."""

# What a file is in: open with nothing kept; in the middle of a write; or neither.
_READY, _WRITING, _BEHIND = "ready", "writing", "behind"

_PASSING_ERRNOS = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ESTALE, errno.EAGAIN)
)

_open_files: weakref.WeakValueDictionary[str, AppendFile] = weakref.WeakValueDictionary()
_open_files_lock = threading.RLock()


def open_append_file(path: str | os.PathLike[str], *, append: bool) -> AppendFile:
    """Open a file of lines, or return the one this process already has open there.

    Args:
        path: The file; its folder must exist, as for ``open``.
        append: Keep what the file holds. Otherwise it is emptied, as DLLogger does,
            unless somebody is writing to it at this moment.

    Raises:
        OSError: If the file cannot be opened, for a reason that will not pass.
    """
    key = os.path.realpath(path)
    with _open_files_lock:
        file = _open_files.get(key)
        if file is not None and not file.closed:
            FAULTS.warn(
                "shared_path", f"{key} is open already: its lines go to one and the same file"
            )
            return file
        file = AppendFile(path, append=append)
        if file.regular:
            _open_files[key] = file
        return file


class AppendFile:
    """Append whole lines with one ``write`` each.

    Args:
        path: The file.
        append: Keep what the file holds.
        write: ``os.write``, or what stands in for a failing disk in a test.

    Raises:
        OSError: If the file cannot be opened, for a reason that will not pass.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        append: bool,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        self.name = os.fspath(path)
        self.regular = True
        self._path = os.path.abspath(path)  # noqa: PTH100 - links stay
        self._write = write
        self._lock = threading.RLock()
        self._state = _BEHIND
        self._rest = b""  # the end of a line whose beginning is on the disk
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._fd = -1
        self._identity: tuple[int, int] | None = None
        try:
            self._open(truncate=not append)
        except OSError as error:
            if error.errno not in _PASSING_ERRNOS:
                raise
            self._say_failed(error)
        if self._fd >= 0 and not self._rest:
            self._state = _READY
        _files.add(self)

    def _open(self, *, truncate: bool = False) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        fd = os.open(self._path, flags, 0o666)
        try:
            status = os.fstat(fd)
            self.regular = stat.S_ISREG(status.st_mode)
            if self.regular:
                self._claim(fd, status.st_size, truncate=truncate)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._identity = (status.st_dev, status.st_ino)

    def _claim(self, fd: int, size: int, *, truncate: bool) -> None:
        """Empty the file or mend its end, whichever is asked and safe.

        Every writer holds a shared lock; only who can get the exclusive one empties the
        file. So 8 ranks that open one path with DLLogger's default mode keep each
        other's lines.
        """
        if truncate and size:
            if _flock(fd, fcntl.LOCK_EX):
                os.ftruncate(fd, 0)
                size = 0
            else:
                FAULTS.warn(
                    "shared_path",
                    f"{self._path} is being written by another process: appending instead of "
                    "emptying it; give each rank its own file, as in 'log_rank{rank}.json'",
                )
        _flock(fd, fcntl.LOCK_SH)
        if size and not self._rest and not self._ends_with_newline(size):
            self._rest = b"\n"
            FAULTS.drop("torn_line", f"{self._path} ended in a torn line: a newline closes it")

    def _ends_with_newline(self, size: int) -> bool:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # a file that we may write but not read
            return True
        try:
            return os.pread(fd, 1, size - 1) == b"\n"
        finally:
            os.close(fd)

    @property
    def closed(self) -> bool:
        """Tell whether no descriptor is open; a later line opens the file again."""
        return self._fd < 0

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed."""
        return self._fd

    def write_line(self, line: bytes) -> None:
        """Append a line; it is in the kernel on return, or kept until the disk takes it.

        Args:
            line: The line with its newline at the end.
        """
        with self._lock:
            if self._state is not _READY:
                self._keep(line)
                if self._state is _BEHIND:  # else a signal handler logs, and who writes goes on
                    self._drain(MAX_LINES_A_CALL)
                return
            self._state = _WRITING
            try:
                try:
                    written = self._write(self._fd, line)
                except OSError as error:
                    self._go_on(line, self._put(line) if self._passes_at_once(error) else line)
                else:
                    if written == len(line) and not self._pending:
                        self._state = _READY
                    else:
                        self._go_on(line, self._put(line[written:]))
            except BaseException:  # out of a signal handler: after the write, not before
                self._state = _BEHIND
                raise

    def _go_on(self, line: bytes, rest: bytes) -> None:
        """End a write that was not one whole line and nothing else."""
        if rest:
            self._set_aside(line, rest)
            self._state = _BEHIND
        else:
            self._drain(MAX_LINES_A_CALL)

    def _put(self, line: bytes) -> bytes:
        """Write a line; return the part of it that the disk refused."""
        while line:
            try:
                line = line[self._write(self._fd, line) :]
            except OSError as error:
                if not self._passes_at_once(error):
                    break
        return line

    def _passes_at_once(self, error: OSError) -> bool:
        if isinstance(error, InterruptedError):
            return True
        if error.errno == errno.EBADF and self._fd >= 0:  # somebody closed it: open it again
            self._fd = -1
            return self._reopen()
        self._say_failed(error)
        return False

    def _set_aside(self, line: bytes, rest: bytes) -> None:
        """Keep what is left of a line in the first place of the order."""
        if len(rest) < len(line):
            self._rest = rest
        else:
            self._pending.appendleft(line)
            self._pending_bytes += len(line)

    def _reopen(self) -> bool:
        """Open the path again after a close, our own or somebody else's, or a rotation."""
        try:
            self._open()
        except OSError as error:
            self._say_failed(error)
            return False
        return True

    def _keep(self, line: bytes) -> None:
        self._pending.append(line)
        self._pending_bytes += len(line)
        while self._pending_bytes > MAX_PENDING_BYTES and len(self._pending) > 1:
            self._pending_bytes -= len(self._pending.popleft())
            FAULTS.drop(
                "disk_full", f"{self._path} takes no lines: the oldest kept ones are dropped"
            )

    def _drain(self, most_lines: int) -> None:
        """Write what was kept, in order, until the disk refuses again."""
        self._state = _WRITING
        try:
            if self._fd < 0 and not self._reopen():
                return
            self._rest = self._put(self._rest)
            while self._pending and most_lines and not self._rest:
                most_lines -= 1
                line = self._pending.popleft()
                self._pending_bytes -= len(line)
                if rest := self._put(line):
                    self._set_aside(line, rest)
                    return
        finally:
            behind = self._fd < 0 or self._rest or self._pending
            self._state = _BEHIND if behind else _READY

    def check_path(self) -> None:
        """Open the path anew where it no longer names the open file: rotated or deleted."""
        with self._lock:
            if self._fd < 0 or self._state is _WRITING or not self.regular:
                return
            try:
                status = os.stat(self._path)  # noqa: PTH116 - twice as fast
                if (status.st_dev, status.st_ino) == self._identity:
                    return
            except OSError:
                pass
            old_fd, old_rest, self._rest = self._fd, self._rest, b""
            if self._reopen():
                os.close(old_fd)
                why = "the lines since the last look went with it, the next ones go to a new file"
            else:
                self._rest = old_rest
                why = "it cannot be made again, and lines still go to the old file"
            FAULTS.drop("file_replaced", f"{self._path} was moved or deleted: {why}")

    def _say_failed(self, error: OSError) -> None:
        FAULTS.warn(
            "write_failed",
            f"{self._path} takes no lines now ({error.strerror}): up to "
            f"{MAX_PENDING_BYTES >> 20} MiB are kept, and written once it does",
        )

    def write(self, text: str) -> int:
        """Append text as it is, as scripts do that use DLLogger's file themselves."""
        self.write_line(text.encode("utf-8", "surrogatepass"))
        return len(text)

    def flush(self) -> None:
        """Offer what a full disk refused once more; nothing else is ever held back."""
        with self._lock:
            if (self._rest or self._pending) and self._state is _BEHIND:
                self._drain(len(self._pending))

    def close(self) -> None:
        """Flush and close the descriptor; a line that comes later opens it again."""
        self.flush()
        with self._lock:
            if self._state is _WRITING:
                return
            if self._pending:
                FAULTS.drop(
                    "disk_full",
                    f"{self._path} was closed while it took no lines",
                    count=len(self._pending),
                )
                self._pending.clear()
                self._pending_bytes = 0
            fd, self._fd = self._fd, -1
            self._state = _BEHIND
            if fd >= 0:
                try:
                    os.close(fd)
                except OSError as error:  # a network file system reports a lost write here
                    self._say_failed(error)

    def _after_fork_in_child(self) -> None:
        # What is pending is the parent's to write, and the lock may be held by a thread
        # that does not exist here.
        self._lock = threading.RLock()
        self._state = _BEHIND
        self._rest = b""
        self._pending = deque()
        self._pending_bytes = 0


def _flock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: as if nobody else were there
        return True
    return True


_files: weakref.WeakSet[AppendFile] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    global _open_files_lock  # noqa: PLW0603 - the old one may be held for ever
    _open_files_lock = threading.RLock()
    for file in list(_files):
        file._after_fork_in_child()  # noqa: SLF001 - this module's own class


os.register_at_fork(after_in_child=_after_fork_in_child)

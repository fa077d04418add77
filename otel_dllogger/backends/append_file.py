"""A file that lines are appended to: whole, in order, and in the kernel on return.

There is no buffer in user space, so nothing is lost to SIGKILL or written twice by a
forked child. What the kernel refuses (a full disk, a quota, EIO) is kept in order,
within bounded memory, and offered again with the next line. So is what is logged while the
file's folder is gone, or while something that is not a file stands in its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
import weakref
from _thread import get_ident
from collections import deque
from typing import TYPE_CHECKING

from otel_dllogger.faults import FAULTS
from otel_dllogger.interruptions import let_through
from otel_dllogger.patience import MAIN_THREAD, Impatient, Patient

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PENDING_BYTES = 8 * 1024 * 1024
"""Bytes that are kept for a disk that is full; beyond it the oldest lines are dropped."""

MAX_WRITES_A_CALL = 256
"""Writes that one call makes at most, so that no call pays for a long outage alone."""

_LOCK_WAIT_S = 1.0  # others hold the exclusive lock for as long as it takes to open a file
_LOOK_S = 0.001
_LOOKS = 20  # in the end of a file, where nothing can be awaited: on a network file system

_fcntl, _GET_FLAGS = fcntl.fcntl, fcntl.F_GETFL  # looked up once for all lines

# What a file is in: open with nothing kept; in the middle of a write; or neither.
_READY, _WRITING, _BEHIND = "ready", "writing", "behind"

_PASSING_ERRNOS = frozenset(
    (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ESTALE,
        errno.EAGAIN,
        errno.ENXIO,  # a pipe that nobody reads
    )
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

    _fd = -1

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
        self._patient = Patient(self._lock)
        self._state = _BEHIND
        self._line = b""  # what is being written, or was refused
        self._written = 0  # bytes of it that are in the file
        self._pending: deque[bytes] = deque()  # the lines after it
        self._pending_bytes = 0
        self._identity: tuple[int, int] | None = None
        self._end = 0  # where the descriptor stands, as far as we have written
        self._mark = -1  # where it stood before a write that has not come back, else -1
        self._flags = 0  # of the descriptor
        self._lines = 0  # that went into the file since it was last looked for
        try:
            self._open(truncate=not append)
        except OSError as error:
            let_through(error)
            if error.errno not in _PASSING_ERRNOS:
                raise
            self._say_failed(error)
        else:
            self._state = _READY
        _files.add(self)

    def __del__(self) -> None:
        if self._fd >= 0:
            self.close()

    def _open(self, *, truncate: bool = False) -> None:
        # Without O_NONBLOCK, to open a pipe that nobody reads would wait for a reader for ever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o666)
        try:
            status = os.fstat(fd)
            regular = stat.S_ISREG(status.st_mode)
            if self.regular and not regular and self._identity is not None:
                raise OSError(errno.ENXIO, "what has its name is not a file")  # noqa: TRY301
            self.regular = regular
            end = 0
            if regular:
                self._claim(fd, truncate=truncate)
                end = os.lseek(fd, 0, os.SEEK_END)
            else:
                os.set_blocking(fd, True)  # who logs to a pipe wants whole lines in it
            identity = (status.st_dev, status.st_ino)
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        except BaseException:
            os.close(fd)
            raise
        # With no call in between, out of which a signal handler may raise.
        self._identity, self._flags = identity, flags
        self._fd, self._end, self._mark = fd, end, -1

    def _claim(self, fd: int, *, truncate: bool) -> None:
        """Empty the file or mend its end, whichever is asked and safe.

        Every writer holds a shared lock; only who can get the exclusive one empties the
        file. So 8 ranks that open one path with DLLogger's default mode keep each
        other's lines.
        """
        alone = _flock(fd, fcntl.LOCK_EX)
        if truncate and alone:
            os.ftruncate(fd, 0)
        elif truncate:
            FAULTS.warn(
                "shared_path",
                f"{self._path} is being written by another process: appending instead of "
                "emptying it; give each rank its own file, as in 'log_rank{rank}.json'",
            )
        if self._is_torn(fd, looks=1 if alone else _LOOKS):
            os.write(fd, b"\n")
            FAULTS.drop("torn_line", f"{self._path} ended in a torn line: a newline closes it")
        # The kernel gives the one lock up before it takes the other: who wants to empty
        # the file may come between, as long as nothing of ours is in it.
        deadline_s = time.monotonic() + _LOCK_WAIT_S
        while not _flock(fd, fcntl.LOCK_SH) and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)

    def _is_torn(self, fd: int, *, looks: int) -> bool:
        """Tell whether the file ends in half a line that nobody is about to complete."""
        try:
            reader = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:  # a file that we may write but not read
            let_through(error)
            return False
        try:
            first = os.fstat(fd).st_size
            for look in range(looks):
                if look:
                    _await_writer(fd)
                    time.sleep(_LOOK_S)
                size = os.fstat(fd).st_size
                if not size or size != first or os.pread(reader, 1, size - 1) == b"\n":
                    return False
            return True
        finally:
            os.close(reader)

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
        size = len(line)
        try:
            with self._lock if get_ident() == MAIN_THREAD.ident else self._patient:
                if self._state is not _READY:
                    self._keep(line)
                    if self._state is not _WRITING:  # else it is a signal handler that logs
                        self._drain(MAX_WRITES_A_CALL)
                    return
                self._state = _WRITING
                try:
                    fd = self._fd
                    if not self.regular or _fcntl(fd, _GET_FLAGS) != self._flags:
                        self._look_at(fd)
                    written = self._write(fd, line)
                except BaseException as error:
                    # Nothing but assignments stands between what is done and what is noted: a
                    # signal handler may raise at any call. ``_put`` finds out what was written.
                    self._line, self._written, self._mark = line, 0, self._end
                    self._state = _BEHIND
                    if not isinstance(error, OSError):
                        raise
                    let_through(error)
                    written, self._mark = 0, -1  # the next attempt meets the same error
                if written == size:
                    self._end += written
                    self._lines += 1
                    self._state = _READY
                    if not self._pending:  # of a signal handler that came before this was said
                        return
                else:
                    self._line, self._written, self._mark = line, written, -1
                    self._state = _BEHIND  # a handler may raise before the next call begins
                self._drain(MAX_WRITES_A_CALL)
        except Impatient:
            self._write_beside(line)

    def _write_beside(self, line: bytes) -> None:
        """Write a line where the lock is held for too long: by a descriptor of its own."""
        try:
            if self.regular:
                flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
                fd = os.open(self._path, flags, 0o666)
                try:
                    if stat.S_ISREG(os.fstat(fd).st_mode) and os.write(fd, line) == len(line):
                        return
                finally:
                    os.close(fd)
        except OSError as error:
            let_through(error)
        self._pending.append(line)

    def _keep(self, line: bytes) -> None:
        # A signal handler that logs can come at any call: none stands within a sum.
        size = len(line)
        self._pending.append(line)
        self._pending_bytes += size
        while self._pending_bytes > MAX_PENDING_BYTES and len(self._pending) > 1:
            size = len(self._pending.popleft())
            self._pending_bytes -= size
            FAULTS.drop(
                "disk_full", f"{self._path} takes no lines: the oldest kept ones are dropped"
            )

    def _drain(self, attempts: int) -> None:
        """Write what was kept, in order, until the disk refuses again."""
        self._state = _WRITING
        try:
            while attempts and (self._fd >= 0 or self._reopen()):
                attempts -= 1
                if not self._line:
                    if not self._pending:
                        self._pending_bytes = 0
                        break
                    # Noted before it is taken out: an exception may come with the call.
                    self._line, self._written, self._mark = self._pending[0], 0, -1
                    self._pending.popleft()
                    size = len(self._line)
                    self._pending_bytes -= size
                if not self._put():
                    break
        finally:
            behind = self._fd < 0 or self._line or self._pending
            self._state = _BEHIND if behind else _READY
        if self._pending and self._state is _READY:  # as in write_line
            self._drain(attempts)

    def _put(self) -> bool:
        """Write what is left of the line at hand; tell whether to go on."""
        try:
            self._look_at(self._fd)
            if self._is_written():
                return True
            self._mark = self._end
            rest = self._line[self._written :]
            size = len(rest)
            written = self._write(self._fd, rest)
        except OSError as error:
            let_through(error)
            self._mark = -1
            self._say_failed(error)
            if error.errno == errno.EBADF:  # somebody closed it: open it again
                self._fd = -1
            return self._fd < 0
        self._mark = -1
        self._end += written
        self._written += written
        if written == size:
            self._line = b""
            self._lines += 1
        return written > 0

    def _is_written(self) -> bool:
        """Tell whether the line at hand is in the file, where the last write did not come back.

        That is so where a signal handler raised when it was done. The descriptor stands where
        the last write ended: of a file it tells how much there was, of a pipe nothing does.
        """
        # The mark is given up together with what it told: at any call a signal handler may raise.
        mark = self._mark
        if not self.regular:
            if mark >= 0:  # nobody knows: a line that is lost is better than one that comes twice
                self._line, self._mark = b"", -1
            return mark >= 0
        moved = self._end - mark if mark >= 0 else 0
        size = len(self._line) - self._written
        if moved >= size > 0:
            self._line, self._mark = b"", -1
            self._lines += 1
            return True
        self._written, self._mark = self._written + moved, -1
        if self._written and os.fstat(self._fd).st_size != self._end:
            self._written = 0  # somebody has closed our half a line, and gone on
        return False

    def _look_at(self, fd: int) -> None:
        """See whether a descriptor is of our file, as it is where nobody closed it.

        Where somebody did, its number may be another file's by now. A descriptor's flags cost
        a fifth of its status, and ours are hardly anybody's: so before a line that nothing
        stands in the way of, they alone are looked at.

        Raises:
            OSError: If it is not: EBADF.
        """
        if _identity(fd) != self._identity:
            raise OSError(errno.EBADF, "somebody closed it")
        self._flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if self.regular:
            self._end = os.lseek(fd, 0, os.SEEK_CUR)

    def _reopen(self) -> bool:
        """Open the path again after a close, our own or somebody else's, or a rotation."""
        try:
            self._open()
        except OSError as error:
            let_through(error)
            self._say_failed(error)
            return False
        self._written = 0  # what was begun elsewhere is begun anew
        return True

    def check_path(self) -> None:
        """Open the path anew where it no longer names the open file: rotated or deleted."""
        self._do(self._check_path)

    def _check_path(self) -> None:
        if self._fd < 0 or self._state is _WRITING or not self.regular:
            return
        lines, self._lines = self._lines, 0
        if _identity(self._path) == self._identity:
            return
        try:
            links = os.fstat(self._fd).st_nlink
            self._look_at(self._fd)
            self._is_written()  # of a write that did not come back, this file alone tells
        except OSError as error:  # closed by somebody, which the next write sees to
            let_through(error)
            return
        lines, self._lines = lines + self._lines, 0
        old_fd = self._fd
        if self._reopen():
            os.close(old_fd)
        elif not links:  # the lines wait, as for a disk that is full
            self._fd = -1
            os.close(old_fd)
        if self._fd < 0 or self._line or self._pending:
            self._state = _BEHIND
        if links:
            FAULTS.warn(
                "file_moved",
                f"{self._path} was moved: lines go to a new file of that name, as soon as "
                "there can be one",
            )
        elif lines:
            self._count_deleted(lines)

    def _count_deleted(self, lines: int) -> None:
        FAULTS.drop(
            "file_replaced",
            f"{self._path} was deleted: the lines of the last second went with it, the next "
            "ones go to a new file",
            count=lines,
        )

    def _do(self, what: Callable[[], object]) -> None:
        """Do something that may as well be left undone where another thread is at work."""
        try:
            with self._lock if get_ident() == MAIN_THREAD.ident else self._patient:
                what()
        except Impatient:
            pass

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
        self._do(self._flush)

    def _flush(self) -> None:
        if (self._line or self._pending) and self._state is not _WRITING:
            self._drain(len(self._pending) + MAX_WRITES_A_CALL)

    def close(self) -> None:
        """Flush and close the descriptor; a line that comes later opens it again."""
        self._do(self._close)

    def _close(self) -> None:
        self._flush()
        if self._state is _WRITING:
            return
        if lost := len(self._pending) + bool(self._line):
            FAULTS.drop(
                "disk_full",
                f"the last lines of {self._path} are lost, {lost} of them: the disk took none "
                "until the end",
                count=lost,
            )
        self._forget()
        fd, self._fd = self._fd, -1
        if fd >= 0 and _identity(fd) == self._identity:  # else somebody closed it before
            if self._lines and not os.fstat(fd).st_nlink:
                self._count_deleted(self._lines)
            try:
                os.close(fd)
            except OSError as error:  # a network file system reports a lost write here
                let_through(error)
                self._say_failed(error)

    def _forget(self) -> None:
        self._state = _BEHIND
        self._line = b""
        self._pending.clear()
        self._pending_bytes = 0

    def _after_fork_in_child(self) -> None:
        # What is pending is the parent's to write, and its lock may be held by a thread that
        # does not exist here. The descriptor shares the parent's flock: a child that
        # outlives it would keep the next run from emptying the file.
        self._lock = threading.RLock()
        self._patient = Patient(self._lock)
        self._forget()
        if self._fd >= 0 and self.regular:
            fd, self._fd = self._fd, -1
            if _identity(fd) == self._identity:
                os.close(fd)


def _identity(file: int | str) -> tuple[int, int] | None:
    try:
        status = os.stat(file)  # noqa: PTH116 - twice as fast
    except OSError as error:
        let_through(error)
        return None
    return status.st_dev, status.st_ino


def _await_writer(fd: int) -> None:
    """Return when the write that is under way, if there is one, has come to its end.

    A file grows while a long line is written to it, for as long as the disk and the scheduler
    please. A change of a file's times has to wait for that: both hold the inode's lock.
    """
    try:
        os.utime(fd)
    except OSError as error:
        let_through(error)


def _flock(fd: int, operation: int) -> bool:
    try:
        fcntl.flock(fd, operation | fcntl.LOCK_NB)
    except BlockingIOError as error:
        let_through(error)
        return False
    except OSError as error:  # a file system without locks: as if nobody else were there
        let_through(error)
        return True
    return True


_files: weakref.WeakSet[AppendFile] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    global _open_files_lock  # noqa: PLW0603 - the old one may be held for ever
    _open_files_lock = threading.RLock()
    for file in list(_files):
        file._after_fork_in_child()  # noqa: SLF001 - this module's own class


os.register_at_fork(after_in_child=_after_fork_in_child)

"""A file that lines are appended to, whole, in order, and in the kernel on return.

There is no buffer in user space, so nothing is lost to SIGKILL or written twice by a
forked child. What the kernel refuses (a full disk, a quota, EIO) is kept in order, in a limited
amount of memory, and offered again with the next line. So are lines that are logged while the
file's folder is gone, or while something other than a file is in its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.runtime import fork
from otel_dllogger.runtime.interruptions import let_through
from otel_dllogger.runtime.locks import LockTimeout, locked

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_PENDING_BYTES = 8 * 1024 * 1024
"""The most bytes that are kept while a disk is full; beyond that the oldest lines are dropped."""

MAX_WRITES_A_CALL = 256
"""The most writes that one call makes, so that no single call pays for a long outage."""

_LOCK_WAIT_S = 1.0  # others hold the exclusive lock only as long as it takes to open a file
_LOOK_S = 0.001
_LOOKS = 20  # at the end of a file whose writer cannot be awaited, as on a network file system

_fcntl, _GET_FLAGS = fcntl.fcntl, fcntl.F_GETFL  # looked up once for all lines

# The states of a file: open with nothing kept; in the middle of a write; or neither.
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


class AppendFile:
    """A file to which whole lines are appended, with one ``write`` each.

    Args:
        path: The file.
        append: Whether to keep the content of the file.
        write: ``os.write``, or in a test a function that simulates a failing disk.

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
        self.users: dict[int, Callable[[], object]] = {}  # by id: references to who has it open
        self._path = os.path.abspath(path)  # noqa: PTH100 - keeps links
        self._write = write
        self._lock = threading.RLock()
        self._state = _BEHIND
        self._line = b""  # the line that is being written, or was refused
        self._written = 0  # how many of its bytes are in the file
        self._pending: deque[bytes] = deque()  # the lines after it
        self._pending_bytes = 0
        self._given_up: tuple[bytes, deque[bytes]] | None = None  # lost, and to be counted
        self._identity: tuple[int, int] | None = None
        self._end = 0  # the descriptor's position after our last write
        self._mark = -1  # its position before a write that has not returned, else -1
        self._flags = 0  # the descriptor's flags
        self._lines = 0  # lines that went into the file since its path was last checked
        try:
            self._open(truncate=not append)
        except OSError as error:
            let_through(error)
            if error.errno not in _PASSING_ERRNOS:
                raise
            self._say_failed(error)
        else:
            self._state = _READY
        fork.register(self)

    def __del__(self) -> None:
        if self._fd >= 0:
            self.close()

    def _open(self, *, truncate: bool = False) -> None:
        # Without O_NONBLOCK, opening a pipe that nobody reads would wait for a reader for ever.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
        fd = os.open(self._path, flags, 0o666)
        try:
            status = os.fstat(fd)
            regular = stat.S_ISREG(status.st_mode)
            if self.regular and not regular and self._identity is not None:
                raise OSError(errno.ENXIO, "its path is no longer a file")  # noqa: TRY301
            self.regular = regular
            end = 0
            if regular:
                self._claim(fd, truncate=truncate)
                end = os.lseek(fd, 0, os.SEEK_END)
            else:
                os.set_blocking(fd, True)  # a pipe should get whole lines
            identity = (status.st_dev, status.st_ino)
            flags = fcntl.fcntl(fd, fcntl.F_GETFL)
            written = self._mark >= 0 and (identity != self._identity or self._is_found())
        except BaseException:
            os.close(fd)
            raise
        # There is no call in between, during which a signal handler could raise.
        self._identity, self._flags = identity, flags
        self._fd, self._end, self._mark = fd, end, -1
        self._written = 0  # a line that was begun before is written again as a whole
        if written:
            self._line = b""

    def _claim(self, fd: int, *, truncate: bool) -> None:
        """Empty the file if that is asked for and safe, and close a torn line at its end.

        Every writer holds a shared lock; only a process that can get the exclusive lock empties
        the file. So 8 ranks that open one path with DLLogger's default mode keep each other's
        lines.
        """
        alone = _flock(fd, fcntl.LOCK_EX)
        if truncate and alone:
            os.ftruncate(fd, 0)
        elif truncate:
            DIAGNOSTICS.warn(
                "shared_path",
                f"{self._path} is being written by another process: appending instead of "
                "emptying it; give each rank its own file, as in 'log_rank{rank}.json'",
            )
        if self._is_torn(fd, looks=1 if alone else _LOOKS):
            os.write(fd, b"\n")
            DIAGNOSTICS.count(
                "torn_line",
                f"{self._path} ended in the middle of a line, after an earlier kill: a newline "
                "was added",
            )
        # The kernel gives up one lock before it takes the other: a process that wants to empty
        # the file may come in between, which is harmless while the file has no lines of ours.
        deadline_s = time.monotonic() + _LOCK_WAIT_S
        while not _flock(fd, fcntl.LOCK_SH) and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)

    def _is_torn(self, fd: int, *, looks: int) -> bool:
        """Return whether the file ends in half a line that no process is about to complete."""
        reader = self._open_to_read()
        if reader < 0:
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

    def _is_found(self) -> bool:
        """Return whether the current line is in the file that was just opened again.

        Its last write did not return, and other code then closed the descriptor, which alone
        knew how much was written. As for a pipe, a line is given up where nothing tells: it is
        better lost than written twice.
        """
        reader = self._open_to_read() if self.regular else -1
        if reader < 0:
            return True
        try:
            rest = self._line[self._written :]
            after = os.pread(reader, MAX_PENDING_BYTES, self._mark)
        finally:
            os.close(reader)
        return after.startswith(rest) or (not self._written and b"\n" + rest in after)

    def _open_to_read(self) -> int:
        """Return a descriptor to read the file, -1 for a file that we may write but not read."""
        try:
            return os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            let_through(error)
            return -1

    @property
    def end(self) -> int:
        """Return where the last line ended that this process wrote."""
        return self._end

    @property
    def closed(self) -> bool:
        """Return whether the descriptor is closed; a later line opens the file again."""
        return self._fd < 0

    def fileno(self) -> int:
        """Return the descriptor, -1 when closed."""
        return self._fd

    def write_line(self, line: bytes) -> None:
        """Append a line, which is in the kernel on return, or kept until the disk takes it.

        Args:
            line: The line, including its newline.
        """
        lock = self._lock
        try:
            locked(lock, self._append, line, lock)
        except LockTimeout:
            self._write_beside(line)

    # In one function, since a call would let signals in.
    def _append(self, line: bytes, lock: threading.RLock) -> None:  # noqa: PLR0912
        """Append a line under a lock; a child that a signal handler forks has another one."""
        size = len(line)
        if self._state is not _READY:
            if self._lock is not lock:
                return
            self._keep(line)
            if self._state is not _WRITING:  # otherwise this is a signal handler that logs
                self._drain(MAX_WRITES_A_CALL)
            return
        self._state = _WRITING
        try:
            fd = self._fd
            if not self.regular or _fcntl(fd, _GET_FLAGS) != self._flags:
                self._look_at(fd)
            if self._lock is not lock:  # the line is the parent's to write
                return
            written = self._write(fd, line)
        # Between an action and the note of it there are only assignments, since a signal
        # handler may raise, or log, at any call. ``_put`` finds out what was written.
        except OSError as error:
            if self._lock is not lock:
                return
            self._line, self._written, self._mark = line, 0, self._end
            try:
                let_through(error)
                self._mark = -1  # not a handler's: the next attempt meets the same error
            finally:
                self._state = _BEHIND
        except BaseException:
            if self._lock is lock:
                self._line, self._written, self._mark = line, 0, self._end
                self._state = _BEHIND
            raise
        else:
            if self._lock is not lock:
                return
            if written == size:
                self._end += written
                self._lines += 1
                self._state = _READY
                if not self._pending:  # else a handler logged before _READY was set
                    return
            else:
                self._line, self._written, self._mark = line, written, -1
                self._state = _BEHIND
        self._drain(MAX_WRITES_A_CALL)

    def _write_beside(self, line: bytes) -> None:
        """Write a line through a separate descriptor, since the lock was held for too long."""
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
        # A signal handler that logs can interrupt at any call, so there is no call within a sum.
        size = len(line)
        self._pending.append(line)
        self._pending_bytes += size
        while self._pending_bytes > MAX_PENDING_BYTES and len(self._pending) > 1:
            size = len(self._pending.popleft())
            self._pending_bytes -= size
            DIAGNOSTICS.count(
                "disk_full",
                f"{self._path} cannot be written: the oldest of the lines kept in memory are "
                "dropped",
            )

    def _drain(self, attempts: int) -> None:
        """Write the kept lines in order until the disk refuses again."""
        self._state = _WRITING
        # No more than a call: a ``break`` out of it is a jump for which Python 3.14 no longer
        # runs the ``finally`` if a signal handler raises there.
        try:
            attempts = self._put_kept(attempts)
        finally:
            behind = self._fd < 0 or self._line or self._pending
            self._state = _BEHIND if behind else _READY
        if self._pending and self._state is _READY:  # as in write_line
            self._drain(attempts)

    def _put_kept(self, attempts: int) -> int:
        """Write the kept lines until the disk refuses; return how many attempts are left."""
        while attempts and (self._fd >= 0 or self._reopen()):
            attempts -= 1
            if not self._line:
                if not self._pending:
                    self._pending_bytes = 0
                    break
                # Noted before it is removed, since an exception may come with the call.
                self._line, self._written, self._mark = self._pending[0], 0, -1
                self._pending.popleft()
                size = len(self._line)
                self._pending_bytes -= size
            if not self._put():
                break
        return attempts

    def _put(self) -> bool:
        """Write the rest of the current line; return whether to go on."""
        # It is another line in a child that a signal handler forks meanwhile.
        line, mark = self._line, self._mark
        try:
            self._look_at(self._fd)
            if self._is_written():
                return True
            rest = line[self._written :]
            size = len(rest)
            if self._line is not line:
                return False
            mark, self._mark = -1, self._end
            written = self._write(self._fd, rest)
        except OSError as error:
            let_through(error)
            self._mark = mark  # of an earlier write: this one has returned, or was not made
            self._say_failed(error)
            if error.errno == errno.EBADF:  # something closed it: open it again
                self._fd = -1
            return self._fd < 0
        if self._line is not line:
            return False
        self._mark = -1
        self._end += written
        self._written += written
        if written == size:
            self._line = b""
            self._lines += 1
        return written > 0

    def _is_written(self) -> bool:
        """Return whether the current line is in the file, if the last write did not return.

        A write does not return if a signal handler raised after it was done. The position of the
        descriptor is where the last write ended: for a file it tells how much was written, for a
        pipe nothing does.
        """
        # The mark is given up together with what it told: at any call a signal handler may raise.
        mark = self._mark
        if not self.regular:
            if mark >= 0:  # unknown: a lost line is better than one that is written twice
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
            self._written = 0  # another writer has ended our half a line and gone on
        return False

    def _look_at(self, fd: int) -> None:
        """Check that a descriptor still refers to our file, since other code may have closed it.

        If it was closed, its number may now belong to another file. Reading a descriptor's flags
        takes a fifth of the time of its status, and hardly any other file has the same flags as
        ours. So before an ordinary line only the flags are compared.

        Raises:
            OSError: With EBADF, if it does not.
        """
        if _identity(fd) != self._identity:
            raise OSError(errno.EBADF, "something else closed it")
        self._flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        if self.regular:
            self._end = os.lseek(fd, 0, os.SEEK_CUR)

    def _reopen(self) -> bool:
        """Open the path again after a rotation, or after we or other code closed the file."""
        try:
            self._open()
        except OSError as error:
            let_through(error)
            self._say_failed(error)
            return False
        return True

    def check_path(self) -> None:
        """Open the path again if it no longer names the open file, which was moved or deleted."""
        self._do(self._check_path)

    def _check_path(self) -> None:
        if self._fd < 0 or self._state is _WRITING or not self.regular:
            return
        lines, self._lines = self._lines, 0
        if _identity(self._path) == self._identity:
            return
        self._state = _WRITING
        try:
            self._follow_path(lines)
        finally:
            behind = self._fd < 0 or self._line or self._pending
            self._state = _BEHIND if behind else _READY

    def _follow_path(self, lines: int) -> None:
        """Open the path again, and say what becomes of the lines since its last check."""
        try:
            links = os.fstat(self._fd).st_nlink
            self._look_at(self._fd)
            self._is_written()  # only this file knows how much an interrupted write has written
        except OSError as error:  # closed by other code; the next write handles that
            let_through(error)
            return
        lines, self._lines = lines + self._lines, 0
        old_fd = self._fd
        if self._reopen():
            os.close(old_fd)
        elif not links:  # the lines wait, as they do for a full disk
            self._fd = -1
            os.close(old_fd)
        if links:
            DIAGNOSTICS.warn(
                "file_moved",
                f"{self._path} was moved: lines go to a new file with that name once it can be "
                "created",
            )
        elif lines:
            self._count_deleted(lines)

    def _count_deleted(self, lines: int) -> None:
        DIAGNOSTICS.count(
            "file_replaced",
            f"{self._path} was deleted: the lines since its last check, about a second before, "
            "are lost with it; the next ones go to a new file",
            count=lines,
        )

    def _do(self, what: Callable[[], object]) -> None:
        """Call a function, or skip it if another thread holds the lock for too long."""
        try:  # noqa: SIM105 - at the call of anything else, a signal handler may raise
            locked(self._lock, what)
        except LockTimeout:
            pass

    def _say_failed(self, error: OSError) -> None:
        DIAGNOSTICS.warn(
            "write_failed",
            f"{self._path} cannot be written now ({error.strerror}): up to "
            f"{MAX_PENDING_BYTES >> 20} MiB of lines are kept in memory and written later",
        )

    def write(self, text: str) -> int:
        """Append text unchanged, for scripts that write to DLLogger's file themselves."""
        self.write_line(text.encode("utf-8", "surrogatepass"))
        return len(text)

    def flush(self) -> None:
        """Write again what a full disk refused; nothing else is ever held back."""
        self._do(self._flush)

    def _flush(self) -> None:
        if (self._line or self._pending) and self._state is not _WRITING:
            self._drain(len(self._pending) + MAX_WRITES_A_CALL)

    def close(self) -> None:
        """Flush and close the descriptor; a later line opens the file again."""
        self._do(self._close)

    def _close(self) -> None:
        self._flush()
        if self._state is _WRITING:
            return
        self._give_up()
        # Only assignments: from here on, a signal handler that logs opens the file again.
        fd, self._fd, self._state = self._fd, -1, _BEHIND
        identity = self._identity
        if fd >= 0 and _identity(fd) == identity:  # otherwise other code closed it before
            if self._lines and not os.fstat(fd).st_nlink:
                self._count_deleted(self._lines)
            try:
                os.close(fd)
            except OSError as error:  # a network file system reports a lost write here
                let_through(error)
                self._say_failed(error)

    def _give_up(self) -> None:
        """Count the kept lines as lost.

        At any call a signal handler may log, close the file, or raise. So the lines are taken
        out first, which none of them can divide, and what was taken is counted once.
        """
        total = 0
        empty: deque[bytes] = deque()
        try:
            while self._line or self._pending or self._given_up:
                if not self._given_up:
                    self._given_up = self._line, self._pending
                    self._line, self._written, self._mark = b"", 0, -1
                    self._pending, self._pending_bytes = empty, 0
                given_up = self._given_up
                lost = len(given_up[1]) + bool(given_up[0])
                empty = deque()
                if self._given_up is given_up:  # else a handler closed the file
                    self._given_up = None
                    DIAGNOSTICS.uncounted += [("disk_full", lost)]
                    total += lost
            if total:
                DIAGNOSTICS.count(
                    "disk_full",
                    f"{self._path} could not be written before it was closed: the lines kept in "
                    f"memory are lost, {total} in all",
                    count=0,
                )
        finally:
            DIAGNOSTICS.add_up()

    def after_fork_in_child(self) -> None:
        """Drop the parent's pending lines, and open the file again with the next line."""
        # Pending lines are the parent's to write, and the lock may be held by a thread that
        # does not exist here. The descriptor shares the parent's flock: a child that
        # outlives the parent would keep the next run from emptying the file.
        self._lock = threading.RLock()
        self._pending, self._pending_bytes, self._given_up = deque(), 0, None
        self._line, self._mark = b"", -1
        self._state = _BEHIND
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
    """Wait until the current write to the file, if there is one, has ended.

    A file grows while a long line is written to it, for as long as the disk and the scheduler
    take. A change of the file's times has to wait for the write: both hold the inode's lock.
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
    except OSError as error:  # a file system without locks: assume there is no other process
        let_through(error)
        return True
    return True

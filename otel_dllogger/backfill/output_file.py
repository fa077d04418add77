"""The file that a backfill writes: whole or not at all, and standard output for ``-``."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from otel_dllogger.errors import BackfillError, in_words
from otel_dllogger.runtime.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator

STDOUT = "-"
"""Stands for standard output in place of a file's path."""


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file, which appears once it is whole; what is not a regular file is written to.

    Args:
        path: The file, which may be there already, or ``-``. Its folder must exist.

    Raises:
        BackfillError: If it cannot be written.
        BrokenPipeError: If the reader of standard output has seen enough.
    """
    path = os.fspath(path)
    try:
        if path == STDOUT:
            with _standard_output() as output:
                yield output
        elif os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 - no Path
            with open(path, "wb") as device:  # noqa: PTH123 - a pipe, /dev/stdout
                yield device
        else:
            with _replacing_file(path) as file:
                yield file
    except BrokenPipeError:
        if path == STDOUT:
            raise
        raise _error(path, "its reader has gone") from None
    except OSError as error:
        name = "standard output" if path == STDOUT else path
        raise _error(name, in_words(error)) from error


def _error(path: str, words: str) -> BackfillError:
    return BackfillError(f"{path} cannot be written ({words}): name another file, or make room")


@contextlib.contextmanager
def _standard_output() -> Iterator[BinaryIO]:
    if sys.stdout is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    sys.stdout.flush()
    yield sys.stdout.buffer
    sys.stdout.buffer.flush()


@contextlib.contextmanager
def _replacing_file(path: str) -> Iterator[BinaryIO]:
    # Next to the file that a link leads to; otherwise the link would be lost.
    path = os.path.realpath(path)
    descriptor, temporary = _open_temporary(path)
    mode = 0o666 & ~_umask()
    with replacing(path, temporary, descriptor=descriptor, mode=mode, sync=os.fsync) as file:
        yield file


def _open_temporary(path: str) -> tuple[int, str]:
    """Return a new, locked file beside another one, and remove those that a kill has left there.

    The lock ends with its process, however that ends.
    """
    folder, name = os.path.split(path)
    prefix = f".{name[:100]}."
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        pattern = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}\.tmp")
        for entry in entries:
            if pattern.fullmatch(entry.name):
                _remove_if_left(entry.path)
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=".tmp")
        with contextlib.suppress(OSError):  # a file system without locks: nobody removes it
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # another backfill removed it before it was locked


def _remove_if_left(path: str) -> None:
    """Remove a temporary file if no process is writing it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                os.unlink(path)  # noqa: PTH108 - no Path here
        finally:
            os.close(descriptor)


def _umask() -> int:
    # The only way to read it is to set it; nothing else in the process makes files here.
    umask = os.umask(0)
    os.umask(umask)
    return umask

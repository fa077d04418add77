"""Small files of the package's own: read whole, and replaced whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES = 1 << 28
"""The longest file that is read whole, if nothing else is said."""


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str],
    temporary: str | os.PathLike[str],
    *,
    descriptor: int | None = None,
    exclusive: bool = False,
    mode: int = 0o600,
    sync: Callable[[int], object] | None = None,
) -> Iterator[BinaryIO]:
    """Write a file beside another one, and put it in its place when all is written.

    Whoever reads ``path`` finds the old content or the new one, also after a kill. After an
    error the old one is still there, and the temporary file is not.

    Args:
        path: The file, which may be missing; a link there is replaced, not followed.
        temporary: The file to write, in the same folder. What a kill has left there is emptied;
            a link is not followed, and a pipe is not waited for.
        descriptor: The temporary file where it is open already; it is closed.
        exclusive: Whether nothing may be there yet.
        mode: Its permissions, whatever the umask says.
        sync: ``os.fsync``, to have the content on the disk before it is in its place, and its
            name thereafter.

    Raises:
        OSError: If it cannot be written.
    """
    if descriptor is None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        flags |= os.O_EXCL if exclusive else os.O_TRUNC
        descriptor = os.open(temporary, flags, mode)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a number, not a path
            yield file
            file.flush()
            os.fchmod(descriptor, mode)
            if sync is not None:
                sync(descriptor)
        os.replace(temporary, path)  # noqa: PTH105 - pathlib takes longer to import
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)  # noqa: PTH108 - as above
        raise
    if sync is not None:
        folder = os.open(os.path.dirname(os.fspath(path)) or ".", os.O_RDONLY)  # noqa: PTH120
        try:
            with contextlib.suppress(OSError):  # some file systems cannot sync a folder
                sync(folder)
        finally:
            os.close(folder)


def read_regular(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES, follow: bool = True
) -> bytes:
    """Read a file whole; never wait for anybody.

    Args:
        path: The file.
        max_bytes: The longest that is read.
        follow: Whether a symbolic link may lead to it.

    Raises:
        OSError: If it is not a regular file, is too large, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, "too large", os.fspath(path))
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(max_bytes)
    finally:
        os.close(descriptor)

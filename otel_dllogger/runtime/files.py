"""Read and write the package's small files; a file is replaced as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_BYTES = 1 << 28
"""The default for the size of the largest file that is read."""


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
    """Write a temporary file, and move it to its final path when all is written.

    Readers of ``path`` find either the old or the new content, even after a kill. After an
    error the old content is still there, and the temporary file is not.

    Args:
        path: The final path, where no file need exist; a link there is replaced, not followed.
        temporary: The file to write, in the same folder. What a kill left there is truncated;
            a link is not followed, and a pipe does not block.
        descriptor: The temporary file's descriptor if it is already open; it is closed.
        exclusive: Whether the temporary file must not exist yet.
        mode: The file's permissions, whatever the umask says.
        sync: ``os.fsync``, to have the content on disk before the file is moved, and its name
            afterwards.

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
    """Read a whole file, without ever blocking.

    Args:
        path: The file.
        max_bytes: The size of the largest file that is read.
        follow: Whether ``path`` may be a symbolic link.

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

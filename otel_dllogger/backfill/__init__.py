"""Write past runs, as series with the times of their steps, to several kinds of databases."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from otel_dllogger.errors import BackfillError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def alone(folder: Path, *, doing: str, follow: bool = True) -> Iterator[None]:
    """Lock a folder against all other backfills; a kill releases it as well.

    Args:
        folder: The folder that both would use.
        doing: What another backfill that holds it is doing, such as ``writing to data``.
        follow: Whether it may be a link to a folder.

    Raises:
        BackfillError: If another backfill holds it.
        OSError: If it is not a folder, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(folder, flags)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackfillError(
                f"another backfill is {doing}: run this again when it has ended"
            ) from None
        yield
    finally:
        os.close(descriptor)

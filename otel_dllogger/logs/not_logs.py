"""Refuse what a user named as a log that can never be one, instead of waiting for its records."""

from __future__ import annotations

import codecs
import os
import stat
from typing import TYPE_CHECKING

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.logs.parsers.tfrecord import HEADER_BYTES, frame_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEAD_BYTES = 4096
_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def refuse_not_logs(paths: Sequence[str]) -> None:
    """Refuse paths if none of them is, or can become, a log.

    One log among other files is enough: a shell gives all names that ``runs/*`` matches.

    Args:
        paths: Files, folders and globs; what is missing may come later.

    Raises:
        ConfigurationError: If each path is a file that is not a log.
    """
    why = [reason for path in paths if (reason := _why_not(path)) is not None]
    if not why or len(why) < len(paths):
        return
    none = f"; none of {len(why):,} files is a log" if len(why) > 1 else ""
    raise ConfigurationError(f"{why[0]}{none}")


def _why_not(path: str) -> str | None:
    """Return why a path cannot be a log, None if it may be one."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - paths are text, and may be globs
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
            kind = "a socket" if stat.S_ISSOCK(mode) else "a device"
            return f"{path} is {kind}, not a log; pass the log itself"
        if not stat.S_ISREG(mode):
            return None
        with open(path, "rb") as file:  # noqa: PTH123 - as above
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError):  # whoever reads it says so
        return None
    if head.startswith(_GZIP):
        return f"{path} is compressed; unpack it first"
    if _is_binary(head):
        return f"{path} is a binary file, not a log; pass the log itself"
    return None


def _is_binary(head: bytes) -> bool:
    if b"\0" not in head or head.startswith((b"\0", *_UTF16)):  # NULs first: a power failure
        return False
    return len(head) < HEADER_BYTES or frame_bytes(head) is None  # of TensorBoard

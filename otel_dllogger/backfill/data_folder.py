"""A Prometheus data folder: what is one, what is in it, and whose it is."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import orjson

from otel_dllogger.errors import BackfillError
from otel_dllogger.runtime.files import read_regular

FOLDER = "otel-dllogger-backfill"
"""The folder in the data folder that is ours; Prometheus ignores it.

Without a dot in front, so that who empties the data folder with ``*`` removes it as well.
"""

_MARKS = ("wal", "chunks_head", "queries.active", "lock", FOLDER)
_BLOCK = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")  # a ULID
_REMOVALS = 50


class DataFolder:
    """Find a Prometheus data folder, which may be empty.

    Args:
        path: The folder that ``--storage.tsdb.path`` names.

    Raises:
        BackfillError: If it is none, or is another user's.
        OSError: If it cannot be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path = Path(path)
        if not path.is_dir():
            raise BackfillError(
                f"{path} is not a folder: give the data folder of Prometheus, which its flag "
                "--storage.tsdb.path names; an empty one for a new Prometheus is made with mkdir"
            )
        if any(path.iterdir()) and not _is_data_folder(path):
            nearby = path / "data"
            hint = (
                f"did you mean {nearby}?"
                if _is_data_folder(nearby)
                else ("give the one that its flag --storage.tsdb.path names, or an empty one")
            )
            raise BackfillError(f"{path} is not a data folder of Prometheus: {hint}")
        status = path.stat()
        self._owner = status.st_uid, status.st_gid
        if os.geteuid() not in (0, status.st_uid):
            raise BackfillError(
                f"{path} belongs to {_user_name(status.st_uid)}, and Prometheus can only use "
                f"blocks of its own: run this as that user (sudo -u {_user_name(status.st_uid)})"
            )

    def blocks(self) -> dict[str, tuple[int, int]]:
        """Return the first millisecond and the end of each block, by its name."""
        times_ms = {}
        for path in self.path.iterdir():
            if is_block(path) and (meta := read_meta(path)) is not None:
                times_ms[path.name] = meta["minTime"], meta["maxTime"]
        return times_ms

    def give_to_owner(self, path: Path) -> None:
        """Make a file, or a folder with all that is in it, that of the folder's owner."""
        if os.geteuid() != 0:
            return
        os.lchown(path, *self._owner)
        for folder, folders, files in os.walk(path):
            for name in (*folders, *files):
                os.lchown(os.path.join(folder, name), *self._owner)  # noqa: PTH118 - of os.walk

    def sync(self) -> None:
        """Have the names of what was moved here on the disk."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_block(path: Path) -> bool:
    """Tell whether a path is named as a block."""
    return _BLOCK.fullmatch(path.name) is not None


def read_meta(block: Path) -> dict[str, Any] | None:
    """Return what a block says of itself; None for one that is not whole, or is gone."""
    try:
        meta: dict[str, Any] = orjson.loads(read_regular(block / "meta.json"))
        is_whole = type(meta["minTime"]) is int and type(meta["maxTime"]) is int
        return meta if is_whole else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def remove_tree(path: Path) -> None:
    """Remove a folder, in which a process that was left behind may still write.

    Raises:
        OSError: If it cannot be removed.
    """
    for _ in range(_REMOVALS):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.02)
    shutil.rmtree(path)


def _is_data_folder(path: Path) -> bool:
    return any((path / mark).exists() for mark in _MARKS) or (
        path.is_dir() and any(is_block(block) and read_meta(block) for block in path.iterdir())
    )


def _user_name(uid: int) -> str:
    import pwd  # noqa: PLC0415 - for an error only

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"

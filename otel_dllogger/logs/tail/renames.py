"""Where a file is that is not found by its name any more: ``train.log`` is ``train.log.1``."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_dllogger.logs.tail.file_state import FollowedFile
    from otel_dllogger.logs.tail.fingerprint import Key


class Whereabouts:
    """Look for files in the folders they were in; made anew for each round."""

    def __init__(self) -> None:
        self._names: dict[str, dict[int, str]] = {}

    def find(self, file: FollowedFile) -> os.stat_result | None:
        """Return the status of a file, and put its path right; None if it is not there.

        Args:
            file: The file.
        """
        status = _status_if(file.path, file.key)
        if status is not None:
            return status
        if file.version is None and not file.mark.offset:
            return None  # nothing would tell another file with this inode from it
        folder = os.path.dirname(file.path)  # noqa: PTH120 - a Path costs more than the call
        if folder not in self._names:
            self._names[folder] = _names_by_inode(folder)
        name = self._names[folder].get(file.key.inode)
        if name is None:
            return None
        path = f"{folder.rstrip('/')}/{name}"
        status = _status_if(path, file.key)
        if status is not None:
            file.path = path
        return status


def _status_if(path: str, key: Key) -> os.stat_result | None:
    """Return the status of a path if it is still this regular file."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    same = key == (status.st_dev, status.st_ino) and stat.S_ISREG(status.st_mode)
    return status if same else None


def _names_by_inode(folder: str) -> dict[int, str]:
    try:
        with os.scandir(folder) as entries:
            return {entry.inode(): entry.name for entry in entries}
    except OSError:
        return {}

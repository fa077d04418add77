"""The console's capture beside the JSON lines of one process: the same records twice."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.logs.run_identity import RunIdentities

_HEAD_BYTES = 1 << 16
_JSON = b"DLLL {"
_TEXT = re.compile(rb"DLLL? \d{4}-\d\d-\d\d ")


def is_text(line: bytes) -> bool:
    """Tell whether a line has a record of DLLogger's StdOutBackend."""
    return _TEXT.search(line) is not None


def has_json_twin(path: str, identities: RunIdentities, covers: Callable[[str], bool]) -> bool:
    """Tell whether DLLogger's JSON lines stand beside its text, of the same run and rank.

    Scripts have both backends as a rule, and ``| tee train.log``. The JSON lines hold more.

    Args:
        path: A file with records of DLLogger's StdOutBackend.
        identities: Whose lines a file holds.
        covers: Tells of another file whether it is read at all.
    """
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - links stay
    identity = identities.of(path)
    try:
        with os.scandir(folder) as entries:
            return any(
                entry.name != name
                and entry.is_file()
                and covers(entry.path)
                and identities.of(entry.path)[:2] == identity[:2]
                and _JSON in _head(entry.path)
                for entry in entries
            )
    except OSError:
        return False


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as everywhere where paths are text
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""

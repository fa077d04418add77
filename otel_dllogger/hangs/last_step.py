"""The last step in a log, read from its end, so that nothing else has to remember it."""

from __future__ import annotations

import json
import os
from typing import Any, NamedTuple

_TAIL_BYTES = 1 << 16


class LastStep(NamedTuple):
    """The last step in a log.

    Attributes:
        step: The step as types of Python's JSON.
    """

    step: Any

    @property
    def is_summary(self) -> bool:
        """Return whether it is the summary of the run, after which nothing is expected."""
        return bool(self.step == [])


def read_last_step(path: str, start: int) -> LastStep | None:
    """Return the last step in a log, None if there is none near its end.

    Args:
        path: The log, with DLLogger's JSON lines.
        start: The offset at which this process began to write.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes longer to import
            size = file.seek(0, os.SEEK_END)
            # A log that is shorter now was rotated.
            file.seek(max(size - _TAIL_BYTES, start if start <= size else 0, 0))
            lines = file.read(_TAIL_BYTES).splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        if line.startswith(b"DLLL {") and b'"type": "LOG"' in line:
            try:
                step = json.loads(line[5:])["step"]
            except (ValueError, KeyError, RecursionError):  # half a line
                continue
            if step != "PARAMETER":
                return LastStep(step)
    return None

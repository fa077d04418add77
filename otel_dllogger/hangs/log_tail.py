"""What the end of a log tells, so that nothing else has to remember it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_dllogger.metrics.phases import PARTS_OF_A_STEP

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    for fields in _read_back(path, start, b'"type": "LOG"'):
        if fields.get("step", "PARAMETER") != "PARAMETER":
            return LastStep(fields["step"])
    return None


def was_interrupted(path: str, start: int, at_s: float) -> bool:
    """Return whether a phase that interrupts the training was open at a time.

    Args:
        path: The log, with DLLogger's JSON lines.
        start: Where it ended before that time.
        at_s: The time, seconds since the Unix epoch; the phase has ended since, or was announced.
    """
    for fields in _read_back(path, start, b'"type": "PHASE'):
        if fields.get("name") in PARTS_OF_A_STEP or fields.get("overlapped"):
            continue
        begin_s, seconds = fields.get("begin"), fields.get("seconds")
        if not (isinstance(begin_s, float) and isinstance(seconds, float)):
            continue
        if begin_s <= at_s <= begin_s + seconds:
            return True
    return False


def _read_back(path: str, start: int, marker: bytes) -> Iterator[dict[str, Any]]:
    """Yield the fields of the lines near the end that contain a marker, the last one first."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes longer to import
            size = file.seek(0, os.SEEK_END)
            # A log that is shorter now was rotated.
            file.seek(max(size - _TAIL_BYTES, start if start <= size else 0, 0))
            lines = file.read(_TAIL_BYTES).splitlines()
    except OSError:
        return
    for line in reversed(lines):
        if line.startswith(b"DLLL {") and marker in line:
            try:
                yield json.loads(line[5:])
            except (ValueError, RecursionError):  # half a line
                continue

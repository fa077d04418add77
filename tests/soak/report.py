"""What the soak has to say at its end."""

from __future__ import annotations

import re
import threading
from pathlib import Path

SHOWN = 20
"""Findings that are printed."""

SHOWN_LONG = 4
"""How many of them are printed to their end, as with the stacks of all threads."""

_SHORT = 12

ROOT = Path(__file__).parents[2]

_FRAME = re.compile(r'  File "(.*)", line (\d+) in (.*)')
_OURS = ("otel_dllogger/", "tests/soak/")


def short_stacks(text: str) -> str:
    """Leave out of the stacks that faulthandler wrote what is neither ours nor the innermost call.

    Args:
        text: The stacks, the innermost call of each first.
    """
    lines: list[str] = []
    innermost = False
    for line in text.splitlines():
        frame = _FRAME.fullmatch(line)
        if frame is None:
            lines.append(line)
            innermost = True
            continue
        path = frame[1].removeprefix(f"{ROOT}/")
        if innermost or path.startswith(_OURS):
            lines.append(f"  {path}:{frame[2]} {frame[3]}")
        innermost = False
    return "\n".join(line for line in lines if line)


class Findings:
    """Keep what does not hold, each kind once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, int] = {}

    def __call__(self, text: str) -> None:
        """Add one."""
        with self._lock:
            self._found[text] = self._found.get(text, 0) + 1

    def __len__(self) -> int:
        return len(self._found)

    def lines(self) -> list[str]:
        """Return the first of them as text."""
        lines = []
        left = SHOWN_LONG
        for text, count in list(self._found.items())[:SHOWN]:
            parts = text.strip().splitlines()
            if len(parts) > _SHORT:
                left -= 1
                if left < 0:
                    parts = [*parts[:_SHORT], "  ..."]
            times = f" ({count} times)" if count > 1 else ""
            lines += [f"- {parts[0]}{times}", *parts[1:]]
        if len(self._found) > SHOWN:
            lines.append(f"- and {len(self._found) - SHOWN} more")
        return lines


def verdict(findings: Findings) -> str:
    """Return the last part of the report."""
    if not findings:
        return "held"
    return "\n".join([f"{len(findings)} did not hold:", *findings.lines()])

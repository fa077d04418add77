"""Which characters a terminal can show, and text and sparklines in them."""

from __future__ import annotations

import dataclasses
import math
import os
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from otel_dllogger.errors import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

NAN = "x"
"""Stands in a sparkline for values of which one is NaN or infinite."""

_WITHOUT_BLOCKS = ("dumb", "linux", "unknown", "vt100", "vt220")
_LOCALE = ("LC_ALL", "LC_CTYPE", "LANG")  # the first that is set counts


@dataclasses.dataclass(frozen=True, slots=True)
class Characters:
    """The characters of a terminal.

    Attributes:
        levels: Those of a sparkline, the lowest first.
        cut: What stands at the end of a text that was cut.
        dot: What stands between the parts of a line.
        is_ascii: Whether only ASCII can be shown.
    """

    levels: str
    cut: str
    dot: str
    is_ascii: bool

    def clean(self, text: str) -> str:
        """Return text from a log as the terminal can show it: nothing in it has an effect."""
        text = printable(text)
        return text.encode("ascii", "replace").decode() if self.is_ascii else text

    def fit(self, text: str, width: int, *, from_end: bool = False) -> str:
        """Return clean text that is cut if it is wider than ``width`` cells.

        Args:
            text: The text.
            width: The cells.
            from_end: Keep the end, in which the names of hosts differ, rather than the beginning.
        """
        if cell_len(text) <= width:
            return text
        room = width - len(self.cut)
        if room <= 0:
            return set_cell_size(text, max(width, 0))
        if from_end:
            return self.cut + set_cell_size(text[::-1], room)[::-1].lstrip()
        return set_cell_size(text, room).rstrip() + self.cut

    def sparkline(self, values: Sequence[float], low: float, high: float) -> str:
        """Return a curve as one character for each value.

        Args:
            values: The values; one that is not finite is ``NAN``.
            low: What the lowest character stands for.
            high: What the highest character stands for.
        """
        most = len(self.levels) - 1
        span = high / 2 - low / 2  # of halves: that of the greatest floats is beyond what they are
        drawn = []
        for value in values:
            if not math.isfinite(value):
                drawn.append(NAN)
            else:
                share = (value / 2 - low / 2) / span if span > 0 else 0.5
                drawn.append(self.levels[round(min(max(share, 0.0), 1.0) * most)])
        return "".join(drawn)


UNICODE = Characters(
    "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588", "\u2026", " \u00b7 ", False
)
ASCII = Characters("_.-:=+*#", "..", ", ", True)


def choose_characters(stream: TextIO) -> Characters:
    """Return the characters that a stream can show, by its encoding and the environment.

    Args:
        stream: Where they go.
    """
    locale = next((os.environ[name] for name in _LOCALE if os.environ.get(name)), ".UTF-8")
    encodings = (stream.encoding or "", locale.partition(".")[2].partition("@")[0])
    is_utf8 = all(name.lower().replace("-", "") == "utf8" for name in encodings)
    if not is_utf8 or os.environ.get("TERM") in _WITHOUT_BLOCKS:
        return ASCII
    return UNICODE

"""A terminal on which frames are drawn, each with one write."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from otel_dllogger.view.terminal.frame import Size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.text import Text

_HIDE_CURSOR, _SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
_ENTER, _LEAVE = "\x1b[?1049h", "\x1b[?1049l"  # a screen of its own, beside that of the shell
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"  # terminals that know them show a frame at once
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_WITHOUT_CURSOR = ("", "dumb", "unknown")
_USUAL = Size(80, 24)
_LEAST = Size(20, 4)


def is_screen() -> bool:
    """Return whether standard output is a terminal on which frames can be drawn."""
    has_cursor = os.environ.get("TERM", "") not in _WITHOUT_CURSOR
    return has_cursor and sys.stdout is not None and sys.stdout.isatty()


class Screen:
    """The terminal of standard output.

    Args:
        is_inline: Whether frames are drawn below what was printed before, and stay there;
            otherwise they have the whole terminal until the end.
    """

    def __init__(self, *, is_inline: bool = False) -> None:
        self._is_inline = is_inline
        self._descriptor = sys.stdout.fileno()
        self._lines = 0

    @property
    def size(self) -> Size:
        """Return how much room a frame has; the last column stays free, so that nothing wraps."""
        found = os.get_terminal_size(self._descriptor)
        columns = found.columns or _number("COLUMNS") or _USUAL.columns
        lines = found.lines or _number("LINES") or _USUAL.lines
        return Size(max(columns, _LEAST.columns) - 1, max(lines - self._is_inline, _LEAST.lines))

    @contextlib.contextmanager
    def opened(self) -> Iterator[Screen]:
        """Have the terminal until the end of the block."""
        self.enter()
        try:
            yield self
        finally:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self.leave()

    def enter(self) -> None:
        """Take the terminal."""
        sys.stdout.flush()
        self._lines = 0
        self._write(_HIDE_CURSOR if self._is_inline else _ENTER + _HIDE_CURSOR)

    def leave(self) -> None:
        """Give the terminal back."""
        if self._is_inline:
            self._write(("\r\n" if self._lines else "") + _SHOW_CURSOR)
        else:
            # Cleared first: tmux may leave some of it if the terminal has grown meanwhile.
            self._write(_HOME + _CLEAR_BELOW + _SHOW_CURSOR + _LEAVE)

    def show(self, lines: Sequence[Text]) -> None:
        """Draw a frame over the one before.

        Args:
            lines: Its lines, no more and no longer than ``size`` says.
        """
        begin = _HOME
        if self._is_inline:
            begin = "\r" + (f"\x1b[{self._lines - 1}A" if self._lines > 1 else "")
        self._lines = len(lines)
        drawn = f"{_CLEAR_LINE}\r\n".join(_with_codes(lines))
        self._write(f"{_BEGIN}{begin}{drawn}{_CLEAR_LINE}{_CLEAR_BELOW}{_END}")

    def _write(self, text: str) -> None:
        data = text.encode("utf-8", "replace")
        while data:
            data = data[os.write(self._descriptor, data) :]


def _with_codes(lines: Sequence[Text]) -> list[str]:
    """Return lines with the codes for their colours, of which ``NO_COLOR`` leaves bold and dim."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=1_000, highlight=False)
    for line in lines:
        console.print(line, soft_wrap=True)
    return stream.getvalue().split("\n")[: len(lines)]


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else 0

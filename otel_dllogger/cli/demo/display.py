"""What the demo shows while it trains: its ranks, as ``watch`` shows any ranks."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
from rich.text import Text

from otel_dllogger.view.terminal.characters import choose_characters
from otel_dllogger.view.terminal.frame import draw_runs
from otel_dllogger.view.terminal.run_line import plain_line
from otel_dllogger.view.terminal.screen import Screen, is_screen
from otel_dllogger.view.terminal.watched import WatchedRuns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_dllogger.view.model import Model

_LINE_EVERY_S = 5.0


class Display:
    """The ranks of one run: a table on a terminal, otherwise a line now and then.

    Args:
        model: What is known of the ranks.
        lines_above: How many lines above the table stay on the terminal.
    """

    def __init__(self, model: Model, lines_above: int) -> None:
        self._model = model
        self._lines_above = lines_above
        self._watched = WatchedRuns(model)
        self._characters = choose_characters(sys.stdout)
        self._screen = Screen(is_inline=True) if is_screen() else None
        self._is_drawing = False
        self._line_due_s = 0.0

    def show(self, progress: str, notes: Sequence[str]) -> None:
        """Show the ranks as they are now.

        Args:
            progress: How far the training is.
            notes: Lines below it.
        """
        if self._screen is not None:
            if not self._is_drawing:
                self._is_drawing = True
                self._screen.enter()
            below = [Text(self._characters.clean(line)) for line in (progress, *notes)]
            size = self._screen.size
            lines = max(size.lines - self._lines_above, 0)
            room = size._replace(lines=max(lines - len(below) - 1, 0))
            with self._model.lock:
                runs = self._watched.look()
                drawn = [*draw_runs(runs, room, self._characters), Text()] if runs else []
            for line in below:
                line.truncate(size.columns)
            self._screen.show([*drawn, *below][: size.lines])
        elif time.monotonic() >= self._line_due_s:
            self._line_due_s = time.monotonic() + _LINE_EVERY_S
            self._print_lines(progress)

    def renew(self) -> None:
        """Note that something else begins, which is to be shown at once."""
        self._line_due_s = 0.0

    def close(self) -> None:
        """Leave the terminal below what was shown last."""
        if self._screen is None:
            self._print_lines("at the end")
        elif self._is_drawing:
            self._screen.leave()

    def _print_lines(self, progress: str) -> None:
        with self._model.lock:
            lines = [self._characters.clean(plain_line(*run)) for run in self._watched.look()]
        for line in lines or [""]:
            click.echo(f"{progress}: {line}" if line else progress)

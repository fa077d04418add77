"""What the demo shows while it trains: its ranks, as ``watch`` shows any ranks."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click
from rich.text import Text

from otel_dllogger.view.follow import Follower
from otel_dllogger.view.model import Model
from otel_dllogger.view.page_source import AnnouncedPlaces, PageSource
from otel_dllogger.view.terminal.characters import choose_characters
from otel_dllogger.view.terminal.frame import draw_runs
from otel_dllogger.view.terminal.run_line import plain_line
from otel_dllogger.view.terminal.screen import Screen, is_screen
from otel_dllogger.view.terminal.watched import WatchedRuns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_dllogger.view.terminal.frame import Shown

_LINE_EVERY_S = 5.0


class Display:
    """The ranks of one run: a table on a terminal, otherwise a line now and then.

    Args:
        discovery: The folder in which they announce their pages.
        run: The run's name.
    """

    def __init__(self, discovery: Path, run: str) -> None:
        self._run = run
        self._model = Model()
        self._watched = WatchedRuns(self._model)
        self._follower = Follower([PageSource([AnnouncedPlaces(discovery)], self._model)])
        self._characters = choose_characters(sys.stdout)
        self._screen = Screen(is_inline=True) if is_screen() else None
        self._is_drawing = False
        self._line_due_s = 0.0

    def start(self) -> None:
        """Begin to read the pages."""
        self._follower.start()

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
            below = [Text(self._characters.clean(line)) for line in ("", progress, *notes)]
            size = self._screen.size
            room = size._replace(lines=max(size.lines - len(below), 0))
            with self._model.lock:
                lines = draw_runs(self._look(), room, self._characters)
            for line in below:
                line.truncate(size.columns)
            self._screen.show([*lines, *below][: size.lines])
        elif time.monotonic() >= self._line_due_s:
            self._line_due_s = time.monotonic() + _LINE_EVERY_S
            self._print_lines(progress)

    def note_finished(self, number: int) -> None:
        """Note that a rank's process ended with exit code 0, which its page may not have said."""
        with self._model.lock:
            self._model.rank(self._run, number).finished = True

    def close(self) -> None:
        """Stop reading, and leave the terminal below what was shown last."""
        self._follower.close()
        if self._screen is None:
            self._print_lines("at the end")
        elif self._is_drawing:
            self._screen.leave()

    @property
    def is_finished(self) -> bool:
        """Return whether a rank says that it has finished."""
        with self._model.lock:
            run = self._model.runs.get(self._run)
            return run is not None and any(rank.finished for rank in run)

    def _print_lines(self, progress: str) -> None:
        with self._model.lock:
            lines = [self._characters.clean(plain_line(*run)) for run in self._look()]
        for line in lines:
            click.echo(f"{progress}: {line}")

    def _look(self) -> list[Shown]:
        """Return the run of this demo: the folder may have others, which were killed."""
        return [run for run in self._watched.look() if run.status.run.name == self._run]

"""Watch runs: on a screen that is drawn anew each second, or in lines that are printed."""

from __future__ import annotations

import sys
import textwrap
import time
from typing import TYPE_CHECKING

import click
from rich.text import Text

from otel_dllogger.errors import count_of
from otel_dllogger.metrics import health
from otel_dllogger.view.follow import Follower
from otel_dllogger.view.model import Model
from otel_dllogger.view.page_source import PageSource
from otel_dllogger.view.targets import find_targets
from otel_dllogger.view.terminal.characters import ASCII, choose_characters
from otel_dllogger.view.terminal.events import Events
from otel_dllogger.view.terminal.frame import draw_runs
from otel_dllogger.view.terminal.run_line import plain_line
from otel_dllogger.view.terminal.screen import Screen, is_screen
from otel_dllogger.view.terminal.watched import WatchedRuns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_dllogger.cli.watch.options import WatchOptions
    from otel_dllogger.view.terminal.frame import Shown, Size

_FRAME_S = 1.0
_SHARE = 4.0  # a frame of a thousand ranks takes long: it is drawn that much less often
_SOON_S = 0.2
"""Seconds between two looks while logs are read, or nothing is found yet."""

_MOST_ERRORS = 5


class Session:
    """Runs that are watched.

    Args:
        options: What is watched, and how.

    Raises:
        ConfigurationError: If there is nothing where a path points to.
    """

    def __init__(self, options: WatchOptions) -> None:
        targets = find_targets(options.source)
        self._options = options
        self._words = targets.words
        self._model = Model()
        self._watched = WatchedRuns(self._model, options.sort)
        self._sources = targets.open(self._model)
        self._follower = Follower(self._sources)
        self._characters = ASCII if options.is_ascii else choose_characters(sys.stdout)
        self._states: list[str] = []

    def run(self) -> int:
        """Show the runs until the user leaves, or until all of them are over.

        Returns:
            1 if the end was waited for and a run vanished, else 0.
        """
        self._follower.start()
        try:
            if is_screen():
                self._draw()
            else:
                self._print()
        finally:
            self._follower.close()
        is_lost = self._options.until_finished and health.VANISHED in self._states
        return 1 if is_lost else 0

    def _draw(self) -> None:
        screen = Screen()
        last: list[str] = []
        with Events(has_keys=True).opened() as events, screen.opened():
            while True:
                begun_s = time.monotonic()
                with self._model.lock:
                    runs = self._look()
                    lines = self._frame(runs, screen.size)
                    last = [self._line(run) for run in runs]
                screen.show(lines)
                if self._is_over():
                    break
                took_s = time.monotonic() - begun_s
                pause_s = max(_FRAME_S, _SHARE * took_s) if self._is_current() else _SOON_S
                happened = events.wait(pause_s - took_s)
                if happened.is_end:
                    break
                if happened.is_stop:
                    screen.leave()
                    events.stop()
                    screen.enter()
        for line in last:  # what was seen last stays on the terminal
            click.echo(line)

    def _print(self) -> None:
        due_s = time.monotonic()
        is_told = False
        with Events(has_keys=False).opened() as events:
            while True:
                with self._model.lock:
                    runs = self._look()
                    lines = [self._line(run) for run in runs]
                is_over = self._is_over()
                if is_over or (lines and self._is_current() and time.monotonic() >= due_s):
                    due_s = time.monotonic() + self._options.interval_s
                    for line in lines:
                        click.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")
                    sys.stdout.flush()
                elif self._is_current() and not lines and not is_told:
                    is_told = True
                    click.echo(f"otel-dllogger: {self._nothing()}", err=True)
                if is_over:
                    break
                wait_s = _FRAME_S if self._is_current() else _SOON_S
                if lines and not self._options.until_finished:
                    wait_s = max(due_s - time.monotonic(), wait_s)
                if events.wait(wait_s).is_end:
                    break

    def _is_current(self) -> bool:
        return self._follower.wait_until_current(0)

    def _look(self) -> list[Shown]:
        """Return the runs; none before the past of logs was read, of which all seems long ago."""
        runs = self._watched.look() if self._is_current() else []
        self._states = [run.status.state for run in runs]
        return runs

    def _is_over(self) -> bool:
        states = self._states
        return self._options.until_finished and bool(states) and set(states) <= set(health.OVER)

    def _line(self, run: Shown) -> str:
        return self._characters.clean(plain_line(*run))

    def _frame(self, runs: Sequence[Shown], size: Size) -> list[Text]:
        head = Text(time.strftime("%H:%M:%S"), "dim")
        if runs:
            ranks = sum(len(run.table.rows) for run in runs)
            if len(runs) > 1:
                head.append(f"  {count_of(len(runs), 'run')}, {count_of(ranks, 'rank')}")
            head.append(f"  {self._characters.clean(self._words)}")
            body = draw_runs(runs, size._replace(lines=size.lines - 1), self._characters)
        else:
            head.append("  otel-dllogger watch")
            body = [Text(), *self._paragraphs(size.columns)]
        keys = "q: quit"
        room = size.columns - len(keys) - 2
        head.truncate(room, pad=True)
        head.append(f"  {keys}", "dim")
        return [head, *body][: size.lines]

    def _paragraphs(self, columns: int) -> list[Text]:
        """Return what to say as lines; a path is whole, unless it is longer than a line."""
        lines: list[str] = []
        for text in self._waiting():
            lines += textwrap.wrap(text, columns, subsequent_indent="  ", break_on_hyphens=False)
        return [Text(self._characters.fit(line, columns)) for line in lines]

    def _waiting(self) -> list[str]:
        """Return what to say as long as there is no run."""
        if not self._is_current():
            read, size = self._follower.progress
            done = f": {read / size:.0%} of {size / 1e6:,.1f} MB" if size else ""
            return [self._characters.clean(f"reading {self._words}{done}")]
        errors = [
            f"{url}: {error}"
            for source in self._sources
            if isinstance(source, PageSource)
            for url, error in source.errors.items()
        ]
        return [*map(self._characters.clean, [self._nothing(), *errors[:_MOST_ERRORS]])]

    def _nothing(self) -> str:
        return f"nothing found yet; looking at {self._words}"

"""``otel-dllogger demo``: train in several processes, show them, and say what was seen."""

from __future__ import annotations

import os
import shlex
import socket
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from otel_dllogger.cli.demo.failure import Failure
from otel_dllogger.cli.demo.folder import DemoFolder
from otel_dllogger.cli.demo.prometheus import Prometheus, find_prometheus
from otel_dllogger.cli.demo.ranks import Rank, start_ranks
from otel_dllogger.cli.log_source import explain
from otel_dllogger.cli.terminal import UserError, missing_extra, note
from otel_dllogger.cli.view import PageOptions, open_live_page
from otel_dllogger.errors import EndpointError, count_of
from otel_dllogger.view.terminal.events import Events

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_TURN_S = 0.5
_STOP_S = 10.0
_OVERDUE_S = 60.0
"""Seconds beyond the training time after which the ranks are ended."""


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """The options of ``demo``.

    Attributes:
        ranks: How many processes train.
        seconds: How long.
        directory: Where logs, checkpoints and discovery files go; None for a folder of its own.
        port: Port of rank 0, 0 for any free one.
        with_prometheus: Whether to start a Prometheus as well.
    """

    ranks: int
    seconds: float
    directory: Path | None
    port: int
    with_prometheus: bool


def run_demo(options: DemoOptions) -> int:
    """Train, show it, clean up, and say what was seen.

    Args:
        options: How many, how long, and where.

    Returns:
        0, also when it was interrupted; 1 if a rank or Prometheus died.

    Raises:
        UserError: If something that it needs is missing.
    """
    if sys.stdout is None:
        raise UserError("standard output is closed; let it go to a terminal, a pipe or a file")
    with Events(has_keys=False).opened() as events:
        try:
            _check_port(options)
            program = find_prometheus() if options.with_prometheus else None
            demo = _Demo(options, events)
            demo.run(program)
        except ImportError as error:
            raise UserError(missing_extra(error, "view")) from None
        except EndpointError as error:
            raise UserError(explain(error)) from None
        return demo.conclude()


class _Demo:
    """A demo, with everything that it starts."""

    def __init__(self, options: DemoOptions, events: Events) -> None:
        from otel_dllogger.cli.demo.observer import Observer  # noqa: PLC0415 - an extra

        self._options = options
        self._events = events
        self._folder = folder = DemoFolder(options.directory)
        self._ranks: list[Rank] = []
        self._prometheus: Prometheus | None = None
        logs = [folder.path / f"log_rank{number}.json" for number in range(options.ranks)]
        self._observer = Observer(logs, folder.discovery, folder.run)
        self._page = open_live_page(
            PageOptions(), self._observer.model, folder.run, lambda: self._observer.reading
        )
        self._start_s = 0.0
        self._end_s: float | None = None
        self._trains = self._stopped_early = self._is_unread = False

    def run(self, prometheus: str | None) -> None:
        """Start the processes, show the ranks until the last has ended, and clean up.

        Args:
            prometheus: The path of Prometheus, None for none.

        Raises:
            UserError: If they cannot be started.
        """
        from otel_dllogger.cli.demo.display import Display  # noqa: PLC0415 - an extra

        self._page.start()
        try:
            if prometheus is not None:
                log = self._folder.path / "prometheus.out"
                self._prometheus = Prometheus(prometheus, self._folder.config, log)
            lines = self._introduction()
            self._say(lambda: click.echo("\n".join(lines)))
            self._start_ranks()
            self._observer.start()
            self._display = Display(self._observer.model, len(lines))
            self._watch()
        finally:
            self._stop()

    def _introduction(self) -> list[str]:
        lines = [f"Live page:  {self._page.link}", f"Logs:       {self._folder.path}"]
        if self._prometheus is not None:
            lines.append(f"Prometheus: {self._prometheus.url}")
        return [*lines, ""]

    def _start_ranks(self) -> None:
        options = self._options
        try:
            self._ranks = start_ranks(
                count=options.ranks,
                seconds=options.seconds,
                directory=self._folder.path,
                port=options.port,
                run=self._folder.run,
            )
        except OSError as error:
            raise UserError(f"the ranks cannot be started: {error}; pass fewer --ranks") from error
        self._start_s = time.monotonic()

    def _watch(self) -> None:
        """Show the ranks until the last one has ended, or Ctrl-C."""
        self._failure = failure = Failure(self._ranks, self._options.seconds)
        try:
            while self._is_running() and not self._is_unread:
                if self._trains:
                    failure.advance(self._elapsed_s())
                else:
                    self._note_training()
                if self._prometheus is not None and all(rank.runs for rank in self._ranks):
                    self._prometheus.ask()  # a rank that ends takes its series with it
                self._say(self._show)
                if self._wait(_TURN_S):
                    break
        finally:
            self._end_s = time.monotonic()
            self._stop_ranks()
            self._observer.wait_for_end()
            self._say(self._show)
            self._say(self._display.close)

    def _is_running(self) -> bool:
        overdue = time.monotonic() - self._start_s > self._options.seconds + _OVERDUE_S
        return not overdue and not all(rank.is_over for rank in self._ranks)

    def _note_training(self) -> None:
        """Begin to count the time once all ranks train, which takes a while to start."""
        over = sum(rank.is_over for rank in self._ranks)
        if self._observer.count_training() + over >= len(self._ranks):
            self._trains = True
            self._start_s = time.monotonic()
            self._display.renew()

    def _show(self) -> None:
        notes = [] if self._prometheus is None else [self._prometheus.format_answer()]
        seconds = self._options.seconds
        progress = f"{min(self._elapsed_s(), seconds):.0f} of {seconds:.0f} s"
        if not self._trains:
            ready, of = self._observer.count_training(), count_of(len(self._ranks), "rank")
            progress = f"starting: {ready} of {of} train"
        self._display.show(progress, notes)

    def _elapsed_s(self) -> float:
        return (self._end_s or time.monotonic()) - self._start_s

    def _wait(self, seconds: float) -> bool:
        """Wait, and return whether somebody or something ended that."""
        happened = self._events.wait(seconds)
        if happened.is_unread:
            self._fall_silent()
        return happened.is_end

    def _say(self, show: Callable[[], object]) -> None:
        """Show something, unless nobody can see it any more."""
        try:
            show()
        except OSError:
            self._fall_silent()

    def _fall_silent(self) -> None:
        """Write to nowhere: the terminal is closed, or nobody reads the pipe."""
        self._is_unread = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

    def _stop_ranks(self) -> None:
        """End all ranks that are left, and remove what they leave."""
        self._stopped_early = not all(rank.is_over for rank in self._ranks)
        deadline_s = time.monotonic() + _STOP_S
        for rank in self._ranks:
            rank.terminate()
        # They wait until their pages are read once more; a second Ctrl-C ends them at once.
        while any(rank.runs for rank in self._ranks) and time.monotonic() < deadline_s:
            if self._wait(0.05):
                break
        for rank in self._ranks:
            rank.kill()

    def _stop(self) -> None:
        """End everything else."""
        from otel_dllogger.http.service_discovery import sweep_stale  # noqa: PLC0415 - when needed

        if self._prometheus is not None:
            self._prometheus.stop()
        sweep_stale(self._folder.discovery)
        self._observer.close()
        self._page.close()

    def conclude(self) -> int:
        """Say what was seen, and how to go on.

        Returns:
            The exit code.
        """
        from otel_dllogger.cli.demo.seen import describe, describe_time  # noqa: PLC0415 - an extra

        status = self._observer.assess()
        seen = [] if status is None else describe(status) + describe_time(self._folder.path)
        dead = [rank for rank in self._ranks if rank.died]
        if not (self._failure.happened or self._stopped_early or dead):
            seen.append("no rank was killed and restarted: the time was too short for that")
        lines = [""]
        if self._stopped_early:
            lines += [f"Stopped after {self._elapsed_s():.0f} s; nothing is left running.", ""]
        if seen:
            lines += [f"Seen of {count_of(len(self._ranks), 'rank')} in {self._elapsed_s():.0f} s:"]
            lines += [f"  {line}" for line in seen]
            lines += [""]
        folder = shlex.quote(str(self._folder.path))
        program = shlex.quote(_program())
        lines += [
            "Look at it again, or make one file of it:",
            f"  {program} view {folder}",
            f"  {program} report {folder}",
            "The same for a training of yours, and beside it:",
            f"  {program} run your_train.py",
            f"  {program} watch",
        ]
        self._say(lambda: click.echo("\n".join(lines)))
        wrong = [f"rank {one.number} died ({one.exit_text}); read {one.output}" for one in dead]
        if self._prometheus is not None and self._prometheus.failure is not None:
            wrong.append(self._prometheus.failure)
        for line in wrong:
            note(line)
        return 1 if wrong else 0


def _check_port(options: DemoOptions) -> None:
    """Refuse a port that the ranks cannot have.

    Raises:
        UserError: If it needs privileges.
    """
    last = options.port + options.ranks - 1
    if last > 65535:
        raise UserError(
            f"--port {options.port} leaves no room for {options.ranks} ranks; pass a lower one"
        )
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", options.port))
    except PermissionError as error:
        raise UserError(
            f"port {options.port} needs privileges; pass one from 1024 up, or leave --port out"
        ) from error
    except OSError:
        pass  # taken: the ranks skip it


def _program() -> str:
    """Return how this program was started: usually from an environment that is not on PATH."""
    name = sys.argv[0]
    return name if "/" in name and name.endswith("otel-dllogger") else "otel-dllogger"

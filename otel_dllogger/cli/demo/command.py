"""``otel-dllogger demo``: train in several processes, and watch their metrics pages."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from otel_dllogger.cli.demo.prometheus import Prometheus, find_prometheus, format_config
from otel_dllogger.cli.demo.ranks import Rank, find_pages, start_ranks
from otel_dllogger.cli.terminal import UserError, missing_extra
from otel_dllogger.errors import count_of
from otel_dllogger.metrics.health import FINISHED

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otel_dllogger.cli.demo.display import Display

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
        directory: Where logs and discovery files go.
        port: Port of rank 0, 0 for any free one.
        with_prometheus: Whether to start a Prometheus as well.
    """

    ranks: int
    seconds: float
    directory: Path
    port: int
    with_prometheus: bool


def run_demo(options: DemoOptions) -> int:
    """Train, watch, and clean up.

    Args:
        options: How many, how long, and where.

    Returns:
        0, also when it was interrupted; 1 if a rank or Prometheus died.

    Raises:
        UserError: If something that it needs is missing.
    """
    try:
        from otel_dllogger.cli.demo.display import Display  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UserError(missing_extra(error, "view")) from None
    _check_port(options)
    program = find_prometheus() if options.with_prometheus else None
    demo = _Demo(options, Display)
    with demo.interrupts():
        demo.start(program)
        demo.watch()
    return demo.conclude()


class _Demo:
    """A running demo, with everything that it started."""

    def __init__(self, options: DemoOptions, display: type[Display]) -> None:
        self._options = options
        self._run = f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
        self._discovery = options.directory / "discovery"
        self._config = options.directory / "prometheus.yml"
        self._ranks: list[Rank] = []
        self._prometheus: Prometheus | None = None
        self._interrupted = threading.Event()
        self._start_s = 0.0
        self._end_s: float | None = None
        self._told = self._stopped_early = False
        try:
            self._discovery.mkdir(parents=True, exist_ok=True)
            self._config.write_text(format_config(self._discovery), encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"{str(options.directory)!r} cannot be written ({error.strerror}); pass "
                "--directory with a folder that can"
            ) from error
        self._display = display(self._discovery, self._run)

    @contextlib.contextmanager
    def interrupts(self) -> Iterator[None]:
        """Let Ctrl-C, SIGTERM and a closed terminal end the demo cleanly."""
        wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._interrupt) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _interrupt(self, *_signal: object) -> None:
        self._interrupted.set()

    def start(self, prometheus: str | None) -> None:
        """Start the processes.

        Args:
            prometheus: The path of Prometheus, None for none.
        """
        options = self._options
        if prometheus is not None:
            log = options.directory / "prometheus.out"
            self._prometheus = Prometheus(prometheus, self._config, log)
        try:
            self._ranks = start_ranks(
                count=options.ranks,
                seconds=options.seconds,
                directory=options.directory,
                port=options.port,
                run=self._run,
            )
        except OSError as error:
            if self._prometheus is not None:
                self._prometheus.stop()
            raise UserError(f"the ranks cannot be started: {error}; pass fewer --ranks") from error
        self._start_s = time.monotonic()

    def watch(self) -> None:
        """Show the ranks until the last one has ended, or Ctrl-C; then clean up."""
        self._display.start()
        try:
            while self._running() and not self._interrupted.is_set():
                self._look()
                if self._told:
                    self._show()
                self._interrupted.wait(_TURN_S)
        finally:
            self._end_s = time.monotonic()
            self._stop()
            if self._told:
                self._show()
            self._display.close()

    def _show(self) -> None:
        for rank in self._ranks:
            if rank.url is not None and rank.state() == FINISHED:
                self._display.note_finished(rank.number)
        total_s = self._options.seconds
        notes = () if self._prometheus is None else self._prometheus.format_summary()
        self._display.show(f"{min(self._elapsed_s(), total_s):.0f} of {total_s:.0f} s", notes)

    def _running(self) -> bool:
        overdue = time.monotonic() - self._start_s > self._options.seconds + _OVERDUE_S
        return any(rank.runs for rank in self._ranks) and not overdue

    def _look(self) -> None:
        find_pages(self._ranks, self._discovery, self._run)
        if not self._told and all(rank.url or not rank.runs for rank in self._ranks):
            self._told = True
            self._start_s = time.monotonic()
            self._introduce()
        if self._prometheus is not None and not self._display.is_finished:
            self._prometheus.ask()  # a rank that ends takes its series with it

    def _elapsed_s(self) -> float:
        return (self._end_s or time.monotonic()) - self._start_s

    def _introduce(self) -> None:
        """Print where everything is."""
        trains = "trains" if len(self._ranks) == 1 else "train"
        ranks = f"{count_of(len(self._ranks), 'rank')} {trains}"
        lines = [f"Run {self._run}: {ranks} for {self._options.seconds:g} s."]
        lines += ["", "Metrics and log of each rank:"]
        for rank in self._ranks:
            lines.append(f"  rank {rank.number}  {rank.url or 'no page'}  {rank.log}")
        lines.append("")
        if self._prometheus is not None:
            lines.append(f"Prometheus, with all of them: {self._prometheus.url}")
        else:
            lines.append(f"For Prometheus, as in {self._config}:")
            snippet = self._config.read_text(encoding="utf-8").partition("scrape_configs:\n")[2]
            lines += ["  scrape_configs:", *(f"  {line}" for line in snippet.splitlines())]
        lines.append("")
        self._print(lines)

    def _stop(self) -> None:
        """End all processes that are left, and remove what they leave."""
        self._stopped_early = any(rank.runs for rank in self._ranks)
        deadline_s = time.monotonic() + _STOP_S
        for rank in self._ranks:
            rank.terminate()
        self._interrupted.clear()  # a second Ctrl-C ends them at once
        # They wait until their pages are read once more.
        while any(rank.runs for rank in self._ranks) and time.monotonic() < deadline_s:
            if self._interrupted.wait(0.05):
                break
        for rank in self._ranks:
            rank.kill()
        if self._prometheus is not None:
            self._prometheus.stop()
        from otel_dllogger.http.service_discovery import sweep_stale  # noqa: PLC0415 - when needed

        sweep_stale(self._discovery)

    def conclude(self) -> int:
        """Print how it went.

        Returns:
            The exit code.
        """
        lines = []
        if self._stopped_early:
            lines += ["", f"Stopped after {self._elapsed_s():.0f} s; nothing is left running."]
        if self._prometheus is not None:
            lines += ["", "What Prometheus answered last:", *self._prometheus.format_answers()]
        lines += ["", "How the ranks ended:"]
        lines += [f"  rank {rank.number}  {rank.state()}" for rank in self._ranks]
        lines += ["", f"Logs: {self._options.directory}/log_rank*.json"]
        lines.append(f"Describe one in words: {_program()} check {self._ranks[0].log}")
        self._print(lines)
        dead = [rank for rank in self._ranks if rank.died]
        for rank in dead:
            click.echo(
                f"otel-dllogger: rank {rank.number} died ({rank.exit_text}); read {rank.output}",
                err=True,
            )
        crash = None if self._prometheus is None else self._prometheus.failure
        if crash is not None:
            click.echo(f"otel-dllogger: {crash}", err=True)
        return 1 if dead or crash is not None else 0

    def _print(self, lines: list[str]) -> None:
        click.echo("\n".join(lines))


def _check_port(options: DemoOptions) -> None:
    """Refuse a port that the ranks cannot have.

    Raises:
        UserError: If it needs privileges.
    """
    last = options.port + options.ranks - 1
    if last > 65535:
        raise UserError(
            f"--port {options.port} leaves no room for {count_of(options.ranks, 'rank')}; "
            "pass a lower one"
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

"""A training for the pictures: two runs of the demo's ranks, one after the other."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from otel_dllogger.cli.demo.prometheus import Prometheus
from otel_dllogger.cli.demo.ranks import Rank, start_ranks
from otel_dllogger.cli.terminal import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRAPE_INTERVAL_S = 2
SHIPPED = Path(__file__).parents[2] / "prometheus"

_TURN_S = 0.5
_STOP_S = 15.0


@dataclass(frozen=True, slots=True)
class Watched:
    """A Prometheus that has scraped runs, one of which still trains.

    Attributes:
        url: The address of Prometheus.
        start_s: When the first run began, in Unix seconds.
        last_start_s: When the last run began.
        scrape_interval_s: Its scrape interval.
    """

    url: str
    start_s: float
    last_start_s: float
    scrape_interval_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The times at which a run trains, as shares of the whole time.

    Attributes:
        run: Its name.
        ranks: The number of its ranks.
        begin: When it starts.
        length: How long it would train; it is cut off at the end of the whole time.
    """

    run: str
    ranks: int
    begin: float
    length: float


def make_plans(ranks: int) -> list[Plan]:
    """Plan a small run, then a large one that is still training when the picture is taken.

    Args:
        ranks: The number of ranks in the large one.
    """
    few = max(ranks // 2, 1)
    return [
        Plan(f"demo-{few}-ranks", few, 0.0, 0.38),
        Plan(f"demo-{ranks}-ranks" if ranks != few else "demo-again", ranks, 0.42, 0.7),
    ]


def lapse(configuration: dict[str, Any], folders: list[Path], rules: Path) -> dict[str, Any]:
    """Return the shipped configuration, sped up and with other discovery folders.

    The jobs that do not watch ranks are left out, as is Alertmanager: none is started, and one that
    happens to run on this machine is to hear nothing of this training.

    Args:
        configuration: As in ``prometheus/prometheus.yml``.
        folders: Where the ranks announce themselves.
        rules: The folder of the rule files.
    """
    interval = f"{SCRAPE_INTERVAL_S}s"
    faster = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), interval)
    files = [f"{folder.resolve()}/*.json" for folder in folders]
    discovery = [{"files": files, "refresh_interval": interval}]
    without = {name: value for name, value in configuration.items() if name != "alerting"}
    return {
        **without,
        "global": {**configuration["global"], **faster},
        "rule_files": [str(rules.resolve() / "*.yml")],
        "scrape_configs": [
            {**one, "file_sd_configs": discovery}
            for one in configuration["scrape_configs"]
            if "file_sd_configs" in one
        ],
    }


class Training:
    """A running Prometheus, with the ranks that it watches.

    Args:
        folder: The folder for everything that they write.
        seconds: How long the training takes.
        ranks: The number of ranks in the larger run.

    Raises:
        UserError: If there is no Prometheus.
    """

    def __init__(self, folder: Path, *, seconds: float, ranks: int) -> None:
        program = shutil.which("prometheus")
        if program is None:
            raise UserError("no prometheus on PATH; install it (apt-get install prometheus)")
        self._folder, self._seconds = folder, seconds
        self._plans = make_plans(ranks)
        for plan in self._plans:
            self._discovery(plan).mkdir(parents=True)
        config = folder / "prometheus.yml"
        shipped = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
        folders = [self._discovery(plan) for plan in self._plans]
        config.write_text(yaml.safe_dump(lapse(shipped, folders, SHIPPED / "rules")))
        self._ranks: list[Rank] = []
        self._prometheus = Prometheus(program, config, folder / "prometheus.log")
        self._start_s = time.time()
        self._last_start_s = self._start_s

    def wait(self) -> Watched:
        """Start each run at its time, and wait until the whole time is up.

        Returns:
            What Prometheus knows by then.

        Raises:
            UserError: If a process died.
        """
        waiting = sorted(self._plans, key=lambda plan: plan.begin)
        while (passed_s := time.time() - self._start_s) < self._seconds:
            if waiting and passed_s >= waiting[0].begin * self._seconds:
                self._start(waiting.pop(0))
            self._check()
            time.sleep(_TURN_S)
        url = self._prometheus.url
        return Watched(url, self._start_s, self._last_start_s, SCRAPE_INTERVAL_S)

    def stop(self) -> None:
        """End all processes, by their own ids; at once if this is interrupted."""
        try:
            for rank in self._ranks:
                rank.terminate()
            deadline_s = time.monotonic() + _STOP_S
            while any(rank.runs for rank in self._ranks) and time.monotonic() < deadline_s:
                time.sleep(0.1)
        finally:
            for rank in self._ranks:
                rank.kill()
            self._prometheus.stop()

    def _discovery(self, plan: Plan) -> Path:
        return self._folder / plan.run / "discovery"

    def _start(self, plan: Plan) -> None:
        self._last_start_s = time.time()
        with _whole():
            self._ranks += start_ranks(
                count=plan.ranks,
                seconds=plan.length * self._seconds,
                directory=self._folder / plan.run,
                port=0,
                run=plan.run,
            )

    def _check(self) -> None:
        if failure := self._prometheus.failure:
            raise UserError(_last_line(self._folder / "prometheus.log") or failure)
        for rank in self._ranks:
            if rank.died:
                reason = _last_line(rank.output)
                raise UserError(f"rank {rank.number} died ({rank.exit_text}): {reason}")


@contextlib.contextmanager
def train(folder: Path, *, seconds: float, ranks: int) -> Iterator[Watched]:
    """Train for a while, and keep Prometheus running until the end of the block.

    Args:
        folder: The folder for everything that is written.
        seconds: How long to train.
        ranks: The number of ranks in the larger run.
    """
    training = Training(folder, seconds=seconds, ranks=ranks)
    try:
        yield training.wait()
    finally:
        training.stop()


@contextlib.contextmanager
def _whole() -> Iterator[None]:
    """Delay Ctrl-C until after the block, so that what it starts is known, and is ended."""
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if came:
        raise KeyboardInterrupt


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")

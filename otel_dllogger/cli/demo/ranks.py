"""The demo's ranks: processes started as torchrun starts them, and where their pages are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from otel_dllogger.metrics.health import FINISHED, TRAINING

if TYPE_CHECKING:
    from pathlib import Path


_LABEL_PREFIX = "__meta_dllogger_"


class Rank:
    """One rank of the demo: its process.

    Args:
        number: Its rank.
        directory: Where it writes its log and its discovery file.
        command: What to start.
        environ: Its environment.
    """

    def __init__(
        self, number: int, directory: Path, command: list[str], environ: dict[str, str]
    ) -> None:
        self.number = number
        self.log = directory / f"log_rank{number}.json"
        self.output = directory / f"rank{number}.out"
        self.url: str | None = None
        self._stopped = False
        with self.output.open("wb") as output:
            # A session of its own: Ctrl-C is for the demo, which then ends its ranks.
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                command,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def runs(self) -> bool:
        """Return whether the process is alive."""
        return self._process.poll() is None

    @property
    def died(self) -> bool:
        """Return whether the process failed without being told to stop."""
        return self._process.poll() not in (None, 0) and not self._stopped

    @property
    def exit_text(self) -> str:
        """Return how the process ended, in words."""
        code = self._process.poll()
        if code is not None and code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return f"exit code {code}"

    def state(self) -> str:
        """Return what the rank is doing, in a word or two."""
        if self.died:
            return f"died: {self.exit_text}"
        if not self.runs:
            return "stopped" if self._stopped else FINISHED
        return "stopping" if self._stopped else TRAINING

    def terminate(self) -> None:
        """Ask the process to end after this step, without waiting for it."""
        if self.runs:
            self._stopped = True
            self._process.terminate()

    def kill(self) -> None:
        """End the process at once, and wait until it is gone."""
        if self.runs:
            self._stopped = True
            self._process.kill()
        self._process.wait()


def start_ranks(*, count: int, seconds: float, directory: Path, port: int, run: str) -> list[Rank]:
    """Start the ranks of one run.

    Args:
        count: How many.
        seconds: How long each trains.
        directory: Where they write their logs and discovery files.
        port: Port of rank 0, 0 for any free one.
        run: The run's name.
    """
    command = [sys.executable, "-m", "otel_dllogger.cli.demo.train"]
    command += ["--directory", str(directory), "--port", str(port), "--seconds", str(seconds)]
    ranks: list[Rank] = []
    try:
        for number in range(count):
            environ = {
                **os.environ,
                "RANK": str(number),
                "LOCAL_RANK": str(number),
                "WORLD_SIZE": str(count),
                "OTEL_DLLOGGER_RUN": run,
            }
            ranks.append(Rank(number, directory, command, environ))
    except BaseException:
        for rank in ranks:
            rank.kill()
        raise
    return ranks


def find_pages(ranks: list[Rank], folder: Path, run: str) -> None:
    """Look up in the discovery folder where the ranks' pages are.

    Args:
        ranks: The ranks; those that are new in the folder get their ``url``.
        folder: The discovery folder.
        run: The run's name.
    """
    for path in folder.glob("*.json"):
        try:
            group = json.loads(path.read_text(encoding="utf-8"))[0]
            labels = group["labels"]
            if labels[f"{_LABEL_PREFIX}run"] == run:
                number = int(labels[f"{_LABEL_PREFIX}rank"])
                ranks[number].url = f"http://{group['targets'][0]}/metrics"
        except (OSError, ValueError, LookupError, TypeError):
            continue  # removed meanwhile, or not ours

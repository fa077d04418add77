"""The demo's ranks: processes started as torchrun starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from otel_dllogger.identity import RESTART_VARIABLES
from otel_dllogger.metrics.health import FINISHED, TRAINING

if TYPE_CHECKING:
    from pathlib import Path

_RESTARTS = RESTART_VARIABLES[0]


class Rank:
    """One rank of the demo: its process, and those that replace it.

    Args:
        number: Its rank.
        directory: Where it writes its log, its checkpoint and its discovery file.
        command: What to start.
        environ: Its environment.
    """

    def __init__(
        self, number: int, directory: Path, command: list[str], environ: dict[str, str]
    ) -> None:
        self.number = number
        self.log = directory / f"log_rank{number}.json"
        self.output = directory / f"rank{number}.out"
        self.checkpoint = directory / f"rank{number}.npz"
        self.restarts = 0
        self._command = command
        self._environ = environ
        self._stopped = self._is_failing = False
        for path in (self.log, self.output, self.checkpoint):
            path.unlink(missing_ok=True)  # of a demo before this one
        self._process = self._start(command)

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        with self.output.open("ab") as output:
            # A session of its own: Ctrl-C is for the demo, which then ends its ranks.
            return subprocess.Popen(  # noqa: S603 - our own module
                command,
                env={**self._environ, _RESTARTS: str(self.restarts)},
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
    def is_over(self) -> bool:
        """Return whether the process has ended, and no other will replace it."""
        return not self.runs and not self._is_failing

    @property
    def died(self) -> bool:
        """Return whether the process failed without being told to stop."""
        return self._process.poll() not in (None, 0) and not (self._stopped or self._is_failing)

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

    def fail(self) -> None:
        """Kill the process as the kernel does when memory runs out; ``restart`` replaces it."""
        self._is_failing = True
        self._process.kill()
        self._process.wait()

    def restart(self, passed_s: float) -> None:
        """Start the process anew, as a launcher does; it goes on from its checkpoint.

        Args:
            passed_s: How many seconds of the training are over.
        """
        self.restarts += 1
        self._process = self._start([*self._command, "--passed", f"{passed_s:.3f}"])
        self._is_failing = False

    def terminate(self) -> None:
        """Ask the process to end after this step, without waiting for it."""
        if not self.is_over:
            self._stopped = True
            self._is_failing = False
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
        directory: Where they write their logs, checkpoints and discovery files.
        port: Port of rank 0, 0 for any free one.
        run: The run's name.
    """
    command = [sys.executable, "-m", "otel_dllogger.cli.demo.train"]
    command += ["--directory", str(directory), "--port", str(port), "--seconds", str(seconds)]
    command += ["--parent", str(os.getpid())]
    inherited = {name: text for name, text in os.environ.items() if name not in RESTART_VARIABLES}
    ranks: list[Rank] = []
    try:
        for number in range(count):
            environ = {
                **inherited,
                "RANK": str(number),
                "LOCAL_RANK": str(number),
                "WORLD_SIZE": str(count),
                "OMP_NUM_THREADS": "1",  # as torchrun sets it
                "OPENBLAS_NUM_THREADS": "1",
                "OTEL_DLLOGGER_RUN": run,
            }
            ranks.append(Rank(number, directory, command, environ))
    except BaseException:
        for rank in ranks:
            rank.kill()
        raise
    return ranks

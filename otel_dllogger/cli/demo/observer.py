"""What the demo knows of its ranks: from their logs and pages, as ``view`` knows it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_dllogger.logs.source import Source
from otel_dllogger.view.assessment import assess_past
from otel_dllogger.view.follow import Follower
from otel_dllogger.view.log_source import LogSource
from otel_dllogger.view.model import Model
from otel_dllogger.view.page_source import AnnouncedPlaces, PageSource
from otel_dllogger.view.server.board import Reading

if TYPE_CHECKING:
    from pathlib import Path

    from otel_dllogger.view.assessment import RunStatus

_READ_S = 10.0
_TURN_S = 0.05


class Observer:
    """A model of one run, which a thread of its own keeps current.

    Args:
        logs: The logs of the ranks; those that are there before ``start`` are read, too.
        discovery: The folder in which the ranks announce their pages.
        run: The run's name.

    Attributes:
        model: The model.
    """

    def __init__(self, logs: list[Path], discovery: Path, run: str) -> None:
        self.model = Model()
        self._logs = logs
        self._run = run
        source = Source([str(path) for path in logs], run=run, patterns=["log_rank{rank}.json"])
        self._follower = Follower(
            [LogSource(source, self.model), PageSource([AnnouncedPlaces(discovery)], self.model)]
        )

    def start(self) -> None:
        """Begin to read."""
        self._follower.start()

    def close(self) -> None:
        """Stop reading."""
        self._follower.close()

    @property
    def reading(self) -> Reading:
        """Return how far logs were read."""
        return Reading(*self._follower.progress, self._follower.wait_until_current(0))

    def count_training(self) -> int:
        """Return how many ranks have made a step."""
        with self.model.lock:
            run = self.model.runs.get(self._run)
            return 0 if run is None else sum(rank.iteration is not None for rank in run)

    def wait_for_end(self) -> None:
        """Wait until the logs were read to their ends, to which nothing is added any more."""
        size_bytes = sum(path.stat().st_size for path in self._logs if path.exists())
        deadline_s = time.monotonic() + _READ_S
        while self.reading.read_bytes < size_bytes and time.monotonic() < deadline_s:
            time.sleep(_TURN_S)

    def assess(self) -> RunStatus | None:
        """Return how the run went; None if nothing of it was read."""
        with self.model.lock:
            run = self.model.runs.get(self._run)
            return None if run is None else assess_past(run)

"""Logs with times that are said, written by the real backend: processes, phases, steps, events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.backends.json_stream import JSONStreamBackend
from otel_dllogger.logs.source import Source
from otel_dllogger.logs.whole_logs import WholeLogs, find_logs
from otel_dllogger.record import OPEN, Event, Phase, Record
from otel_dllogger.view.goodput import Goodputs

if TYPE_CHECKING:
    from pathlib import Path

    from otel_dllogger.view.goodput import Goodput

_START_US = 1_700_000_000_000_000


class TimedLog:
    """The log of one rank, whose clock is moved by what happens in it.

    Args:
        folder: Where it is written.
        rank: The rank.
    """

    def __init__(self, folder: Path, rank: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._backend = JSONStreamBackend(0, str(folder / f"job_rank{rank}.json"), append=True)
        self.now_s = self._start_s = 0.0

    def start(self, at_s: float) -> None:
        """Start another process at a time since the start of the run."""
        self.now_s = self._start_s = at_s

    def wait(self, seconds: float) -> None:
        """Let time go by of which nothing is logged."""
        self.now_s += seconds

    def step(self, step: Any, seconds: float = 0.0) -> None:
        """Log a record at the end of a step."""
        self.now_s += seconds
        self._backend.write_record(Record(*self._times(), step, {"loss": 0.5}))

    def steps(self, first: int, last: int, seconds: float = 1.0) -> None:
        """Log steps one after the other, the last one included."""
        for step in range(first, last + 1):
            self.step(step, seconds)

    def phase(
        self,
        name: str,
        seconds: float,
        *,
        inner: float = 0.0,
        announced: float = 0.0,
        is_overlapping: bool = False,
    ) -> None:
        """Log a phase that ends, of whose time so many seconds are in phases within it.

        The clock moves by what is in no inner phase, and by what was not announced, since those
        moved it already.
        """
        self.now_s += seconds - inner - announced
        self._backend.write_phase(
            Phase(
                *self._times(),
                name,
                round(seconds * 1e6),
                round((seconds - inner) * 1e6),
                is_overlapping=is_overlapping,
            )
        )

    def announce(self, name: str, seconds: float) -> None:
        """Log that a phase has been open for so long, as it is before a record in it."""
        self.now_s += seconds
        duration_us = round(seconds * 1e6)
        self._backend.write_phase(Phase(*self._times(), name, duration_us, duration_us, OPEN))

    def event(self, name: str, step: Any = None) -> None:
        """Log an event."""
        self._backend.write_event(Event(*self._times(), name, None, step))

    def close(self) -> None:
        """Close the file."""
        self._backend.close()

    def _times(self) -> tuple[int, int]:
        return (
            _START_US + round(self.now_s * 1e6),
            round((self.now_s - self._start_s) * 1e6),
        )


def read_goodput(folder: Path) -> Goodput:
    """Read the logs of one run as report and check read them, and return where its time went."""
    source = Source([str(folder)])
    goodputs = Goodputs()
    for rank, item in WholeLogs(source).read(find_logs(source)):
        rank.take(item)
        goodputs.take(rank, item)
    (found,) = goodputs.find().values()
    return found

"""Follow the records of one rank in one file, to see whether they can be a rank's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.logs.reader import SEPARATOR
from otel_dllogger.record import ITERATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.logs.parsers.formats import FileRecord
    from otel_dllogger.logs.ranks import LoggedRank

_RECENT_STEPS = 4  # ranks of one training are that close; a restart goes back further
_MAX_COUNTS = 1_000
_BACK_US = 1_000_000  # MMEngine's and syslog's times are whole seconds


class RankTrace:
    """What the records of one rank in a file show, one after the other.

    Attributes:
        records: Records of training iterations.
        steps: Records of steps of any kind.
        odd_starts: Processes that begin with a longer elapsed time than the last one ended with.
        jumps: How often elapsed times go back, other than by a restart.
        passed_us: Microseconds between records, by their times.
        elapsed_us: The same by their elapsed times.
        step_s: Seconds of training steps, by the metric ``time``.
        step_clock_us: Microseconds that the same steps took, by the times of their records.
        is_interpolated: Whether times are worked out from places in the file.
        first_nonfinite: The step of the first NaN or Inf, as text.
    """

    __slots__ = (
        "_by_times",
        "_elapsed_us",
        "_is_first",
        "_metrics",
        "_once",
        "_recent",
        "_repeated",
        "_step_time_us",
        "_steps_before",
        "_time_key",
        "_time_us",
        "elapsed_us",
        "first_nonfinite",
        "is_interpolated",
        "jumps",
        "odd_starts",
        "passed_us",
        "records",
        "step_clock_us",
        "step_s",
        "steps",
    )

    def __init__(self) -> None:
        self._recent: dict[object, Mapping[str, float]] = {}  # the first record of each step
        self._repeated: dict[object, dict[tuple[str, ...], int]] = {}
        self._once = 0
        self._by_times: dict[int, int] = {}
        self._elapsed_us = -1
        self._time_us = 0
        self._is_first = True
        self._metrics = 0
        self._time_key: str | None = None
        self._step_time_us = -1  # of the record before, if it was a training iteration
        self._steps_before: float = 0
        self.records = 0
        self.steps = 0
        self.jumps = 0
        self.odd_starts = 0
        self.passed_us = 0
        self.elapsed_us = 0
        self.step_s = 0.0
        self.step_clock_us = 0
        self.is_interpolated = False
        self.first_nonfinite = ""

    def start(self) -> None:
        """Note that another process begins, which may do the last steps again."""
        self._is_first = True
        self._step_time_us = -1
        self._flush()

    def add(self, record: FileRecord, numbers: Mapping[str, float], rank: LoggedRank) -> None:
        """Add a record of a step, which the rank has taken, with its metrics."""
        self.steps += 1
        if record.interpolated:
            self.is_interpolated = True
        else:
            self._follow_clocks(record)
        if not record.is_pair and record.granularity is not ITERATION:
            self._step_time_us = -1
            return
        self.records += 1
        self._count(record.step if record.is_pair else record.position, numbers)
        if self._time_key is not None or len(rank.state.iterations) != self._metrics:
            self._follow_steps(record, rank)

    def _follow_clocks(self, record: FileRecord) -> None:
        elapsed_us, time_us = record.elapsed_us, record.time_us
        more_us = elapsed_us - self._elapsed_us
        if self._is_first:
            self.odd_starts += self._elapsed_us >= 0 and more_us > 0
            self._is_first = False
        elif more_us < -_BACK_US:
            self.jumps += 1
        elif more_us >= 0 and time_us >= self._time_us:
            self.elapsed_us += more_us
            self.passed_us += time_us - self._time_us
        self._elapsed_us, self._time_us = elapsed_us, time_us

    def _count(self, step: object, numbers: Mapping[str, float]) -> None:
        recent = self._recent
        first = recent.get(step)
        if first is None:
            if len(recent) == _RECENT_STEPS:
                oldest = next(iter(recent))
                del recent[oldest]
                self._close(oldest)
            recent[step] = numbers
            return
        counts = self._repeated.get(step)
        if counts is None:
            counts = self._repeated[step] = {tuple(first): 1}
        names = tuple(numbers)
        if names in counts or len(counts) < _MAX_COUNTS:
            counts[names] = counts.get(names, 0) + 1

    def _close(self, step: object) -> None:
        counts = self._repeated.pop(step, None) if self._repeated else None
        times = 1 if counts is None else min(max(counts.values()), _MAX_COUNTS)
        if times == 1:
            self._once += 1
        else:
            self._by_times[times] = self._by_times.get(times, 0) + 1

    def _flush(self) -> None:
        for step in self._recent:
            self._close(step)
        self._recent.clear()

    @property
    def is_one_step(self) -> bool:
        """Return whether there are several records, all of one step."""
        return self.records > 1 and not self._once and not self._by_times and len(self._recent) == 1

    def repetitions(self) -> tuple[int, int, int]:
        """Return how often most of the repeated steps are there, all steps, and those repeated.

        A step is there several times if several records of it have the same metrics.
        """
        by_times = {1: self._once, **self._by_times}
        for step in self._recent:
            times = max(self._repeated.get(step, {(): 1}).values())
            by_times[times] = by_times.get(times, 0) + 1
        steps = sum(by_times.values())
        once = by_times.pop(1)
        most = max(by_times, key=lambda times: by_times[times], default=1)
        return most, steps, steps - once

    def _follow_steps(self, record: FileRecord, rank: LoggedRank) -> None:
        state = rank.state
        if len(state.iterations) != self._metrics:
            self._metrics = len(state.iterations)
            self._time_key = find_time(rank)
        if self._time_key is None:
            return
        value = record.numbers.get(self._time_key)
        if value is None:
            return
        passed_us, steps = record.time_us - self._step_time_us, state.steps - self._steps_before
        if self._step_time_us >= 0 and passed_us >= 0 and 0 <= value < float("inf"):
            self.step_clock_us += passed_us
            self.step_s += value * steps
        self._step_time_us, self._steps_before = record.time_us, state.steps


def find_time(rank: LoggedRank) -> str | None:
    """Return the key of the metric that says how long an iteration took, in seconds."""
    for key in rank.state.iterations:
        name = key.partition(SEPARATOR)[0].replace(".", "/").rpartition("/")[2]
        if name == "time" and rank.mapped(key).unit == "s":
            return key
    return None

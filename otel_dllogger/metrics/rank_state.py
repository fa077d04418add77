"""What one rank logged last, and where in the training it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.record import GRANULARITIES, ITERATION

if TYPE_CHECKING:
    from otel_dllogger.record import Position


class RankState:
    """Hold what one rank logged last.

    Attributes:
        rank: The value of the ``rank`` label.
        cells: Last values by metric name, for each granularity. A value that is not
            finite stays in it, and is not exported.
        iterations: The cell that nearly every record is for.
        nonfinite: NaN and Inf seen, by metric name.
        best: The best finite value by metric name, where the goal is known.
        parameters: Numeric hyper-parameters by name.
        texts: Other hyper-parameters by name.
        logs: Calls of ``log``, without those of parameters.
        calls: Calls of the other types.
        place: Where the last step was: a pair of ints as it is, else its position, so that
            a validation does not pass for the iteration that it follows.
        epoch: Where the rank is, where a step said so.
        iteration: Where the rank is, where a step said so.
        steps: Training steps since the start of the process.
        step_us: Microseconds that these steps took.
        start_us: Microseconds since the Unix epoch of the first sign of the rank.
        last_log_us: Microseconds since the Unix epoch of the last record.
        finished: Whether the run's summary was logged, or the Logger closed.
    """

    def __init__(self, rank: int, start_us: int) -> None:
        self.rank = str(rank)
        self.cells: dict[str, dict[str, float]] = {name: {} for name in GRANULARITIES}
        self.iterations = self.cells[ITERATION]
        self.nonfinite: dict[str, int] = {}
        self.best: dict[str, float] = {}
        self.parameters: dict[str, float] = {}
        self.texts: dict[str, str] = {}
        self.logs = 0
        self.calls = dict.fromkeys(("metadata", "info", "parameter"), 0)
        self.place: Position | tuple[int, int] | None = None
        self.epoch: float | None = None
        self.iteration: float | None = None
        self.steps: float = 0  # an int as long as steps are: those have no range to leave
        self.step_us = 0
        self.start_us = start_us
        self.last_log_us: int | None = None
        self.finished = False
        # Of the last training iteration:
        self._epoch: float | None = None
        self._iteration: float | None = None
        self._elapsed_us = 0
        self._stride: float = 1

    def move(self, position: Position, elapsed_us: int) -> None:
        """Take note of a new epoch or iteration, or of the end of the run.

        Args:
            position: The kind of step, and where it is.
            elapsed_us: Its time, microseconds of a monotonic clock.
        """
        self.place = position
        granularity, place = position
        if not place:
            self.finished = True
            return
        epoch, iteration = place
        if epoch is not None:
            self.epoch = epoch
            self.finished = False
        if iteration is None:
            return
        if granularity is ITERATION:
            self.advance(epoch, iteration, elapsed_us)
        self.iteration = iteration
        self.finished = False

    def advance(self, epoch: float | None, iteration: float, elapsed_us: int) -> None:
        """Count the training steps since the last iteration that was logged.

        A script that logs every tenth iteration moves by ten training steps. Where the
        iteration goes back, at an epoch that counts from 0 again, the last distance is
        taken.

        Args:
            epoch: The epoch, where the step says it.
            iteration: The iteration.
            elapsed_us: Its time, microseconds of a monotonic clock.
        """
        last = self._iteration
        if last is None:
            self.steps += 1
        elif iteration == last and epoch == self._epoch:
            return
        else:
            if iteration > last:
                self._stride = iteration - last
            self.steps += self._stride
            if elapsed_us > self._elapsed_us:  # not so between two Loggers
                self.step_us += elapsed_us - self._elapsed_us
        self._epoch = epoch
        self._iteration = iteration
        self._elapsed_us = elapsed_us

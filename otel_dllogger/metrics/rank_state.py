"""The state of one rank: what it logged last, and its place in the training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.metrics.phases import PhaseTimes
from otel_dllogger.metrics.steps import StepMeaning
from otel_dllogger.record import EPOCH, GRANULARITIES, ITERATION, Position
from otel_dllogger.runtime.interruptions import let_through

if TYPE_CHECKING:
    from otel_dllogger.metrics.step_durations import StepDurations

_MOST_STEPS = 1 << 63
"""More steps at once than these are an iteration that jumped: their sum would not stay finite."""

_NUMBER = (int, float)
_NUMBER_OR_NONE = (int, float, type(None))
_PLAIN: dict[str, tuple[type, ...]] = {
    "logs": (int,),
    "epoch": _NUMBER_OR_NONE,
    "iteration": _NUMBER_OR_NONE,
    "steps": _NUMBER,
    "start_us": (int,),
    "last_log_us": (int, type(None)),
    "finished": (bool,),
    "_epoch": _NUMBER_OR_NONE,
    "_iteration": _NUMBER_OR_NONE,
    "_stride": _NUMBER,
}
_PLAIN_DICTS: dict[str, tuple[type, ...]] = {
    "nonfinite": (int,),
    "best": _NUMBER,
    "parameters": _NUMBER,
    "texts": (str,),
    "calls": (int,),
    "events": (int,),
    "event_times_us": (int,),
}


class RankState:
    """The state of one rank.

    Attributes:
        rank: The value of the ``rank`` label.
        cells: Last values by metric name, for each granularity. A value that is not
            finite is kept here, but is not exported.
        iterations: The cell of the granularity ``iteration``, for nearly every record.
        nonfinite: How many NaN and Inf were seen, by metric name.
        best: The best finite value by metric name, if the goal is known.
        parameters: Numeric hyper-parameters by name.
        texts: Other hyper-parameters by name.
        logs: The number of ``log`` calls, without those of parameters.
        calls: The numbers of calls of the other types.
        place: The place of the last step: a pair of ints as it is, else its position, so that
            a validation is not mistaken for the iteration that it follows.
        epoch: The epoch of the last step that had one.
        iteration: The iteration of the last step that had one.
        steps: Training steps since the start of the process.
        phases: What the time went to.
        events: The numbers of events by name.
        event_times_us: The time of the last one of each name.
        start_us: When the rank was first seen, microseconds since the Unix epoch.
        last_log_us: The time of the last record, microseconds since the Unix epoch.
        finished: Whether the run's summary was logged, or the Logger was closed.
        meaning: What the rank's steps mean.
        durations: How long its steps took, None if nobody asked for that.
    """

    def __init__(
        self,
        rank: int,
        start_us: int,
        meaning: StepMeaning | None = None,
        durations: StepDurations | None = None,
    ) -> None:
        self.rank = str(rank)
        self.meaning = meaning or StepMeaning()
        self.durations = durations
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
        self.steps: float = 0  # an int as long as all steps are ints, which have no limit
        self.phases = PhaseTimes()
        self.events: dict[str, int] = {}
        self.event_times_us: dict[str, int] = {}
        self.start_us = start_us
        self.last_log_us: int | None = None
        self.finished = False
        # These are of the last training iteration:
        self._epoch: float | None = None
        self._iteration: float | None = None
        self._stride: float = 1

    @property
    def step_us(self) -> int:
        """Return the microseconds that steps took, without phases that interrupt the training."""
        return self.phases.step_us

    @property
    def entries(self) -> int:
        """Return how many calls of the logger and phases there were."""
        phases = sum(sum(counts.values()) for counts in self.phases.counts.values())
        return self.logs + sum(self.calls.values()) + sum(self.events.values()) + phases

    def move_odd_pair(self, pair: tuple[int, int], elapsed_us: int) -> None:
        """Note a new pair that may be ``(iteration, all iterations)``.

        Args:
            pair: The step.
            elapsed_us: Its time, microseconds of a monotonic clock.
        """
        self.place = pair
        self.finished = False
        is_of_total = self.meaning.is_of_total(pair)
        epoch, iteration = (None, pair[0]) if is_of_total else pair
        self.epoch, self.iteration = epoch, iteration
        # A total is not an epoch that is not known: if the guess ends, the next pair is a step.
        self.advance(pair[1] if is_of_total else epoch, iteration, elapsed_us)

    def move(self, position: Position, elapsed_us: int) -> None:
        """Note a new epoch or iteration, or the end of the run.

        Args:
            position: The kind of step, and its place in the training.
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
            if granularity is EPOCH and self._iteration is None:
                self.phases.end_epoch(elapsed_us)
            return
        if granularity is ITERATION:
            self.advance(epoch, iteration, elapsed_us)
        self.iteration = iteration
        self.finished = False

    def advance(self, epoch: float | None, iteration: float, elapsed_us: int) -> None:
        """Count the training steps since the last iteration that was logged.

        A script that logs every tenth iteration advances by ten training steps. If the
        iteration goes back, in an epoch that counts from 0 again, the last distance counts. A step
        without an epoch is the same as one with it: Lightning writes both in turn.

        Args:
            epoch: The epoch, if the step contains it.
            iteration: The iteration.
            elapsed_us: Its time, microseconds of a monotonic clock.
        """
        last = self._iteration
        if last is None:
            self.phases.end_startup(elapsed_us)
            self.steps += 1
        elif iteration == last and (epoch == self._epoch or None in (epoch, self._epoch)):
            if epoch is not None:
                self._epoch = epoch
            return
        else:
            steps = self.steps
            try:
                if iteration > last:
                    stride = iteration - last
                    self._stride = stride if stride < _MOST_STEPS else 1
                self.steps += self._stride
            except OverflowError as error:  # a fraction added to an int beyond float's range
                let_through(error)
                self._stride = 1
            phases = self.phases
            if self.durations is not None and (steps_us := phases.steps_us_until(elapsed_us)) > 0:
                self.durations.observe(steps_us, self._stride)
            interval_us = elapsed_us - phases.mark_us
            if 0 < interval_us <= phases.limit_us and elapsed_us < phases.due_us:
                phases.mark_us = elapsed_us  # before the interval: see ``PhaseTimes.step_us``
                phases.interval_us += interval_us
            else:
                self._end_interval(elapsed_us, steps)
        self._epoch = epoch
        self._iteration = iteration

    def _end_interval(self, elapsed_us: int, steps: float) -> None:
        """Tell the phases of an interval that may be a stall, or the first one.

        Args:
            elapsed_us: Its end, microseconds of a monotonic clock.
            steps: The steps until its begin.
        """
        try:
            share = self._stride / max(steps - 1, 1)
        except OverflowError as error:
            let_through(error)
            share = 1.0
        self.phases.end_interval(elapsed_us, share=share)

    def begin_process(self) -> None:
        """Note that another process writes from here on, whose clock begins at 0.

        Its first record is one step, as on its own page: where the process before it ended does
        not say how many steps this one made.
        """
        self.phases.begin_process()
        self.place = self._epoch = self._iteration = None
        self._stride = 1

    def to_plain(self) -> dict[str, Any]:
        """Return everything but the rank as types of Python's JSON: dicts, lists, any number."""
        plain = {name: getattr(self, name) for name in (*_PLAIN, *_PLAIN_DICTS)}
        plain["cells"] = {name: cell for name, cell in self.cells.items() if cell}
        plain["place"] = self.place
        plain["meaning"] = self.meaning.to_plain()
        plain["phases"] = self.phases.to_plain()
        plain["durations"] = None if self.durations is None else self.durations.to_plain()
        return plain

    def load_plain(self, plain: dict[str, Any]) -> None:
        """Restore the state from the result of ``to_plain``, written to JSON and read back.

        Raises:
            LookupError, TypeError, ValueError: If ``plain`` is anything else.
        """
        for name, types in _PLAIN.items():
            if not isinstance(plain[name], types):
                raise TypeError(f"{name} is {plain[name]!r}")
            setattr(self, name, plain[name])
        for name, types in _PLAIN_DICTS.items():
            getattr(self, name).update(_checked(plain[name], types))
        for name, cell in _checked(plain["cells"], (dict,)).items():
            self.cells[name].update(_checked(cell, _NUMBER))
        self.meaning.load_plain(plain["meaning"])
        self.phases.load_plain(plain["phases"])
        durations = plain.get("durations")  # an earlier version, or setting, had none
        if self.durations is not None and durations is not None:
            self.durations.load_plain(durations)
        place = plain["place"]
        if place is None:
            self.place = None
        elif isinstance(place[0], str):  # compared by identity, as in ``move``
            kind = GRANULARITIES[GRANULARITIES.index(place[0])]
            self.place = Position(kind, tuple(place[1]))
        else:
            self.place = (place[0], place[1])


def _checked(plain: Any, types: tuple[type, ...]) -> dict[str, Any]:
    """Check that a value from JSON is a dict whose values have these types, and return it.

    Raises:
        TypeError: If it is anything else.
    """
    if type(plain) is not dict or not all(isinstance(value, types) for value in plain.values()):
        raise TypeError(f"{plain!r} is not a dict of {types}")
    return plain

"""What is known of runs, in memory: their ranks, and the history of each of their series.

Sources fill the model (``log_source``, ``page_source``), and the terminal, the live page and the
report show it. Hold ``Model.lock`` while reading or changing it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.view.history import History, Room
from otel_dllogger.view.metric import Metric, Traits
from otel_dllogger.view.step_axis import StepAxis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_dllogger.view.hangs import Hang

TRAIL_S = 15.0
"""Seconds between two entries of a rank's trail, as between two scrapes."""

_TRAIL_ENTRIES = 320  # 80 minutes
_MAX_STARTS = 256


class Series:
    """One series of one rank.

    Attributes:
        metric: What tells it apart; late metadata can change it.
        traits: What else is known of it.
        history: Its values.
    """

    __slots__ = ("history", "metric", "traits")

    def __init__(self, metric: Metric, traits: Traits, history: History) -> None:
        self.metric = metric
        self.traits = traits
        self.history = history


class ProcessStart(NamedTuple):
    """The start of one of a rank's processes.

    Attributes:
        time_s: When, seconds since the Unix epoch.
        attempt: The number of the attempt.
        x: The training step that its first record continues from.
        segment: The segment of the histories that begins with it.
    """

    time_s: float
    attempt: int
    x: float
    segment: int


class Counted(NamedTuple):
    """What ``dllogger_nonfinite_total`` and ``dllogger_best`` count of: their labels.

    Attributes:
        metric: The name as it was logged.
        stage: The stage; empty if there is none.
        of: The kind, or for a best value the goal; empty if it is not known.
    """

    metric: str
    stage: str
    of: str


class TrailEntry(NamedTuple):
    """Where a rank was at one time: what its counters said.

    Attributes:
        time_s: Seconds since the Unix epoch.
        steps: ``dllogger_steps_total``.
        step_s: ``dllogger_step_seconds_total``.
        log_s: ``dllogger_log_seconds_total``.
        nonfinite: ``dllogger_nonfinite_total``.
        dropped: ``dllogger_dropped_total``, by reason.
    """

    time_s: float
    steps: float
    step_s: float
    log_s: float
    nonfinite: dict[Counted, float]
    dropped: dict[str, float]


class Rank:
    """One rank of one run. What is not known is None, or empty.

    Attributes:
        run: The run's name.
        number: The rank.
        host: Where it runs.
        local_rank: Its number on that host, as text.
        pid: Its process, as text.
        world_size: How many ranks the run has.
        attempt: How many times it was started.
        start_s: When its process started, seconds since the Unix epoch.
        last_log_s: When it logged last, seconds since the Unix epoch.
        epoch: Its last epoch.
        iteration: Its last iteration.
        steps: Training steps of its process.
        step_s: Seconds that they took.
        records: Records that it logged.
        finished: Whether it has finished.
        terminated: Whether it was told to end.
        is_logged: Whether its log is read, which has more than its page.
        read_s: When its page was read last, seconds since the Unix epoch.
        is_closed: Whether its page was taken away by its process.
        is_gone: Whether its page does not answer.
        log_s: Seconds that it spent in ``log()``.
        nonfinite: How often each metric was NaN or infinite.
        best: The best value of each metric whose goal is known.
        parameters: Hyper-parameters by name.
        dropped: What was lost, by reason.
        phases: The open phases that interrupt the training, and when each was first seen to be
            open, seconds since the Unix epoch.
        hang: Its last hang.
        series: Its series by metric.
        axis: Where on the axis of training steps it is.
        starts: The starts of its processes.
        trail: Where it was, every ``TRAIL_S``.
    """

    def __init__(self, run: str, number: int) -> None:
        self.run = run
        self.number = number
        self.host = self.local_rank = self.pid = ""
        self.world_size = 0
        self.attempt = 1
        self.start_s: float | None = None
        self.last_log_s: float | None = None
        self.epoch: float | None = None
        self.iteration: float | None = None
        self.steps = 0.0
        self.step_s = 0.0
        self.records = 0
        self.finished = self.terminated = False
        self.read_s: float | None = None
        self.is_logged = self.is_closed = self.is_gone = False
        self.log_s: float | None = None
        self.nonfinite: dict[Counted, float] = {}
        self.best: dict[Counted, float] = {}
        self.parameters: dict[str, float | str] = {}
        self.dropped: dict[str, float] = {}
        self.phases: dict[str, float] = {}
        self.hang: Hang | None = None
        self.series: dict[Metric, Series] = {}
        self.axis = StepAxis()
        self.starts: deque[ProcessStart] = deque(maxlen=_MAX_STARTS)
        self.trail: deque[TrailEntry] = deque(maxlen=_TRAIL_ENTRIES)

    def clear(self) -> None:
        """Forget its past; what its source says next replaces the rest."""
        self.start_s = None
        self.hang = None
        self.series.clear()
        self.axis = StepAxis()
        self.starts.clear()
        self.trail.clear()
        self.nonfinite.clear()
        self.best.clear()

    def start(self, time_s: float, attempt: int) -> None:
        """Note that a process of the rank started.

        Args:
            time_s: When, seconds since the Unix epoch.
            attempt: The number of the attempt.
        """
        self.axis.start()
        self.phases.clear()
        self.start_s, self.attempt = time_s, attempt
        self.starts.append(ProcessStart(time_s, attempt, self.axis.x, self.axis.segment))

    def leave_trail(self, time_s: float) -> None:
        """Note where the rank is, unless that was done less than ``TRAIL_S`` ago.

        Args:
            time_s: The time by the clock of its records, seconds since the Unix epoch.
        """
        if self.trail and time_s - self.trail[-1].time_s < TRAIL_S:
            return
        self.trail.append(
            TrailEntry(
                time_s,
                self.steps,
                self.step_s,
                self.log_s or 0.0,
                self.nonfinite.copy(),
                self.dropped.copy(),
            )
        )

    def before(self, time_s: float) -> TrailEntry | None:
        """Return the newest entry of its trail from before a time, else the first one."""
        found = self.trail[0] if self.trail else None
        for entry in self.trail:
            if entry.time_s > time_s:
                break
            found = entry
        return found


class Run:
    """One run.

    Attributes:
        name: Its name.
        ranks: Its ranks by their numbers.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.ranks: dict[int, Rank] = {}

    def __iter__(self) -> Iterator[Rank]:
        """Iterate over the ranks in the order of their numbers."""
        return (self.ranks[number] for number in sorted(self.ranks))

    def metrics(self) -> dict[Metric, Traits]:
        """Return the metrics of all ranks, with what any of them says of it."""
        found: dict[Metric, Traits] = {}
        for rank in self:
            for metric, series in rank.series.items():
                known = found.get(metric)
                traits = series.traits
                found[metric] = traits if known is None else known.completed_by(traits)
        return found


class Model:
    """What is known of runs.

    Attributes:
        lock: To be held while the model is read or changed.
        runs: The runs by name, in the order in which they were found.
        revision: Grows with every change.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.runs: dict[str, Run] = {}
        self.revision = 0
        self._room = Room()

    def rank(self, run: str, number: int) -> Rank:
        """Return a rank, a new one if it is not known yet."""
        ranks = self._run(run).ranks
        found = ranks.get(number)
        if found is None:
            found = ranks[number] = Rank(run, number)
        return found

    def _run(self, name: str) -> Run:
        run = self.runs.get(name)
        if run is None:
            run = self.runs[name] = Run(name)
        return run

    def series(self, rank: Rank, name: str, labels: Mapping[str, str]) -> Series:
        """Return a series of a rank, a new one if it is not known yet.

        Args:
            rank: The rank.
            name: The series' name in Prometheus.
            labels: Its labels.
        """
        metric = Metric.of(name, labels)
        series = rank.series.get(metric)
        if series is None:
            if self._room.admit():
                self._shrink()
            series = Series(metric, Traits.of(name, labels), History(self._room))
            rank.series[metric] = series
        return series

    def rename(self, rank: Rank, series: Series, name: str, labels: Mapping[str, str]) -> None:
        """Give a series another name or other labels, since metadata came late."""
        metric = Metric.of(name, labels)
        series.traits = Traits.of(name, labels)
        if metric not in rank.series:
            rank.series.pop(series.metric, None)
            series.metric = metric
            rank.series[metric] = series

    def clear(self, rank: Rank) -> None:
        """Forget what is known of a rank, since a source with all of its past begins."""
        for _series in rank.series:
            self._room.release()
        rank.clear()

    def forget(self, rank: Rank) -> None:
        """Stop keeping a rank, and its run if it has no other."""
        run = self.runs.get(rank.run)
        if run is None or run.ranks.get(rank.number) is not rank:
            return
        del run.ranks[rank.number]
        for _series in rank.series:
            self._room.release()
        if not run.ranks:
            del self.runs[rank.run]

    def _shrink(self) -> None:
        for run in self.runs.values():
            for rank in run.ranks.values():
                for series in rank.series.values():
                    series.history.shrink()

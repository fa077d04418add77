"""What the ranks of a run are doing, and what is wrong: what the alert rules would say.

The thresholds are those of the rules. What an alert waits for (``for: 5m``) is said at once here,
and five minutes are all that there is of them where less was seen.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otel_dllogger.diagnostics import HARMLESS_DROPS
from otel_dllogger.metrics import health
from otel_dllogger.metrics.kinds import DURATION, LOSS, SCORE, THROUGHPUT
from otel_dllogger.record import ITERATION
from otel_dllogger.view.hangs import describe_hangs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from otel_dllogger.view.metric import Metric
    from otel_dllogger.view.model import Rank, Run

RECENT_S = 300.0
"""Seconds over which step times, and what is counted, are looked at."""

_HOUR_S = 3600.0
_UNREAD_S = 10.0  # after that a page is not only slow: nobody knows what its rank does
_TEN_MINUTES_S = 600.0
_CRASHES_S = 1800.0
_SIGMA_OF_DEVIATION = 1.4826  # of a normal distribution, by the median of absolute deviations
_ERROR_OF_MEDIAN = 1.2533  # of its standard deviation, over the root of the number of values
_ERRORS = 3.0
_LEAST_VALUES = 5
_WHOLE_STEP = 0.75  # the share of a step from which on a part is the step itself
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_ACTIVE = (health.STARTING, health.TRAINING, health.QUIET, health.STALLED)
_STEPPING = (health.TRAINING, health.QUIET, health.STALLED)


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong with a run, or that happened to it.

    Attributes:
        alert: The alert that says so; empty if there is none.
        severity: ``critical``, ``warning`` or ``info``.
        words: What is wrong, as the alert would say it.
        rank: The rank that it is about, None for the run.
    """

    alert: str
    severity: str
    words: str
    rank: int | None = None


@dataclasses.dataclass(slots=True)
class RankStatus:
    """What one rank is doing.

    Attributes:
        rank: The rank.
        state: One of ``health.STATES``.
        age_s: Seconds since it logged last, None before its first record.
        step_s: Seconds of a step, lately; None if it made none.
        excess: How much longer that is than the median of the ranks, as a share of it.
        slow_part: The part of its step that costs the run most time, as a metric's name; empty if
            it is the whole step or nothing is slow.
        slow_ratio: How much longer it, or its step, takes, as a share of a step.
        is_straggler: Whether it is so slow that an alert says so.
        nonfinite: How often a metric was NaN or infinite.
        phase: The phase that interrupts its training, the one that was seen last; empty if none is
            open.
        phase_s: For how many seconds it has been seen.
    """

    rank: Rank
    state: str
    age_s: float | None
    step_s: float | None = None
    excess: float | None = None
    slow_part: str = ""
    slow_ratio: float = 0.0
    is_straggler: bool = False
    nonfinite: int = 0
    phase: str = ""
    phase_s: float = 0.0

    @property
    def urgency(self) -> tuple[int, bool, bool, float, int, int]:
        """Return what sorts the ranks that need help before the others."""
        position = health.URGENCY.index(self.state)
        behind = health.URGENCY.index(health.QUIET)
        return (
            min(position, behind),
            not self.nonfinite,
            not self.is_straggler,
            -self.slow_ratio if self.is_straggler else 0.0,
            position,
            self.rank.number,
        )


@dataclasses.dataclass(slots=True)
class RunStatus:
    """What one run is doing.

    Attributes:
        run: The run.
        state: One of ``health.STATES``.
        now_s: The time for which this holds, seconds since the Unix epoch.
        ranks: Its ranks in the order of their numbers.
        step_s: The median of the ranks' seconds of a step; None if there were none.
        findings: What is wrong with it, the worst first.
    """

    run: Run
    state: str
    now_s: float
    ranks: list[RankStatus]
    step_s: float | None = None
    findings: list[Finding] = dataclasses.field(default_factory=list)


def assess_past(run: Run, now_s: float | None = None) -> RunStatus:
    """Say how a run went that is over, from all that there was of it.

    Args:
        run: The run.
        now_s: The time from which ages count, seconds since the Unix epoch; by default when it
            logged last.
    """
    if now_s is None:
        now_s = max((rank.last_log_s or 0.0 for rank in run), default=0.0)
    return assess(run, now_s, recent_s=math.inf, is_over=True)


def assess_now(run: Run, now_s: float) -> RunStatus:
    """Say what a run is doing; of one that is over, how it went.

    Args:
        run: The run.
        now_s: The current time, seconds since the Unix epoch.
    """
    status = assess(run, now_s)
    return assess_past(run, now_s) if status.state in health.OVER else status


def assess(
    run: Run, now_s: float, *, recent_s: float = RECENT_S, is_over: bool = False
) -> RunStatus:
    """Say what a run is doing.

    Args:
        run: The run.
        now_s: The current time, seconds since the Unix epoch; for a run of the past, when it
            logged last.
        recent_s: Seconds over which things are looked at; infinite for all that there was.
        is_over: Whether no more is to come, so that a rank without an end has not finished.
    """
    is_interrupted = any(
        rank.phases.keys() & health.INTERRUPTING_PHASES for rank in run if _is_there(rank)
    )
    ranks = [RankStatus(rank, *_state(rank, now_s, is_interrupted=is_interrupted)) for rank in run]
    for each in ranks:
        if is_over and each.state in _ACTIVE:
            each.state = health.UNFINISHED
        elif each.state in _ACTIVE and (open_phases := each.rank.phases):
            each.phase, since_s = max(open_phases.items(), key=lambda phase: phase[1])
            each.phase_s = max(now_s - since_s, 0.0)
    status = RunStatus(run, _run_state(ranks), now_s, ranks)
    _compare_steps(status, recent_s)
    for each in ranks:
        each.nonfinite = int(sum(each.rank.nonfinite.values()))
    order = (health.CRITICAL, health.WARNING, health.INFO)
    found = list(_findings(status, recent_s))
    status.findings = sorted(found, key=lambda one: order.index(one.severity))
    return status


def _is_there(rank: Rank) -> bool:
    return not (rank.finished or rank.terminated or rank.is_gone or rank.is_closed)


def _state(rank: Rank, now_s: float, *, is_interrupted: bool) -> tuple[str, float | None]:
    last_s = rank.last_log_s
    age_s = None if last_s is None else max(now_s - last_s, 0.0)
    if rank.finished:
        return health.FINISHED, age_s
    if rank.terminated:
        return health.TERMINATED, age_s
    if rank.is_gone:
        return health.VANISHED, age_s
    # A process whose page answers is there, for however long it has been silent.
    is_log = not rank.pid
    if rank.is_closed or (is_log and age_s is not None and age_s > health.UNFINISHED_S):
        return health.UNFINISHED, age_s
    if age_s is None or (rank.iteration is None and rank.epoch is None):
        return health.STARTING, age_s
    life_s = max((last_s or 0.0) - (rank.start_s or last_s or 0.0), 0.0)
    # That a page was not read for a while, since reading a thousand takes long, is not silence.
    unread_s = 0.0 if rank.is_logged or rank.read_s is None else max(now_s - rank.read_s, 0.0)
    unread_s = min(unread_s, _UNREAD_S)
    return (
        health.activity(age_s - unread_s, life_s, rank.records, is_interrupted=is_interrupted),
        age_s,
    )


def _run_state(ranks: Sequence[RankStatus]) -> str:
    states = [each.state for each in ranks]
    training = [state for state in states if state in _STEPPING]
    if training:
        for state in (health.TRAINING, health.QUIET, health.STALLED):
            if state in training:
                return state
    # In many scripts rank 0 alone logs steps, or the summary of the run.
    for state in (
        health.FINISHED,
        health.VANISHED,
        health.TERMINATED,
        health.UNFINISHED,
        health.STARTING,
    ):
        if state in states:
            return state
    return health.STARTING


def _compare_steps(status: RunStatus, recent_s: float) -> None:
    """Find out which ranks are slow, as ``rank:dllogger_excess:ratio`` does."""
    since_s = status.now_s - recent_s
    for each in status.ranks:
        each.step_s = _recent_step_s(each.rank, since_s)
    times = {each.rank: each.step_s for each in status.ranks if each.step_s is not None}
    if not times:
        return
    step_s = status.step_s = statistics.median(times.values())
    if step_s <= 0:
        return
    excesses = health.excesses(times)
    for each in status.ranks:
        each.excess = excesses.get(each.rank)
        if each.excess is not None and health.is_straggler(each.excess, len(times)):
            _note_slow(each, "", each.excess)
    for metric, seconds in _durations(status.ranks, since_s).items():
        median = statistics.median(each.median for each in seconds.values())
        if (
            len(seconds) < health.STRAGGLER_RANKS
            or median / step_s - 1 > health.STRAGGLER_STEP_RATIO
        ):
            continue  # a sum over many steps, or a time until the end
        for each in status.ranks:
            own = seconds.get(each.rank.number)
            if each.is_straggler and median / step_s > _WHOLE_STEP:
                continue  # it is the step, which is known to be slow
            if own is not None and own.is_above(median):
                ratio = (own.median - median) / step_s
                if ratio > health.STRAGGLER_DURATION_RATIO:
                    _note_slow(each, metric, ratio)


def _note_slow(each: RankStatus, part: str, ratio: float) -> None:
    if each.state in (*_ACTIVE, health.FINISHED, health.UNFINISHED):
        # A part explains why a step is longer.
        if not each.is_straggler or not each.slow_part or ratio > each.slow_ratio:
            each.slow_part, each.slow_ratio = part, ratio
        each.is_straggler = True


def _recent_step_s(rank: Rank, since_s: float) -> float | None:
    before = rank.before(since_s)
    if before is None:
        return None
    if before.time_s > since_s:  # all that there is: the first step has no duration
        steps, step_s = rank.steps - 1, rank.step_s
    else:
        steps, step_s = rank.steps - before.steps, rank.step_s - before.step_s
    return step_s / steps if steps > 0 and step_s > 0 else None


class _Duration(NamedTuple):
    """How long something takes on one rank, in seconds.

    The alert waits five minutes, by when chance is out of it. Here the values themselves have to
    show that the difference is more than their noise.

    Attributes:
        median: The median of its values.
        error: The standard error of that median, as for values with a normal distribution.
        values: How many values there are.
    """

    median: float
    error: float
    values: int

    @classmethod
    def of(cls, values: NDArray[np.float32], scale: float) -> _Duration:
        """Return the duration that values show, in units of ``scale`` seconds."""
        median = float(np.median(values))
        spread = _SIGMA_OF_DEVIATION * float(np.median(np.abs(values - median)))
        error = _ERROR_OF_MEDIAN * spread / math.sqrt(len(values))
        return cls(median * scale, error * scale, len(values))

    def is_above(self, median: float) -> bool:
        """Return whether it is longer than the median of the ranks, and not by chance."""
        return self.values >= _LEAST_VALUES and self.median - median > _ERRORS * self.error


def _durations(ranks: Iterable[RankStatus], since_s: float) -> dict[str, dict[int, _Duration]]:
    """Return every duration that is logged per iteration, by metric and rank."""
    found: dict[str, dict[int, _Duration]] = {}
    for each in ranks:
        for metric, series in each.rank.series.items():
            scale = _SECONDS.get(series.traits.unit)
            if scale is None or series.traits.kind != DURATION or metric.granularity != ITERATION:
                continue
            _times, recent = series.history.means_since(since_s)
            if len(recent):
                of_metric = found.setdefault(metric.metric, {})
                of_metric[each.rank.number] = _Duration.of(recent, scale)
    return found


def _findings(status: RunStatus, recent_s: float) -> Iterator[Finding]:
    yield from _lost_ranks(status)
    yield from _hangs(status, recent_s)
    yield from _ends(status)
    yield from _counted(status, recent_s)
    for each in sorted(status.ranks, key=lambda each: -each.slow_ratio):
        if each.is_straggler:
            labels = {**_labels(each.rank), "metric": each.slow_part}
            yield _finding("DLLoggerStraggler", labels, each.slow_ratio, each.rank)
    if recent_s <= _HOUR_S:
        yield from _changes(status)
        yield from _skew(status)


def _finding(
    alert: str,
    labels: Mapping[str, str],
    value: float,
    rank: Rank | None = None,
    *,
    is_past: bool = False,
) -> Finding:
    words = health.alert_words(alert, labels, value, is_past=is_past)
    number = None if rank is None else rank.number
    return Finding(alert, health.ALERTS[alert].severity, words, number)


def _labels(rank: Rank) -> dict[str, str]:
    return {
        "run": rank.run,
        "rank": str(rank.number),
        "host": rank.host,
        "local_rank": rank.local_rank,
        "instance": "its address",
    }


def _lost_ranks(status: RunStatus) -> Iterator[Finding]:
    run = {"run": status.run.name}
    stepping = [each for each in status.ranks if each.state in _STEPPING]
    stalled = [each for each in stepping if each.state == health.STALLED]
    if stalled and len(stalled) == len(stepping):
        yield _finding("DLLoggerRunStalled", run, len(stalled))
    else:
        for each in stalled:
            yield _finding("DLLoggerRankStalled", _labels(each.rank), each.age_s or 0.0, each.rank)
    vanished = [each for each in status.ranks if each.state == health.VANISHED]
    if vanished and not any(each.state in _ACTIVE for each in status.ranks):
        yield _finding("DLLoggerRunVanished", run, len(vanished))
    else:
        for each in vanished:
            start_s = each.rank.start_s or 0.0
            yield _finding("DLLoggerRankVanished", _labels(each.rank), start_s, each.rank)
    since_s = status.now_s - _CRASHES_S
    starts = max(sum(start.time_s > since_s for start in rank.starts) for rank in status.run)
    if starts > health.CRASH_ATTEMPTS and status.state != health.FINISHED:
        yield _finding("DLLoggerCrashLoop", run, starts)


def _hangs(status: RunStatus, recent_s: float) -> Iterator[Finding]:
    """Yield which ranks wrote their stacks lately, or did and logged nothing since."""
    since_s = status.now_s - recent_s
    hangs = {
        rank.number: rank.hang
        for rank in status.run
        if rank.hang is not None and rank.hang.time_s > min(since_s, rank.last_log_s or math.inf)
    }
    if hangs:
        number = next(iter(hangs)) if len(hangs) == 1 else None
        yield Finding("", health.WARNING, describe_hangs(status.run.name, hangs), number)


def _ends(status: RunStatus) -> Iterator[Finding]:
    run = {"run": status.run.name}
    states = [each.state for each in status.ranks]
    if status.state == health.FINISHED:
        yield _finding("DLLoggerRunFinished", run, states.count(health.FINISHED))
    elif status.state == health.TERMINATED:
        yield _finding("DLLoggerRunTerminated", run, states.count(health.TERMINATED))


def _counted(status: RunStatus, recent_s: float) -> Iterator[Finding]:
    """Yield what was counted lately: NaN, what was dropped, the time spent in ``log``."""
    since_s = status.now_s - recent_s
    is_past = math.isinf(recent_s)
    name = status.run.name
    dropped: dict[str, float] = {}
    slowest = 0.0
    for rank in status.run:
        before = rank.before(since_s)
        is_old = before is not None and before.time_s <= since_s
        for counted, count in rank.nonfinite.items():
            more = count - (before.nonfinite.get(counted, 0.0) if before and is_old else 0.0)
            if more > 0 and counted.of == LOSS:
                labels = {**_labels(rank), "metric": counted.metric, "stage": counted.stage}
                yield _finding("DLLoggerNonFiniteLoss", labels, more, rank, is_past=is_past)
        for reason, count in rank.dropped.items():
            more = count - (before.dropped.get(reason, 0.0) if before and is_old else 0.0)
            if more > 0 and reason not in HARMLESS_DROPS:
                dropped[reason] = dropped.get(reason, 0.0) + more
        if before is not None and rank.log_s is not None:
            passed_s = status.now_s - before.time_s
            if passed_s > health.ALIVE_S:
                slowest = max(slowest, (rank.log_s - before.log_s) / passed_s)
    for reason, count in dropped.items():
        labels = {"run": name, "reason": reason}
        yield _finding("DLLoggerRecordsDropped", labels, count, is_past=is_past)
    if slowest > health.OVERHEAD_RATIO and status.state in _STEPPING:
        yield _finding("DLLoggerLoggingOverhead", {"run": name}, slowest)


def _changes(status: RunStatus) -> Iterator[Finding]:
    """Yield what is worse than it was in the last hour: the throughput, a loss or a score."""
    starts = [rank.start_s for rank in status.run if rank.start_s and not rank.finished]
    if not starts or status.now_s - max(starts) <= health.SETTLED_S:
        return
    run = {"run": status.run.name}
    has_throughput = False
    for metric, traits in status.run.metrics().items():
        kind = traits.kind
        if metric.granularity != ITERATION or metric.stage not in ("train", ""):
            continue
        if kind == THROUGHPUT:
            has_throughput = True
            ratio = _speed_ratio(status, metric)
            if ratio is not None and ratio < health.THROUGHPUT_RATIO:
                labels = {**run, "metric": metric.metric}
                yield _finding("DLLoggerThroughputDrop", labels, ratio)
        elif kind in (LOSS, SCORE):
            value = _diverged(status, metric, sign=1.0 if kind == LOSS else -1.0)
            if value is not None:
                labels = {**run, "metric": metric.metric}
                yield _finding("DLLoggerLossDiverging", labels, value)
    usual_s = _usual_step_s(status)
    if not has_throughput and usual_s and status.step_s:
        ratio = usual_s / status.step_s
        if ratio < health.THROUGHPUT_RATIO:
            yield _finding("DLLoggerThroughputDrop", run, ratio)


class _Recent(NamedTuple):
    """The means of the ranks' buckets of one metric, and how long ago they ended."""

    age_s: NDArray[np.float64]
    means: NDArray[np.float32]

    def between(self, from_s: float, to_s: float) -> NDArray[np.float32]:
        """Return the means of a span of time that begins and ends so long ago."""
        return self.means[(self.age_s <= from_s) & (self.age_s > to_s)]


def _recent(status: RunStatus, metric: Metric, from_s: float) -> _Recent:
    histories = (rank.series[metric].history for rank in status.run if metric in rank.series)
    found = [history.means_since(status.now_s - from_s) for history in histories]
    times, means = (np.concatenate(columns) for columns in zip(*found, strict=True))
    return _Recent(status.now_s - times, means)


def _speed_ratio(status: RunStatus, metric: Metric) -> float | None:
    recent = _recent(status, metric, _HOUR_S)
    lately = recent.between(RECENT_S, -math.inf)
    usual = float(np.median(recent.means)) if len(recent.means) else 0.0
    return float(lately.mean()) / usual if len(lately) and usual > 0 else None


def _diverged(status: RunStatus, metric: Metric, *, sign: float) -> float | None:
    recent = _recent(status, metric, _HOUR_S + _TEN_MINUTES_S)
    lately = recent.between(_TEN_MINUTES_S, -math.inf)
    before = recent.between(math.inf, _TEN_MINUTES_S)
    if not len(lately) or not len(recent.between(math.inf, 2 * _TEN_MINUTES_S)):
        return None
    value = float(np.median(lately))
    return value if sign * value > float((sign * before).max()) else None


def _usual_step_s(status: RunStatus) -> float | None:
    found = [_recent_step_s(rank, status.now_s - _HOUR_S) for rank in status.run]
    known = [step_s for step_s in found if step_s is not None]
    return statistics.median(known) if known else None


def _skew(status: RunStatus) -> Iterator[Finding]:
    """Yield how far ranks that log are apart, in iterations of one epoch or in epochs."""
    alive = [
        each.rank
        for each in status.ranks
        if each.state in _STEPPING and each.age_s is not None and each.age_s < health.ALIVE_S
    ]
    run = {"run": status.run.name}
    by_epoch: dict[float | None, list[float]] = {}
    for rank in alive:
        if rank.iteration is not None:
            by_epoch.setdefault(rank.epoch, []).append(rank.iteration)
    apart = max((max(found) - min(found) for found in by_epoch.values()), default=0.0)
    apart_s = apart * (status.step_s or 0.0)
    if apart_s > health.SKEW_S:
        labels = {**run, "unit": "seconds of training"}
        yield _finding("DLLoggerIterationSkew", labels, apart_s)
    epochs = [rank.epoch for rank in alive if rank.epoch is not None]
    if epochs and max(epochs) - min(epochs) >= health.SKEW_EPOCHS and _is_long(alive):
        labels = {**run, "unit": "epochs"}
        yield _finding("DLLoggerIterationSkew", labels, max(epochs) - min(epochs))


def _is_long(ranks: Iterable[Rank]) -> bool:
    """Return whether an epoch takes longer than what ranks may be apart."""
    for rank in ranks:
        if rank.epoch and rank.start_s and rank.last_log_s:
            epochs = rank.epoch - (rank.axis.epochs[0][1] if rank.axis.epochs else 0.0)
            if epochs * health.SKEW_S > rank.last_log_s - rank.start_s:
                return False
    return True

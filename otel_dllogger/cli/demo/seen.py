"""What was seen in the demo: what ``report`` says of the run, in a few lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.logs.source import Source
from otel_dllogger.logs.whole_logs import find_logs
from otel_dllogger.metrics import health
from otel_dllogger.metrics.kinds import LOSS, SCORE
from otel_dllogger.record import ITERATION
from otel_dllogger.view.extremes import best_values
from otel_dllogger.view.numbers import format_value
from otel_dllogger.view.report.past_runs import read_past

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from otel_dllogger.view.assessment import RankStatus, RunStatus
    from otel_dllogger.view.model import ProcessStart, Rank, Run

_MOST = 3
"""Lines about ranks to which the same happened."""

_SAID_HERE = (
    "DLLoggerStraggler",
    "DLLoggerNonFiniteLoss",
    "DLLoggerRunFinished",
    "DLLoggerRunTerminated",
)


def describe(status: RunStatus) -> list[str]:
    """Return lines that say how a run went.

    Args:
        status: The run, which is over.
    """
    slow = sorted(
        (each for each in status.ranks if each.is_straggler), key=lambda each: -each.slow_ratio
    )
    lines = [
        *_first(_slow(each) for each in slow),
        *_first(line for rank in status.run for line in _nonfinite(rank)),
        *_first(line for rank in status.run for line in _restarts(rank)),
        *_best(status.run),
    ]
    others = (found.words for found in status.findings if found.alert not in _SAID_HERE)
    return lines + list(_first(others))


def _first(lines: Iterable[str]) -> Iterator[str]:
    found = list(lines)
    yield from found[:_MOST]
    if len(found) > _MOST:
        yield f"and {len(found) - _MOST} more like that"


def _slow(each: RankStatus) -> str:
    rank = f"rank {each.rank.number}"
    if each.excess is not None and each.excess > health.STRAGGLER_STEP_RATIO:
        part = f", because of {each.slow_part}" if each.slow_part else ""
        return f"{rank} was {each.excess:.0%} slower than the median{part}"
    return f"{rank} was slow: its {each.slow_part} took {each.slow_ratio:.0%} of a step longer"


def _nonfinite(rank: Rank) -> Iterator[str]:
    for metric, series in rank.series.items():
        first = series.history.first_nonfinite
        if first is not None and series.traits.kind == LOSS:
            times = series.history.nonfinite
            more = "once" if times == 2 else f"{times - 1:,} times"
            also = f", and {more} more" if times > 1 else ""
            where = f"{metric.metric} at step {first.x:,.0f}"
            yield f"rank {rank.number} had a {format_value(first.value)} in {where}{also}"


def _restarts(rank: Rank) -> Iterator[str]:
    for start in list(rank.starts)[1:]:
        line = f"rank {rank.number} died after step {start.x:,.0f} and was restarted"
        first = _first_step(rank, start)
        yield line if first is None else f"{line}: it went on at step {first:,.0f}"


def _first_step(rank: Rank, start: ProcessStart) -> float | None:
    """Return the first step of a process; None if it made none."""
    found = []
    for metric, series in rank.series.items():
        columns = series.history.columns()
        after = columns.where(columns.segment >= start.segment)
        if metric.granularity == ITERATION and len(after.x):  # a bucket has the last of its steps
            found.append(float(after.x[0]) - int(after.finite[0]) - int(after.nonfinite[0]) + 1)
    return min(found, default=None)


def describe_time(folder: Path) -> list[str]:
    """Return a line that says where the time of a run went, of which the logs are in a folder."""
    source = Source([str(folder)])
    goodputs = read_past(source, find_logs(source)).goodputs.values()
    return [goodput.describe()[0] for goodput in goodputs]


def _best(run: Run) -> Iterator[str]:
    for metric, traits, (moment, rank) in best_values(run):
        if traits.kind == SCORE:
            value = f"{moment.value:.4g}{f' {traits.unit}' if traits.unit else ''}"
            yield f"best {metric.metric}: {value}, rank {rank.number} at step {moment.x:,.0f}"

"""The least and the greatest values of metrics over the ranks of a run, and where they were."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.record import ITERATION
from otel_dllogger.view.headline import in_order
from otel_dllogger.view.history import Moment
from otel_dllogger.view.model import Counted, Rank

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.view.metric import Metric, Traits
    from otel_dllogger.view.model import Run

MINIMIZE = "minimize"
_GOALS = (MINIMIZE, "maximize")


class Extreme(NamedTuple):
    """The least or the greatest value of any rank.

    Attributes:
        moment: The value, exactly, and where it was first; NaN if that is not known.
        rank: The rank, the lowest one of several with that value.
    """

    moment: Moment
    rank: Rank


def best_values(run: Run) -> Iterator[tuple[Metric, Traits, Extreme]]:
    """Yield the best value of each metric with a goal, in the order in which people look at them.

    Args:
        run: The run.
    """
    metrics = run.metrics()
    for metric in in_order(metrics):
        traits = metrics[metric]
        if traits.goal in _GOALS:
            best = find_extreme(run, metric, is_least=traits.goal == MINIMIZE, goal=traits.goal)
            if best is not None:
                yield metric, traits, best


def find_extreme(run: Run, metric: Metric, *, is_least: bool, goal: str = "") -> Extreme | None:
    """Return the least or the greatest value of any rank; None if there is none.

    Args:
        run: The run.
        metric: The metric.
        is_least: Whether to return the least one.
        goal: The metric's goal, if the best value of a page is to count that is from before it
            was first read.
    """
    found = [
        Extreme(moment, rank)
        for rank in run
        if metric in rank.series and (moment := _of_rank(rank, metric, is_least, goal)) is not None
    ]
    sign = 1.0 if is_least else -1.0
    return min(found, key=lambda each: sign * each.moment.value, default=None)


def _of_rank(rank: Rank, metric: Metric, is_least: bool, goal: str) -> Moment | None:
    history = rank.series[metric].history
    found = history.least if is_least else history.greatest
    counted = rank.best.get(Counted(metric.metric, metric.stage, goal))
    if rank.is_logged or counted is None or not _is_main(metric, rank):
        return found
    sign = 1.0 if is_least else -1.0
    is_earlier = found is None or sign * counted < sign * found.value
    return Moment(counted, math.nan, math.nan) if is_earlier else found


def _is_main(metric: Metric, rank: Rank) -> bool:
    """Return whether the best value of a page, of any kind of step, is taken for a metric's."""
    same = [one for one in rank.series if (one.metric, one.stage) == (metric.metric, metric.stage)]
    return metric.granularity == ITERATION or len(same) == 1

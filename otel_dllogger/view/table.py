"""The rows of the table of ranks, which terminal, live page and report show."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otel_dllogger.metrics import health
from otel_dllogger.view.headline import find_loss, find_throughput
from otel_dllogger.view.metric import Traits

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_dllogger.view.assessment import RankStatus, RunStatus
    from otel_dllogger.view.metric import Metric
    from otel_dllogger.view.model import Rank

_GOING = (health.TRAINING, health.QUIET)

SPARK_POINTS = 24
"""Values of a sparkline."""


class Row(NamedTuple):
    """What the table says of one rank.

    Attributes:
        status: What it is doing.
        loss: Its last loss, which may be NaN; None if it has none.
        throughput: Its last throughput, None if it has none.
        loss_curve: Its loss from the beginning until now; NaN where it was NaN or infinite.
        throughput_curve: Its throughput, in the same way.
    """

    status: RankStatus
    loss: float | None
    throughput: float | None
    loss_curve: list[float]
    throughput_curve: list[float]


class Table(NamedTuple):
    """The table of the ranks of one run.

    Attributes:
        loss: The metric that is shown as the loss, None if there is none.
        throughput: The metric that is shown as the throughput; None for steps per second.
        unit: The unit of the throughput.
        is_global: Whether each rank's throughput is that of all ranks.
        rows: The ranks, those first that need help.
    """

    loss: Metric | None
    throughput: Metric | None
    unit: str
    is_global: bool
    rows: list[Row]

    @property
    def mean_loss(self) -> float | None:
        """Return the mean of the ranks' losses; NaN if none of them is finite."""
        losses = [row.loss for row in self.rows if row.loss is not None]
        finite = [loss for loss in losses if math.isfinite(loss)]
        return _mean(finite) if losses else None

    @property
    def total_throughput(self) -> float | None:
        """Return the throughput of the run; as long as ranks train, the others add nothing."""
        going = [row for row in self.rows if row.status.state in _GOING]
        found = [row.throughput for row in going or self.rows if row.throughput is not None]
        finite = [value for value in found if math.isfinite(value)]
        if not finite:
            return None
        # Ranks make their steps together, or each says what all of them do.
        is_shared = self.throughput is None or self.is_global
        return statistics.median(finite) if is_shared else math.fsum(finite)


def make_table(status: RunStatus, *, points: int = SPARK_POINTS) -> Table:
    """Return the table of a run.

    Args:
        status: What the run is doing.
        points: How many values a curve has; none if it is 0.
    """
    metrics = status.run.metrics()
    loss, throughput = find_loss(metrics), find_throughput(metrics)
    traits = Traits(unit="steps/s") if throughput is None else metrics[throughput]
    rows = [_row(each, loss, throughput, points) for each in in_order(status.ranks)]
    return Table(loss, throughput, traits.unit, traits.scope == "global", rows)


def in_order(ranks: Iterable[RankStatus]) -> list[RankStatus]:
    """Return ranks in the order in which somebody has to look at them."""
    return sorted(ranks, key=lambda each: each.urgency)


def _row(status: RankStatus, loss: Metric | None, speed: Metric | None, points: int) -> Row:
    rank = status.rank
    throughput = _last(rank, speed)
    if speed is None and status.step_s:
        throughput = 1 / status.step_s
    return Row(
        status,
        _last(rank, loss),
        throughput,
        draw_curve(rank, loss, points),
        draw_curve(rank, speed, points),
    )


def _last(rank: Rank, metric: Metric | None) -> float | None:
    series = None if metric is None else rank.series.get(metric)
    return None if series is None else series.history.last


def draw_curve(rank: Rank, metric: Metric | None, points: int) -> list[float]:
    """Return the means of equal parts of a history; NaN for one with a NaN or an infinite value.

    Args:
        rank: The rank.
        metric: The metric, None for no curve.
        points: The greatest number of values.
    """
    series = None if metric is None else rank.series.get(metric)
    if series is None or not points:
        return []
    columns = series.history.columns()
    mean = np.where(columns.nonfinite > 0, np.nan, columns.mean.astype(np.float64))
    if len(mean) > points:
        starts = np.arange(points) * len(mean) // points
        mean = np.add.reduceat(mean, starts) / np.diff(starts, append=len(mean))
    return [float(value) for value in mean]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan

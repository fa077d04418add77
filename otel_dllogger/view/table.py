"""The rows of the table of ranks, which terminal, live page and report show."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otel_dllogger.view.headline import find_loss, find_throughput

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_dllogger.view.assessment import RankStatus, RunStatus
    from otel_dllogger.view.model import Metric, Rank

SPARK_POINTS = 24
"""Values of a sparkline."""


class Row(NamedTuple):
    """What the table says of one rank.

    Attributes:
        status: What it is doing.
        loss: Its last loss, which may be NaN; None if it has none.
        throughput: Its last throughput, None if it has none.
        loss_curve: Its loss from the beginning until now; NaN where it is not known.
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
        rows: The ranks, those first that need help.
    """

    loss: Metric | None
    throughput: Metric | None
    unit: str
    rows: list[Row]


def make_table(status: RunStatus, *, points: int = SPARK_POINTS) -> Table:
    """Return the table of a run.

    Args:
        status: What the run is doing.
        points: How many values a curve has.
    """
    metrics = status.run.metrics()
    loss, throughput = find_loss(metrics), find_throughput(metrics)
    unit = metrics[throughput].unit if throughput is not None else "steps/s"
    rows = [_row(each, loss, throughput, points) for each in in_order(status.ranks)]
    return Table(loss, throughput, unit, rows)


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
        _curve(rank, loss, points),
        _curve(rank, speed, points),
    )


def _last(rank: Rank, metric: Metric | None) -> float | None:
    series = None if metric is None else rank.series.get(metric)
    return None if series is None else series.history.last


def _curve(rank: Rank, metric: Metric | None, points: int) -> list[float]:
    """Return the means of equal parts of a history."""
    series = None if metric is None else rank.series.get(metric)
    if series is None or not points:
        return []
    mean = series.history.columns().mean
    if len(mean) <= points:
        return [float(value) for value in mean]
    parts = np.array_split(mean, points)
    return [_mean(part[np.isfinite(part)].tolist()) for part in parts]


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan

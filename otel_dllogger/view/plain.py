"""The model of runs as plain values, for JSON: what the live page and the report are made from.

Numbers that JSON does not have, NaN and infinity, are null.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from otel_dllogger.metrics import health
from otel_dllogger.record import ITERATION
from otel_dllogger.view.curves import AXES, begin_s
from otel_dllogger.view.headline import in_order
from otel_dllogger.view.history import Moment
from otel_dllogger.view.model import Counted
from otel_dllogger.view.table import Row, make_table

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from otel_dllogger.view.assessment import RunStatus
    from otel_dllogger.view.curves import Curves
    from otel_dllogger.view.metric import Metric
    from otel_dllogger.view.model import Rank, Run

_DIGITS = 7  # of values that are 32 bits wide


def plain_run(status: RunStatus) -> dict[str, Any]:
    """Return what a run is doing: its table, its metrics and all that is known of it.

    Args:
        status: What the run is doing.
    """
    run, table = status.run, make_table(status)
    first = max(run, key=lambda rank: (rank.epoch or 0.0, rank.iteration or 0.0))
    return {
        "name": run.name,
        "state": status.state,
        "state_words": health.STATES[status.state],
        "now_s": status.now_s,
        "begin_s": begin_s(run) or None,
        "last_log_s": max((rank.last_log_s or 0.0 for rank in run), default=0.0) or None,
        "world_size": max((rank.world_size for rank in run), default=0),
        "epoch": _number(first.epoch),
        "iteration": _number(first.iteration),
        "step_s": _number(status.step_s),
        "loss": None if table.loss is None else table.loss.selector,
        "throughput": None if table.throughput is None else table.throughput.selector,
        "throughput_unit": table.unit,
        "findings": [
            {
                "alert": found.alert,
                "severity": found.severity,
                "words": found.words,
                "rank": found.rank,
            }
            for found in status.findings
        ],
        "metrics": _metrics(run),
        "parameters": _parameters(run),
        "starts": _starts(run),
        "best": _best(run),
        "rows": [_row(row) for row in table.rows],
    }


def plain_curves(
    curves: Curves, column: Callable[[NDArray[np.float64]], Any] | None = None
) -> dict[str, Any]:
    """Return curves: columns of one length, null where there is no value.

    Args:
        curves: The curves.
        column: Makes a column of JSON of an array; by default a list.
    """
    column = column or _column
    return {
        "metric": curves.metric.selector,
        "places": curves.places.tolist(),
        "is_exact": curves.is_exact,
        "lines": [
            {
                "run": line.run,
                "rank": line.rank,
                "segment": line.segment,
                "is_redone": line.is_redone,
                "mean": column(line.mean),
                "least": column(line.least),
                "greatest": column(line.greatest),
                "nonfinite": [
                    [int(at), int(line.nonfinite[at])] for at in line.nonfinite.nonzero()[0]
                ],
            }
            for line in curves.lines
        ],
        "bands": [
            {
                "run": band.run,
                "ranks": band.ranks,
                "least": column(band.least),
                "median": column(band.median),
                "greatest": column(band.greatest),
            }
            for band in curves.bands
        ],
    }


def axes() -> dict[str, str]:
    """Return what can be on the axis of places, with its title."""
    return dict(AXES)


def _metrics(run: Run) -> list[dict[str, Any]]:
    metrics = run.metrics()
    return [
        {
            "id": metric.selector,
            "name": metric.name,
            "metric": metric.metric,
            "stage": metric.stage,
            "granularity": metric.granularity,
            **metrics[metric]._asdict(),
        }
        for metric in in_order(metrics)
    ]


def _parameters(run: Run) -> dict[str, float | str]:
    """Return the parameters that any rank logged; a number that JSON does not have as text."""
    found: dict[str, float | str] = {}
    for rank in run:
        for name, value in rank.parameters.items():
            is_plain = isinstance(value, str) or math.isfinite(value)
            found.setdefault(name, value if is_plain else str(value))
    return dict(sorted(found.items()))


def _starts(run: Run) -> list[dict[str, Any]]:
    """Return the starts of processes after each rank's first."""
    return [
        {"rank": rank.number, "attempt": start.attempt, "time_s": start.time_s, "x": start.x}
        for rank in run
        for start in list(rank.starts)[1:]
    ]


def _best(run: Run) -> list[dict[str, Any]]:
    """Return the best value of each metric with a goal, and where it was."""
    found = []
    metrics = run.metrics()
    for metric in in_order(metrics):
        goal = metrics[metric].goal
        if goal not in ("minimize", "maximize"):
            continue
        moments = [
            (rank, moment)
            for rank in run
            if metric in rank.series and (moment := _best_of(rank, metric, goal)) is not None
        ]
        if moments:
            sign = 1.0 if goal == "minimize" else -1.0
            rank, best = min(moments, key=lambda each: (sign * each[1].value, each[0].number))
            found.append(
                {
                    "metric": metric.selector,
                    "goal": goal,
                    "value": best.value,
                    "rank": rank.number,
                    "x": _number(best.x),
                    "time_s": _number(best.time_s),
                }
            )
    return found


def _best_of(rank: Rank, metric: Metric, goal: str) -> Moment | None:
    """Return the best value of a rank.

    That of a page may be from before the page was first read; where it was is not known then. It
    counts for the iterations if the metric is logged at several kinds of step.
    """
    history = rank.series[metric].history
    found = history.least if goal == "minimize" else history.greatest
    counted = rank.best.get(Counted(metric.metric, metric.stage, goal))
    if rank.is_logged or counted is None or not _is_main(metric, rank):
        return found
    sign = 1.0 if goal == "minimize" else -1.0
    is_earlier = found is None or sign * counted < sign * found.value
    return Moment(counted, math.nan, math.nan) if is_earlier else found


def _is_main(metric: Metric, rank: Rank) -> bool:
    same = [one for one in rank.series if (one.metric, one.stage) == (metric.metric, metric.stage)]
    return metric.granularity == ITERATION or len(same) == 1


def _row(row: Row) -> dict[str, Any]:
    status, rank = row.status, row.status.rank
    nonfinite = [
        {"metric": metric.metric, "x": first.x, "time_s": first.time_s}
        for metric, series in rank.series.items()
        if (first := series.history.first_nonfinite) is not None
    ]
    return {
        "rank": rank.number,
        "host": rank.host,
        "local_rank": rank.local_rank,
        "pid": rank.pid,
        "attempt": rank.attempt,
        "state": status.state,
        "epoch": _number(rank.epoch),
        "iteration": _number(rank.iteration),
        "steps": _number(rank.steps),
        "x": rank.axis.x,
        "age_s": _number(status.age_s),
        "step_s": _number(status.step_s),
        "excess": _number(status.excess),
        "is_straggler": status.is_straggler,
        "slow_part": status.slow_part,
        "slow_ratio": _number(status.slow_ratio),
        "nonfinite": status.nonfinite,
        "first_nonfinite": nonfinite,
        "loss": _number(row.loss),
        "throughput": _number(row.throughput),
        "loss_curve": [_number(value) for value in row.loss_curve],
        "throughput_curve": [_number(value) for value in row.throughput_curve],
    }


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _column(values: NDArray[np.float64]) -> list[float | None]:
    return [
        float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None for value in values.tolist()
    ]

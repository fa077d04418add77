"""The model of runs as plain values, for JSON: what the live page and the report are made from.

Numbers that JSON does not have, NaN and infinity, are null.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from otel_dllogger.metrics import health
from otel_dllogger.view.curves import begin_s
from otel_dllogger.view.extremes import best_values
from otel_dllogger.view.headline import in_order
from otel_dllogger.view.table import Row, make_table

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from otel_dllogger.view.assessment import RunStatus
    from otel_dllogger.view.curves import Curves
    from otel_dllogger.view.model import Run


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


def plain_curves(curves: Curves, column: Callable[[NDArray[np.float64]], Any]) -> dict[str, Any]:
    """Return curves without their places: columns of one length, in which NaN is not a value.

    Args:
        curves: The curves.
        column: Makes what stands for a column.
    """
    return {
        "metric": curves.metric.selector,
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
    """Return the best value of each metric with a goal, and where it was if that is known."""
    return [
        {
            "metric": metric.selector,
            "goal": traits.goal,
            "value": best.moment.value,
            "rank": best.rank.number,
            "x": _number(best.moment.x),
            "time_s": _number(best.moment.time_s),
        }
        for metric, traits, best in best_values(run)
    ]


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
        "phase": status.phase,
        "phase_s": round(status.phase_s),
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

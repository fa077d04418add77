"""What a report says of runs in numbers and words, without the curves.

These are the plain values of ``--format json``; the other formats show them. The keys are stable:
new ones may come, none will change its meaning. Times are seconds since the Unix epoch (``*_s``
with ``time``, ``begin`` or ``end``) or durations in seconds. A number that JSON does not have, and
what is not known, is null. A ``step`` is the place on an axis of training steps, on which epochs
whose iterations count from 0 are laid one after the other.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

from otel_dllogger.view.extremes import best_values, find_extreme
from otel_dllogger.view.headline import in_order
from otel_dllogger.view.plain import plain_run
from otel_dllogger.view.report import FORMAT

if TYPE_CHECKING:
    from otel_dllogger.view.assessment import RunStatus
    from otel_dllogger.view.extremes import Extreme
    from otel_dllogger.view.goodput import Goodput
    from otel_dllogger.view.metric import Metric, Traits
    from otel_dllogger.view.model import Run
    from otel_dllogger.view.report.past_events import PastEvents
    from otel_dllogger.view.report.past_runs import PastRuns

_VERSION = 1
_OF_RANK = (
    "rank",
    "host",
    "local_rank",
    "state",
    "attempt",
    "epoch",
    "iteration",
    "steps",
    "loss",
    "throughput",
    "step_s",
    "excess",
    "is_straggler",
    "slow_part",
    "slow_ratio",
    "nonfinite",
)


def summarise(past: PastRuns) -> dict[str, Any]:
    """Return what a report says of runs.

    ``format`` and ``version`` mark it. ``runs`` has, for each run: ``name``; ``state`` and what it
    means; ``begin_s``, ``end_s``; ``ranks``, how many logged; ``world_size``; ``attempts``;
    ``epoch``, ``iteration``, ``step``: the last ones; ``step_s``, the median of the ranks' step
    times; ``goodput``, where the time went; ``events``, what happened; ``best``, the best value of
    each metric with a goal, and where it was; ``metrics``, what is known of each; ``by_rank``,
    those first that need help; ``nonfinite``, where each metric was first NaN or infinite;
    ``restarts``; ``findings``, what the alert rules would say; ``parameters``. ``doubts`` is what
    was doubtful in the logs.

    Args:
        past: The runs.
    """
    return {
        "format": FORMAT,
        "version": _VERSION,
        "runs": [
            _run(status, past.goodputs.get(status.run.name), past.events.get(status.run.name))
            for status in past.runs
        ],
        "doubts": past.doubts,
    }


def _run(status: RunStatus, goodput: Goodput | None, events: PastEvents | None) -> dict[str, Any]:
    run, plain = status.run, plain_run(status)
    return {
        "name": run.name,
        "state": plain["state"],
        "state_words": plain["state_words"],
        "begin_s": plain["begin_s"],
        "end_s": plain["last_log_s"],
        "ranks": len(run.ranks),
        "world_size": plain["world_size"],
        "attempts": max((rank.attempt for rank in run), default=1),
        "epoch": plain["epoch"],
        "iteration": plain["iteration"],
        "step": _finite(max((rank.axis.x for rank in run), default=0.0)),
        "step_s": plain["step_s"],
        "goodput": None if goodput is None else goodput.to_plain(),
        "events": [] if events is None else [event.to_plain() for event in events.in_order()],
        "events_left_out": 0 if events is None else events.left_out,
        "loss": plain["loss"],
        "throughput": plain["throughput"],
        "throughput_unit": plain["throughput_unit"],
        "best": _best(run),
        "metrics": _metrics(run),
        "by_rank": [
            {key: row[key] for key in _OF_RANK} | {"step": row["x"]} for row in plain["rows"]
        ],
        "nonfinite": _nonfinite(run),
        "restarts": _restarts(run),
        "findings": plain["findings"],
        "parameters": plain["parameters"],
    }


def _best(run: Run) -> list[dict[str, Any]]:
    return [
        {**_names(metric, traits), "goal": traits.goal, **_place(best)}
        for metric, traits, best in best_values(run)
    ]


def _metrics(run: Run) -> list[dict[str, Any]]:
    found = []
    metrics = run.metrics()
    for metric in in_order(metrics):
        histories = [rank.series[metric].history for rank in run if metric in rank.series]
        last = [history.last for history in histories if history.last is not None]
        finite = [value for value in last if math.isfinite(value)]
        found.append(
            {
                **_names(metric, metrics[metric]),
                "goal": metrics[metric].goal,
                "kind": metrics[metric].kind,
                "ranks": len(histories),
                "values": sum(history.count for history in histories),
                "nonfinite": sum(history.nonfinite for history in histories),
                "last_median": statistics.median(finite) if finite else None,
                "least": _extreme(run, metric, is_least=True),
                "greatest": _extreme(run, metric, is_least=False),
            }
        )
    return found


def _names(metric: Metric, traits: Traits) -> dict[str, str]:
    return {
        "metric": metric.metric,
        "stage": metric.stage,
        "granularity": metric.granularity,
        "series": metric.selector,
        "unit": traits.unit,
    }


def _extreme(run: Run, metric: Metric, *, is_least: bool) -> dict[str, Any] | None:
    found = find_extreme(run, metric, is_least=is_least)
    return None if found is None else _place(found)


def _place(extreme: Extreme) -> dict[str, Any]:
    moment, rank = extreme
    return {
        "value": moment.value,
        "rank": rank.number,
        "step": moment.x,
        "time_s": moment.time_s,
    }


def _nonfinite(run: Run) -> list[dict[str, Any]]:
    """Return where metrics were NaN or infinite, those first that were so first."""
    found = []
    for rank in run:
        for metric, series in rank.series.items():
            first = series.history.first_nonfinite
            if first is not None:
                found.append(
                    {
                        **_names(metric, series.traits),
                        "rank": rank.number,
                        "count": series.history.nonfinite,
                        "value": "NaN" if math.isnan(first.value) else str(first.value),
                        "step": first.x,
                        "time_s": first.time_s,
                    }
                )
    return sorted(found, key=lambda each: (each["time_s"], each["rank"], each["series"]))


def _restarts(run: Run) -> list[dict[str, Any]]:
    """Return the starts of further attempts, each with the ranks that began it."""
    found: dict[int, dict[str, Any]] = {}
    for rank in run:
        for start in list(rank.starts)[1:]:
            known = found.setdefault(
                start.attempt,
                {"attempt": start.attempt, "time_s": start.time_s, "step": start.x, "ranks": []},
            )
            known["time_s"] = min(known["time_s"], start.time_s)
            known["step"] = min(known["step"], start.x)
            known["ranks"].append(rank.number)
    return [found[attempt] for attempt in sorted(found)]


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""All ranks of the logs that are checked, one line each, and where the time of each run went."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_dllogger.cli.check.report import cut, format_duration, format_number, format_table
from otel_dllogger.errors import count_of, printable
from otel_dllogger.logs.rank_trace import find_time
from otel_dllogger.metrics import health
from otel_dllogger.view.headline import find_loss, find_throughput
from otel_dllogger.view.metric import Metric, Traits
from otel_dllogger.view.numbers import format_excess, format_throughput, format_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from otel_dllogger.logs.ranks import LoggedRank
    from otel_dllogger.view.goodput import Goodputs

_MAX_RUN = 50
_TITLES = ("run", "rank", "steps", "loss", "throughput", "slower", "first NaN", "last record")


def describe_ranks(
    ranks: Iterable[LoggedRank], first_nonfinite: Mapping[tuple[str, int], str]
) -> list[str]:
    """Return a line for each rank that logged a step, below a line of titles.

    Args:
        ranks: The ranks, after all of their logs.
        first_nonfinite: The step of the first NaN or Inf of the ranks that had one.
    """
    runs: dict[str, list[LoggedRank]] = {}
    for rank in sorted(ranks, key=lambda rank: rank.key):
        if rank.state.logs:
            runs.setdefault(rank.run, []).append(rank)
    rows = [row for of_run in runs.values() for row in _rows(of_run, first_nonfinite)]
    return format_table(_TITLES, rows, flexible=("run", "first NaN")) if rows else []


def describe_goodput(goodputs: Goodputs, *, has_names: bool = True) -> list[str]:
    """Return lines that say where the time of each run went.

    Args:
        goodputs: What accounted for it.
        has_names: Whether the runs have names; the one of a pipe has none.
    """
    lines: list[str] = []
    for run, found in sorted(goodputs.find().items()):
        whole = f"{format_duration(found.wall_us / 1e6)} x {count_of(len(found.by_rank), 'rank')}"
        first, *others = found.describe()
        name = f"Run {cut(printable(run), _MAX_RUN)!r}" if has_names else "One run"
        lines += [f"{name}, {whole}: {first}"]
        lines += [f"  {line}" for line in others]
    return ["", *lines] if lines else []


def _rows(
    ranks: Sequence[LoggedRank], first_nonfinite: Mapping[tuple[str, int], str]
) -> Iterator[tuple[str, ...]]:
    """Yield the cells of the ranks of one run."""
    values = [_last_values(rank) for rank in ranks]
    metrics: dict[Metric, Traits] = {}
    for of_rank in values:
        for metric, (traits, _value) in of_rank.items():
            metrics[metric] = metrics.get(metric, traits).completed_by(traits)
    loss, throughput = find_loss(metrics), find_throughput(metrics)
    times = {rank.key: _seconds_per_step(rank) for rank in ranks}
    known = {key: step_s for key, step_s in times.items() if step_s is not None}
    excesses = health.excesses(known) if len(known) > 1 else {}
    for rank, of_rank in zip(ranks, values, strict=True):
        step_s = times[rank.key]
        speed = ""
        if throughput is not None and throughput in of_rank:
            speed = format_throughput(of_rank[throughput][1], metrics[throughput].unit)
        elif throughput is None and step_s:
            speed = format_throughput(1 / step_s, "steps/s")
        excess = excesses.get(rank.key)
        slower = "" if excess is None else format_excess(excess)
        if excess is not None and health.is_straggler(excess, len(known)):
            slower += ", straggler"
        yield (
            rank.run,
            str(rank.rank),
            format_number(rank.state.steps),
            format_value(of_rank[loss][1]) if loss is not None and loss in of_rank else "",
            speed,
            slower,
            first_nonfinite.get(rank.key, ""),
            _last_time(rank),
        )


def _last_values(rank: LoggedRank) -> dict[Metric, tuple[Traits, float]]:
    """Return the last value of each of a rank's metrics."""
    found: dict[Metric, tuple[Traits, float]] = {}
    for granularity, cells in rank.state.cells.items():
        for key, value in cells.items():
            name = rank.mapped(key).prometheus_name
            labels = rank.series_labels(key, rank.state.rank, granularity)
            found[Metric.of(name, labels)] = Traits.of(name, labels), value
    return found


def _seconds_per_step(rank: LoggedRank) -> float | None:
    state = rank.state
    if state.steps > 1 and state.step_us:
        return state.step_us / 1e6 / (state.steps - 1)
    key = find_time(rank)
    return None if key is None else state.iterations[key]


def _last_time(rank: LoggedRank) -> str:
    last_us = rank.state.last_log_us
    if last_us is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(last_us / 1e6))

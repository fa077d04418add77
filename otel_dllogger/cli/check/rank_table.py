"""A table of all ranks of the logs that are checked, one line each."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from otel_dllogger.cli.check.report import format_number, format_table
from otel_dllogger.logs.rank_trace import find_time
from otel_dllogger.logs.reader import SEPARATOR
from otel_dllogger.metrics.kinds import LOSS, THROUGHPUT
from otel_dllogger.record import EPOCH, ITERATION, RUN, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_dllogger.logs.ranks import LoggedRank

_TITLES = ("run", "rank", "steps", "loss", "throughput", "first NaN", "last record")
_SLOWER = 1.02


def describe_ranks(
    ranks: Iterable[LoggedRank], first_nonfinite: Mapping[tuple[str, int], str]
) -> list[str]:
    """Return a line for each rank that logged a step, below a line of titles.

    Args:
        ranks: The ranks, after all of their logs.
        first_nonfinite: The step of the first NaN or Inf of the ranks that had one.
    """
    shown = sorted((rank for rank in ranks if rank.state.logs), key=lambda rank: rank.key)
    slowest = set(_slowest(shown))
    rows = [
        (
            rank.run,
            str(rank.rank),
            format_number(rank.state.steps),
            _last_loss(rank),
            _throughput(rank) + (", slowest" if rank.key in slowest else ""),
            first_nonfinite.get(rank.key, ""),
            _last_time(rank),
        )
        for rank in shown
    ]
    return format_table(_TITLES, rows, flexible=("run", "first NaN")) if rows else []


def _seconds_per_step(rank: LoggedRank) -> float | None:
    state = rank.state
    if state.steps > 1 and state.step_us:
        return state.step_us / 1e6 / (state.steps - 1)
    key = find_time(rank)
    return None if key is None else state.iterations[key]


def _slowest(ranks: Iterable[LoggedRank]) -> Iterable[tuple[str, int]]:
    """Yield the slowest rank of each run, unless all of its ranks take the same time."""
    runs: dict[str, dict[tuple[str, int], float]] = {}
    for rank in ranks:
        seconds = _seconds_per_step(rank)
        if seconds is not None:
            runs.setdefault(rank.run, {})[rank.key] = seconds
    for times in runs.values():
        key = max(times, key=times.__getitem__)
        if times[key] > _SLOWER * statistics.median_low(times.values()):
            yield key


def _throughput(rank: LoggedRank) -> str:
    """Return what a rank does in a second: the first such metric, or else its steps."""
    for key, value in rank.state.iterations.items():
        mapped = rank.mapped(key)
        unit = mapped.unit_label or mapped.unit
        if mapped.kind == THROUGHPUT and "/" in unit:  # not MFU, or a throughput of anything
            return _rate(value) + (f" {unit}" if unit != "1/s" else "/s")
    seconds = _seconds_per_step(rank)
    return f"{_rate(1 / seconds)} steps/s" if seconds else ""


def _rate(value: float) -> str:
    return f"{value:,.0f}" if 100 <= value < 1e9 else f"{value:.3g}"


def _last_loss(rank: LoggedRank) -> str:
    """Return the last loss of training, or else of anything; of several, the whole one."""
    losses = [
        (rank.mapped(key).stage not in ("train", None), *_part_of_loss(key), value)
        for granularity in (ITERATION, EPOCH, RUN, VALIDATION)
        for key, value in rank.state.cells[granularity].items()
        if rank.mapped(key).kind == LOSS
    ]
    return f"{min(losses)[-1]:.4g}" if losses else ""


def _part_of_loss(key: str) -> tuple[bool, int]:
    """Return what sorts a loss of training behind the whole of it: ``total_loss``, ``loss_cls``."""
    name = key.partition(SEPARATOR)[0].lower()
    return not name.endswith("loss"), 0 if "total" in name else len(name)


def _last_time(rank: LoggedRank) -> str:
    last_us = rank.state.last_log_us
    if last_us is None:
        return ""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(last_us / 1e6))

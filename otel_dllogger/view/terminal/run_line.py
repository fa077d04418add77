"""One line for a run: what stands above its ranks, and what is printed where there is no screen."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from otel_dllogger.errors import count_of
from otel_dllogger.metrics import health
from otel_dllogger.view.curves import begin_s
from otel_dllogger.view.numbers import format_age, format_step, format_throughput, format_value

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_dllogger.view.assessment import RunStatus
    from otel_dllogger.view.table import Table


def run_parts(status: RunStatus, table: Table) -> list[str]:
    """Return what a run is doing, as short texts; the last ones are the least important.

    Args:
        status: What it is doing.
        table: Its ranks.
    """
    known, world = len(status.ranks), max(rank.world_size for rank in status.run)
    of = f" of {world:,}" if world > known else ""
    parts = [status.state, f"{known:,}{of} {'rank' if max(known, world) == 1 else 'ranks'}"]
    epoch = _most(rank.epoch for rank in status.run)
    if epoch is not None:
        parts.append(f"epoch {format_step(epoch)}")
    step = _most(rank.iteration for rank in status.run if epoch is None or rank.epoch == epoch)
    if step is not None:
        parts.append(f"step {format_step(step)}")
    if table.mean_loss is not None:
        parts.append(f"loss {format_value(table.mean_loss)}")
    if table.total_throughput is not None:
        parts.append(format_throughput(table.total_throughput, table.unit))
    begun_s = begin_s(status.run)
    if begun_s:
        last_s = _most(rank.last_log_s for rank in status.run)
        end_s = last_s if status.state in health.OVER and last_s is not None else status.now_s
        parts.append(format_age(max(end_s - begun_s, 0.0)))
    wrong = [found for found in status.findings if found.severity != health.INFO]
    if wrong:
        parts.append(count_of(len(wrong), "finding"))
    parts += _marks(status)
    if table.throughput is not None and status.step_s is not None:
        parts.append(f"{status.step_s:.3g} s/step")
    return parts


def plain_line(status: RunStatus, table: Table) -> str:
    """Return a run as one line of text, with the worst of what is wrong with it.

    Args:
        status: What it is doing.
        table: Its ranks.
    """
    line = f"{status.run.name}: {', '.join(run_parts(status, table))}"
    worst = [found for found in status.findings if found.severity != health.INFO]
    return f"{line}; {worst[0].severity}: {worst[0].words}" if worst else line


def _marks(status: RunStatus) -> list[str]:
    """Return how many ranks are in another state than the run, or need or needed help."""
    counts = Counter(rank.state for rank in status.ranks if rank.state != status.state)
    marks = [f"{counts[state]:,} {state}" for state in health.URGENCY if counts[state]]
    stragglers = sum(rank.is_straggler for rank in status.ranks)
    nonfinite = sum(bool(rank.nonfinite) for rank in status.ranks)
    restarts = len({start.attempt for rank in status.run for start in list(rank.starts)[1:]})
    if restarts:  # which no row shows
        marks.append(count_of(restarts, "restart"))
    if stragglers:
        marks.append(count_of(stragglers, "straggler"))
    if nonfinite:
        marks.append(f"{nonfinite:,} with NaN")
    return marks


def _most(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)

"""What the time of a run was spent on, as far as its logs say."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_dllogger.view.model import Rank, Run


class TimeSplit(NamedTuple):
    """The time of a rank from its first start to its last record, in seconds.

    Attributes:
        wall_s: All of it.
        steps_s: Training steps.
        between_attempts_s: From the last record of a process to the start of the next one.
        other_s: The rest: start-up, validation, checkpoints, and what else no log says.
    """

    wall_s: float
    steps_s: float
    between_attempts_s: float
    other_s: float


def split_run(run: Run) -> TimeSplit | None:
    """Return the mean of the ranks that made steps; None if no rank did."""
    found = [split for rank in run if (split := split_rank(rank)) is not None]
    if not found:
        return None
    return TimeSplit(*(math.fsum(column) / len(found) for column in zip(*found, strict=True)))


def split_rank(rank: Rank) -> TimeSplit | None:
    """Return the time of one rank; None if it made no steps."""
    start_s = rank.starts[0].time_s if rank.starts else rank.start_s
    if start_s is None or rank.last_log_s is None or rank.step_s <= 0:
        return None
    wall_s = max(rank.last_log_s - start_s, 0.0)
    steps_s = min(rank.step_s, wall_s)
    between_s = min(math.fsum(_gaps_s(rank)), wall_s - steps_s)
    return TimeSplit(wall_s, steps_s, between_s, wall_s - steps_s - between_s)


def _gaps_s(rank: Rank) -> Iterable[float]:
    """Yield the time before each start but the first."""
    columns = [series.history.columns() for series in rank.series.values()]
    for start in list(rank.starts)[1:]:
        last_s = max(
            (
                float(before.max())
                for each in columns
                if len(before := each.time_s[each.segment < start.segment])
            ),
            default=start.time_s,
        )
        yield max(start.time_s - last_s, 0.0)

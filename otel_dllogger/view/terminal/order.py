"""The order of the ranks of a run, in which rows do not jump."""

from __future__ import annotations

import math
from operator import lt
from typing import TYPE_CHECKING, Any

from otel_dllogger.metrics import health

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.view.table import Row

    _Place = tuple[Any, ...]

RENEWED_S = 10.0
"""Seconds after which ranks that do better, or whose values changed, move."""


def _greatest(value: float | None) -> float:
    """Return what sorts the greatest value first, NaN before it and what is not known last."""
    if value is None:
        return math.inf
    return -math.inf if math.isnan(value) else -value


def _least(value: float | None) -> float:
    return math.inf if value is None or math.isnan(value) else value


SORTS: dict[str, Callable[[Row], _Place]] = {
    "need": lambda row: row.status.urgency,
    "rank": lambda row: (row.status.rank.number,),
    "loss": lambda row: (_greatest(row.loss),),
    "throughput": lambda row: (_least(row.throughput),),
    "step-time": lambda row: (_greatest(row.status.step_s),),
    "age": lambda row: (_greatest(row.status.age_s),),
}
"""What sorts the rows, by the word for it; the worst is first."""


class SteadyOrder:
    """The order of the ranks of one run.

    A rank that becomes worse moves up at once; all others keep their places for ``RENEWED_S``.

    Args:
        sort: One of ``SORTS``.
    """

    def __init__(self, sort: str) -> None:
        self._place_of = SORTS[sort]
        self._moves_at_once = sort == "need"
        self._places: dict[int, _Place] = {}
        self._alarms: dict[int, _Place] = {}
        self._due_s = -math.inf

    def apply(self, rows: Iterable[Row], now_s: float) -> list[Row]:
        """Return rows in their order.

        Args:
            rows: The rows of all ranks of the run.
            now_s: The time, of a clock that never goes back.
        """
        rows = list(rows)
        if now_s >= self._due_s:
            self._due_s = now_s + RENEWED_S
            self._places.clear()
        for row in rows:
            number, alarm = row.status.rank.number, _alarm(row)
            place = self._places.get(number)
            is_worse = place is not None and any(map(lt, alarm, self._alarms[number]))
            if place is None or (self._moves_at_once and is_worse):
                self._places[number] = self._place_of(row)
                self._alarms[number] = alarm
        return sorted(rows, key=lambda row: self._key(row.status.rank.number))

    def _key(self, number: int) -> _Place:
        return (*self._places[number], number)


def _alarm(row: Row) -> _Place:
    """Return how bad the state of a rank is: less is worse."""
    status = row.status
    return health.URGENCY.index(status.state), not status.nonfinite, not status.is_straggler

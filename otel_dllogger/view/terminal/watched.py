"""The runs of a model as they are shown now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_dllogger.view.assessment import assess_now
from otel_dllogger.view.table import make_table
from otel_dllogger.view.terminal.frame import Shown
from otel_dllogger.view.terminal.order import SteadyOrder

if TYPE_CHECKING:
    from otel_dllogger.view.model import Model


class WatchedRuns:
    """The runs of a model, with the order of their ranks.

    Args:
        model: The model.
        sort: What the ranks are sorted by, one of ``order.SORTS``.
    """

    def __init__(self, model: Model, sort: str = "need") -> None:
        self._model = model
        self._sort = sort
        self._orders: dict[str, SteadyOrder] = {}

    def look(self) -> list[Shown]:
        """Return the runs as they are now; hold the model's lock as long as they are used."""
        found = []
        for name, run in self._model.runs.items():
            order = self._orders.get(name)
            if order is None:
                order = self._orders[name] = SteadyOrder(self._sort)
            status = assess_now(run, time.time())
            table = make_table(status, points=0)
            rows = order.apply(table.rows, time.monotonic())
            found.append(Shown(status, table._replace(rows=rows)))
        return found

"""The ranks of runs as lines of a table that fits a terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from otel_dllogger.metrics import health
from otel_dllogger.view.numbers import (
    format_age,
    format_excess,
    format_rate,
    format_step,
    format_value,
)
from otel_dllogger.view.table import draw_curve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_dllogger.view.assessment import RankStatus
    from otel_dllogger.view.table import Row, Table
    from otel_dllogger.view.terminal.characters import Characters

STYLES = {
    health.VANISHED: "bold red",
    health.STALLED: "bold red",
    health.QUIET: "yellow",
    health.STARTING: "dim",
    health.TRAINING: "green",
    health.UNFINISHED: "yellow",
    health.TERMINATED: "yellow",
    health.FINISHED: "cyan",
}
"""How states are coloured, which their words say as well."""

_MOST_CURVE, _LEAST_CURVE = 24, 6
_MOST_HOST, _LEAST_HOST = 24, 7
_MOST_STATE = 36
_MOST_TITLE = 11
_WIDE = 100  # columns from which on there is room for two spaces between cells

_RANK, _HOST, _STEP, _LOSS, _LOSS_CURVE, _SPEED, _SPEED_CURVE, _EXCESS, _AGE, _NAN, _STATE = range(
    11
)
_LEFT = (_HOST, _LOSS_CURVE, _SPEED_CURVE, _STATE)
_DROPPED = (_SPEED_CURVE, _HOST, _LOSS_CURVE, _NAN, _STEP, _EXCESS, _SPEED)
"""The columns that are left out of a narrow terminal, the first one first."""

_FEWEST = 4
_USUAL = {_STEP: 7, _LOSS: 7, _AGE: 5, _STATE: 9}
"""Widths that most cells fit in, so that columns rarely move."""


class _Cell(NamedTuple):
    text: str
    style: str = ""


class RankTable:
    """Lines about ranks, in columns of the same widths for all runs.

    Args:
        tables: The ranks of each run that are shown.
        columns: How many characters fit in a line.
        characters: What the terminal can show.
    """

    def __init__(self, tables: Sequence[Table], columns: int, characters: Characters) -> None:
        self._columns = columns
        self._characters = characters
        units = {table.unit for table in tables}
        unit = characters.clean(units.pop()) if len(units) == 1 else "throughput"
        speed = unit if cell_len(unit) <= _MOST_TITLE else "throughput"
        # The titles of curves are empty: they stand beside the values.
        self._titles = (
            "rank",
            "host",
            "step",
            "loss",
            "",
            speed,
            "",
            "slower",
            "age",
            "NaN",
            "state",
        )
        self._gap = 1 if columns < _WIDE else 2
        self._cells = [[self._row(row) for row in table.rows] for table in tables]
        self._widths = self._fit()
        self._curves = [
            self._draw(tables, "loss", self._widths.get(_LOSS_CURVE, 0)),
            self._draw(tables, "throughput", self._widths.get(_SPEED_CURVE, 0)),
        ]

    @property
    def heading(self) -> Text:
        """Return the line with the titles of the columns."""
        return self._line([_Cell(title, "dim") for title in self._titles])

    def lines(self, number: int) -> list[Text]:
        """Return a line for each rank of a run.

        Args:
            number: The run's place in ``tables``.
        """
        found = []
        for place, cells in enumerate(self._cells[number]):
            cells[_LOSS_CURVE] = _Cell(self._curves[0][number][place])
            cells[_SPEED_CURVE] = _Cell(self._curves[1][number][place])
            found.append(self._line(cells))
        return found

    def _row(self, row: Row) -> list[_Cell]:
        status, rank = row.status, row.status.rank
        place = [format_step(each) for each in (rank.epoch, rank.iteration) if each is not None]
        is_late = status.state in (health.QUIET, health.STALLED, health.VANISHED)
        is_nan = row.loss is not None and not math.isfinite(row.loss)
        return [
            _Cell(str(rank.number)),
            _Cell(self._characters.clean(rank.host) or "-"),
            _Cell("/".join(place) or "-"),
            _Cell(format_value(row.loss), "bold red" if is_nan else ""),
            _Cell(""),
            _Cell(format_rate(row.throughput)),
            _Cell(""),
            _Cell(format_excess(status.excess), "yellow" if status.is_straggler else ""),
            _Cell(format_age(status.age_s), STYLES[status.state] if is_late else ""),
            _Cell(str(status.nonfinite), "bold red" if status.nonfinite else "dim"),
            self._state(status),
        ]

    def _state(self, status: RankStatus) -> _Cell:
        if status.phase:
            phase = f"{self._characters.clean(status.phase)} {format_age(status.phase_s)}"
            return _Cell(f"{status.state}, {phase}", STYLES[status.state])
        if not status.is_straggler:
            return _Cell(status.state, STYLES[status.state])
        is_training = status.state == health.TRAINING
        words = "straggler" if is_training else f"{status.state}, slow"
        if status.slow_part and self._columns >= _WIDE:
            words += f": {self._characters.clean(status.slow_part)}"
        return _Cell(words, "bold yellow" if is_training else STYLES[status.state])

    def _fit(self) -> dict[int, int]:
        """Return the widths of the columns that there is room for."""
        rows = [cells for table in self._cells for cells in table]
        widths = {
            column: max(cell_len(cells[column].text) for cells in rows) if rows else 0
            for column in range(len(self._titles))
        }
        for column, title in enumerate(self._titles):
            widths[column] = max(widths[column], len(title), _USUAL.get(column, 0))
        widths[_HOST] = min(widths[_HOST], _MOST_HOST)
        widths[_STATE] = min(widths[_STATE], _MOST_STATE)
        widths[_LOSS_CURVE] = widths[_SPEED_CURVE] = _LEAST_CURVE
        dropped = iter(_DROPPED)
        while (excess := self._total(widths) - self._columns) > 0:
            if widths.get(_HOST, 0) > _LEAST_HOST:
                widths[_HOST] = max(widths[_HOST] - excess, _LEAST_HOST)
            elif len(widths) > _FEWEST:
                widths.pop(next(dropped))
            else:
                break
        curves = [column for column in (_LOSS_CURVE, _SPEED_CURVE) if column in widths]
        left = self._columns - self._total(widths)
        for number, column in enumerate(curves):
            more = min(left // (len(curves) - number), _MOST_CURVE - _LEAST_CURVE)
            widths[column] += more
            left -= more
        return widths

    def _total(self, widths: dict[int, int]) -> int:
        return sum(widths.values()) + self._gap * (len(widths) - 1)

    def _draw(self, tables: Sequence[Table], what: str, width: int) -> list[list[str]]:
        """Return the curves of all ranks, on one scale for all ranks of a run."""
        found = []
        for table in tables:
            metric = table.loss if what == "loss" else table.throughput
            curves = [draw_curve(row.status.rank, metric, width) for row in table.rows]
            finite = [value for curve in curves for value in curve if math.isfinite(value)]
            low, high = min(finite, default=0.0), max(finite, default=0.0)
            if what != "loss":  # a small change of what is done in a second is to look small
                low, high = min(low, 0.0), max(high, 0.0)
            found.append([self._characters.sparkline(curve, low, high) for curve in curves])
        return found

    def _line(self, cells: Sequence[_Cell]) -> Text:
        line = Text()
        for column, width in self._widths.items():
            cell = cells[column]
            text = self._characters.fit(cell.text, width, from_end=column == _HOST)
            space = " " * (width - cell_len(text))
            if line:
                line.append(" " * self._gap)
            if column in _LEFT:
                line.append(text, cell.style).append(space)
            else:
                line.append(space).append(text, cell.style)
        line.rstrip()
        return line

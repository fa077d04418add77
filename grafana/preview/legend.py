"""The legend below a chart: a table of names and last values, or a line of names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana.preview import colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana.preview.canvas import Box, Canvas
    from grafana.preview.panel_data import PanelData

ROW_PX = 20
_SIZE_PX = 11
_VALUE_PX = 90
# Grafana gives a legend below a chart at most this share of the height, and scrolls the rest:
# packages/grafana-ui/src/components/VizLayout/VizLayout.tsx
_MOST = 0.35

_CALCS = {
    "lastNotNull": "Last *",
    "last": "Last",
    "max": "Max",
    "min": "Min",
    "mean": "Mean",
    "sum": "Total",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a legend.

    Attributes:
        name: The name of the series.
        colour: The colour of its line.
        values: One for each calculation.
        is_dashed: Whether its line is dashed.
    """

    name: str
    colour: str
    values: Sequence[str] = ()
    is_dashed: bool = False


def draw_legend(canvas: Canvas, box: Box, panel: PanelData, entries: Sequence[Entry]) -> Box:
    """Draw the legend of a panel.

    Args:
        canvas: Where to draw.
        box: The room for chart and legend.
        panel: The panel, which sets the style of the legend.
        entries: Its lines.

    Returns:
        The room that is left for the chart.
    """
    options = panel.options.get("legend") or {}
    if not options.get("showLegend", True) or not entries:
        return box
    if options.get("displayMode") != "table":
        return _draw_list(canvas, box, entries)
    titles = [_CALCS.get(calc, calc) for calc in options.get("calcs") or []]
    fitting = max(int(box.height * _MOST // ROW_PX) - 1, 1)
    shown = list(entries[:fitting])
    height = (len(shown) + 1) * ROW_PX
    top = box.bottom - height
    _draw_heads(canvas, box, top + ROW_PX / 2, titles, len(entries) - len(shown))
    for index, entry in enumerate(shown, start=1):
        y = top + (index + 0.5) * ROW_PX
        canvas.line(box.x, y - ROW_PX / 2, box.right, y - ROW_PX / 2, colours.GRID, size=1)
        _draw_key(canvas, box.x + 6, y, entry)
        room = box.width - 30 - _VALUE_PX * len(titles)
        canvas.text(box.x + 26, y, entry.name, size=_SIZE_PX, room=room)
        for place, value in enumerate(reversed(list(entry.values))):
            x = box.right - 8 - place * _VALUE_PX
            canvas.text(x, y, value, size=_SIZE_PX, align="right")
    return box.shrink(0, 0, 0, height + 4)


def _draw_heads(canvas: Canvas, box: Box, y: float, titles: Sequence[str], more: int) -> None:
    name = f"Name ({more} more below, scroll)" if more else "Name"
    canvas.text(box.x + 6, y, name, size=_SIZE_PX, colour=colours.LINK)
    for place, title in enumerate(reversed(titles)):
        x = box.right - 8 - place * _VALUE_PX
        canvas.text(x, y, title, size=_SIZE_PX, colour=colours.LINK, align="right")


def _draw_list(canvas: Canvas, box: Box, entries: Sequence[Entry]) -> Box:
    x, lines = box.x + 6, 1
    y = box.bottom - ROW_PX / 2
    for entry in entries:
        width = 34 + canvas.measure(entry.name, size=_SIZE_PX)
        if x + width > box.right and x > box.x + 6:
            break
        _draw_key(canvas, x, y, entry)
        x += 20 + canvas.text(x + 20, y, entry.name, size=_SIZE_PX, room=box.right - x - 26) + 14
    return box.shrink(0, 0, 0, lines * ROW_PX + 4)


def _draw_key(canvas: Canvas, x: float, y: float, entry: Entry) -> None:
    if entry.is_dashed:
        for start in (0, 5, 10):
            canvas.line(x + start, y, x + start + 2.5, y, entry.colour, size=3)
    else:
        canvas.line(x + 1, y, x + 12, y, entry.colour, size=4)

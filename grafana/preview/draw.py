"""A dashboard as one picture: its header, its rows, its panels where Grafana puts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from grafana.preview import colours
from grafana.preview.canvas import Box, Canvas
from grafana.preview.charts import draw_time_series, draw_xy
from grafana.preview.figures import draw_figures
from grafana.preview.grids import draw_heat_map, draw_history
from grafana.preview.table_panel import draw_table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from grafana.preview.panel_data import Board, BoardRow, PanelData

CAPTION = (
    "Rendered with matplotlib from the results of each panel's queries to a real Prometheus; "
    "not a screenshot of Grafana."
)
WIDTH_PX = 1600

# grafana/grafana public/app/core/constants.ts:
# GRID_COLUMN_COUNT, GRID_CELL_HEIGHT, GRID_CELL_VMARGIN
_COLUMNS = 24
_CELL_PX = 30
_GAP_PX = 8
_MARGIN_PX = 16
_HEAD_PX = 96
_FOOT_PX = 34
_TITLE_PX = 30

DRAWERS: dict[str, Callable[[Canvas, Box, PanelData], None]] = {
    "heatmap": draw_heat_map,
    "stat": draw_figures,
    "status-history": draw_history,
    "table": draw_table,
    "timeseries": draw_time_series,
    "xychart": draw_xy,
}
"""The functions that draw the inside of a panel, by the name of its plugin."""


def draw_board(board: Board) -> Canvas:
    """Draw a dashboard.

    Args:
        board: The dashboard with the data of its panels.

    Returns:
        The picture, to be saved.
    """
    units = sum(_units_of(row) for row in board.rows)
    height = _HEAD_PX + units * (_CELL_PX + _GAP_PX) + _FOOT_PX
    canvas = Canvas(WIDTH_PX, height)
    _draw_head(canvas, board)
    top = float(_HEAD_PX)
    for row in board.rows:
        _draw_row(canvas, row, top)
        top += _units_of(row) * (_CELL_PX + _GAP_PX)
    canvas.text(_MARGIN_PX, height - _FOOT_PX / 2, CAPTION, size=12, colour=colours.FAINT_TEXT)
    return canvas


def draw_panel(canvas: Canvas, box: Box, panel: PanelData) -> None:
    """Draw a panel with its frame and title.

    Args:
        canvas: Where to draw.
        box: Its outer edges.
        panel: The panel with its data.

    Raises:
        ValueError: If panels of its kind cannot be drawn.
    """
    if panel.kind not in DRAWERS:
        raise ValueError(f"panels of type {panel.kind!r} are not drawn; add one to {__name__}")
    canvas.box(box, colours.PANEL, edge=colours.BORDER, radius=2)
    canvas.text(box.x + 10, box.y + 17, panel.title, size=13.5, room=box.width - 20)
    inside = box.shrink(8, _TITLE_PX, 8, 6)
    if panel.is_empty:
        middle = inside.y + inside.height / 2
        x = inside.x + inside.width / 2
        nothing = panel.model.get("fieldConfig", {}).get("defaults", {}).get("noValue", "No data")
        canvas.text(x, middle, nothing, size=14, colour=colours.FAINT_TEXT, align="center")
    else:
        DRAWERS[panel.kind](canvas, inside, panel)


def place(grid: dict[str, int], top_row: int, top: float) -> Box:
    """Return the position of a panel.

    Args:
        grid: Its ``gridPos``: 24 columns, and units of 38 pixels down.
        top_row: The unit at which its row begins.
        top: The position of that unit, in pixels.
    """
    column_px = (WIDTH_PX - 2 * _MARGIN_PX + _GAP_PX) / _COLUMNS
    unit_px = _CELL_PX + _GAP_PX
    return Box(
        _MARGIN_PX + grid["x"] * column_px,
        top + (grid["y"] - top_row) * unit_px,
        grid["w"] * column_px - _GAP_PX,
        grid["h"] * unit_px - _GAP_PX,
    )


def _units_of(row: BoardRow) -> int:
    """Return the height of a row with its heading, in units of the grid."""
    heading = 1 if row.title else 0
    if row.is_closed:
        return heading
    return heading + _end_of(row.panels) - _start_of(row.panels)


def _start_of(panels: Sequence[PanelData]) -> int:
    return min(int(panel.model["gridPos"]["y"]) for panel in panels)


def _end_of(panels: Sequence[PanelData]) -> int:
    return max(int(panel.model["gridPos"]["y"] + panel.model["gridPos"]["h"]) for panel in panels)


def _draw_head(canvas: Canvas, board: Board) -> None:
    canvas.text(_MARGIN_PX, 28, board.title, size=20)
    x = float(_MARGIN_PX)
    for label, value in board.variables:
        shown = canvas.fit(value or "All", 220, size=12)
        label_px = canvas.measure(label, size=12) + 16
        value_px = canvas.measure(shown, size=12) + 20
        box = Box(x, 52, label_px + value_px, 28)
        canvas.box(box, colours.FIELD, edge=colours.BORDER, radius=2)
        canvas.box(Box(x, 52, label_px, 28), colours.PANEL, edge=colours.BORDER)
        canvas.text(x + 8, 66, label, size=12, colour=colours.FAINT_TEXT)
        canvas.text(x + label_px + 10, 66, shown, size=12)
        x = box.right + 8


def _draw_row(canvas: Canvas, row: BoardRow, top: float) -> None:
    if row.title:
        _draw_heading(canvas, row, top)
        top += _CELL_PX + _GAP_PX
    if row.is_closed:
        return
    start = _start_of(row.panels)
    for panel in row.panels:
        draw_panel(canvas, place(panel.model["gridPos"], start, top), panel)


def _draw_heading(canvas: Canvas, row: BoardRow, top: float) -> None:
    y = top + _CELL_PX / 2
    x = _MARGIN_PX + 6.0
    ends = ((-3, -4, 2, 0), (2, 0, -3, 4)) if row.is_closed else ((-5, -3, 0, 2), (0, 2, 5, -3))
    for x0, y0, x1, y1 in ends:
        canvas.line(x + x0, y + y0, x + x1, y + y1, colours.TEXT, size=1.5)
    width = canvas.text(x + 14, y, row.title, size=15)
    if row.is_folded:
        note = "(folded: its panels ask nothing until it is opened)"
        canvas.text(x + 24 + width, y, note, size=12, colour=colours.FAINT_TEXT)

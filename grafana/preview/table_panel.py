"""Table panels: the columns that the transformations leave, with coloured cells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from grafana.preview import colours
from grafana.preview.canvas import Box
from grafana.preview.fields import Field, find_field
from grafana.preview.transform import TIME, Cell, Table, make_tables, transform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana.preview.canvas import Canvas
    from grafana.preview.panel_data import PanelData

_ROW_PX = 30
_SIZE_PX = 12
_PADDING_PX = 6


def draw_table(canvas: Canvas, box: Box, panel: PanelData) -> None:
    """Draw the first table that the transformations leave, with as many rows as fit."""
    tables = transform(make_tables(panel.results), panel.model.get("transformations") or [])
    if not tables:
        return
    table = tables[0]
    sources = table.sources or table.columns
    fields = [
        find_field(panel.model, {title, source})
        for title, source in zip(table.columns, sources, strict=True)
    ]
    shown = [
        index
        for index, field in enumerate(fields)
        if not field.settings.get("custom.hidden") and table.columns[index]
    ]
    rows = sort_rows(table, panel.options.get("sortBy") or [])
    lefts = _place_columns(box, [fields[index] for index in shown])
    fitting = int(box.height // _ROW_PX) - 1
    more = len(rows) - fitting
    if more > 0:
        rows = rows[: fitting - 1]
    for place, index in enumerate(shown):
        is_number = _is_number(table, index)
        cell = Box(lefts[place], box.y, lefts[place + 1] - lefts[place], _ROW_PX)
        field = _as_field(table, fields, index)
        _write(
            canvas,
            cell,
            field.settings.get("displayName") or table.columns[index],
            colours.LINK,
            right=is_number,
        )
        for number, row in enumerate(rows, start=1):
            cell = Box(cell.x, box.y + number * _ROW_PX, cell.width, _ROW_PX)
            _draw_cell(canvas, cell, row[index], field, right=is_number)
    if more > 0:
        y = box.y + (len(rows) + 1.5) * _ROW_PX
        note = f"{more + 1} more rows below, scroll"
        canvas.text(box.x + _PADDING_PX, y, note, size=_SIZE_PX, colour=colours.FAINT_TEXT)


def sort_rows(table: Table, sort_by: Sequence[dict[str, object]]) -> list[list[Cell]]:
    """Return the rows in the panel's initial order.

    Args:
        table: The table.
        sort_by: Columns with directions; only the first counts.
    """
    if not sort_by or sort_by[0]["displayName"] not in table.columns:
        return table.rows
    index = table.columns.index(str(sort_by[0]["displayName"]))

    def key(row: list[Cell]) -> tuple[bool, float, str]:
        cell = row[index]
        number = cell if isinstance(cell, float) and math.isfinite(cell) else -math.inf
        return cell is not None, number, str(cell)

    return sorted(table.rows, key=key, reverse=bool(sort_by[0].get("desc")))


def _place_columns(box: Box, fields: Sequence[Field]) -> list[float]:
    """Return the left side of each column, and the right side of the last one."""
    fixed = [field.settings.get("custom.width") for field in fields]
    free = [width for width in fixed if not width]
    rest = max(box.width - sum(width or 0 for width in fixed), 50 * len(free))
    lefts = [box.x]
    for width in fixed:
        lefts.append(lefts[-1] + float(width or rest / len(free)))
    return lefts


def _as_field(table: Table, fields: Sequence[Field], index: int) -> Field:
    """Return the field of a column; a column of times is formatted as times."""
    if table.columns[index] == TIME:
        return Field({**fields[index].settings, "unit": "dateTimeAsIso"})
    return fields[index]


def _is_number(table: Table, index: int) -> bool:
    return any(isinstance(row[index], float) for row in table.rows)


def _draw_cell(canvas: Canvas, cell: Box, value: Cell, field: Field, *, right: bool) -> None:
    canvas.line(cell.x, cell.y, cell.right, cell.y, colours.GRID, size=1)
    text = field.format(value) if isinstance(value, float) else (value or "")
    style = (field.settings.get("custom.cellOptions") or {}).get("type", "auto")
    colour = colours.TEXT
    if isinstance(value, float) and style.startswith("color-"):
        found = colours.threshold_colour(value, field.steps)
        if style == "color-text" and found != colours.TRANSPARENT:
            colour = found
        elif found != colours.TRANSPARENT:
            canvas.box(cell.shrink(0, 1, 0, 0), found)
            colour = "#1f1f1f"
    elif field.settings.get("links"):
        colour = colours.LINK
    _write(canvas, cell, text, colour, right=right)


def _write(canvas: Canvas, cell: Box, text: str, colour: str, *, right: bool) -> None:
    canvas.text(
        cell.right - _PADDING_PX if right else cell.x + _PADDING_PX,
        cell.y + cell.height / 2,
        text,
        size=_SIZE_PX,
        colour=colour,
        align="right" if right else "left",
        room=cell.width - 2 * _PADDING_PX,
    )

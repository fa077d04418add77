"""Line charts: values over time, and one value over another."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from grafana.preview import colours
from grafana.preview.axes import (
    add_axes,
    choose_range,
    draw_marks,
    set_time_axis,
    set_value_axis,
)
from grafana.preview.canvas import points
from grafana.preview.fields import Field, fill_display_name, find_field, format_labels
from grafana.preview.legend import Entry, draw_legend
from grafana.preview.transform import Cell, Table, make_tables, transform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from grafana.preview.canvas import Box, Canvas
    from grafana.preview.panel_data import PanelData, Series

Point = tuple[float, float]

_DASHES = (0, (4, 4))


def draw_time_series(canvas: Canvas, box: Box, panel: PanelData) -> None:
    """Draw values over time, with thresholds and annotations."""
    series = [one for one in panel.series() if not _is_hidden(one.field, "viz")]
    calcs = (panel.options.get("legend") or {}).get("calcs") or []
    shown = [
        Entry(
            one.name,
            _colour(one.field, index),
            [one.field.format(calculate(calc, one.frame.finite)) for calc in calcs],
            one.field.is_dashed,
        )
        for index, one in enumerate(series)
        if not _is_hidden(one.field, "legend")
    ]
    box = draw_legend(canvas, box, panel, shown)
    defaults = find_field(panel.model, set())
    values = [value for one in series for value in one.frame.finite]
    limits = [defaults.settings.get(name) for name in ("min", "max")]
    axes = add_axes(
        canvas,
        box,
        y_range=choose_range(values, *limits),
        y_unit=defaults.unit,
        y_label=str(defaults.settings.get("custom.axisLabel") or ""),
    )
    set_time_axis(axes, panel.start_s, panel.end_s, box.width)
    draw_marks(axes, panel.marks)
    for index, one in enumerate(series):
        _draw_line(axes, _parts_of(panel, one), one.field, _colour(one.field, index))
    style = (defaults.settings.get("custom.thresholdsStyle") or {}).get("mode", "off")
    if style != "off":
        _draw_thresholds(axes, defaults)


def draw_xy(canvas: Canvas, box: Box, panel: PanelData) -> None:
    """Draw one value over another, with a line for each table that the transformations leave.

    The columns are chosen as in grafana/grafana
    ``public/app/plugins/panel/xychart/utils.ts`` (``prepSeries``).
    """
    tables = transform(make_tables(panel.results), panel.model.get("transformations") or [])
    mapping = (panel.options.get("series") or [{}])[0]
    x_name = mapping["x"]["matcher"]["options"]
    y_name = mapping["y"]["matcher"]["options"]
    tables = [table for table in tables if {x_name, y_name} <= set(table.columns)]
    names = name_curves(panel.model, tables, y_name)
    curves = [_points_of(table, x_name, y_name) for table in tables]
    x_field, y_field = (find_field(panel.model, {name}) for name in (x_name, y_name))
    keys = [Entry(name, colours.series_colour(index)) for index, name in enumerate(names)]
    box = draw_legend(canvas, box, panel, keys)
    x_label = str(x_field.settings.get("custom.axisLabel") or "")
    chart = box.shrink(0, 0, 0, 18 if x_label else 0)
    drawn = [point for curve in curves for point in curve]
    axes = add_axes(
        canvas,
        chart,
        y_range=choose_range(y for _, y in drawn),
        y_unit=y_field.unit,
        y_label=str(y_field.settings.get("custom.axisLabel") or ""),
    )
    x_range = choose_range(x for x, _ in drawn)
    set_value_axis(axes, x_range, x_field.unit, chart.width)
    if x_label:
        canvas.text(box.x + box.width / 2, box.bottom - 6, x_label, size=11, align="center")
    for index, curve in enumerate(curves):
        _draw_line(axes, [curve], y_field, colours.series_colour(index))


def name_curves(model: dict[str, Any], tables: Sequence[Table], y_name: str) -> list[str]:
    """Name the lines of an XY chart by the parts of their labels that differ.

    Args:
        model: The panel's JSON.
        tables: One for each line.
        y_name: The column to draw.
    """
    shown = find_field(model, {y_name}).settings.get("displayName")
    if shown:
        names = [fill_display_name(shown, table.labels) for table in tables]
    else:
        names = [f"{y_name} {format_labels(table.labels)}" for table in tables]
    words = [re.split(r"\s+", name) for name in names]
    if len(words) < 2:
        return names
    shortest = min(len(one) for one in words)
    start = _count_common(words, range(shortest))
    end = _count_common(words, range(-1, -shortest - 1, -1))
    return [" ".join(one[start : len(one) - end]) for one in words]


def calculate(calc: str, values: Sequence[float]) -> float | None:
    """Reduce the values of a series, except those that cannot be drawn, to one value.

    Raises:
        ValueError: If the calculation is not supported.
    """
    if calc not in _CALCS:
        raise ValueError(f"calculation {calc!r} is not known here; add it to {__name__}")
    return _CALCS[calc](values) if values else None


_CALCS: dict[str, Any] = {
    "lastNotNull": lambda values: values[-1],
    "last": lambda values: values[-1],
    "max": max,
    "min": min,
    "mean": lambda values: sum(values) / len(values),
    "sum": sum,
}


def _parts_of(panel: PanelData, series: Series) -> list[list[Point]]:
    """Split a line where a value is missing or cannot be drawn."""
    result = next(one for one in panel.results if series.frame in one.frames)
    step_s = result.query.intervals.step_s
    spans = bool(series.field.settings.get("custom.spanNulls"))
    parts: list[list[Point]] = []
    last_s = -math.inf
    for time_s, value in series.frame.samples:
        if not math.isfinite(value):
            continue
        if not parts or (time_s - last_s > 1.5 * step_s and not spans):
            parts.append([])
        parts[-1].append((time_s, value))
        last_s = time_s
    return parts


def _points_of(table: Table, x_name: str, y_name: str) -> list[Point]:
    pairs = zip(table.column(x_name), table.column(y_name), strict=True)
    return [(x, y) for x, y in pairs if _is_finite(x) and _is_finite(y)]  # type: ignore[misc]


def _is_finite(cell: Cell) -> bool:
    return isinstance(cell, float) and math.isfinite(cell)


def _is_hidden(field: Field, place: str) -> bool:
    return bool((field.settings.get("custom.hideFrom") or {}).get(place))


def _draw_line(axes: Axes, parts: list[list[Point]], field: Field, colour: str) -> None:
    width = points(float(field.settings.get("custom.lineWidth") or 1))
    dashes = _DASHES if field.is_dashed else "solid"
    for part in parts:
        xs, ys = [x for x, _ in part], [y for _, y in part]
        style: dict[str, Any] = {"marker": "o", "markersize": points(5)} if len(part) == 1 else {}
        axes.plot(xs, ys, color=colour, linewidth=width, linestyle=dashes, **style)
        opacity = float(field.settings.get("custom.fillOpacity") or 0) / 100
        if opacity and "custom.show" not in field.settings:
            axes.fill_between(xs, ys, 0, color=colour, alpha=opacity, linewidth=0)


def _draw_thresholds(axes: Axes, field: Field) -> None:
    low, high = axes.get_ylim()
    for step in field.steps:
        limit = step.get("value")
        if limit is not None and low <= limit <= high:
            colour = colours.find_colour(step["color"])
            axes.axhline(limit, color=colour, linewidth=points(1.5), linestyle=(0, (8, 6)))


def _colour(field: Field, index: int) -> str:
    fixed = field.colour_name()
    return colours.find_colour(fixed) if fixed else colours.series_colour(index)


def _count_common(words: Sequence[Sequence[str]], places: range) -> int:
    count = 0
    for place in places:
        if len({one[place] for one in words}) > 1:
            break
        count += 1
    return count

"""Cells over time: how many are in each class, and the state of each series."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from grafana.preview import colours
from grafana.preview.axes import draw_marks, set_time_axis
from grafana.preview.canvas import Box, points
from grafana.preview.units import format_value

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from grafana.preview.canvas import Canvas
    from grafana.preview.panel_data import PanelData, Series

_LABEL_PX = 11
_SCALE_PX = 26


def draw_heat_map(canvas: Canvas, box: Box, panel: PanelData) -> None:
    """Draw a row of cells for each class, with the smallest class at the bottom.

    Names that are numbers are sorted as numbers, as in grafana/grafana
    ``public/app/plugins/panel/heatmap/fields.ts`` (``prepareHeatmapData``).
    """
    options = panel.options
    series = panel.series()
    if all(_is_number(one.name) for one in series):
        series.sort(key=lambda one: float(one.name))
    unit = (options.get("yAxis") or {}).get("unit")
    names = [
        format_value(float(one.name), unit) if unit and _is_number(one.name) else one.name
        for one in series
    ]
    values = [value for one in series for value in one.frame.finite]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if (options.get("legend") or {}).get("show", True):
        _draw_scale(canvas, box, options["color"]["scheme"], low, high)
        box = box.shrink(0, 0, 0, _SCALE_PX)
    label = str((options.get("yAxis") or {}).get("axisLabel") or "")
    axes = _add_rows(canvas, box, names, label)
    set_time_axis(axes, panel.start_s, panel.end_s, box.width)
    least = (options.get("filterValues") or {}).get("le", -math.inf)
    for row, one in enumerate(series):
        step_s = _step_of(panel, one)
        for time_s, value in one.frame.samples:
            if math.isfinite(value) and value > least:
                share = (value - low) / (high - low) if high > low else 1.0
                colour = _scheme_colour(options["color"]["scheme"], share)
                _add_cell(axes, Box(time_s - step_s, row + 0.04, step_s, 0.92), colour)
    draw_marks(axes, panel.marks)


def draw_history(canvas: Canvas, box: Box, panel: PanelData) -> None:
    """Draw a row of cells, coloured by thresholds, for each series, the first one at the top."""
    series = panel.series()[::-1]
    options = panel.options
    axes = _add_rows(canvas, box, [one.name for one in series], "")
    set_time_axis(axes, panel.start_s, panel.end_s, box.width)
    row_share, column_share = options.get("rowHeight", 0.9), options.get("colWidth", 0.9)
    for row, one in enumerate(series):
        opacity = float(one.field.settings.get("custom.fillOpacity", 70)) / 100
        step_s = _step_of(panel, one)
        for time_s, value in one.frame.samples:
            if math.isfinite(value):
                colour = colours.threshold_colour(value, one.field.steps)
                width = step_s * column_share
                cell = Box(time_s - width / 2, row + (1 - row_share) / 2, width, row_share)
                _add_cell(axes, cell, colour, opacity)


def _add_rows(canvas: Canvas, box: Box, names: Sequence[str], label: str) -> Axes:
    """Add a chart with a row for each name; if there is no room, leave out some names."""
    left = max((canvas.measure(name, size=_LABEL_PX) for name in names), default=0) + 14
    left = min(left, box.width * 0.35)
    if label:
        left += 18
    axes = canvas.chart(box.shrink(left, 6, 12, 24))
    axes.set_ylim(0, max(len(names), 1))
    every = math.ceil(len(names) * 14 / max(box.height - 30, 1)) or 1
    for row, name in enumerate(names):
        if row % every == 0:
            y = box.bottom - 24 - (row + 0.5) * (box.height - 30) / len(names)
            canvas.text(
                box.x + left - 8,
                y,
                name,
                size=_LABEL_PX,
                align="right",
                room=left - (28 if label else 10),
            )
    axes.set_yticks([])
    if label:
        axes.set_ylabel(label, fontsize=points(_LABEL_PX), color=colours.TEXT)
        axes.yaxis.set_label_coords(-(left - 8) / (box.width - left - 12), 0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    size = points(_LABEL_PX)
    axes.tick_params(labelcolor=colours.TEXT, labelsize=size, length=0, pad=points(6))
    return axes


def _add_cell(axes: Axes, cell: Box, colour: str, opacity: float = 1.0) -> None:
    corner = (cell.x, cell.y)
    axes.add_patch(
        Rectangle(corner, cell.width, cell.height, facecolor=colour, alpha=opacity, linewidth=0)
    )


def _draw_scale(canvas: Canvas, box: Box, scheme: str, low: float, high: float) -> None:
    """Draw the scale of colours with its numbers."""
    parts, width = 64, 200.0
    y = box.bottom - _SCALE_PX + 6
    left = box.right - width - 60
    for index in range(parts):
        colour = _scheme_colour(scheme, index / (parts - 1))
        canvas.box(Box(left + index * width / parts, y, width / parts + 1, 8), colour)
    middle = y + 4
    canvas.text(left - 6, middle, format_value(low), size=_LABEL_PX, align="right")
    canvas.text(left + width + 6, middle, format_value(high), size=_LABEL_PX)


def _scheme_colour(scheme: str, share: float) -> str:
    # In the dark theme Grafana reverses the scheme: large values are light.
    return to_hex(colormaps[f"{scheme}_r"](0.05 + 0.9 * share))


def _step_of(panel: PanelData, series: Series) -> float:
    result = next(one for one in panel.results if series.frame in one.frames)
    return result.query.intervals.step_s


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True

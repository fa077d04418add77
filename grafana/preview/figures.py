"""Stat panels: large values with their past behind them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from grafana.preview import colours
from grafana.preview.axes import choose_range
from grafana.preview.canvas import Box, points
from grafana.preview.charts import calculate
from grafana.preview.fields import find_field

if TYPE_CHECKING:
    from grafana.preview.canvas import Canvas
    from grafana.preview.panel_data import PanelData, Series

_LARGEST_PX = 42
_NAME_PX = 13


def draw_figures(canvas: Canvas, box: Box, panel: PanelData) -> None:
    """Draw a value for each series, side by side."""
    series = panel.series()
    if not series:
        return
    width = box.width / len(series)
    for index, one in enumerate(series):
        part = Box(box.x + index * width, box.y, width - 4, box.height)
        _draw_figure(canvas, part, panel, one, named=len(series) > 1)


def _draw_figure(
    canvas: Canvas, box: Box, panel: PanelData, series: Series, *, named: bool
) -> None:
    options = panel.options
    calc = (options.get("reduceOptions") or {}).get("calcs", ["lastNotNull"])[0]
    value = calculate(calc, series.frame.finite)
    steps = series.field.steps
    colour = colours.threshold_colour(value, steps)
    if fixed := series.field.colour_name():
        colour = colours.find_colour(fixed)
    filled = options.get("colorMode", "value").startswith("background")
    if filled:
        canvas.box(box, _darken(colour), radius=2)
    if options.get("graphMode", "area") == "area":
        _draw_past(canvas, box, panel, series, "#ffffff" if filled else colour)
    text = series.field.format(value)
    mode = options.get("textMode", "auto")
    has_name = mode in ("name", "value_and_name") or (mode == "auto" and named)
    y = box.y + box.height * 0.4
    if has_name:
        canvas.text(
            box.x + box.width / 2,
            box.y + 14,
            series.name,
            size=_NAME_PX,
            align="center",
            room=box.width - 12,
        )
        y += 6
    size = float(_LARGEST_PX)
    while size > 12 and canvas.measure(text, size=size, bold=True) > box.width - 20:
        size -= 1
    canvas.text(
        box.x + box.width / 2,
        y,
        text,
        size=size,
        bold=True,
        align="center",
        colour="#ffffff" if filled else colour,
    )


def _draw_past(canvas: Canvas, box: Box, panel: PanelData, series: Series, colour: str) -> None:
    samples = [(time_s, value) for time_s, value in series.frame.samples if math.isfinite(value)]
    if len(samples) < 2:
        return
    height = box.height * 0.3
    axes = canvas.chart(Box(box.x, box.bottom - height, box.width, height))
    axes.set_axis_off()
    axes.set_xlim(panel.start_s, panel.end_s)
    field = find_field(panel.model, set())
    limits = [field.settings.get(name) for name in ("min", "max")]
    axes.set_ylim(*choose_range([value for _, value in samples], *limits))
    xs, ys = [time_s for time_s, _ in samples], [value for _, value in samples]
    axes.plot(xs, ys, color=colour, linewidth=points(1), alpha=0.8)
    axes.fill_between(xs, ys, axes.get_ylim()[0], color=colour, alpha=0.2, linewidth=0)


def _darken(colour: str) -> str:
    """Return the colour of a filled panel: Grafana darkens the background of white letters."""
    parts = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return "#" + "".join(f"{int(part * 0.8):02x}" for part in parts)

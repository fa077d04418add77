"""Axes like those of Grafana's charts: thin lines, small grey numbers, time below."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

from grafana.preview import colours
from grafana.preview.canvas import points
from grafana.preview.units import format_ticks

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

    from grafana.preview.canvas import Box, Canvas
    from grafana.preview.panel_data import Mark

_TICK_PX = 11
_LABEL_PX = 11
_TIME_STEPS_S = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200)
_PX_PER_TIME = 90


def add_axes(
    canvas: Canvas, box: Box, *, y_range: tuple[float, float], y_unit: str, y_label: str = ""
) -> Axes:
    """Add a chart, including the numbers on its left, inside a box.

    Args:
        canvas: Where to draw.
        box: The room for the chart, numbers and labels included.
        y_range: The smallest and largest value.
        y_unit: Grafana's id of their unit.
        y_label: The label beside them.
    """
    most = max(2, min(6, int(box.height // 45)))
    ticks = _round_values(y_range, most)
    texts = format_ticks(ticks, y_unit)
    left = max(canvas.measure(text, size=_TICK_PX) for text in texts) + 10
    if y_label:
        left += 18
    axes = canvas.chart(box.shrink(left, 6, 12, 24))
    axes.set_ylim(*y_range)
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FixedFormatter(texts))
    if y_label:
        axes.set_ylabel(y_label, fontsize=points(_LABEL_PX), color=colours.TEXT)
        axes.yaxis.set_label_coords(-(left - 8) / (box.width - left - 12), 0.5)
    _style(axes)
    return axes


def set_time_axis(axes: Axes, start_s: float, end_s: float, width: float) -> None:
    """Write times below a chart.

    Args:
        axes: The chart.
        start_s: Its left side, Unix seconds.
        end_s: Its right side.
        width: Its width, in pixels.
    """
    axes.set_xlim(start_s, end_s)
    wanted_s = (end_s - start_s) / max(width / _PX_PER_TIME, 1)
    step_s = next((step for step in _TIME_STEPS_S if step >= wanted_s), _TIME_STEPS_S[-1])
    first_s = math.ceil(start_s / step_s) * step_s
    times = [first_s + index * step_s for index in range(int((end_s - first_s) // step_s) + 1)]
    form = "%H:%M:%S" if step_s < 60 else "%H:%M"
    texts = [datetime.fromtimestamp(time_s, timezone.utc).strftime(form) for time_s in times]
    texts = _leave_out_ends(times, texts, (start_s, end_s), width)
    axes.xaxis.set_major_locator(FixedLocator(times))
    axes.xaxis.set_major_formatter(FixedFormatter(texts))


def set_value_axis(axes: Axes, x_range: tuple[float, float], unit: str, width: float) -> None:
    """Write values below a chart.

    Args:
        axes: The chart.
        x_range: Its left and right side.
        unit: Grafana's id of their unit.
        width: Its width, in pixels.
    """
    axes.set_xlim(*x_range)
    ticks = _round_values(x_range, max(int(width / _PX_PER_TIME), 2))
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    texts = _leave_out_ends(ticks, format_ticks(ticks, unit), x_range, width)
    axes.xaxis.set_major_formatter(FixedFormatter(texts))


def draw_marks(axes: Axes, marks: Iterable[Mark]) -> None:
    """Draw annotations: a dashed line for each, and a faint band if it lasts."""
    low, high = axes.get_xlim()
    for mark in marks:
        colour = colours.find_colour(mark.colour)
        for time_s in dict.fromkeys((mark.start_s, mark.end_s)):
            if low <= time_s <= high:
                axes.axvline(time_s, color=colour, linewidth=points(1), linestyle=(0, (4, 3)))
                axes.plot(
                    [time_s],
                    [0],
                    marker="^",
                    markersize=points(7),
                    color=colour,
                    clip_on=False,
                    transform=axes.get_xaxis_transform(),
                )
        if mark.end_s > mark.start_s:
            span = (max(mark.start_s, low), min(mark.end_s, high))
            axes.axvspan(*span, color=colour, alpha=0.1, linewidth=0)


def choose_range(
    values: Iterable[float], low: float | None = None, high: float | None = None
) -> tuple[float, float]:
    """Choose the ends of an axis: a tenth of margin on both sides, but not beyond zero.

    Args:
        values: The values to be drawn.
        low: The lower end, if it is set.
        high: The upper end, if it is set.
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    least, most = min(finite), max(finite)
    room = 0.1 * (most - least) or 0.1 * abs(most) or 1.0
    bottom, top = least - room, most + room
    if least >= 0 > bottom or (least == most and least >= 0):
        bottom = 0.0
    if most <= 0 < top and least < most:
        top = 0.0
    return bottom if low is None else low, top if high is None else high


def _round_values(ends: tuple[float, float], most: int) -> list[float]:
    found: Sequence[float] = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(*ends)
    slack = 1e-9 * (ends[1] - ends[0])
    return [float(value) for value in found if ends[0] - slack <= value <= ends[1] + slack]


def _leave_out_ends(
    values: Sequence[float], texts: Sequence[str], ends: tuple[float, float], width: float
) -> list[str]:
    """Blank the labels that would go beyond the right edge of the panel."""
    px = width / (ends[1] - ends[0])
    return [
        "" if (ends[1] - value) * px < 3 * len(text) - 8 else text
        for value, text in zip(values, texts, strict=True)
    ]


def _style(axes: Axes) -> None:
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(colours.GRID)
    axes.grid(visible=True, color=colours.GRID, linewidth=points(1))
    axes.set_axisbelow(True)
    axes.tick_params(
        colors=colours.TEXT,
        labelcolor=colours.TEXT,
        labelsize=points(_TICK_PX),
        length=0,
        pad=points(6),
    )

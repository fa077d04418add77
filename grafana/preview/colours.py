"""Grafana's colours in its dark theme."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

CANVAS = "#111217"
PANEL = "#181b1f"
BORDER = "#2c2f35"
GRID = "#24282d"
TEXT = "#ccccdc"
FAINT_TEXT = "#8e8f9b"
LINK = "#6e9fff"
FIELD = "#22252b"
TRANSPARENT = "transparent"

# grafana/grafana packages/grafana-data/src/themes/createVisualizationColors.ts, getDarkHues
_HUES = {
    "red": ("#FFA6B0", "#FF7383", "#F2495C", "#E02F44", "#C4162A"),
    "orange": ("#FFCB7D", "#FFB357", "#FF9830", "#FF780A", "#FA6400"),
    "yellow": ("#FFF899", "#FFEE52", "#FADE2A", "#F2CC0C", "#E0B400"),
    "green": ("#C8F2C2", "#96D98D", "#73BF69", "#56A64B", "#37872D"),
    "blue": ("#C0D8FF", "#8AB8FF", "#5794F2", "#3274D9", "#1F60C4"),
    "purple": ("#DEB6F2", "#CA95E5", "#B877D9", "#A352CC", "#8F3BB8"),
}
_SHADES = ("super-light-", "light-", "", "semi-dark-", "dark-")

NAMED = {
    f"{shade}{hue}": colour
    for hue, colours in _HUES.items()
    for shade, colour in zip(_SHADES, colours, strict=True)
} | {"text": TEXT, "gray": "#808080", "white": "#ffffff", "black": "#000000"}

# getClassicPalette of the same file: the colours of series, one after the other.
_CLASSIC = (
    *("green", "semi-dark-yellow", "light-blue", "semi-dark-orange", "red", "blue", "purple"),
    *("#705DA0", "dark-green", "yellow", "#447EBC", "#C15C17", "#890F02", "#0A437C", "#6D1F62"),
    *("#584477", "#B7DBAB", "#F4D598", "#70DBED", "#F9BA8F", "#F29191", "#82B5D8", "#E5A8E2"),
    *("#AEA2E0", "#629E51", "#E5AC0E", "#64B0C8", "#E0752D", "#BF1B00", "#0A50A1", "#962D82"),
)


def find_colour(name: str) -> str:
    """Return the hexadecimal value of a colour by its name in Grafana.

    Args:
        name: Such as ``semi-dark-red``; ``#...`` is returned as it is.

    Raises:
        ValueError: If there is no such colour.
    """
    if name.startswith("#") or name == TRANSPARENT:
        return name
    if name not in NAMED:
        raise ValueError(f"{name!r} is not a colour of Grafana; pass one of {sorted(NAMED)}")
    return NAMED[name]


def series_colour(index: int) -> str:
    """Return the colour of the series with this number, from 0."""
    return find_colour(_CLASSIC[index % len(_CLASSIC)])


def threshold_colour(value: float | None, steps: Sequence[dict[str, Any]]) -> str:
    """Return the colour of a value.

    Args:
        value: The value; None has the colour of the first step.
        steps: Each with ``color`` and the ``value`` from which it applies, which is None for the
            first.
    """
    name = "green"
    for step in steps:
        limit = step.get("value")
        if limit is None or (value is not None and value >= limit):
            name = step["color"]
    return find_colour(name)

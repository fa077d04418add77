"""A picture measured in pixels from its upper left corner, as a web page is."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from grafana.preview import colours

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

_DPI = 100
_FONT = "DejaVu Sans"
_ELLIPSIS = "…"
_COLOURS = 255

Align = Literal["left", "center", "right"]


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle, in pixels.

    Attributes:
        x: Its left side.
        y: Its upper side.
        width: Its extent to the right.
        height: Its extent downwards.
    """

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """Return its right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Return its lower side."""
        return self.y + self.height

    def shrink(self, left: float, top: float, right: float, bottom: float) -> Box:
        """Return the rectangle inside the given margins."""
        return Box(
            self.x + left, self.y + top, self.width - left - right, self.height - top - bottom
        )


class Canvas:
    """A picture to draw boxes, texts and charts on.

    Args:
        width: In pixels.
        height: In pixels.
    """

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        size = (width / _DPI, height / _DPI)
        self._figure = Figure(figsize=size, dpi=_DPI, facecolor=colours.CANVAS)
        backend: Any = FigureCanvasAgg(self._figure)
        self._renderer = backend.get_renderer()
        self._page = self._figure.add_axes((0.0, 0.0, 1.0, 1.0))
        self._page.set_xlim(0, width)
        self._page.set_ylim(height, 0)
        self._page.set_axis_off()

    def box(self, box: Box, colour: str, *, edge: str | None = None, radius: float = 0.0) -> None:
        """Fill a rectangle.

        Args:
            box: The rectangle.
            colour: The colour of the inside.
            edge: The colour of the border, which is a pixel wide.
            radius: The radius of the corners.
        """
        style: dict[str, Any] = {
            "facecolor": colour,
            "edgecolor": edge or "none",
            "linewidth": points(1),
        }
        if radius:
            inner = box.shrink(radius, radius, radius, radius)
            shape = f"round,pad={radius},rounding_size={radius}"
            self._page.add_patch(
                FancyBboxPatch(
                    (inner.x, inner.y), inner.width, inner.height, boxstyle=shape, **style
                )
            )
        else:
            self._page.add_patch(Rectangle((box.x, box.y), box.width, box.height, **style))

    def line(self, x0: float, y0: float, x1: float, y1: float, colour: str, *, size: float) -> None:
        """Draw a straight line, ``size`` pixels wide."""
        self._page.plot(
            [x0, x1], [y0, y1], color=colour, linewidth=points(size), solid_capstyle="butt"
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = 12,
        colour: str = colours.TEXT,
        align: Align = "left",
        bold: bool = False,
        room: float | None = None,
    ) -> float:
        """Write one line.

        Args:
            x: Its left side, middle or right side, by ``align``.
            y: Its middle.
            text: What to write.
            size: The size of the font, in pixels.
            colour: The colour of the letters.
            align: Which side ``x`` is.
            bold: Whether the letters are heavy.
            room: The width that it may take; a longer text is cut, and ends with dots.

        Returns:
            Its width.
        """
        if room is not None:
            text = self.fit(text, room, size=size, bold=bold)
        self._page.text(
            x,
            y,
            text,
            fontproperties=_font(size, bold=bold),
            color=colour,
            ha=align,
            va="center_baseline",
            parse_math=False,
        )
        return self.measure(text, size=size, bold=bold)

    def measure(self, text: str, *, size: float, bold: bool = False) -> float:
        """Return the width of a text in pixels."""
        font = _font(size, bold=bold)
        found = self._renderer.get_text_width_height_descent(text, font, ismath=False)
        return float(found[0])

    def fit(self, text: str, room: float, *, size: float, bold: bool = False) -> str:
        """Return a text, cut if it exceeds a width."""
        if self.measure(text, size=size, bold=bold) <= room:
            return text
        while text and self.measure(text + _ELLIPSIS, size=size, bold=bold) > room:
            text = text[:-1]
        return text.rstrip() + _ELLIPSIS

    def chart(self, box: Box) -> Axes:
        """Return axes for a part of the picture."""
        bottom = 1 - box.bottom / self.height
        bounds = (box.x / self.width, bottom, box.width / self.width, box.height / self.height)
        axes = self._figure.add_axes(bounds)
        axes.patch.set_alpha(0.0)
        return axes

    def render(self) -> Image.Image:
        """Return the picture."""
        buffer = io.BytesIO()
        self._figure.savefig(buffer, format="png", dpi=_DPI, facecolor=colours.CANVAS)
        return Image.open(buffer).convert("RGB")

    def save(self, path: Path) -> None:
        """Write the picture as a PNG with few colours, so that it is small."""
        small = self.render().quantize(_COLOURS, dither=Image.Dither.NONE)
        small.save(path, format="PNG", optimize=True)


def points(pixels: float) -> float:
    """Return a length in points, the unit in which matplotlib measures lines and letters."""
    return pixels * 72 / _DPI


def _font(size: float, *, bold: bool) -> FontProperties:
    weight = "bold" if bold else "normal"
    return FontProperties(family=_FONT, size=points(size), weight=weight)

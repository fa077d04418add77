"""Types of command-line parameters: durations as Prometheus writes them, and points in time."""

from __future__ import annotations

import datetime as dt
import math
import re
import time
from typing import TYPE_CHECKING, Any

import click

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_PART = re.compile(rf"({_NUMBER.pattern})(ms|[smhdw])")
_WHOLE = re.compile(rf"(?:{_PART.pattern})+")


if TYPE_CHECKING:
    _SecondsType = click.ParamType[float]
else:  # older versions of click do not know it as a generic
    _SecondsType = click.ParamType


class Duration(_SecondsType):
    """A duration, which the command gets in seconds.

    Args:
        least_s: The shortest duration that makes sense.
    """

    name = "duration"

    def __init__(self, *, least_s: float = 0.0) -> None:
        self._least_s = least_s

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds.

        Raises:
            click.BadParameter: If it is not a duration, or is too short.
        """
        if isinstance(value, (int, float)):
            return float(value)
        text = str(value).strip().lower()
        if not _WHOLE.fullmatch(text):
            has_no_unit = _NUMBER.fullmatch(text) is not None
            step = f"{text}s or {text}m" if has_no_unit else "90s, 15m, 1h30m or 7d"
            self.fail(f"{text!r} is not a duration; write it as {step}", param, ctx)
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))
        if seconds < self._least_s:
            self.fail(f"{text!r} is too short; pass {self._least_s:g}s or more", param, ctx)
        return seconds


class FiniteRange(click.FloatRange):
    """A range of numbers that NaN is not in, which compares as neither too small nor too large."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return a number in the range.

        Raises:
            click.BadParameter: If it is not one.
        """
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{number} is not in the range {self._describe_range()}.", param, ctx)
        return number


class Instant(int):
    """Microseconds since the Unix epoch, and how the user gave them.

    Attributes:
        text: As it was given: ``2h`` is a different instant each time, yet the same request.
    """

    text: str


if TYPE_CHECKING:
    _InstantType = click.ParamType[Instant]
else:  # older versions of click do not know it as a generic
    _InstantType = click.ParamType


class Moment(_InstantType):
    """A point in time."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> Instant:
        """Return an instant.

        Raises:
            click.BadParameter: If it is not a point in time.
        """
        text = str(value).strip()
        instant = Instant(self._read_us(text, param, ctx))
        instant.text = text
        return instant

    def _read_us(self, text: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            moment = dt.datetime.fromisoformat(text.replace("Z", "+00:00").replace("z", "+00:00"))
        except ValueError:
            pass
        else:
            return round(moment.timestamp() * 1e6)  # naive: local, as everywhere
        try:
            return time.time_ns() // 1000 - round(Duration().convert(text, param, ctx) * 1e6)
        except click.BadParameter:
            self.fail(
                f"{text!r} is not a time; write 2025-08-16T12:00:00Z, or 2h for two hours ago",
                param,
                ctx,
            )

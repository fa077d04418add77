"""Values as text, as Grafana formats them.

The rules are from grafana/grafana ``packages/grafana-data/src/valueFormats``: ``valueFormats.ts``
(``getDecimalsForValue``, ``scaledUnits``), ``dateTimeFormatters.ts`` (``toSeconds``,
``dateTimeAsIso``) and ``categories.ts``.
"""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SHORT = ("", " K", " Mil", " Bil", " Tri", " Quadr", " Quint", " Sext", " Sept")
_BYTES = (" B", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB")

# Below the first number, a duration is multiplied by the second and gets the third as its unit.
_DURATIONS = (
    (1e-6, 1e9, " ns"),
    (1e-3, 1e6, " µs"),
    (1.0, 1e3, " ms"),
    (60.0, 1.0, " s"),
    (3600.0, 1 / 60, " mins"),
    (86400.0, 1 / 3600, " hours"),
    (604800.0, 1 / 86400, " days"),
    (31536000.0, 1 / 604800, " weeks"),
    (math.inf, 1 / 3.15569e7, " years"),
)


def format_value(value: float | None, unit: str = "short", decimals: int | None = None) -> str:
    """Return a value as text.

    Args:
        value: The value; None if there is none.
        unit: Grafana's id of the unit.
        decimals: Digits after the decimal point; by default as many as make three digits in all.

    Raises:
        ValueError: If the unit is not supported.
    """
    if value is None:
        return ""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if unit == "sci":
        return _format_scientific(value, decimals)
    if unit in ("dateTimeAsIso", "dateTimeAsIsoNoDateIfToday"):
        moment = datetime.fromtimestamp(value / 1000, timezone.utc)
        return moment.strftime("%Y-%m-%d %H:%M:%S")
    if unit == "dthms":
        minutes, seconds = divmod(int(abs(value)), 60)
        return f"{'-' if value < 0 else ''}{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
    scale, suffix = find_scale(value, unit)
    return _fix(value * scale, decimals) + suffix


def format_ticks(values: Sequence[float], unit: str = "short") -> list[str]:
    """Return the values of an axis as text, with as many decimals as their distance needs.

    Args:
        values: The values in ascending order, at equal distances.
        unit: Grafana's id of the unit.
    """
    if unit in ("sci", "dateTimeAsIso", "dthms") or len(values) < 2:
        return [format_value(value, unit) for value in values]
    distance = values[1] - values[0]
    texts = []
    for value in values:
        cleaned = 0.0 if abs(value) < distance / 1000 else value
        scale, suffix = find_scale(cleaned, unit)
        is_alone = not cleaned and suffix != find_scale(distance, unit)[1]
        digits = 0 if is_alone else _decimals_of(distance * scale)
        texts.append(_fix(cleaned * scale, digits) + suffix)
    return texts


def find_scale(value: float, unit: str) -> tuple[float, str]:
    """Return the factor for a value, and the suffix to write after it.

    Args:
        value: The value; a large one is written in thousands, or in hours.
        unit: Grafana's id of the unit.

    Raises:
        ValueError: If the unit is not supported.
    """
    if unit not in _SCALES:
        raise ValueError(f"unit {unit!r} is not known here; add it to {__name__}")
    return _SCALES[unit](abs(value))


def _scale_duration(value: float) -> tuple[float, str]:
    if value == 0:
        return 1.0, " s"
    return next((scale, suffix) for limit, scale, suffix in _DURATIONS if value < limit)


def _scale_milliseconds(value: float) -> tuple[float, str]:
    scale, suffix = _scale_duration(value / 1000)
    return scale / 1000, suffix


def _scale_by(base: float, suffixes: Sequence[str]) -> Callable[[float], tuple[float, str]]:
    def scale(value: float) -> tuple[float, str]:
        power = math.floor(math.log(value, base) + 1e-9) if value else 0
        power = min(max(power, 0), len(suffixes) - 1)
        return base**-power, suffixes[power]

    return scale


def _keep(suffix: str, scale: float = 1.0) -> Callable[[float], tuple[float, str]]:
    return lambda _value: (scale, suffix)


_SCALES: dict[str, Callable[[float], tuple[float, str]]] = {
    "": _keep(""),
    "none": _keep(""),
    "short": _scale_by(1000.0, _SHORT),
    "bytes": _scale_by(1024.0, _BYTES),
    "percent": _keep("%"),
    "percentunit": _keep("%", 100.0),
    "s": _scale_duration,
    "ms": _scale_milliseconds,
    "ops": _scale_by(1000.0, [f"{suffix} ops/s" for suffix in ("", "K", "M", "G", "T")]),
}


def _fix(value: float, decimals: int | None) -> str:
    digits = _decimals_for(value) if decimals is None else max(decimals, 0)
    # JavaScript rounds halves up, Python rounds them to even.
    rounded = math.floor(abs(value) * 10**digits + 0.5) / 10**digits
    return f"{math.copysign(rounded, value) if rounded else 0.0:.{digits}f}"


def _decimals_for(value: float) -> int:
    if value == math.trunc(value):
        return 0
    exponent = math.floor(math.log10(abs(value)))
    return max(0, 2 - exponent)


def _decimals_of(distance: float) -> int:
    for digits in range(7):
        if math.isclose(round(distance, digits), distance, rel_tol=1e-9):
            return digits
    return max(2, 1 - math.floor(math.log10(distance)))  # a third of a minute has no last digit


def _format_scientific(value: float, decimals: int | None) -> str:
    if value == 0:
        return "0e+0" if decimals is None else f"{0:.{decimals}f}e+0"
    exponent = math.floor(math.log10(abs(value)))
    mantissa = f"{value / 10**exponent:.{3 if decimals is None else decimals}f}"
    if decimals is None and "." in mantissa:
        mantissa = mantissa.rstrip("0").rstrip(".")
    return f"{mantissa}e{exponent:+d}"

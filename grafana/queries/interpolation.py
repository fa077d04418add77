"""Variables and intervals in queries, filled in as by Grafana's Prometheus data source.

This does the same in Python as Grafana's own source:

- grafana/scenes ``packages/scenes/src/variables/interpolation/sceneInterpolator.ts`` finds the
  variables in a text and ``formatRegistry.ts`` beside it formats them; a variable that does
  not exist stays as text there, but is an error here;
- grafana/grafana ``packages/grafana-prometheus/src/escaping.ts`` is the default format of a
  variable, in its classic behaviour: ``prometheusRegularEscape`` and
  ``prometheusSpecialRegexEscape``;
- grafana/grafana ``packages/grafana-data/src/datetime/rangeutil.ts`` (``roundInterval``,
  ``calculateInterval``) and ``pkg/promlib/models/query.go`` (``calculatePrometheusInterval``,
  ``calculateRateInterval``, ``interpolateVariables``) choose the step.
"""

from __future__ import annotations

import bisect
import json
import re
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ALL = "$__all"

_REFERENCE = re.compile(
    r"\$(?P<bare>\w+)"
    r"|\[\[(?P<square>\w+?)(?::(?P<square_format>\w+))?\]\]"
    r"|\$\{(?P<curly>\w+)(?:\.(?P<field>[^:}]+))?(?::(?P<curly_format>[^}]+))?\}",
    re.ASCII,
)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|[Mwdhmsy])")
_UNIT_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
_ROUND_MS = (
    *((10, 1), (15, 10), (35, 20), (75, 50), (150, 100), (350, 200), (750, 500)),
    *((1_500, 1_000), (3_500, 2_000), (7_500, 5_000), (12_500, 10_000), (17_500, 15_000)),
    *((25_000, 20_000), (45_000, 30_000), (90_000, 60_000), (210_000, 120_000)),
    *((450_000, 300_000), (750_000, 600_000), (1_050_000, 900_000), (1_500_000, 1_200_000)),
    *((2_700_000, 1_800_000), (5_400_000, 3_600_000), (9_000_000, 7_200_000)),
    *((16_200_000, 10_800_000), (32_400_000, 21_600_000), (86_400_000, 43_200_000)),
)
_SAFE_POINTS = 11_000


class DashboardError(AssertionError):
    """A mistake that Grafana would show as an error, or not show at all."""


@dataclass(frozen=True)
class Variable:
    """A variable and its present value.

    Attributes:
        name: Its name, without ``$``.
        value: One value, or the list of the chosen ones.
        text: What the user sees.
        is_list: Whether it may have several values or All, and so is inserted as a regex.
        is_raw: Whether it is inserted as it is, like a custom value for All.
        options: The values to choose from.
    """

    name: str
    value: str | list[str]
    text: str = ""
    is_list: bool = False
    is_raw: bool = False
    options: list[str] = field(default_factory=list)

    @property
    def values(self) -> list[str]:
        """Return the values one by one, as a repeated panel takes them."""
        if self.is_raw:
            return self.options
        return self.value if isinstance(self.value, list) else [self.value]


@dataclass(frozen=True)
class Intervals:
    """The intervals that Grafana derives from a time range for one target.

    Attributes:
        step_s: Seconds between two points, the value of ``$__interval``.
        rate_s: The value of ``$__rate_interval``, in seconds.
    """

    step_s: float
    rate_s: float


def references(text: str) -> set[str]:
    """Return the names of the variables in a text; ``$1`` is label_replace's, not Grafana's."""
    names = {found["bare"] or found["square"] or found["curly"] for found in _find(text)}
    return {name for name in names if not name.isdigit()}


def interpolate(text: str, variables: Mapping[str, Variable], formatter: str = "prometheus") -> str:
    """Put the values of variables into a text.

    Args:
        text: A query, a title or a pattern.
        variables: The variables by name, including the built-in ones.
        formatter: The format for references that do not name one.
    """

    def replace(found: re.Match[str]) -> str:
        name = found["bare"] or found["square"] or found["curly"]
        if name.isdigit():
            return found[0]
        if name not in variables or found["field"]:
            raise DashboardError(f"undefined variable {found[0]} in {text!r}")
        named = found["square_format"] or found["curly_format"] or formatter
        return _format(variables[name], named, variables)

    return _REFERENCE.sub(replace, text)


def built_in(start_s: float, end_s: float, intervals: Intervals) -> dict[str, Variable]:
    """Return the variables that Grafana derives from a time range and a step."""
    range_s = round(end_s - start_s)
    values = {
        "__interval": format_interval(intervals.step_s),
        "__interval_ms": str(int(intervals.step_s * 1000)),
        "__rate_interval": format_duration(intervals.rate_s),
        "__rate_interval_ms": str(int(intervals.rate_s * 1000)),
        "__range": f"{range_s}s",
        "__range_s": str(range_s),
        "__range_ms": str(round((end_s - start_s) * 1000)),
        "__from": str(int(start_s * 1000)),
        "__to": str(int(end_s * 1000)),
    }
    return {name: Variable(name, value) for name, value in values.items()}


def choose_intervals(
    range_s: float,
    *,
    points: int,
    scrape_interval_s: float,
    panel_minimum: str = "",
    target_minimum: str = "",
    factor: int = 1,
) -> Intervals:
    """Choose the step of a query as Grafana's front end and its data source do.

    Args:
        range_s: Length of the time range in seconds.
        points: The panel's ``maxDataPoints``, by default its width in pixels.
        scrape_interval_s: The scrape interval set in the data source.
        panel_minimum: The panel's ``interval``.
        target_minimum: The target's ``interval``; may be one of the built-in variables.
        factor: The target's ``intervalFactor``.
    """
    panel_s = parse_duration(panel_minimum) if panel_minimum else scrape_interval_s
    ideal_s = range_s / points
    requested_s = max(round_interval(ideal_s), panel_s)
    variable = target_minimum.strip("${}")
    minimum_s = requested_s
    if target_minimum and not variable.startswith("__"):
        minimum_s = parse_duration(target_minimum)
    step_s = minimum_s if ideal_s < minimum_s else round_interval(ideal_s)
    step_s = max(step_s, round_interval(range_s / _SAFE_POINTS))
    if variable == "__rate_interval":
        rate_s = max(step_s + scrape_interval_s, 4 * scrape_interval_s)
        return Intervals(rate_s, rate_s)
    step_s *= factor
    scrape_s = scrape_interval_s
    if target_minimum:
        scrape_s = step_s if variable.startswith("__") else minimum_s
    return Intervals(step_s, max(requested_s + scrape_s, 4 * scrape_s))


def round_interval(seconds: float) -> float:
    """Round to one of Grafana's usual intervals."""
    bounds = [bound for bound, _ in _ROUND_MS]
    place = bisect.bisect_right(bounds, seconds * 1000)
    return _ROUND_MS[place][1] / 1000 if place < len(bounds) else 86400.0


def parse_duration(text: str) -> float:
    """Return the seconds of ``15s`` or ``>1m``."""
    found = _DURATION.fullmatch(text.strip().lstrip(">"))
    if not found:
        raise DashboardError(f"{text!r} is not an interval")
    return float(found[1]) * _UNIT_S[found[2]]


def format_interval(seconds: float) -> str:
    """Return an interval in its largest unit, truncated, like ``gtime.FormatInterval``."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= _UNIT_S[unit]:
            return f"{int(seconds / _UNIT_S[unit])}{unit}"
    return f"{max(int(seconds * 1000), 1)}ms"


def format_duration(seconds: float) -> str:
    """Return a duration without truncation, in a unit that Prometheus accepts."""
    milliseconds = round(seconds * 1000)
    return f"{milliseconds // 1000}s" if milliseconds % 1000 == 0 else f"{milliseconds}ms"


def escape_in_string(value: str) -> str:
    """Escape the value of a single-value variable for a PromQL string."""
    return value.replace("\\", r"\\").replace("'", r"\\'")


def escape_in_regex(value: str) -> str:
    """Escape a value of a multi-value variable for a regex in a PromQL string."""
    return re.sub(r"[$^*{}\[\]+?.()|]", r"\\\\\g<0>", value.replace("\\", r"\\" * 2))


def _find(text: str) -> list[re.Match[str]]:
    return list(_REFERENCE.finditer(text))


def _format(variable: Variable, formatter: str, variables: Mapping[str, Variable]) -> str:
    name, _, argument = formatter.partition(":")
    value = variable.value
    if name == "text":
        return variable.text or str(value)
    if variable.is_raw:
        return interpolate(str(value), variables, "glob")
    if name == "date":
        return _format_date(int(str(value)), argument or "iso")
    if name == "prometheus":
        return _format_prometheus(variable)
    if name not in _FORMATS:
        raise DashboardError(f"unknown format {name!r} of ${variable.name}")
    return _FORMATS[name](value)


def _format_prometheus(variable: Variable) -> str:
    value = variable.value
    if not variable.is_list:
        return escape_in_string(value) if isinstance(value, str) else ",".join(value)
    if isinstance(value, str):
        return escape_in_regex(value)
    escaped = [escape_in_regex(one) for one in value]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _format_regex(value: str | list[str]) -> str:
    values = [value] if isinstance(value, str) else value
    escaped = [re.sub(r"[\\^$*+?.()|\[\]{}/]", r"\\\g<0>", one) for one in values]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"


def _format_date(milliseconds: int, argument: str) -> str:
    if argument == "ms":
        return str(milliseconds)
    if argument == "seconds":
        return str(round(milliseconds / 1000))
    if argument == "iso":
        moment = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    raise DashboardError(f"date format {argument!r} cannot be used in a query")


def _join(separator: str) -> Callable[[Any], str]:
    return lambda value: value if isinstance(value, str) else separator.join(value)


def _format_glob(value: str | list[str]) -> str:
    if isinstance(value, list) and len(value) > 1:
        return f"{{{','.join(value)}}}"
    return value if isinstance(value, str) else ",".join(value)


def _format_quoted(value: str | list[str], quote: str) -> str:
    values = [value] if isinstance(value, str) else value
    escaped = [one.replace(quote, f"\\{quote}") for one in values]
    return ",".join(f"{quote}{one}{quote}" for one in escaped)


_FORMATS: dict[str, Callable[[Any], str]] = {
    "raw": _join(","),
    "csv": _join(","),
    "pipe": _join("|"),
    "regex": _format_regex,
    "glob": _format_glob,
    "json": lambda value: value if isinstance(value, str) else json.dumps(value),
    "doublequote": lambda value: _format_quoted(value, '"'),
    "singlequote": lambda value: _format_quoted(value, "'"),
}

"""Read and check environment variables, when they are needed."""

from __future__ import annotations

import os
import re
from typing import TypeVar

from otel_dllogger import arguments
from otel_dllogger.diagnostics import DIAGNOSTICS, RAISE_VARIABLE

HOST = "OTEL_EXPORTER_PROMETHEUS_HOST"
PORT = "OTEL_EXPORTER_PROMETHEUS_PORT"
DISCOVERY_DIR = "OTEL_DLLOGGER_DISCOVERY_DIR"
HANG_SECONDS = "OTEL_DLLOGGER_HANG_SECONDS"
LINGER = "OTEL_DLLOGGER_LINGER_SECONDS"
MAX_SERIES = "OTEL_DLLOGGER_MAX_SERIES"
RUN = "OTEL_DLLOGGER_RUN"
STEPS = "OTEL_DLLOGGER_STEPS"
STEP_HISTOGRAM = "OTEL_DLLOGGER_STEP_HISTOGRAM"
SDK_DISABLED = "OTEL_SDK_DISABLED"
METRICS_EXPORTER = "OTEL_METRICS_EXPORTER"
LOGS_EXPORTER = "OTEL_LOGS_EXPORTER"

_OTLP = "otlp"  # otlp_proto_http and otlp_proto_grpc are OpenTelemetry's for Python

PREFIX = "OTEL_DLLOGGER_"
VARIABLES = (
    DISCOVERY_DIR,
    HANG_SECONDS,
    LINGER,
    MAX_SERIES,
    RAISE_VARIABLE,
    RUN,
    STEPS,
    STEP_HISTOGRAM,
)
"""All variables of the package; any other variable with the prefix is unknown."""

_MEANT = {
    "ADDRESS": HOST,
    "DIR": DISCOVERY_DIR,
    "DISABLED": SDK_DISABLED,
    "ENDPOINT": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "HANG": HANG_SECONDS,
    "HANG_TIMEOUT": HANG_SECONDS,
    "HEADERS": "OTEL_EXPORTER_OTLP_HEADERS",
    "HOST": HOST,
    "LINGER": LINGER,
    "LISTEN": HOST,
    "PORT": PORT,
    "PROTOCOL": "OTEL_EXPORTER_OTLP_PROTOCOL",
    "RANK": "RANK",
    "RUN_ID": RUN,
    "RUN_NAME": RUN,
    "SERVICE_NAME": "OTEL_SERVICE_NAME",
    "TIMEOUT": "OTEL_EXPORTER_OTLP_TIMEOUT",
    "WORLD_SIZE": "WORLD_SIZE",
}
"""The variables that natural guesses stand for, by the part of the guess after the prefix."""

_SWITCHES = {RAISE_VARIABLE: "1", SDK_DISABLED: "true", STEP_HISTOGRAM: "1"}
"""The switches, each with the only value that turns it on.

The value of OpenTelemetry's switch may be in upper or lower case.
"""

_MEANT_AS_YES = frozenset(("1", "enable", "enabled", "on", "t", "true", "y", "yes"))

_MOST_SERIES = 1_000_000_000
_MOST_HANG_S = 86_400.0

AUTO = "auto"
"""The value with which ``STEPS`` and ``HANG_SECONDS`` are decided by the records."""

DEFINED, TOTAL = "dllogger", "total"
"""The other values of ``STEPS``: tuples are what DLLogger defines; the last element of a tuple of
two or three is a total."""

Default = TypeVar("Default", float, None)

_told: set[str] = set()


def unknown_variables() -> list[str]:
    """Return a line for each unknown variable with the prefix, each only once per process."""
    names = [name for name in os.environ if name.startswith(PREFIX)]
    new = sorted(set(names) - set(VARIABLES) - _told)
    _told.update(new)
    return [
        f"{name} is set, but is not a known setting: {_known_as(name)}, or unset it" for name in new
    ]


def misread_switches() -> list[str]:
    """Return a line, once per process, for each switch whose value only looks like a yes."""
    lines = []
    for name, on in _SWITCHES.items():
        raw = os.environ.get(name, "")
        value = raw.strip().lower()
        is_on = raw == on if name == RAISE_VARIABLE else value == on
        if value in _MEANT_AS_YES and not is_on and name not in _told:
            _told.add(name)
            lines.append(f"{name}={raw!r} has no effect: set it to {on}, or unset it")
    return lines


def warn_of_unknown() -> None:
    """Warn about unknown variables and about switches that have no effect, once per process."""
    for line in unknown_variables() + misread_switches():
        DIAGNOSTICS.warn(f"environment {re.split('[ =]', line, maxsplit=1)[0]}", line)


def _known_as(name: str) -> str:
    meant = _MEANT.get(name.removeprefix(PREFIX))
    if meant is not None:
        return f"set {meant} instead"
    from difflib import get_close_matches  # noqa: PLC0415 - rarely needed

    meant_by = {**_MEANT, **{known.removeprefix(PREFIX): known for known in VARIABLES}}
    near = get_close_matches(name.removeprefix(PREFIX), meant_by, n=1)
    if near:
        return f"set {meant_by[near[0]]} instead"
    return "see docs/reference/settings.md"


def text(variable: str, default: str) -> str:
    """Return a variable's text; an empty one counts as unset, as in OpenTelemetry.

    Args:
        variable: The variable's name.
        default: The value to return if it is unset.
    """
    return os.environ.get(variable, "").strip() or default


def max_series(argument: int | None, default: int) -> int:
    """Return how many series a process may have, from the argument or else from the variable.

    Args:
        argument: What the caller passed, None for nothing.
        default: The value to return if neither the argument nor the variable is set.

    Raises:
        ConfigurationError: If the argument is not a whole number from 1 up.
    """
    if argument is None:
        return int(number(MAX_SERIES, default, least=1, most=_MOST_SERIES, whole=True))
    step = f"leave it out for the default, {default}"
    return arguments.whole("max_series", argument, least=1, most=_MOST_SERIES, step=step)


def hang_limit(argument: float | str | None) -> float | str:
    """Return how many seconds without a record are a hang, ``AUTO``, or 0 to watch for none.

    Args:
        argument: What the caller passed, None to read the variable.

    Raises:
        ConfigurationError: If the argument is neither ``AUTO`` nor a number from 0 to a day.
    """
    if argument is None:
        if text(HANG_SECONDS, "").lower() == AUTO:
            return AUTO
        return number(HANG_SECONDS, 0.0, least=0.0, most=_MOST_HANG_S, word=AUTO)
    if isinstance(argument, str) and argument.strip().lower() == AUTO:
        return AUTO
    step = "pass 'auto', or 0 not to watch"
    return arguments.seconds("hang_seconds", argument, most=_MOST_HANG_S, step=step, may_be_0=True)


def step_histogram(argument: bool | None) -> bool:
    """Return whether to export how long each step took, from the argument or else the variable.

    Args:
        argument: What the caller passed, None for nothing.

    Raises:
        ConfigurationError: If the argument is anything else.
    """
    if argument is None:
        return text(STEP_HISTOGRAM, "") == _SWITCHES[STEP_HISTOGRAM]
    step = "pass True for a histogram of step times, or leave it out"
    arguments.flag("step_histogram", argument, step=step)
    return argument


def exports_otlp(variable: str) -> bool:
    """Return whether a signal is to be sent over OTLP, which is what an unset variable means.

    Args:
        variable: The one that names the signal's exporters, separated by commas.
    """
    exporters = text(variable, _OTLP).lower().split(",")
    return any(exporter.strip().startswith(_OTLP) for exporter in exporters)


def step_meaning() -> str:
    """Return what tuples that are steps mean; warn about an invalid value and ignore it."""
    value = text(STEPS, AUTO).lower()
    if value in (AUTO, DEFINED, TOTAL):
        return value
    DIAGNOSTICS.warn(
        f"environment {STEPS}",
        f"{STEPS}={value!r} is not {AUTO}, {DEFINED} or {TOTAL}: using {AUTO}; correct it or "
        "unset it",
    )
    return AUTO


def number(
    variable: str,
    default: Default,
    *,
    least: float,
    most: float,
    whole: bool = False,
    word: str = "",
) -> float | Default:
    """Return a variable as a number; warn about an invalid one and ignore it.

    Source: OpenTelemetry specification, environment variables, "Numeric value".

    Args:
        variable: The variable's name.
        default: The value to return if it is unset or invalid.
        least: The smallest valid value.
        most: The largest valid value.
        whole: Whether only a whole number is valid.
        word: What the caller takes instead of a number, for the warning.
    """
    raw = text(variable, "")
    if not raw:
        return default
    try:
        value = float(raw)
    except ValueError:
        value = float("nan")
    if least <= value <= most and (value.is_integer() or not whole):
        return value
    kind = "whole number" if whole else "number"
    kind = f"{word} or a {kind}" if word else f"a {kind}"
    DIAGNOSTICS.warn(
        f"environment {variable}",
        f"{variable}={raw!r} is not {kind} from {_shown(least)} to {_shown(most)}: using "
        f"{'the default' if default is None else _shown(default)}; correct it or unset it",
    )
    return default


def _shown(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f"{limit:g}"

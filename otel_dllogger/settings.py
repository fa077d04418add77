"""Environment variables, read when they are needed and never trusted."""

from __future__ import annotations

import os

from otel_dllogger.faults import FAULTS

HOST = "OTEL_EXPORTER_PROMETHEUS_HOST"
PORT = "OTEL_EXPORTER_PROMETHEUS_PORT"
DISCOVERY_DIR = "OTEL_DLLOGGER_DISCOVERY_DIR"
LINGER = "OTEL_DLLOGGER_LINGER_SECONDS"
MAX_SERIES = "OTEL_DLLOGGER_MAX_SERIES"


def text(variable: str, default: str) -> str:
    """Return a variable's text; an empty one counts as unset, as OpenTelemetry has it.

    Args:
        variable: The variable's name.
        default: What holds where it is unset.
    """
    return os.environ.get(variable, "").strip() or default


def max_series(argument: int | None, default: int) -> int:
    """Return how many series a process may have: what was said, else what the variable says.

    Args:
        argument: What was said, None for nothing.
        default: What holds where neither says anything.
    """
    if argument is not None:
        return argument
    return int(number(MAX_SERIES, default, least=1, most=1e9))


def number(variable: str, default: float, *, least: float, most: float) -> float:
    """Return a variable as a number; a wrong one is warned of and ignored.

    Source: OpenTelemetry specification, environment variables, "Numeric value".

    Args:
        variable: The variable's name.
        default: What holds where it is unset or wrong.
        least: The least value that is right.
        most: The greatest value that is right.
    """
    raw = text(variable, "")
    if not raw:
        return default
    try:
        value = float(raw)
    except ValueError:
        value = float("nan")
    if least <= value <= most:
        return value
    FAULTS.warn(
        f"environment {variable}",
        f"{variable}={raw!r} is not a number from {least:g} to {most:g}: using {default:g}; "
        f"correct it or unset it",
    )
    return default

"""Numbers as ``watch`` and ``check`` show them: short, and in the same form."""

from __future__ import annotations

import math


def format_value(value: float | None) -> str:
    """Return a loss, or another value whose size is not known; ``-`` if there is none."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Inf" if value > 0 else "-Inf"
    return f"{value:.4g}"


def format_rate(value: float | None) -> str:
    """Return how much is done in a second; ``-`` if that is not known."""
    if value is None or not math.isfinite(value):
        return format_value(value)
    return f"{value:,.0f}" if 100 <= value < 1e9 else f"{value:.3g}"


def format_throughput(value: float, unit: str) -> str:
    """Return how much is done in a second, with its unit.

    Args:
        value: The number.
        unit: The unit; that of a number of anything is ``1/s``.
    """
    return format_rate(value) + ("/s" if unit == "1/s" else f" {unit}")


def format_step(value: float | None) -> str:
    """Return an epoch or an iteration; ``-`` if there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.0f}" if abs(value) < 1e9 and value == int(value) else f"{value:.6g}"


def format_excess(ratio: float | None) -> str:
    """Return by how much something is longer than it usually is: ``+12%``; ``-`` if not known."""
    if ratio is None:
        return "-"
    return f"x{1 + ratio:.3g}" if ratio >= 10 else f"{round(ratio * 100) or 0:+}%"


def format_age(seconds: float | None) -> str:
    """Return a time in at most six characters, in the units that people use for its length."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{int(seconds * 10) / 10}s"
    if seconds < 60:
        return f"{int(seconds)}s"
    minutes, second = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{second:02}s"
    hours, minute = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minute:02}m"
    days, hour = divmod(hours, 24)
    return f"{days}d{hour:02}h" if days < 100 else f"{days}d"

"""The reasons for which values do not arrive over OTLP: labels of ``dllogger_dropped_total``."""

from __future__ import annotations

from otel_dllogger.diagnostics import FAULTS

FULL = "otlp_queue"
REFUSED = "otlp_refused"
AT_EXIT = "otlp_exit"

REASONS = {
    FULL: "values that were dropped, the oldest first, while no collector took them",
    REFUSED: "values that a collector refused",
    AT_EXIT: "values that no collector had taken when the process ended",
}
"""The values of the ``reason`` label."""


def count_from_zero() -> None:
    """Let each reason exist at 0 from the start, so that rates work."""
    for reason in REASONS:
        FAULTS.dropped.setdefault(reason, 0)

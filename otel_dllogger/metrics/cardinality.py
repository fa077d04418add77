"""The SDK's own limit of series, lifted: the store's is the one that counts and warns."""

from __future__ import annotations

import inspect
from typing import Any

from otel_dllogger.metrics.store import DEFAULT_MAX_SERIES


def lift_cardinality_limit(reader: type, max_series: int) -> dict[str, Any]:
    """Return arguments for a reader, so that it takes as many series as the store does.

    The SDK's limit, where it has one, would merge all series beyond 2,000 of a name into one.

    Args:
        reader: Its class.
        max_series: The store's limit.
    """
    from opentelemetry.sdk.metrics import ObservableCounter, ObservableGauge  # noqa: PLC0415

    if "cardinality_limits" not in inspect.signature(reader).parameters:
        return {}
    limit = max(max_series, DEFAULT_MAX_SERIES) + 1
    return {"cardinality_limits": dict.fromkeys((ObservableGauge, ObservableCounter), limit)}

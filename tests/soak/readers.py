"""An exporter of OpenTelemetry's that takes everything and keeps nothing."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult


class Discarding(MetricExporter):
    """Take what a periodic reader collects."""

    def export(self, *_arguments: Any, **_options: Any) -> MetricExportResult:
        """Take it."""
        return MetricExportResult.SUCCESS

    def force_flush(self, *_arguments: Any, **_options: Any) -> bool:
        """Have nothing to flush."""
        return True

    def shutdown(self, *_arguments: Any, **_options: Any) -> None:
        """End."""

"""What the package knows of each rank, as a scrape would see it at this moment.

The same instruments as on a metrics page, on a MeterProvider of its own that nobody else
sees: so names, units and labels cannot differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    MeterProvider,
)
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from otel_dllogger.metrics.cardinality import lift_cardinality_limit
from otel_dllogger.metrics.instruments import Instruments
from otel_dllogger.otlp.series import Description, Series
from otel_dllogger.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.metrics.store import SeriesStore
    from otel_dllogger.topology import Topology


class Figures:
    """Observe the ``dllogger_*`` metrics of a store.

    Args:
        store: What was logged.
        topology: Who this process is.
        start_us: Since when the counters count, microseconds since the Unix epoch. The
            SDK's own is when it first sees a series, which can be after what is counted.
        text_parameters: Export parameters that are text, as a label.
    """

    def __init__(
        self, store: SeriesStore, topology: Topology, *, start_us: int, text_parameters: bool
    ) -> None:
        self._start_us = start_us
        limits = lift_cardinality_limit(InMemoryMetricReader, store.max_series)
        self._reader = InMemoryMetricReader(**limits)
        self._provider = MeterProvider(
            metric_readers=[self._reader],
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        self._series: dict[tuple[str, frozenset[Any]], Series] = {}
        # What was logged has points of its own: no instruments are made for it.
        Instruments(
            store,
            topology,
            self._provider,
            version=__version__,
            text_parameters=text_parameters,
        )

    def observe(self) -> Iterator[tuple[Series, float]]:
        """Yield every series with its value."""
        data = self._reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points: Any = metric.data.data_points  # none of them is a histogram's
                    for point in points:
                        yield self._series_of(metric, point), float(point.value)

    def _series_of(self, metric: Any, point: Any) -> Series:
        key = (metric.name, frozenset(point.attributes.items()))
        series = self._series.get(key)
        if series is None:
            description = Description(
                name=metric.name,
                unit=metric.unit,
                text=metric.description,
                attributes=dict(point.attributes),
                start_us=self._start_us if isinstance(metric.data, Sum) else None,
            )
            series = self._series[key] = Series(description)
        return series

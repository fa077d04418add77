"""What a data point belongs to: its name, unit and labels, by the public contract."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from otel_dllogger.faults import FAULTS
from otel_dllogger.metrics.mapping import MappedMetric, MetricMetadata, label_text, map_metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.metrics.store import SeriesStore


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """Describe a series as OTLP does.

    Attributes:
        name: The OpenTelemetry name.
        unit: UCUM.
        text: What it is, in words.
        attributes: The labels.
        start_us: Since when a counter counts, microseconds since the Unix epoch; None for
            a gauge.
    """

    name: str
    unit: str
    text: str
    attributes: Mapping[str, str]
    start_us: int | None = None


class Series:
    """A series, to be described when a batch is encoded. Compared by identity.

    Args:
        description: What it is, where that is known from the start.
    """

    __slots__ = ("_description", "prefix")

    def __init__(self, description: Description | None = None) -> None:
        self._description = description
        self.prefix: tuple[Description, bytes] | None = None  # the encoder's own

    def describe(self, _names: Names) -> Description:
        """Return what the series is."""
        assert self._description is not None  # noqa: S101 - a subclass says otherwise
        return self._description


class LoggedSeries(Series):
    """A series of a metric that the user logged.

    Args:
        name: The name as it was logged.
        labels: Those that the metric does not decide: run, rank, granularity.
    """

    __slots__ = ("_labels", "_mapped", "_name")

    def __init__(self, name: str, labels: Mapping[str, str]) -> None:
        super().__init__()
        self._name = name
        self._labels = labels
        self._mapped: MappedMetric | None = None

    def describe(self, names: Names) -> Description:
        """Return what the series is now; metadata may move it once."""
        mapped = names.mapped(self._name)
        if self._description is None or mapped is not self._mapped:
            self._mapped = mapped
            self._description = Description(
                name=mapped.otel_name,
                unit=mapped.unit,
                text=f"Last value logged as {mapped.otel_name.removeprefix('dl.')}",
                attributes={**self._labels, **mapped.attributes},
            )
        return self._description


class Names:
    """Decide once how a metric is exported, and move it at most once when metadata is late.

    Args:
        store: Knows the metadata.
    """

    def __init__(self, store: SeriesStore) -> None:
        self._store = store
        self._mapped: dict[str, MappedMetric] = {}
        self._moved: set[str] = set()

    def mapped(self, name: str) -> MappedMetric:
        """Return how a metric is exported.

        Args:
            name: The name as it was logged.
        """
        mapped = self._mapped.get(name)
        if mapped is None:
            mapped = self._mapped[name] = self._map(name)
        return mapped

    def take_changes(self) -> None:
        """Let metadata that came after a metric's first export count."""
        while self._store.changed_metadata:
            name = self._store.changed_metadata.pop()
            before = self._mapped.get(name)
            if before is None:
                continue
            mapped = self._map(name)
            if mapped == before:
                continue
            if name in self._moved:
                FAULTS.warn(
                    "metadata_changed",
                    f"the metadata of {label_text(name)!r} changed again: the log has it, the "
                    f"exported series stays {before.prometheus_name}",
                )
                continue
            FAULTS.warn(
                "metadata_late",
                f"the metadata of {label_text(name)!r} came after its first export: its series "
                f"moves from {before.prometheus_name} to {mapped.prometheus_name}, once; call "
                "metadata() before the first log()",
            )
            self._moved.add(name)
            self._mapped[name] = mapped

    def _map(self, name: str) -> MappedMetric:
        return map_metric(name, self._store.metadata.get(name, MetricMetadata()))

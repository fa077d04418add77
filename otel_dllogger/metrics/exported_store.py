"""The names and labels under which a store's series are exported.

Instruments, pages and data points are all made from these, so they cannot differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.naming import label_text
from otel_dllogger.metrics.text_format import format_series

if TYPE_CHECKING:
    from otel_dllogger.identity import Topology
    from otel_dllogger.metrics.naming import MappedMetric
    from otel_dllogger.metrics.store import SeriesStore


class ExportedStore:
    """One store with the names and labels of its series.

    How a metric is exported is decided once, and changed at most once if its metadata is late.

    Args:
        store: The store.
        topology: The identity of the process that logged it.
        text_parameters: Whether to export parameters that are text, as a label.

    Attributes:
        log_seconds: The last exported value of the time spent in ``log``, in seconds.
        least_seconds: The last exported values of the time in phases, by rank and phase, and of
            that of steps, with an empty name: counters must not decrease.
    """

    __slots__ = (
        "_mapped",
        "_moved",
        "least_seconds",
        "log_seconds",
        "store",
        "text_parameters",
        "topology",
    )

    def __init__(
        self, store: SeriesStore, topology: Topology, *, text_parameters: bool = False
    ) -> None:
        self.store = store
        self.topology = topology
        self.text_parameters = text_parameters
        self.log_seconds = 0.0
        self.least_seconds: dict[tuple[str, str], float] = {}
        self._mapped: dict[str, MappedMetric] = {}
        self._moved: set[str] = set()

    def rank_labels(self, rank: str) -> dict[str, str]:
        """Return the labels that every series of a rank has."""
        return {"run": self.store.run, "rank": rank}

    def process_labels(self) -> dict[str, str]:
        """Return the labels of the metrics of the process as a whole."""
        return self.rank_labels(str(self.topology.rank))

    def series_labels(self, key: str, rank: str, granularity: str) -> dict[str, str]:
        """Return the labels of a series that the user logged.

        Args:
            key: The metric's key in the store.
            rank: The value of the ``rank`` label.
            granularity: The kind of step at which it was logged.
        """
        labels = self.rank_labels(rank)
        labels["granularity"] = granularity
        labels.update(self.mapped(key).attributes)
        return labels

    def mapped(self, key: str) -> MappedMetric:
        """Return how a metric is exported.

        Args:
            key: The metric's key in the store.
        """
        mapped = self._mapped.get(key)
        if mapped is None:
            mapped = self._mapped[key] = self.store.map(key)
        return mapped

    def apply_late_metadata(self) -> list[str]:
        """Apply metadata that came after a metric was first exported.

        Returns:
            The keys of the metrics that are exported differently from now on.
        """
        moved = []
        while self.store.changed_metadata:
            key = self.store.changed_metadata.pop()
            before = self._mapped.get(key)
            if before is None:
                continue
            mapped = self.store.map(key)
            if mapped == before:
                continue
            shown = label_text(before.metric)
            if key in self._moved:
                DIAGNOSTICS.warn(
                    "metadata_changed",
                    f"the metadata of {shown!r} changed again: the log has the change, the "
                    f"exported series stays {before.prometheus_name}",
                )
                continue
            old, new = _series(before, other=mapped), _series(mapped, other=before)
            if old != new:  # otherwise only a unit changed that no name shows
                DIAGNOSTICS.warn(
                    "metadata_late",
                    f"the metadata of {shown!r} came after its first export: its series moves "
                    f"from {old} to {new}, once; call metadata() before the first log()",
                )
            self._moved.add(key)
            self._mapped[key] = mapped
            moved.append(key)
        return moved


def _series(mapped: MappedMetric, *, other: MappedMetric) -> str:
    """Return a series as text: its name, and the labels in which it differs from another."""
    others = other.attributes.items()
    return format_series(
        mapped.prometheus_name, [pair for pair in mapped.attributes.items() if pair not in others]
    )

"""How each metric of a store is exported: decided once, and moved at most once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.naming import MappedMetric, label_text

if TYPE_CHECKING:
    from otel_dllogger.metrics.store import SeriesStore


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
            name: The metric's key in the store.
        """
        mapped = self._mapped.get(name)
        if mapped is None:
            mapped = self._mapped[name] = self._store.map(name)
        return mapped

    def take_changes(self) -> list[str]:
        """Let metadata that came after a metric's first export count.

        Returns:
            The metrics that are exported in another way from now on.
        """
        moved = []
        while self._store.changed_metadata:
            name = self._store.changed_metadata.pop()
            before = self._mapped.get(name)
            if before is None:
                continue
            mapped = self._store.map(name)
            if mapped == before:
                continue
            shown = label_text(before.metric)
            if name in self._moved:
                DIAGNOSTICS.warn(
                    "metadata_changed",
                    f"the metadata of {shown!r} changed again: the log has it, the exported "
                    f"series stays {before.prometheus_name}",
                )
                continue
            old, new = _series(before, other=mapped), _series(mapped, other=before)
            if old != new:  # else only a unit that no name shows
                DIAGNOSTICS.warn(
                    "metadata_late",
                    f"the metadata of {shown!r} came after its first export: its series moves "
                    f"from {old} to {new}, once; call metadata() before the first log()",
                )
            self._moved.add(name)
            self._mapped[name] = mapped
            moved.append(name)
        return moved


def _series(mapped: MappedMetric, *, other: MappedMetric) -> str:
    """Return a series as text: its name, and those labels in which it differs from another."""
    labels, others = mapped.attributes, other.attributes
    differing = ",".join(
        f'{label}="{value}"' for label, value in labels.items() if others.get(label) != value
    )
    return f"{mapped.prometheus_name}{{{differing}}}" if differing else mapped.prometheus_name

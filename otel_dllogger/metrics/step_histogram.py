"""The step times of ranks as a classic Prometheus histogram.

Pages and backfill are made from ``samples``, so they cannot differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from otel_dllogger.metrics.step_durations import BOUNDS_US, ClassicDurations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.metrics.exported_store import ExportedStore

NAME = "dllogger.step_duration"
"""The OpenTelemetry name."""

UNIT = "s"
TEXT = "How long each training step took"
PROMETHEUS_NAME = "dllogger_step_duration_seconds"

BOUNDS_S = tuple(bound_us / 1e6 for bound_us in BOUNDS_US)
"""The upper bounds of the buckets, in seconds."""

_LE = (*map(floatToGoString, BOUNDS_S), "+Inf")
"""The values of the label ``le``, in the one form that both text formats allow."""


def samples(exported: ExportedStore) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield the suffix of the name, the labels and the value of each series of a store.

    Args:
        exported: The store; it has no such series unless it keeps ``ClassicDurations``.
    """
    for state in exported.store.rank_states():
        durations = state.durations
        if not isinstance(durations, ClassicDurations):
            continue
        labels = exported.rank_labels(state.rank)
        cumulated, sum_us = durations.cumulated(), durations.sum_us
        for le, count in zip(_LE, cumulated, strict=True):
            yield "_bucket", {**labels, "le": le}, float(count)
        yield "_count", labels, float(cumulated[-1])
        yield "_sum", labels, sum_us / 1e6


class StepHistogramCollector:
    """The histogram for a registry of the Prometheus client, beside OpenTelemetry's reader.

    OpenTelemetry's observable instruments are counters and gauges: it has no histogram that is
    read when somebody asks for it, as everything here is.

    Args:
        exported: The store.
    """

    def __init__(self, exported: ExportedStore) -> None:
        self._exported = exported

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the histogram of all ranks, if there are any; called at each scrape."""
        if self._exported.store.silent:
            return
        family = HistogramMetricFamily(PROMETHEUS_NAME, TEXT, unit="seconds")
        for suffix, labels, value in samples(self._exported):
            family.add_sample(PROMETHEUS_NAME + suffix, labels, value)
        if family.samples:
            yield family

"""Which of a run's metrics to show first: the loss of training, and the throughput."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.metrics.kinds import LOSS, SCORE, STEP_RATE, THROUGHPUT
from otel_dllogger.record import EPOCH, ITERATION, RUN, VALIDATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.view.metric import Metric, Traits

_GRANULARITIES = (ITERATION, EPOCH, RUN, VALIDATION)
_KINDS = (LOSS, SCORE, THROUGHPUT, STEP_RATE)


def find_loss(metrics: Mapping[Metric, Traits]) -> Metric | None:
    """Return the loss of training, or else of anything; of several, the whole one."""
    found = (metric for metric, traits in metrics.items() if traits.kind == LOSS)
    return min(found, key=lambda metric: _order(metric, metrics[metric]), default=None)


def find_throughput(metrics: Mapping[Metric, Traits]) -> Metric | None:
    """Return how much a rank does in a time, other than a share of what is possible, like MFU."""
    found = (
        metric
        for metric, traits in metrics.items()
        if traits.kind == THROUGHPUT and "/" in traits.unit
    )
    return min(found, key=lambda metric: _order(metric, metrics[metric]), default=None)


def in_order(metrics: Mapping[Metric, Traits]) -> list[Metric]:
    """Return metrics in the order in which people look at them."""

    def key(metric: Metric) -> tuple[object, ...]:
        traits = metrics[metric]
        kind = _KINDS.index(traits.kind) if traits.kind in _KINDS else len(_KINDS)
        return kind, *_order(metric, traits), metric

    return sorted(metrics, key=key)


def _order(metric: Metric, traits: Traits) -> tuple[bool, int, bool, int]:
    """Return what sorts training before all else, and ``loss_cls`` behind ``total_loss``."""
    name = metric.metric.lower()
    granularity = metric.granularity
    return (
        metric.stage not in ("train", ""),
        _GRANULARITIES.index(granularity) if granularity in _GRANULARITIES else 9,
        not name.endswith("loss") and traits.kind == LOSS,
        0 if "total" in name else len(name),
    )

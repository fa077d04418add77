"""The data points of one store, from logged values and internal metrics.

A data point is a value with the time at which it was logged, for targets that take every step:
OTLP and backfill. Its name and labels are the same as on a metrics page.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from otel_dllogger.metrics import step_histogram
from otel_dllogger.metrics.internal import (
    EPOCH,
    ITERATION,
    PROCESS_METRICS,
    RANK_METRICS,
    InternalMetric,
    in_range,
)
from otel_dllogger.metrics.step_durations import ExponentialDurations, ExponentialPoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otel_dllogger.metrics.exported_store import ExportedStore
    from otel_dllogger.metrics.naming import MappedMetric
    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.record import Record

Value = float | ExponentialPoint
"""A number; or the durations of a rank's steps, from a store that keeps them for OTLP."""


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """The description of a series, for OTLP and for Prometheus.

    Attributes:
        name: The OpenTelemetry name.
        unit: UCUM.
        text: What it is, in words.
        attributes: The labels.
        prometheus_name: The name on a scrape.
        start_us: When a counter began to count, microseconds since the Unix epoch; None for
            a gauge.
        unit_text: The unit as it was given, or else as the name says or implies it; empty if there
            is none.
        is_part: Whether it is one of the series of a classic histogram.
    """

    name: str
    unit: str
    text: str
    attributes: Mapping[str, str]
    prometheus_name: str
    start_us: int | None = None
    unit_text: str = ""
    is_part: bool = False

    @property
    def kind(self) -> Literal["gauge", "counter", "unknown"]:
        """Return what it is in OpenMetrics, where a part of a histogram is nothing by itself."""
        if self.is_part:
            return "unknown"
        return "gauge" if self.start_us is None else "counter"


class Series:
    """A series, which is described on demand; series are compared by identity.

    Args:
        description: The description, if it is known from the start.
    """

    __slots__ = ("_description", "prefix")

    def __init__(self, description: Description | None = None) -> None:
        self._description = description
        self.prefix: tuple[Description, bytes] | None = None  # for the encoder's use

    def describe(self) -> Description:
        """Return the description of the series."""
        assert self._description is not None  # noqa: S101 - a subclass overrides this
        return self._description


class _LoggedSeries(Series):
    """A series of a metric that the user logged.

    Args:
        exported: The store that it belongs to.
        key: The metric's key in the store.
        rank: The value of the ``rank`` label.
        granularity: The kind of step at which it was logged.
    """

    __slots__ = ("_exported", "_granularity", "_key", "_mapped", "_rank")

    def __init__(self, exported: ExportedStore, key: str, rank: str, granularity: str) -> None:
        super().__init__()
        self._exported = exported
        self._key = key
        self._rank = rank
        self._granularity = granularity
        self._mapped: MappedMetric | None = None

    def describe(self) -> Description:
        """Return the current description; late metadata may change it once."""
        mapped = self._exported.mapped(self._key)
        if self._description is None or mapped is not self._mapped:
            self._mapped = mapped
            self._description = Description(
                name=mapped.otel_name,
                unit=mapped.unit,
                text=mapped.description,
                attributes=self._exported.series_labels(self._key, self._rank, self._granularity),
                prometheus_name=mapped.prometheus_name,
                unit_text=self._exported.store.unit_text(self._key) or mapped.unit_label,
            )
        return self._description


class DataPoints:
    """The data points of one store.

    Args:
        exported: The store.
        start_us: When counters began to count, microseconds since the Unix epoch.
        of_process: Whether to observe the metrics of the process as a whole too; the reader of
            a file knows nothing about them.
    """

    def __init__(self, exported: ExportedStore, *, start_us: int, of_process: bool) -> None:
        self.exported = exported
        self.start_us = start_us
        self._internal = (*RANK_METRICS, *PROCESS_METRICS) if of_process else RANK_METRICS
        self._logged: dict[tuple[str, str], dict[str, Series]] = {}
        self._places: dict[str, _Place] = {}
        self._observed: dict[tuple[str, frozenset[tuple[str, str]]], Series] = {}

    def logged(self, record: Record, state: RankState) -> Iterator[tuple[Series, float]]:
        """Yield the values of a record, except those for which the store had no room.

        Args:
            record: The record, which the store has taken.
            state: The rank that it belongs to.
        """
        granularity = record.granularity
        cell = state.cells[granularity]
        known = self._logged.get((state.rank, granularity))
        if known is None:
            known = self._logged[state.rank, granularity] = {}
        for key, number in record.numbers.items():
            series = known.get(key)
            if series is None:
                if key not in cell:  # beyond the limit of series, or the rank label
                    continue
                series = known[key] = _LoggedSeries(self.exported, key, state.rank, granularity)
            yield series, number

    def moved(self, state: RankState) -> Iterable[tuple[Series, float]]:
        """Return a rank's epoch and iteration if they changed since the last call."""
        place = self._places.get(state.rank)
        if place is None:
            labels = self.exported.rank_labels(state.rank)
            place = self._places[state.rank] = _Place(
                self._series_of(EPOCH, labels), self._series_of(ITERATION, labels)
            )
        return place.moved_to(state)

    def observed(self, *, with_place: bool = True) -> Iterator[tuple[Series, Value]]:
        """Yield every internal metric as a scrape would see it now.

        Args:
            with_place: Whether to include epoch and iteration.
        """
        for metric in self._internal:
            if with_place or metric not in (EPOCH, ITERATION):
                for labels, value in metric.observe(self.exported):
                    yield self._series_of(metric, labels), value
        yield from self._step_durations()

    def _step_durations(self) -> Iterator[tuple[Series, Value]]:
        for suffix, labels, value in step_histogram.samples(self.exported):
            yield self._step_series(suffix, labels, is_part=True), value
        for state in self.exported.store.rank_states():
            if isinstance(state.durations, ExponentialDurations):
                point = state.durations.point()
                if point is not None:
                    labels = self.exported.rank_labels(state.rank)
                    yield self._step_series("", labels, is_part=False), point

    def _step_series(self, suffix: str, labels: dict[str, str], *, is_part: bool) -> Series:
        key = (step_histogram.NAME + suffix, frozenset(labels.items()))
        series = self._observed.get(key)
        if series is None:
            description = Description(
                name=step_histogram.NAME + suffix,
                unit=step_histogram.UNIT,
                text=step_histogram.TEXT,
                attributes=labels,
                prometheus_name=step_histogram.PROMETHEUS_NAME + suffix,
                start_us=self.start_us,
                is_part=is_part,
            )
            series = self._observed[key] = Series(description)
        return series

    def _series_of(self, metric: InternalMetric, labels: dict[str, str]) -> Series:
        key = (metric.name, frozenset(labels.items()))
        series = self._observed.get(key)
        if series is None:
            description = Description(
                name=metric.name,
                unit=metric.unit,
                text=metric.text,
                attributes=labels,
                prometheus_name=metric.prometheus_name,
                start_us=self.start_us if metric.is_counter else None,
            )
            series = self._observed[key] = Series(description)
        return series


class _Place:
    """The epoch and iteration of a rank, which have a point at every step that changes them."""

    __slots__ = ("_epoch", "_epoch_series", "_iteration", "_iteration_series")

    def __init__(self, epoch_series: Series, iteration_series: Series) -> None:
        self._epoch_series = epoch_series
        self._iteration_series = iteration_series
        self._epoch: float | None = None
        self._iteration: float | None = None

    def moved_to(self, state: RankState) -> list[tuple[Series, float]]:
        moved = []
        if state.epoch is not None and state.epoch != self._epoch:
            moved.append((self._epoch_series, in_range(state.epoch)))
        if state.iteration is not None and state.iteration != self._iteration:
            moved.append((self._iteration_series, in_range(state.iteration)))
        self._epoch, self._iteration = state.epoch, state.iteration
        return moved

"""Data points of one store: what each logged value and each figure is called.

A point is a value with the time at which it was logged, for whoever takes every step:
OTLP and backfill. Its names and labels are those of a page.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from otel_dllogger.metrics.internal import EPOCH, ITERATION, OF_PROCESS, OF_RANKS, Figure, View

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otel_dllogger.metrics.decided_names import Names
    from otel_dllogger.metrics.naming import MappedMetric
    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.record import Record


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """Describe a series, for OTLP and for Prometheus.

    Attributes:
        name: The OpenTelemetry name.
        unit: UCUM.
        text: What it is, in words.
        attributes: The labels.
        prometheus_name: The name on a scrape.
        start_us: Since when a counter counts, microseconds since the Unix epoch; None for
            a gauge.
    """

    name: str
    unit: str
    text: str
    attributes: Mapping[str, str]
    prometheus_name: str
    start_us: int | None = None


class Series:
    """A series, described when somebody asks. Compared by identity.

    Args:
        description: What it is, where that is known from the start.
    """

    __slots__ = ("_description", "prefix")

    def __init__(self, description: Description | None = None) -> None:
        self._description = description
        self.prefix: tuple[Description, bytes] | None = None  # an encoder's own

    def describe(self) -> Description:
        """Return what the series is."""
        assert self._description is not None  # noqa: S101 - a subclass says otherwise
        return self._description


class LoggedSeries(Series):
    """A series of a metric that the user logged.

    Args:
        key: The metric's key in the store.
        labels: Those that the metric does not decide: run, rank, granularity.
        names: How metrics are exported.
    """

    __slots__ = ("_key", "_labels", "_mapped", "_names")

    def __init__(self, key: str, labels: Mapping[str, str], names: Names) -> None:
        super().__init__()
        self._key = key
        self._labels = labels
        self._names = names
        self._mapped: MappedMetric | None = None

    def describe(self) -> Description:
        """Return what the series is now; metadata may move it once."""
        mapped = self._names.mapped(self._key)
        if self._description is None or mapped is not self._mapped:
            self._mapped = mapped
            self._description = Description(
                name=mapped.otel_name,
                unit=mapped.unit,
                text=logged_as(mapped),
                attributes={**self._labels, **mapped.attributes},
                prometheus_name=mapped.prometheus_name,
            )
        return self._description


def logged_as(mapped: MappedMetric) -> str:
    """Return the description of a metric that the user logged."""
    return f"Last value logged as {mapped.otel_name.removeprefix('dl.')}"


_PLACE = (EPOCH, ITERATION)


class Points:
    """Make the points of one store.

    Args:
        view: The store, its names, and who logged.
        start_us: Since when counters count, microseconds since the Unix epoch.
        of_process: Whether what a process counts as a whole is observed too; a file's
            reader knows nothing of that.
    """

    def __init__(self, view: View, *, start_us: int, of_process: bool) -> None:
        self.view = view
        self.start_us = start_us
        self._figures = (*OF_RANKS, *OF_PROCESS) if of_process else OF_RANKS
        self._logged: dict[tuple[str, str], dict[str, LoggedSeries]] = {}
        self._places: dict[str, _Place] = {}
        self._observed: dict[tuple[str, frozenset[tuple[str, str]]], Series] = {}

    def logged(
        self, record: Record, state: RankState, granularity: str
    ) -> Iterator[tuple[Series, float]]:
        """Yield the values of a record, without those that the store had no room for.

        Args:
            record: What the store took.
            state: The rank that it is of.
            granularity: The kind of its step.
        """
        cell = state.cells[granularity]
        known = self._logged.get((state.rank, granularity))
        if known is None:
            known = self._logged[state.rank, granularity] = {}
        for key, number in record.convert().numbers.items():
            series = known.get(key)
            if series is None:
                if key not in cell:  # beyond the limit of series, or the rank
                    continue
                labels = {**self.view.of_rank(state.rank), "granularity": granularity}
                series = known[key] = LoggedSeries(key, labels, self.view.names)
            yield series, number

    def moved(self, state: RankState) -> Iterable[tuple[Series, float]]:
        """Return epoch and iteration of a rank where they changed since the last call."""
        place = self._places.get(state.rank)
        if place is None:
            labels = self.view.of_rank(state.rank)
            place = self._places[state.rank] = _Place(
                self._series_of(EPOCH, labels), self._series_of(ITERATION, labels)
            )
        return place.moved_to(state)

    def observed(self, *, with_place: bool = True) -> Iterator[tuple[Series, float]]:
        """Yield every figure as a scrape would see it now.

        Args:
            with_place: Epoch and iteration, too.
        """
        for figure in self._figures:
            if figure in _PLACE and not with_place:
                continue
            for labels, value in figure.observe(self.view):
                yield self._series_of(figure, labels), value

    def _series_of(self, figure: Figure, labels: dict[str, str]) -> Series:
        key = (figure.name, frozenset(labels.items()))
        series = self._observed.get(key)
        if series is None:
            description = Description(
                name=figure.name,
                unit=figure.unit,
                text=figure.text,
                attributes=labels,
                prometheus_name=figure.prometheus_name,
                start_us=self.start_us if figure.is_counter else None,
            )
            series = self._observed[key] = Series(description)
        return series


class _Place:
    """Where a rank is: the two figures that have a point at every step that changes them."""

    __slots__ = ("_epoch", "_epoch_series", "_iteration", "_iteration_series")

    def __init__(self, epoch_series: Series, iteration_series: Series) -> None:
        self._epoch_series = epoch_series
        self._iteration_series = iteration_series
        self._epoch: float | None = None
        self._iteration: float | None = None

    def moved_to(self, state: RankState) -> list[tuple[Series, float]]:
        moved = []
        if state.epoch is not None and state.epoch != self._epoch:
            moved.append((self._epoch_series, float(state.epoch)))
        if state.iteration is not None and state.iteration != self._iteration:
            moved.append((self._iteration_series, float(state.iteration)))
        self._epoch, self._iteration = state.epoch, state.iteration
        return moved

"""The series of a store as observable instruments of an OpenTelemetry MeterProvider.

Everything of OpenTelemetry happens here, at collection. Observable instruments rather
than synchronous ones, since a gauge that yields nothing leaves the next scrape, while a
synchronous one repeats its last finite value and makes a diverged loss look healthy.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.data_points import logged_as
from otel_dllogger.metrics.decided_names import Names
from otel_dllogger.metrics.internal import OF_PROCESS, OF_RANKS, Figure, View
from otel_dllogger.metrics.shared_meter import SharedMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from otel_dllogger.identity import Topology
    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.metrics.store import SeriesStore

SCOPE = "otel_dllogger"


class _Series:
    """One exported series of a metric that was logged."""

    __slots__ = ("attributes", "cell", "name")

    def __init__(self, cell: dict[str, float], name: str, attributes: dict[str, str]) -> None:
        self.cell = cell
        self.name = name
        self.attributes = attributes


class Instruments:
    """Register a store's series on a MeterProvider, now and as new ones come.

    Args:
        store: The series.
        topology: Who this process is.
        meter_provider: Where the instruments are made.
        version: The version of the instrumentation scope.
        text_parameters: Export parameters that are text, as a label.
    """

    def __init__(
        self,
        store: SeriesStore,
        topology: Topology,
        meter_provider: MeterProvider,
        *,
        version: str,
        text_parameters: bool = False,
    ) -> None:
        self._store = store
        self._names = Names(store)
        self._view = View(store, self._names, topology, text_parameters=text_parameters)
        self._meter = SharedMeter(meter_provider, SCOPE, version, store)
        self._lock = threading.Lock()  # taken by the Worker that registers, on its threads alone
        self._revision = -1
        self._families: dict[str, list[_Series]] = {}
        self._seen: dict[int, int] = {}
        for figure in (*OF_RANKS, *OF_PROCESS):
            make = (
                self._meter.create_observable_counter
                if figure.is_counter
                else self._meter.create_observable_gauge
            )
            make(figure.name, [self._figure(figure)], figure.unit, figure.text)

    @property
    def is_current(self) -> bool:
        """Tell whether every series of the store has its instrument."""
        return self._revision == self._store.revision

    def register_new(self) -> None:
        """Make the instruments of metrics that were logged since the last call.

        It takes the SDK's locks, which an application's thread may hold, and makes the SDK log:
        so a thread of the package's own calls it, and no other.
        """
        with self._lock:
            revision = self._store.revision
            for name in self._names.take_changes():
                self._move(name)
            for state in self._store.rank_states():
                for granularity, cell in state.cells.items():
                    known = self._seen.get(id(cell), 0)
                    if len(cell) > known:
                        names = list(cell)
                        self._seen[id(cell)] = len(names)
                        for name in names[known:]:
                            self._add(state, granularity, cell, name)
            self._revision = revision

    def _add(self, state: RankState, granularity: str, cell: dict[str, float], name: str) -> None:
        mapped = self._names.mapped(name)
        series = self._families.get(mapped.prometheus_name)
        if series is None:
            # One instrument per name that Prometheus sees: instruments whose names merge
            # there would overwrite each other. The first decides OpenTelemetry's name.
            series = self._families[mapped.prometheus_name] = []
            try:
                self._meter.create_observable_gauge(
                    mapped.otel_name,
                    callbacks=[self._observe(series)],
                    unit=mapped.unit,
                    description=logged_as(mapped),
                )
            except Exception as error:
                DIAGNOSTICS.caught(
                    "instrument", f"the instrument {mapped.otel_name} is refused", error
                )
        attributes = {
            **self._view.of_rank(state.rank),
            "granularity": granularity,
            **mapped.attributes,
        }
        series.append(_Series(cell, name, attributes))

    def _move(self, name: str) -> None:
        """Take a metric's series to where its metadata says by now."""
        moving = []
        for family in self._families.values():
            moving += [series for series in family if series.name == name]
            family[:] = [series for series in family if series.name != name]
        for series in moving:
            for state in self._store.rank_states():
                for granularity, cell in state.cells.items():
                    if cell is series.cell:
                        self._add(state, granularity, cell, name)

    def _observe(self, family: list[_Series]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_options: CallbackOptions) -> Iterator[Observation]:
            if self._store.silent:
                return
            for series in family.copy():
                try:
                    number = float(series.cell[series.name])
                except (KeyError, OverflowError):  # gone meanwhile; an int that no float holds
                    continue
                if number - number == 0.0:  # neither NaN nor Inf: those leave the page
                    yield Observation(number, series.attributes)

        return callback

    def _figure(self, figure: Figure) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_options: CallbackOptions) -> Iterator[Observation]:
            if not self._store.silent:
                for labels, value in figure.observe(self._view):
                    yield Observation(value, labels)

        return callback

"""The series of a store as observable instruments of an OpenTelemetry MeterProvider.

All work for OpenTelemetry happens here, at collection. The instruments are observable rather
than synchronous, since an observable gauge that yields nothing is missing from the next scrape,
while a synchronous one repeats its last finite value and makes a diverged loss look healthy.
"""

from __future__ import annotations

import inspect
import math
import threading
import weakref
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics import step_histogram
from otel_dllogger.metrics.exported_store import ExportedStore
from otel_dllogger.metrics.internal import PROCESS_METRICS, RANK_METRICS, InternalMetric
from otel_dllogger.metrics.resource import SCHEMA_URL, SCOPE
from otel_dllogger.metrics.step_durations import UnrecordedDurations
from otel_dllogger.metrics.store import DEFAULT_MAX_SERIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from opentelemetry.metrics import Histogram

    from otel_dllogger.identity import Topology
    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.metrics.store import SeriesStore

    Callback = Callable[[CallbackOptions], Iterable[Observation]]
    Observers = list[tuple[SeriesStore, Callback]]


class _Series:
    """One exported series of a logged metric."""

    __slots__ = ("attributes", "cell", "name")

    def __init__(self, cell: dict[str, float], name: str, attributes: dict[str, str]) -> None:
        self.cell = cell
        self.name = name
        self.attributes = attributes


class Instruments:
    """The instruments of a store on a MeterProvider, including those for later series.

    Args:
        store: The store of the series.
        topology: The identity of this process.
        meter_provider: Where the instruments are created.
        version: The version of the instrumentation scope.
        text_parameters: Whether to export parameters that are text, as a label.
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
        self._exported = ExportedStore(store, topology, text_parameters=text_parameters)
        self._meter = _SharedMeter(meter_provider, SCOPE, version, store)
        self._lock = threading.Lock()  # taken only by the Worker that registers, on its threads
        self._revision = -1
        self._families: dict[str, list[_Series]] = {}
        self._seen: dict[int, int] = {}
        self._step_durations: Histogram | None = None
        if store.durations is UnrecordedDurations:
            self._step_durations = self._meter.histogram(
                step_histogram.NAME,
                step_histogram.UNIT,
                step_histogram.TEXT,
                bounds=step_histogram.BOUNDS_S,
            )
        for metric in (*RANK_METRICS, *PROCESS_METRICS):
            self._meter.observe(
                metric.prometheus_name,
                metric.name,
                self._observe_internal(metric),
                metric.unit,
                metric.text,
                is_counter=metric.is_counter,
            )

    @property
    def is_current(self) -> bool:
        """Return whether the SDK knows every series of the store, and every duration of a step."""
        return self._revision == self._store.revision and not any(self._unrecorded())

    def _unrecorded(self) -> Iterator[tuple[RankState, UnrecordedDurations]]:
        """Yield the ranks with steps whose durations the SDK was not given yet."""
        if self._step_durations is not None:
            for state in self._store.rank_states():
                if isinstance(state.durations, UnrecordedDurations) and state.durations:
                    yield state, state.durations

    def record_step_durations(self) -> None:
        """Give the SDK the durations of the steps since the last call.

        A histogram cannot be observed: it is given each value, and may wait for a lock each time.
        So only a thread of the package calls this, after a collection asked for it. The collection
        itself does not have these values, but the next one.
        """
        if self._step_durations is None or self._store.silent:
            return
        for state, durations in self._unrecorded():
            labels = self._exported.rank_labels(state.rank)
            for duration_s in durations.take():
                self._step_durations.record(duration_s, labels)

    def register_new(self) -> None:
        """Create the instruments of metrics that were first logged since the last call.

        This takes the SDK's locks, which a thread of the application may hold, and makes the SDK
        log. So only a thread of the package calls it.
        """
        with self._lock:
            revision = self._store.revision
            for name in self._exported.apply_late_metadata():
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
        mapped = self._exported.mapped(name)
        series = self._families.get(mapped.prometheus_name)
        if series is None:
            # One instrument per name in Prometheus: instruments whose names become the same
            # there would overwrite each other. The first one decides the OpenTelemetry name.
            series = self._families[mapped.prometheus_name] = []
            try:
                self._meter.observe(
                    mapped.prometheus_name,
                    mapped.otel_name,
                    self._observe(series),
                    mapped.unit,
                    mapped.description,
                    is_counter=False,
                )
            except Exception as error:
                DIAGNOSTICS.caught(
                    "instrument", f"OpenTelemetry refused the instrument {mapped.otel_name}", error
                )
        labels = self._exported.series_labels(name, state.rank, granularity)
        series.append(_Series(cell, name, labels))

    def _move(self, name: str) -> None:
        """Move a metric's series to the instrument that its current metadata asks for."""
        moving = []
        for family in self._families.values():
            moving += [series for series in family if series.name == name]
            family[:] = [series for series in family if series.name != name]
        for series in moving:
            for state in self._store.rank_states():
                for granularity, cell in state.cells.items():
                    if cell is series.cell:
                        self._add(state, granularity, cell, name)

    def _observe(self, family: list[_Series]) -> Callback:
        def callback(_options: CallbackOptions) -> Iterator[Observation]:
            if self._store.silent:
                return
            for series in family.copy():
                try:
                    number = float(series.cell[series.name])
                except (KeyError, OverflowError):  # gone meanwhile; an int beyond float's range
                    continue
                if math.isfinite(number):  # NaN and Inf are not exported
                    yield Observation(number, series.attributes)

        return callback

    def _observe_internal(self, metric: InternalMetric) -> Callback:
        def callback(_options: CallbackOptions) -> Iterator[Observation]:
            if not self._store.silent:
                if any(self._unrecorded()):
                    self._store.on_new_series()
                for labels, value in metric.observe(self._exported):
                    yield Observation(value, labels)

        return callback


_of_providers: weakref.WeakKeyDictionary[Any, dict[str, Observers]] = weakref.WeakKeyDictionary()


class _SharedMeter:
    """A meter with one instrument per Prometheus name on a MeterProvider, for all stores.

    The SDK returns the first instrument of a name and ignores the callbacks of a second one. A
    process that trains twice, or has two Loggers on the global provider, would export the last
    values of the first one for ever. And of two instruments whose names become the same in
    Prometheus, OpenTelemetry's reader gives the second one's values the labels of the first.

    Args:
        meter_provider: Where the instruments are created.
        scope: The name of the instrumentation scope.
        version: The version of the instrumentation scope.
        store: The store that the callbacks observe. Closed stores are removed.
    """

    def __init__(
        self, meter_provider: MeterProvider, scope: str, version: str, store: SeriesStore
    ) -> None:
        self._meter = meter_provider.get_meter(scope, version, schema_url=SCHEMA_URL)
        self._store = store
        self._observers = _of_providers.setdefault(meter_provider, {})
        for observers in self._observers.values():
            observers[:] = [pair for pair in observers if not pair[0].closed]

    def observe(
        self,
        prometheus_name: str,
        name: str,
        callback: Callback,
        unit: str,
        description: str,
        *,
        is_counter: bool,
    ) -> None:
        """Have a callback called at each collection.

        Args:
            prometheus_name: The name that the instrument has in Prometheus. If there is already
                an instrument of this name, its own name, unit and description stay.
            name: The name of the instrument.
            callback: Yields the observations.
            unit: The instrument's unit, UCUM.
            description: The description of the instrument.
            is_counter: Whether it is an observable counter; otherwise an observable gauge.
        """
        observers = self._observers.get(prometheus_name)
        if observers is None:
            observers = []
            create: Callable[..., object] = (
                self._meter.create_observable_counter
                if is_counter
                else self._meter.create_observable_gauge
            )
            create(name, [_observe_all(observers)], unit, description)
            self._observers[prometheus_name] = observers
        observers.append((self._store, callback))

    def histogram(
        self, name: str, unit: str, description: str, *, bounds: Sequence[float]
    ) -> Histogram:
        """Return a histogram, the same one for all stores.

        Args:
            name: The name of the instrument.
            unit: Its unit, UCUM.
            description: Its description.
            bounds: The upper bounds of its buckets, unless a view of the application has others.
        """
        return self._meter.create_histogram(
            name, unit, description, explicit_bucket_boundaries_advisory=bounds
        )


def _observe_all(observers: Observers) -> Callback:
    def callback(options: CallbackOptions) -> Iterator[Observation]:
        for _store, observe in tuple(observers):
            yield from observe(options)

    return callback


def lift_cardinality_limit(reader: type, max_series: int) -> dict[str, Any]:
    """Return arguments for a reader that let it take as many series as the store does.

    The SDK's limit, in versions that have one, would merge all series of a name beyond 2,000.

    Args:
        reader: The reader's class.
        max_series: The store's limit.
    """
    from opentelemetry.sdk.metrics import ObservableCounter, ObservableGauge  # noqa: PLC0415

    if "cardinality_limits" not in inspect.signature(reader).parameters:
        return {}
    limit = max(max_series, DEFAULT_MAX_SERIES) + 1
    return {"cardinality_limits": dict.fromkeys((ObservableGauge, ObservableCounter), limit)}

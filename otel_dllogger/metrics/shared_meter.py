"""One instrument per name on a MeterProvider, however many stores it observes.

The SDK hands back the first instrument of a name and ignores the callbacks of a second
one. A process that trains twice, or has two Loggers on the global provider, would export
the first's last values for ever.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

    from otel_dllogger.metrics.store import SeriesStore

    Callback = Callable[[CallbackOptions], Iterable[Observation]]
    Observers = list[tuple[SeriesStore, Callback]]

_of_providers: weakref.WeakKeyDictionary[Any, dict[str, Observers]] = weakref.WeakKeyDictionary()


class SharedMeter:
    """Make observable instruments that other stores of the process can join.

    Args:
        meter_provider: Where the instruments are made.
        scope: The name of the instrumentation scope.
        version: Its version.
        store: Whose series the callbacks observe. Stores that are closed make room.
    """

    def __init__(
        self, meter_provider: MeterProvider, scope: str, version: str, store: SeriesStore
    ) -> None:
        self._meter = meter_provider.get_meter(scope, version)
        self._store = store
        self._observers = _of_providers.setdefault(meter_provider, {})
        for observers in self._observers.values():
            observers[:] = [pair for pair in observers if not pair[0].closed]

    def create_observable_gauge(
        self, name: str, callbacks: Sequence[Callback], unit: str, description: str
    ) -> None:
        """Observe a gauge, as ``Meter.create_observable_gauge`` does."""
        self._create(self._meter.create_observable_gauge, name, callbacks, unit, description)

    def create_observable_counter(
        self, name: str, callbacks: Sequence[Callback], unit: str, description: str
    ) -> None:
        """Observe a counter, as ``Meter.create_observable_counter`` does."""
        self._create(self._meter.create_observable_counter, name, callbacks, unit, description)

    def _create(
        self,
        create: Callable[..., object],
        name: str,
        callbacks: Sequence[Callback],
        unit: str,
        description: str,
    ) -> None:
        key = f"{name} {unit}"
        observers = self._observers.get(key)
        if observers is None:
            observers = []
            create(name, [_observe_all(observers)], unit, description)
            self._observers[key] = observers
        observers += [(self._store, callback) for callback in callbacks]


def _observe_all(observers: Observers) -> Callback:
    def callback(options: CallbackOptions) -> Iterator[Observation]:
        for _store, observe in tuple(observers):
            yield from observe(options)

    return callback

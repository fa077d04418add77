"""The series of a store as observable instruments of an OpenTelemetry MeterProvider.

Everything of OpenTelemetry happens here, at collection. Observable instruments rather
than synchronous ones, since a gauge that yields nothing leaves the next scrape, while a
synchronous one repeats its last finite value and makes a diverged loss look healthy.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from otel_dllogger.faults import FAULTS
from otel_dllogger.log_time import LOG_TIME
from otel_dllogger.metrics.mapping import MappedMetric, MetricMetadata, label_text, map_metric
from otel_dllogger.metrics.shared_meter import SharedMeter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.metrics.store import SeriesStore
    from otel_dllogger.topology import Topology

SCOPE = "otel_dllogger"


class _Series:
    """One exported series of a metric that was logged."""

    __slots__ = ("attributes", "cell", "name")

    def __init__(self, cell: dict[str, float], name: str, attributes: dict[str, str]) -> None:
        self.cell = cell
        self.name = name
        self.attributes = attributes


class _Exported:
    """How a metric is exported now, and whether metadata already moved it once."""

    __slots__ = ("mapped", "moved")

    def __init__(self, mapped: MappedMetric) -> None:
        self.mapped = mapped
        self.moved = False


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
        self._topology = topology
        self._text_parameters = text_parameters
        self._meter = SharedMeter(meter_provider, SCOPE, version, store)
        self._lock = threading.Lock()
        self._families: dict[str, list[_Series]] = {}
        self._exported: dict[str, _Exported] = {}
        self._seen: dict[int, int] = {}
        self._log_seconds = 0.0
        self._register_figures()

    def register_new(self) -> None:
        """Make the instruments of metrics that were logged since the last call.

        Not to be called from a callback: the SDK holds its lock there.
        """
        with self._lock:
            for name in list(self._store.changed_metadata):
                self._store.changed_metadata.discard(name)
                self._metadata_changed(name)
            for state in self._store.rank_states():
                for granularity, cell in state.cells.items():
                    known = self._seen.get(id(cell), 0)
                    if len(cell) > known:
                        names = list(cell)
                        self._seen[id(cell)] = len(names)
                        for name in names[known:]:
                            self._add(state, granularity, cell, name)

    def _add(self, state: RankState, granularity: str, cell: dict[str, float], name: str) -> None:
        exported = self._exported.get(name)
        if exported is None:
            exported = self._exported[name] = _Exported(self._mapped(name))
        mapped = exported.mapped
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
                    description=f"Last value logged as {mapped.otel_name.removeprefix('dl.')}",
                )
            except Exception as error:
                FAULTS.caught("instrument", f"the instrument {mapped.otel_name} is refused", error)
        attributes = {**self._of_rank(state), "granularity": granularity, **mapped.attributes}
        series.append(_Series(cell, name, attributes))

    def _mapped(self, name: str) -> MappedMetric:
        exported = self._exported.get(name)
        if exported is not None:
            return exported.mapped
        return map_metric(name, self._store.metadata.get(name, MetricMetadata()))

    def _metadata_changed(self, name: str) -> None:
        """Move a metric's series to where its metadata says, at most once."""
        exported = self._exported.get(name)
        if exported is None:
            return
        mapped = map_metric(name, self._store.metadata[name])
        if mapped == exported.mapped:
            return
        if exported.moved:
            FAULTS.warn(
                "metadata_changed",
                f"the metadata of {label_text(name)!r} changed again: the log has it, the exported "
                f"series stays {exported.mapped.prometheus_name}",
            )
            return
        FAULTS.warn(
            "metadata_late",
            f"the metadata of {label_text(name)!r} came after its first export: its series moves "
            f"from {exported.mapped.prometheus_name} to {mapped.prometheus_name}, once; call "
            "metadata() before the first log()",
        )
        old = self._families[exported.mapped.prometheus_name]
        moving = [series for series in old if series.name == name]
        old[:] = [series for series in old if series.name != name]
        exported.mapped = mapped
        exported.moved = True
        for series in moving:
            for state in self._store.rank_states():
                for granularity, cell in state.cells.items():
                    if cell is series.cell:
                        self._add(state, granularity, cell, name)

    def _of_rank(self, state: RankState) -> dict[str, str]:
        return {"run": self._store.run, "rank": state.rank}

    def _register_figures(self) -> None:
        """Register what the package knows of itself: the ``dllogger_*`` table of the contract."""
        gauge, counter = self._meter.create_observable_gauge, self._meter.create_observable_counter
        gauge("dllogger.rank_info", [self._each(self._rank_info)], "", HELP["rank_info"])
        gauge("dllogger.epoch", [self._figure("epoch")], "", HELP["epoch"])
        gauge("dllogger.iteration", [self._figure("iteration")], "", HELP["iteration"])
        counter("dllogger.steps", [self._figure("steps")], "", HELP["steps"])
        counter("dllogger.step", [self._figure("step_us", 1e-6)], "s", HELP["step"])
        counter("dllogger.records", [self._each(self._records)], "", HELP["records"])
        counter("dllogger.nonfinite", [self._each(self._nonfinite)], "", HELP["nonfinite"])
        gauge("dllogger.best", [self._each(self._best)], "", HELP["best"])
        gauge("dllogger.parameter", [self._each(self._parameters)], "", HELP["parameter"])
        gauge(
            "dllogger.last_log_timestamp",
            [self._figure("last_log_us", 1e-6)],
            "s",
            HELP["last_log_timestamp"],
        )
        gauge(
            "dllogger.run_start_timestamp",
            [self._figure("start_us", 1e-6)],
            "s",
            HELP["run_start_timestamp"],
        )
        gauge("dllogger.run_finished", [self._figure("finished")], "", HELP["run_finished"])
        counter("dllogger.dropped", [self._dropped], "", HELP["dropped"])
        counter("dllogger.log", [self._log_time], "s", HELP["log"])

    def _observe(self, family: list[_Series]) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_options: CallbackOptions) -> Iterator[Observation]:
            if self._store.silent:
                return
            for series in family.copy():
                try:
                    number = float(series.cell[series.name])
                except (KeyError, TypeError, ValueError, OverflowError):
                    continue
                if number - number == 0.0:  # neither NaN nor Inf: those leave the page
                    yield Observation(number, series.attributes)

        return callback

    def _each(
        self, observe: Callable[[RankState, dict[str, str]], Iterable[Observation]]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def callback(_options: CallbackOptions) -> Iterator[Observation]:
            if self._store.silent:
                return
            for state in self._store.rank_states():
                yield from observe(state, self._of_rank(state))

        return callback

    def _figure(
        self, attribute: str, scale: float = 1.0
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(state: RankState, labels: dict[str, str]) -> Iterator[Observation]:
            value = getattr(state, attribute)
            if value is not None:
                yield Observation(_in_range(value) * scale, labels)

        return self._each(observe)

    def _rank_info(self, state: RankState, labels: dict[str, str]) -> Iterator[Observation]:
        topology = self._topology
        labels = {**labels, "host": topology.host, "world_size": str(topology.world_size)}
        labels |= {"attempt": str(topology.attempt), "pid": str(topology.pid)}
        own = state.rank == str(topology.rank)
        yield Observation(1.0, {**labels, "local_rank": str(topology.local_rank) if own else ""})

    def _records(self, state: RankState, labels: dict[str, str]) -> Iterator[Observation]:
        for kind, count in (("log", state.logs), *state.calls.items()):
            yield Observation(float(count), {**labels, "type": kind})

    def _nonfinite(self, state: RankState, labels: dict[str, str]) -> Iterator[Observation]:
        for name, count in state.nonfinite.copy().items():
            mapped = self._mapped(name)
            attributes = {**labels, "metric": mapped.metric}
            if mapped.stage is not None:
                attributes["stage"] = mapped.stage
            yield Observation(float(count), attributes)

    def _best(self, state: RankState, labels: dict[str, str]) -> Iterator[Observation]:
        for name, value in state.best.copy().items():
            mapped = self._mapped(name)
            if mapped.goal is not None:
                yield Observation(float(value), {**labels, **mapped.attributes})

    def _parameters(self, state: RankState, labels: dict[str, str]) -> Iterator[Observation]:
        for name, value in state.parameters.copy().items():
            yield Observation(value, {**labels, "name": label_text(name)})
        if self._text_parameters:
            for name, text in state.texts.copy().items():
                yield Observation(1.0, {**labels, "name": label_text(name), "value": text})

    def _dropped(self, _options: CallbackOptions) -> Iterator[Observation]:
        if self._store.silent:
            return
        labels = {"run": self._store.run, "rank": str(self._topology.rank)}
        for reason, count in FAULTS.dropped.copy().items():
            yield Observation(float(count), {**labels, "reason": reason})

    def _log_time(self, _options: CallbackOptions) -> Iterator[Observation]:
        if self._store.silent:
            return
        # Threads that add at one moment can make the sum go back, a counter must not.
        self._log_seconds = max(self._log_seconds, LOG_TIME.nanoseconds / 1e9)
        labels = {"run": self._store.run, "rank": str(self._topology.rank)}
        yield Observation(self._log_seconds, labels)


def _in_range(value: float) -> float:
    """Return a figure as a float; an int beyond that is the greatest there is."""
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max if value > 0 else -sys.float_info.max


HELP = {
    "rank_info": "Where a rank runs; join on run and rank",
    "epoch": "Epoch that was logged last",
    "iteration": "Iteration that was logged last",
    "steps": "Training steps, by the iterations that were logged",
    "step": "Time between the training steps that were logged",
    "records": "Calls of the logger by type",
    "nonfinite": "NaN and Inf that were logged",
    "best": "Best finite value so far, by the metric's goal",
    "parameter": "Hyper-parameters",
    "last_log_timestamp": "When the rank logged last",
    "run_start_timestamp": "When the rank started",
    "run_finished": "1 after the summary of the run or a clean close",
    "dropped": "What was not written or not exported, by reason",
    "log": "Time that the training loop spent in log()",
}

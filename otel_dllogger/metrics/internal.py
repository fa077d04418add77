"""The internal metrics, ``dllogger_*``: what the package knows about itself and each rank.

Instruments, pages and data points are all made from these tables, so they cannot differ.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.gpu.own_gpu import OWN_GPU
from otel_dllogger.metrics.naming import label_text
from otel_dllogger.record import HANG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.metrics.exported_store import ExportedStore
    from otel_dllogger.metrics.rank_state import RankState

    Observations = Iterable[tuple[dict[str, str], float]]  # labels and value
    _ObserveRank = Callable[[ExportedStore, RankState], Observations]


@dataclasses.dataclass(frozen=True, slots=True)
class InternalMetric:
    """One ``dllogger_*`` metric.

    Attributes:
        name: The OpenTelemetry name.
        text: The description.
        observe: Yields labels and value of each of its series. It takes an exported store, or
            nothing if the metric describes the owner of the page.
        unit: UCUM.
        is_counter: Whether it is a counter, which only grows.
    """

    name: str
    text: str
    observe: Callable[..., Observations]
    unit: str = ""
    is_counter: bool = False

    @property
    def prometheus_name(self) -> str:
        """Return the name on a scrape, by OpenTelemetry's rules."""
        name = self.name.replace(".", "_")
        seconds = "_seconds" if self.unit == "s" and not name.endswith("_seconds") else ""
        return name + seconds + ("_total" if self.is_counter else "")


def _gauge(name: str, text: str, observe: _ObserveRank, unit: str = "") -> InternalMetric:
    return InternalMetric(f"dllogger.{name}", text, _each_rank(observe), unit)


def _counter(name: str, text: str, observe: _ObserveRank, unit: str = "") -> InternalMetric:
    return InternalMetric(f"dllogger.{name}", text, _each_rank(observe), unit, is_counter=True)


def _each_rank(observe: _ObserveRank) -> Callable[[ExportedStore], Observations]:
    def observe_all(exported: ExportedStore) -> Observations:
        for state in exported.store.rank_states():
            yield from observe(exported, state)

    return observe_all


def _attribute(name: str, scale: float = 1.0) -> _ObserveRank:
    def observe(exported: ExportedStore, state: RankState) -> Observations:
        value = getattr(state, name)
        if value is not None:
            yield exported.rank_labels(state.rank), in_range(value) * scale

    return observe


def _step_seconds(exported: ExportedStore, state: RankState) -> Observations:
    # A record that another thread logs while a phase ends can make it a little less.
    key = (state.rank, "")
    value = exported.least_seconds[key] = max(
        exported.least_seconds.get(key, 0.0), in_range(state.step_us) / 1e6
    )
    yield exported.rank_labels(state.rank), value


def _rank_info(exported: ExportedStore, state: RankState) -> Observations:
    topology = exported.topology
    own = state.rank == str(topology.rank)
    yield (
        {
            **exported.rank_labels(state.rank),
            "host": topology.host,
            "world_size": str(topology.world_size),
            "attempt": str(topology.attempt),
            "pid": _where_known(topology.pid),
            "local_rank": _where_known(topology.local_rank) if own else "",
        },
        1.0,
    )


def _where_known(number: int) -> str:
    return str(number) if number >= 0 else ""


def _world_size(exported: ExportedStore, state: RankState) -> Observations:
    yield exported.rank_labels(state.rank), float(exported.topology.world_size)


def _terminated(exported: ExportedStore, state: RankState) -> Observations:
    yield exported.rank_labels(state.rank), float(exported.store.is_terminated(state))


def _records(exported: ExportedStore, state: RankState) -> Observations:
    labels = exported.rank_labels(state.rank)
    for kind, count in (("log", state.logs), *state.calls.items()):
        yield {**labels, "type": kind}, float(count)


def _nonfinite(exported: ExportedStore, state: RankState) -> Observations:
    for name, count in state.nonfinite.copy().items():
        yield _labels_of(exported, state, name, ("metric", "stage", "kind")), float(count)


def _phase_seconds(exported: ExportedStore, state: RankState) -> Observations:
    labels, shown = exported.rank_labels(state.rank), exported.least_seconds
    times_us, _ = exported.store.phases_of(state)
    for name, time_us in times_us.items():
        # A phase that ends at this moment is in neither place, and a counter must not decrease.
        value = shown[state.rank, name] = max(shown.get((state.rank, name), 0.0), time_us / 1e6)
        yield {**labels, "phase": label_text(name)}, value


def _phase(exported: ExportedStore, state: RankState) -> Observations:
    labels = exported.rank_labels(state.rank)
    for name, is_open in exported.store.phases_of(state)[1].items():
        yield {**labels, "phase": label_text(name)}, float(is_open)


def _phases(exported: ExportedStore, state: RankState) -> Observations:
    labels = exported.rank_labels(state.rank)
    for name, counts in state.phases.counts.copy().items():
        for outcome, count in counts.copy().items():
            yield {**labels, "phase": label_text(name), "outcome": outcome}, float(count)


def _overlapped_seconds(exported: ExportedStore, state: RankState) -> Observations:
    labels = exported.rank_labels(state.rank)
    for name, time_us in state.phases.overlapped_us.copy().items():
        yield {**labels, "phase": label_text(name)}, time_us / 1e6


def _events(exported: ExportedStore, state: RankState) -> Observations:
    labels = exported.rank_labels(state.rank)
    for name, count in state.events.copy().items():
        yield {**labels, "event": label_text(name)}, float(count)


def _event_times(exported: ExportedStore, state: RankState) -> Observations:
    labels = exported.rank_labels(state.rank)
    for name, time_us in state.event_times_us.copy().items():
        yield {**labels, "event": label_text(name)}, time_us / 1e6


def _hang_dumps(exported: ExportedStore, state: RankState) -> Observations:
    yield exported.rank_labels(state.rank), float(state.events.get(HANG, 0))


def _best(exported: ExportedStore, state: RankState) -> Observations:
    for name, value in state.best.copy().items():
        if exported.mapped(name).goal is not None:
            yield _labels_of(exported, state, name, ("metric", "stage", "goal")), float(value)


def _labels_of(
    exported: ExportedStore, state: RankState, name: str, wanted: tuple[str, ...]
) -> dict[str, str]:
    """Return the labels of a rank, and those that are wanted of a metric and that it has."""
    attributes = exported.mapped(name).attributes
    of_metric = {label: attributes[label] for label in wanted if label in attributes}
    return {**exported.rank_labels(state.rank), **of_metric}


def _parameters(exported: ExportedStore, state: RankState) -> Observations:
    labels = exported.rank_labels(state.rank)
    texts = state.texts.copy() if exported.text_parameters else {}
    numbers = state.parameters.copy()
    for name, value in numbers.items():
        yield {**labels, "name": label_text(name)}, value
    for name, text in texts.items():
        # One value each, even while a number is being replaced by a text. An empty label is the
        # same as no label, and the series would be that of a number.
        if text and name not in numbers:
            yield {**labels, "name": label_text(name), "value": text}, 1.0


def _dropped(exported: ExportedStore) -> Observations:
    for reason, count in DIAGNOSTICS.dropped.copy().items():
        yield {**exported.process_labels(), "reason": reason}, float(count)


def _log_time(exported: ExportedStore) -> Observations:
    # Threads that add at the same moment can make the sum decrease, which a counter must not.
    exported.log_seconds = max(exported.log_seconds, DIAGNOSTICS.log_ns / 1e9)
    yield exported.process_labels(), exported.log_seconds


def _gpu_info(exported: ExportedStore) -> Observations:
    device = OWN_GPU.device
    if device is not None:
        host = exported.topology.host
        yield {**exported.process_labels(), "host": host, **device.labels()}, 1.0


def in_range(value: float) -> float:
    """Return a value as a float; an int beyond its range becomes the largest float."""
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max if value > 0 else -sys.float_info.max


EPOCH = _gauge("epoch", "Last epoch that was logged", _attribute("epoch"))
ITERATION = _gauge("iteration", "Last iteration that was logged", _attribute("iteration"))

RANK_METRICS = (
    _gauge("rank_info", "Where a rank runs; join on run and rank", _rank_info),
    _gauge("world_size", "How many ranks the run has", _world_size),
    EPOCH,
    ITERATION,
    _counter(
        "steps", "Training steps, counted from the iterations that were logged", _attribute("steps")
    ),
    _counter(
        "step",
        "Time between the training steps that were logged, without phases that interrupt them",
        _step_seconds,
        unit="s",
    ),
    _counter(
        # Without "seconds", OpenTelemetry would have two instruments of one name.
        "phase_seconds",
        "What the time of the training loop went to, by phase",
        _phase_seconds,
        unit="s",
    ),
    _gauge("phase", "1 while the rank is in a phase", _phase),
    _counter("phases", "Phases that ended, by outcome", _phases),
    _counter(
        "phase_overlapped",
        "Time in phases of other threads, beside the training loop",
        _overlapped_seconds,
        unit="s",
    ),
    _counter("events", "Events that were logged", _events),
    _gauge("last_event_timestamp", "When an event was logged last", _event_times, unit="s"),
    _counter("hang_dumps", "Hangs whose stacks were written", _hang_dumps),
    _counter("records", "Calls of the logger by type", _records),
    _counter("nonfinite", "NaN and Inf that were logged", _nonfinite),
    _gauge("best", "Best finite value so far, by the metric's goal", _best),
    _gauge("parameter", "Hyper-parameters", _parameters),
    _gauge(
        "last_log_timestamp",
        "When the rank logged last",
        _attribute("last_log_us", 1e-6),
        unit="s",
    ),
    _gauge("run_start_timestamp", "When the rank started", _attribute("start_us", 1e-6), unit="s"),
    _gauge(
        "run_finished",
        "1 after the summary of the run or a clean close",
        _attribute("finished"),
    ),
    _gauge(
        "run_terminated",
        "1 after SIGTERM or SIGINT told the process to end, unless it goes on",
        _terminated,
    ),
)
"""The internal metrics of each rank."""

DROPPED_TEXT = "What was not written or not exported, by reason"

PROCESS_METRICS = (
    InternalMetric("dllogger.dropped", DROPPED_TEXT, _dropped, is_counter=True),
    InternalMetric(
        "dllogger.log",
        "Time that the training loop spent in log()",
        _log_time,
        unit="s",
        is_counter=True,
    ),
    InternalMetric(
        "dllogger.gpu_info", "The GPU of a rank; join with dcgm-exporter on UUID", _gpu_info
    ),
)
"""The internal metrics of a training process as a whole."""

OBSERVATION_INTERVAL_US = 15_000_000
"""Microseconds between two observations of the internal metrics, as between scrapes."""


class ObservationSchedule:
    """When to observe internal metrics: after each quarter minute in which something happened.

    Times are microseconds of one clock, which may be that of the process or that of a log's
    records.

    Attributes:
        due_us: The end of the quarter minute; None if nothing happened since the last
            observation.
    """

    __slots__ = ("due_us",)

    def __init__(self) -> None:
        self.due_us: int | None = None

    def note(self, time_us: int) -> None:
        """Note that something happened, possibly earlier than events that were noted before."""
        if self.due_us is None:
            self.due_us = (time_us // OBSERVATION_INTERVAL_US + 1) * OBSERVATION_INTERVAL_US

    def is_due(self, now_us: int) -> bool:
        """Return whether the quarter minute is over; its last moment still belongs to it."""
        return self.due_us is not None and now_us > self.due_us

    def take(self) -> int | None:
        """Return ``due_us`` and reset it, since the metrics are being observed now."""
        due_us, self.due_us = self.due_us, None
        return due_us

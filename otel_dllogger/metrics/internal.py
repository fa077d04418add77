"""What the package knows of itself and of each rank: ``dllogger_*``, as one table.

Instruments, pages and data points are all made from it, so they cannot differ.
"""

from __future__ import annotations

import dataclasses
import sys
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.naming import label_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_dllogger.identity import Topology
    from otel_dllogger.metrics.decided_names import Names
    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.metrics.store import SeriesStore

    Series = Iterator[tuple[dict[str, str], float]]  # labels and value


class View:
    """Hold what the figures of one store are read from.

    Args:
        store: What was logged.
        names: How its metrics are exported.
        topology: Who logged it.
        text_parameters: Show parameters that are text, as a label.
    """

    __slots__ = ("log_seconds", "names", "store", "text_parameters", "topology")

    def __init__(
        self, store: SeriesStore, names: Names, topology: Topology, *, text_parameters: bool = False
    ) -> None:
        self.store = store
        self.names = names
        self.topology = topology
        self.text_parameters = text_parameters
        self.log_seconds = 0.0

    def of_rank(self, rank: str) -> dict[str, str]:
        """Return the labels that every series of a rank has."""
        return {"run": self.store.run, "rank": rank}

    def of_process(self) -> dict[str, str]:
        """Return the labels of what the process as a whole counts."""
        return self.of_rank(str(self.topology.rank))


@dataclasses.dataclass(frozen=True, slots=True)
class Figure:
    """Describe one ``dllogger_*`` metric.

    Attributes:
        name: The OpenTelemetry name.
        unit: UCUM.
        is_counter: Whether it only grows.
        text: What it is, in words.
        observe: Yields its series, labels and value, for all ranks of a store.
    """

    name: str
    unit: str
    is_counter: bool
    text: str
    observe: Callable[[View], Series]

    @property
    def prometheus_name(self) -> str:
        """Return the name on a scrape, by OpenTelemetry's rules."""
        seconds = "_seconds" if self.unit == "s" else ""
        return self.name.replace(".", "_") + seconds + ("_total" if self.is_counter else "")


def _gauge(
    name: str, text: str, observe: Callable[[View, RankState], Series], unit: str = ""
) -> Figure:
    return Figure(f"dllogger.{name}", unit, False, text, _each_rank(observe))


def _counter(
    name: str, text: str, observe: Callable[[View, RankState], Series], unit: str = ""
) -> Figure:
    return Figure(f"dllogger.{name}", unit, True, text, _each_rank(observe))


def _each_rank(observe: Callable[[View, RankState], Series]) -> Callable[[View], Series]:
    def observe_all(view: View) -> Series:
        for state in view.store.rank_states():
            yield from observe(view, state)

    return observe_all


def _attribute(name: str, scale: float = 1.0) -> Callable[[View, RankState], Series]:
    def observe(view: View, state: RankState) -> Series:
        value = getattr(state, name)
        if value is not None:
            yield view.of_rank(state.rank), _in_range(value) * scale

    return observe


def _rank_info(view: View, state: RankState) -> Series:
    topology = view.topology
    own = state.rank == str(topology.rank)
    yield (
        {
            **view.of_rank(state.rank),
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


def _records(view: View, state: RankState) -> Series:
    labels = view.of_rank(state.rank)
    for kind, count in (("log", state.logs), *state.calls.items()):
        yield {**labels, "type": kind}, float(count)


def _nonfinite(view: View, state: RankState) -> Series:
    for name, count in state.nonfinite.copy().items():
        mapped = view.names.mapped(name)
        labels = {**view.of_rank(state.rank), "metric": mapped.metric}
        if mapped.stage is not None:
            labels["stage"] = mapped.stage
        yield labels, float(count)


def _best(view: View, state: RankState) -> Series:
    for name, value in state.best.copy().items():
        mapped = view.names.mapped(name)
        if mapped.goal is not None:
            yield {**view.of_rank(state.rank), **mapped.attributes}, float(value)


def _parameters(view: View, state: RankState) -> Series:
    labels = view.of_rank(state.rank)
    texts = state.texts.copy() if view.text_parameters else {}
    numbers = state.parameters.copy()
    for name, value in numbers.items():
        yield {**labels, "name": label_text(name)}, value
    for name, text in texts.items():
        # One value each, also while a number becomes a text; a label that is empty is none,
        # and the series would be that of a number.
        if text and name not in numbers:
            yield {**labels, "name": label_text(name), "value": text}, 1.0


def _dropped(view: View) -> Series:
    for reason, count in DIAGNOSTICS.dropped.copy().items():
        yield {**view.of_process(), "reason": reason}, float(count)


def _log_time(view: View) -> Series:
    # Threads that add at one moment can make the sum go back, a counter must not.
    view.log_seconds = max(view.log_seconds, DIAGNOSTICS.log_ns / 1e9)
    yield view.of_process(), view.log_seconds


def _in_range(value: float) -> float:
    """Return a figure as a float; an int beyond that is the greatest there is."""
    try:
        return float(value)
    except OverflowError:
        return sys.float_info.max if value > 0 else -sys.float_info.max


EPOCH = _gauge("epoch", "Epoch that was logged last", _attribute("epoch"))
ITERATION = _gauge("iteration", "Iteration that was logged last", _attribute("iteration"))

OF_RANKS = (
    _gauge("rank_info", "Where a rank runs; join on run and rank", _rank_info),
    EPOCH,
    ITERATION,
    _counter("steps", "Training steps, by the iterations that were logged", _attribute("steps")),
    _counter(
        "step",
        "Time between the training steps that were logged",
        _attribute("step_us", 1e-6),
        unit="s",
    ),
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
)
"""What is known of each rank."""

DROPPED_TEXT = "What was not written or not exported, by reason"

OF_PROCESS = (
    Figure(
        "dllogger.dropped",
        "",
        True,
        DROPPED_TEXT,
        _dropped,
    ),
    Figure(
        "dllogger.log",
        "s",
        True,
        "Time that the training loop spent in log()",
        _log_time,
    ),
)
"""What a process that trains counts as a whole."""

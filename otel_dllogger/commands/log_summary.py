"""What a log holds, summed up line by line in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from otel_dllogger.commands.report import format_number
from otel_dllogger.record import is_parameter_step, step_position
from otel_dllogger.values import key_text, safe_repr, to_number

MAX_METRICS = 2_000
"""Metrics that are told apart; values of more are counted together."""

MAX_LINES_NAMED = 1_000
"""Damaged lines whose numbers are kept."""

_MAX_RANKS = 10_000
_MAX_TEXT = 40


@dataclass(slots=True)
class MetricSummary:
    """Sum up one metric.

    Attributes:
        values: How many values were logged.
        nonfinite: How many of them were NaN or Inf.
        nonfinite_step: The step of the first of them, as text.
        last: The last one as text.
        granularities: Which kinds of step logged it.
        metadata: What was said of it, later calls over earlier ones.
    """

    values: int = 0
    nonfinite: int = 0
    nonfinite_step: str = ""
    last: str = ""
    granularities: set[str] = field(default_factory=set)
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Range:
    """Keep the least and the greatest of the values seen."""

    least: float = float("inf")
    greatest: float = float("-inf")

    def add(self, value: float | None) -> None:
        """Take one value; None is nothing."""
        if value is not None:
            self.least = min(self.least, value)
            self.greatest = max(self.greatest, value)

    @property
    def is_one(self) -> bool:
        """Tell whether all values were the same, or none came."""
        return self.least >= self.greatest

    def __bool__(self) -> bool:
        return self.least <= self.greatest


class LogSummary:
    """Sum up the records of a log, in their order.

    Attributes:
        metrics: By name.
        unnamed_values: Values of metrics beyond ``MAX_METRICS``.
        steps: LOG lines by granularity.
        parameters: LOG lines that are hyper-parameters.
        epochs: Epochs seen.
        iterations: Iterations seen.
        times: Times of the records, seconds since the Unix epoch.
        ranks: Ranks that the data name.
        runs: How often a new run begins, by the elapsed time that begins again.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, MetricSummary] = {}
        self.unnamed_values = 0
        self.steps: Counter[str] = Counter()
        self.parameters = 0
        self.epochs = Range()
        self.iterations = Range()
        self.times = Range()
        self.ranks: set[str] = set()
        self.runs = 1
        self._elapsed_s = 0.0

    def add_log(self, fields: dict[str, Any]) -> None:
        """Take a LOG line."""
        self._add_time(fields)
        if is_parameter_step(fields["step"]):
            self.parameters += 1
            return
        granularity, place = step_position(fields["step"])
        self.steps[granularity] += 1
        if place:
            self.epochs.add(place[0])
            self.iterations.add(place[1])
        if isinstance(fields["data"], dict):
            for name, value in fields["data"].items():
                self._add_value(key_text(name), value, granularity, fields["step"])

    def add_metadata(self, fields: dict[str, Any]) -> str | None:
        """Take a METADATA line.

        Returns:
            What is wrong with it, None if nothing is.
        """
        self._add_time(fields)
        name = key_text(fields["metric"])
        if not isinstance(fields["metadata"], dict):
            return f"the metadata of {name!r} is no dict but {safe_repr(fields['metadata'])[:40]}"
        metric = self._metric(name)
        if metric is not None:
            metric.metadata.update(fields["metadata"])
        return None

    def add_info(self, fields: dict[str, Any]) -> None:
        """Take an INFO line."""
        self._add_time(fields)

    def _add_value(self, name: str, value: Any, granularity: str, step: Any) -> None:
        number = to_number(value)
        if name == "rank" and number is not None:
            if len(self.ranks) < _MAX_RANKS:
                self.ranks.add(f"{max(number, 0.0):g}")
            return
        metric = self._metric(name)
        if metric is None:
            self.unnamed_values += 1
            return
        metric.values += 1
        metric.granularities.add(granularity)
        if number is None:
            metric.last = safe_repr(value)[:_MAX_TEXT]
            return
        metric.last = format_number(number)
        if number - number != 0.0:
            metric.nonfinite += 1
            metric.nonfinite_step = metric.nonfinite_step or safe_repr(step)[:_MAX_TEXT]

    def _metric(self, name: str) -> MetricSummary | None:
        metric = self.metrics.get(name)
        if metric is None and len(self.metrics) < MAX_METRICS:
            metric = self.metrics[name] = MetricSummary()
        return metric

    def _add_time(self, fields: dict[str, Any]) -> None:
        self.times.add(_time_s(fields))
        elapsed_s = to_number(fields.get("elapsedtime"))
        if elapsed_s is not None:
            if elapsed_s < self._elapsed_s:
                self.runs += 1
            self._elapsed_s = elapsed_s


def _time_s(fields: dict[str, Any]) -> float | None:
    time_s = to_number(fields.get("timestamp"))
    if time_s is None:
        try:
            time_s = datetime.fromisoformat(str(fields.get("datetime"))).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    return time_s if 0.0 < time_s < 1e11 else None

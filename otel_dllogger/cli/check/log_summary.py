"""A summary of what a log holds, made record by record in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from otel_dllogger.cli.check.report import format_number
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.reader import MAX_NAME_CHARACTERS, SEPARATOR
from otel_dllogger.metrics.kinds import guess_kind
from otel_dllogger.metrics.naming import MappedMetric, map_metric, parse_metadata
from otel_dllogger.record import ITERATION, Event, Info, Metadata, Phase, SeriesMetadata
from otel_dllogger.values import key_text, safe_repr, to_plain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_dllogger.logs.ranks import LoggedRank
    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.metrics.rank_state import RankState

MAX_METRICS = 2_000
"""Metrics that are kept apart; the values of further ones are counted together."""

MAX_PROBLEMS = 1_000
"""Problems of metadata that are kept."""

_MAX_TEXT = 40
_MAX_SAID = 1_000
_SAID = ("unit", "GOAL", "goal", "STAGE", "stage", "SCOPE", "scope", "format")
_MEANT = {
    "unit": "unit",
    "goal": "GOAL",
    "stage": "STAGE",
    "scope": "SCOPE",
    "format": "format",
}


@dataclass(slots=True)
class MetricSummary:
    """The summary of one metric.

    Attributes:
        name: As it was logged.
        numbers: How many values were numbers.
        others: How many were not numbers.
        nonfinite: How many numbers were NaN or Inf.
        last: The last value; one that is not a number as the text to show.
        granularities: Which kinds of step logged it.
        known: What is known about it, in the form of DLLogger's metadata.
        said: What METADATA lines said about it, as text.
    """

    name: str
    numbers: int = 0
    others: int = 0
    nonfinite: int = 0
    last: float | str = ""
    granularities: set[str] = field(default_factory=set)
    known: dict[str, Any] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> int:
        """Return how many values were logged."""
        return self.numbers + self.others

    @property
    def last_text(self) -> str:
        """Return the last value as text."""
        return self.last if isinstance(self.last, str) else format_number(self.last)

    @property
    def mapped(self) -> MappedMetric:
        """Return how it is exported, by what is known about it at the end."""
        return map_metric(self.name, parse_metadata(self.known))

    @property
    def guessed_kind(self) -> str | None:
        """Return its kind and unit in words if its name decided them, else None."""
        kind = guess_kind(self.name)
        by_metadata = parse_metadata(self.said)
        if by_metadata.unit or by_metadata.unit_text or by_metadata.goal:
            return None
        mapped = self.mapped
        if kind.kind is None or mapped.kind != kind.kind:
            return None
        words = kind.kind.replace("_", " ")
        if mapped.unit_label:
            words += f" in {mapped.unit_label}"
        convention = " and the convention of frameworks" if kind.by_convention else ""
        return f"{words} by name{convention}"


@dataclass(slots=True)
class Range:
    """The least and the greatest of the values seen."""

    least: float = float("inf")
    greatest: float = float("-inf")

    def add(self, value: float | None) -> None:
        """Add one value; None is ignored."""
        if value is not None:
            self.least = min(self.least, value)
            self.greatest = max(self.greatest, value)

    @property
    def is_one(self) -> bool:
        """Return whether all values were the same, or there were none."""
        return self.least >= self.greatest

    def __bool__(self) -> bool:
        return self.least <= self.greatest


class LogSummary:
    """The summary of what a log's reader returns.

    Attributes:
        metrics: By the keys that they have in records, which for MMEngine differ by stage.
        unnamed_values: Values of metrics beyond ``MAX_METRICS``.
        records: LOG lines, and records in other formats.
        infos: INFO lines.
        phases: PHASE lines, and PHASE_BEGIN lines.
        events: EVENT lines.
        steps: Records by granularity.
        parameters: Records that are hyper-parameters.
        interpolated: Records whose times were worked out from their places in the file.
        epochs: Epochs seen.
        iterations: Iterations seen.
        times_us: Times of all entries, microseconds since the Unix epoch.
        problems: What is wrong with metadata.
    """

    def __init__(self) -> None:
        self.metrics: dict[str, MetricSummary] = {}
        self.unnamed_values = 0
        self.records = 0
        self.infos = 0
        self.phases = 0
        self.events = 0
        self.steps: Counter[str] = Counter()
        self.parameters = 0
        self.interpolated = 0
        self.epochs = Range()
        self.iterations = Range()
        self.times_us = Range()
        self.problems: list[str] = []
        self._has_totals = False

    def add(self, number: int, items: Iterable[tuple[LoggedRank, RankEntry]]) -> None:
        """Add what one line gave.

        Args:
            number: The line's number, from 1.
            items: As ``FileReader.read`` returns them, with the ranks that have taken them.
        """
        for rank, item in items:
            if isinstance(item, FileRecord):
                self._add_record(rank.state, item)
            elif isinstance(item, SeriesMetadata):
                self._add_series_metadata(item)
            elif isinstance(item, Metadata):
                self._add_metadata(number, item)
            elif isinstance(item, Info):
                self.times_us.add(item.time_us)
                self.infos += 1
            elif isinstance(item, Phase):
                self.times_us.add(item.time_us)
                self.phases += 1
            elif isinstance(item, Event):
                self.times_us.add(item.time_us)
                self.events += 1

    def _add_record(self, state: RankState, record: FileRecord) -> None:
        self.records += 1
        self.times_us.add(record.time_us)
        self.interpolated += record.interpolated
        step = record.step
        if record.is_pair:
            granularity = ITERATION
            self._add_pair(step, has_total=state.meaning.pair_total is not None)
        elif record.is_parameter:
            self.parameters += 1
            return
        else:
            granularity, place = record.position
            if place:
                self.epochs.add(place[0])
                self.iterations.add(place[1])
        self.steps[granularity] += 1
        if record.numbers_only:
            for name, value in record.numbers.items():
                metric = self.metrics.get(name) or self._metric(name)
                if metric is not None:
                    metric.numbers += 1
                    metric.last = value
                    metric.granularities.add(granularity)
        else:
            self._add_values(record, granularity)

    def _add_pair(self, step: tuple[int, int], *, has_total: bool) -> None:
        if has_total and not self._has_totals:  # which the first pairs did not show yet
            self._has_totals = True
            self.iterations, self.epochs = self.epochs, Range()
        if has_total:
            self.iterations.add(step[0])
        else:
            self.epochs.add(step[0])
            self.iterations.add(step[1])

    def _add_values(self, record: FileRecord, granularity: str) -> None:
        """Add values that are not all finite numbers."""
        plain, numbers, _finite, _flat = record.convert()
        if not isinstance(plain, dict):
            return
        for name, value in plain.items():
            metric = self._metric(name)
            if metric is None:
                continue
            metric.granularities.add(granularity)
            number = numbers.get(name)
            if number is None:
                metric.others += 1
                metric.last = safe_repr(value)[:_MAX_TEXT]
                continue
            metric.numbers += 1
            metric.last = number
            if number - number != 0.0:
                metric.nonfinite += 1

    def _add_series_metadata(self, found: SeriesMetadata) -> None:
        metric = self._find(found.key, found.name)
        if metric is not None:
            metric.known.update(found.metadata)

    def _add_metadata(self, number: int, entry: Metadata) -> None:
        self.times_us.add(entry.time_us)
        name = key_text(entry.metric)
        plain = to_plain(entry.metadata)
        if not isinstance(plain, dict):
            if len(self.problems) < MAX_PROBLEMS:
                said = safe_repr(plain)[:_MAX_TEXT]
                self.problems.append(
                    f"line {number:,}: the metadata of {name[:60]!r} is not a dict but {said}"
                )
            return
        metric = self._find(name, name)
        if metric is None:
            return
        for key in plain:
            meant = None if key in _SAID else _MEANT.get(key.lower())
            if meant is not None and len(self.problems) < MAX_PROBLEMS:
                self.problems.append(
                    f"line {number:,}: {key!r} in the metadata of {name[:60]!r} is not read; write "
                    f"{meant!r}"
                )
        for key in _SAID:
            if key in plain:
                value = plain[key]
                metric.known[key] = value[:_MAX_SAID] if isinstance(value, str) else None
                if value is not None:
                    metric.said[key] = str(metric.known[key] or safe_repr(value)[:_MAX_TEXT])

    def _metric(self, key: str) -> MetricSummary | None:
        """Return the metric of a value; None for a rank, and if there is no room."""
        if key == "rank":
            return None
        metric = self.metrics.get(key) or self._find(key, key.partition(SEPARATOR)[0])
        if metric is None:
            self.unnamed_values += 1
        return metric

    def _find(self, key: str, name: str) -> MetricSummary | None:
        metric = self.metrics.get(key)
        if metric is None and len(self.metrics) < MAX_METRICS and len(key) <= MAX_NAME_CHARACTERS:
            metric = self.metrics[key] = MetricSummary(name)
        return metric

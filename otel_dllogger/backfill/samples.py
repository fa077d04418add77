"""Turn logs into samples: values at their times, and internal metrics as if scraped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otel_dllogger.backfill.sorting import SeriesName
from otel_dllogger.logs.whole_logs import WholeLogs
from otel_dllogger.metrics.naming import unit_suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.backfill.sorting import SampleSorter
    from otel_dllogger.logs.ranks import LoggedRank, Point
    from otel_dllogger.logs.source import Source
    from otel_dllogger.logs.whole_logs import FoundLog, ReadLogs
    from otel_dllogger.metrics.data_points import Description


class SampleReader:
    """A reader of logs that passes their samples to a sorter.

    Each log is read as a whole, since counters count from its beginning.

    Args:
        source: How to read them.
        sorter: Takes the samples.
        since_us: Earlier samples are left out; microseconds since the Unix epoch.
        until_us: Samples from this time on are left out.
        progress: Called with how many bytes were read since the last call.
    """

    def __init__(
        self,
        source: Source,
        sorter: SampleSorter,
        *,
        since_us: int | None = None,
        until_us: int | None = None,
        progress: Callable[[int], object] = lambda _bytes: None,
    ) -> None:
        self._logs = WholeLogs(source, progress=progress)
        self._sorter = sorter
        self._since_us = -math.inf if since_us is None else since_us
        self._until_us = math.inf if until_us is None else until_us

    def run(self, logs: Iterable[FoundLog]) -> ReadLogs:
        """Read logs to their ends.

        Args:
            logs: In the order of ``find_logs``.

        Returns:
            What was found.

        Raises:
            BackfillError: If the sorter's disk is full.
            ConfigurationError: If a log cannot be read.
        """
        for rank, item in self._logs.read(logs):
            self._append(rank, rank.points(item))
        for rank in self._logs.ranks:
            self._append(rank, rank.observed(at_end=True))
        return self._logs.found

    def _append(self, rank: LoggedRank, points: Iterable[Point]) -> None:
        append = self._sorter.append
        since_us, until_us = self._since_us, self._until_us
        numbers = rank.numbers
        for series, time_us, value in points:
            number = numbers.get(series)
            if number is None:
                name = series_name(series.describe())
                number = numbers[series] = self._sorter.series_id(name)
            if since_us <= time_us < until_us:
                # Only ranks for OTLP have values other than numbers, and these are not.
                append(number, time_us // 1000, value)  # type: ignore[arg-type]
            else:
                self._logs.found.left_out += 1


def series_name(description: Description) -> SeriesName:
    """Return the name of a series in Prometheus."""
    return SeriesName(
        family=description.prometheus_name,
        labels=tuple(sorted((k, v) for k, v in description.attributes.items() if v)),
        kind=description.kind,
        help=description.text,
        unit="" if description.is_part else unit_suffix(description.unit),
    )

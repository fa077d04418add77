"""From logs to samples: every value at its time, and figures as scrapes would have seen them."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

from otel_dllogger.backfill.logs import lines_of
from otel_dllogger.backfill.sorting import SeriesName
from otel_dllogger.diagnostics import HARMLESS
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.ranks import LoggedRank, Ranks
from otel_dllogger.logs.source import LogFiles
from otel_dllogger.metrics.naming import unit_suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.backfill.logs import FoundLog
    from otel_dllogger.backfill.sorting import SampleSorter
    from otel_dllogger.logs.ranks import Point
    from otel_dllogger.logs.source import Source
    from otel_dllogger.metrics.data_points import Description, Series

_PROGRESS_BYTES = 1 << 20


@dataclasses.dataclass(slots=True)
class ReadLogs:
    """What logs held that were read.

    Attributes:
        lines: Lines that were read.
        ranks: Ranks that they are of.
        interpolated: Records whose times are worked out, since the log has none.
        shared: Files that went back to a time before what another one of their rank held.
        skipped: What lines held beside records, by reason (``REASONS[LINE]``).
    """

    lines: int = 0
    ranks: int = 0
    interpolated: int = 0
    shared: list[str] = dataclasses.field(default_factory=list)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def damaged(self) -> int:
        """Return how much gave no record though it should have."""
        return sum(count for reason, count in self.skipped.items() if reason not in HARMLESS)


class SampleReader:
    """Read logs, and give their samples to a sorter.

    All of each log is read, since counters count from its beginning.

    Args:
        source: How to read them.
        sorter: Takes the samples.
        since_us: Samples before are left out; microseconds since the Unix epoch.
        until_us: Samples from here on are left out.
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
        self._files = LogFiles(source)
        self._sorter = sorter
        self._since_us = -math.inf if since_us is None else since_us
        self._until_us = math.inf if until_us is None else until_us
        self._progress = progress
        self._ranks = Ranks(max_series=source.max_series)
        self._numbers: dict[LoggedRank, tuple[int, dict[Series, int]]] = {}
        self.found = ReadLogs()

    def run(self, logs: Iterable[FoundLog]) -> ReadLogs:
        """Read logs to their ends.

        Args:
            logs: In the order of ``find_logs``.

        Raises:
            BackfillError: If a log cannot be read, or the sorter's disk is full.
        """
        logs = list(logs)
        for log in logs:  # all of them first: each says how many there are
            self._ranks.of(log.identity, log.identity.rank)
        for log in logs:
            self._read(log)
        for rank in self._ranks:
            self._append(rank, rank.observed(at_end=True))
            self.found.ranks += rank.state.last_log_us is not None
        return self.found

    def _read(self, found: FoundLog) -> None:
        log = self._files.open(found.path)
        known: dict[int, LoggedRank] = {}
        read_bytes = 0
        for line in lines_of(log):
            self.found.lines += 1
            read_bytes += len(line)
            if read_bytes >= _PROGRESS_BYTES:
                self._progress(read_bytes)
                read_bytes = 0
            for number, item in log.reader.read(line):
                rank = known.get(number)
                if rank is None:
                    rank = known[number] = self._ranks.of(log.identity, number)
                    last_us = rank.state.last_log_us
                    if (
                        last_us is not None
                        and number == log.identity.rank
                        and found.first_us < last_us
                    ):
                        self.found.shared.append(log.path)
                if type(item) is FileRecord and item.interpolated:
                    self.found.interpolated += 1
                self._append(rank, rank.points(item))
        self._progress(read_bytes)
        skipped = self.found.skipped
        for reason, count in log.reader.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count

    def _append(self, rank: LoggedRank, points: Iterable[Point]) -> None:
        append = self._sorter.append
        since_us, until_us = self._since_us, self._until_us
        moves, numbers = self._numbers.get(rank, (-1, {}))
        for series, time_us, value in points:
            if rank.moves != moves:  # metadata came late: series go by other names from here on
                moves, numbers = rank.moves, {}
                self._numbers[rank] = (moves, numbers)
            number = numbers.get(series)
            if number is None:
                name = series_name(series.describe())
                number = numbers[series] = self._sorter.series_id(name)
            if since_us <= time_us < until_us:
                append(number, time_us // 1000, value)


def series_name(description: Description) -> SeriesName:
    """Return how Prometheus names a series."""
    return SeriesName(
        family=description.prometheus_name,
        labels=tuple(sorted((k, v) for k, v in description.attributes.items() if v)),
        kind="gauge" if description.start_us is None else "counter",
        help=description.text,
        unit=unit_suffix(description.unit),
    )

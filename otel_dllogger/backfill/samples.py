"""Turn logs into samples: values at their times, and internal metrics as if scraped."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.backfill.sorting import SeriesName
from otel_dllogger.diagnostics import HARMLESS
from otel_dllogger.errors import BackfillError, in_words
from otel_dllogger.logs.findings import LogFindings
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.ranks import LoggedRank, Ranks
from otel_dllogger.logs.reader import ProcessStart
from otel_dllogger.logs.source import LogFiles, read_lines
from otel_dllogger.logs.tail.anomalies import FileAnomalies
from otel_dllogger.logs.tail.find_files import FileFinder
from otel_dllogger.metrics.naming import unit_suffix
from otel_dllogger.record import SeriesMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from otel_dllogger.backfill.sorting import SampleSorter
    from otel_dllogger.logs.ranks import Point
    from otel_dllogger.logs.run_identity import RunIdentity
    from otel_dllogger.logs.source import LogFile, Source
    from otel_dllogger.metrics.data_points import Description, Series

_PEEKED_LINES = 1_000


class FoundLog(NamedTuple):
    """A log that was found.

    Attributes:
        path: Where it is.
        identity: Its run, rank and host.
        size_bytes: Its size when it was found.
        first_us: The time of its first record, microseconds since the Unix epoch; 0 if none
            of its first lines has one.
    """

    path: str
    identity: RunIdentity
    size_bytes: int
    first_us: int


def find_logs(source: Source) -> list[FoundLog]:
    """Return all logs, those of one rank in the order of their first records.

    What MMEngine wrote a second time is left out, and so is DLLogger's text beside its JSON lines.

    Args:
        source: Where to look.

    Raises:
        BackfillError: If there is no log, or one that cannot be read.
        ConfigurationError: If a path, a pattern or the zone is invalid.
    """
    anomalies = FileAnomalies()
    finder = FileFinder(source.paths, anomalies=anomalies)
    files = LogFiles(source, finder.covers)
    logs = []
    for found in finder.scan().files.values():
        if not files.is_copy(found.path):
            log = files.open(found.path)
            first_us, is_repeated = _first_record(log)
            if not is_repeated:
                logs.append(FoundLog(found.path, log.identity, found.status.st_size, first_us))
    missing = [
        path for path in source.paths if not FileFinder([path], anomalies=anomalies).scan().files
    ]
    if missing:
        paths = " ".join(missing)
        raise BackfillError(
            f"there is no log at {paths}: name files, folders with *.json, *.jsonl, *.log, *.txt "
            "or other files that begin with a record, or globs"
        )
    return sorted(
        logs, key=lambda log: (log.identity.run, log.identity.rank, log.first_us, log.path)
    )


def lines_of(log: LogFile) -> Iterator[bytes]:
    """Yield the lines of a log from its beginning, as ``read_lines`` does.

    Raises:
        BackfillError: If the file cannot be read.
    """
    try:
        log.observe()
        yield from read_lines(log.path)
    except OSError as error:
        raise BackfillError(
            f"{log.path} cannot be read ({in_words(error)}): make it readable, or leave it out"
        ) from error


def _first_record(log: LogFile) -> tuple[int, bool]:
    """Return the time of the first record, and whether JSON lines hold it as well.

    The files of a rank are read in the order of these times.
    """
    for number, line in enumerate(lines_of(log)):
        for _rank, item in log.reader.read(line):
            if not isinstance(item, (SeriesMetadata, ProcessStart)):
                return item.time_us, log.repeats_json([line])
        if number >= _PEEKED_LINES:
            break
    return 0, False


_PROGRESS_BYTES = 1 << 20


@dataclasses.dataclass(slots=True)
class ReadLogs:
    """What was found in the logs that were read.

    Attributes:
        lines: Lines that were read.
        ranks: Ranks that the lines belong to.
        interpolated: Records whose times are worked out, since the log has none.
        shared: Files that begin at a time before the end of another file of their rank.
        skipped: What lines held beside records, by reason (``REASONS[LINE]``).
        findings: What makes the records of each file doubtful, with its path.
    """

    lines: int = 0
    ranks: int = 0
    interpolated: int = 0
    shared: list[str] = dataclasses.field(default_factory=list)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    findings: list[tuple[str, LogFindings]] = dataclasses.field(default_factory=list)

    @property
    def damaged(self) -> int:
        """Return how much gave no record although it should have."""
        return sum(count for reason, count in self.skipped.items() if reason not in HARMLESS)


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
        for log in logs:  # all of them first, to know how many there are
            self._ranks.of(log.identity, log.identity.rank)
        for log in logs:
            self._read(log)
        for rank in self._ranks:
            self._append(rank, rank.observed(at_end=True))
            self.found.ranks += rank.state.last_log_us is not None
        return self.found

    def _read(self, found: FoundLog) -> None:
        log = self._files.open(found.path)
        findings = LogFindings(log.reader)
        self.found.findings.append((found.path, findings))
        known: dict[int, LoggedRank] = {}
        read_bytes = 0
        for line in lines_of(log):
            self.found.lines += 1
            read_bytes += len(line)
            if read_bytes >= _PROGRESS_BYTES:
                self._progress(read_bytes)
                read_bytes = 0
            items = log.reader.read(line)
            findings.look(line, items)
            for number, item in items:
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
                findings.take(rank, item)
        self._progress(read_bytes)
        skipped = self.found.skipped
        for reason, count in log.reader.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count

    def _append(self, rank: LoggedRank, points: Iterable[Point]) -> None:
        append = self._sorter.append
        since_us, until_us = self._since_us, self._until_us
        moves, numbers = self._numbers.get(rank, (-1, {}))
        for series, time_us, value in points:
            if rank.moves != moves:  # metadata came late: series have other names from here on
                moves, numbers = rank.moves, {}
                self._numbers[rank] = (moves, numbers)
            number = numbers.get(series)
            if number is None:
                name = series_name(series.describe())
                number = numbers[series] = self._sorter.series_id(name)
            if since_us <= time_us < until_us:
                append(number, time_us // 1000, value)


def series_name(description: Description) -> SeriesName:
    """Return the name of a series in Prometheus."""
    return SeriesName(
        family=description.prometheus_name,
        labels=tuple(sorted((k, v) for k, v in description.attributes.items() if v)),
        kind="gauge" if description.start_us is None else "counter",
        help=description.text,
        unit=unit_suffix(description.unit),
    )

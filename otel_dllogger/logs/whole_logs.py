"""Find logs, and read each of them as a whole, from its beginning to its end."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.diagnostics import HARMLESS
from otel_dllogger.errors import ConfigurationError, count_of, in_words
from otel_dllogger.logs.findings import LogFindings
from otel_dllogger.logs.parsers.event_names import path_stage
from otel_dllogger.logs.parsers.formats import REPEATING, FileRecord
from otel_dllogger.logs.ranks import Ranks
from otel_dllogger.logs.reader import ProcessStart
from otel_dllogger.logs.source import LogFiles, read_lines
from otel_dllogger.logs.tail.anomalies import FileAnomalies
from otel_dllogger.logs.tail.find_files import FileFinder
from otel_dllogger.metrics.step_durations import ClassicDurations
from otel_dllogger.record import SeriesMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from otel_dllogger.logs.ranks import LoggedRank
    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.logs.run_identity import RunIdentity
    from otel_dllogger.logs.source import LogFile, Source

NO_VALUE = "no value was found; otel-dllogger check FILE shows what a log holds"
"""Why there is nothing to make of logs."""

_PEEKED_LINES = 1_000
_PROGRESS_BYTES = 1 << 20


class FoundLog(NamedTuple):
    """A log that was found.

    Attributes:
        path: Where it is.
        identity: Its run, rank and host.
        size_bytes: Its size when it was found.
        first_us: The time of its first record, microseconds since the Unix epoch; 0 if none
            of its first lines has one.
        log_format: The format of that record.
    """

    path: str
    identity: RunIdentity
    size_bytes: int
    first_us: int
    log_format: str

    def is_shared(self, last_us: int | None) -> bool:
        """Return whether it begins before the end of another log of its rank, without a reason.

        Event files of several stages are of one time, and so are files that repeat the history.

        Args:
            last_us: When the logs before it end that are of its rank; None if there are none.
        """
        return (
            last_us is not None
            and self.first_us < last_us
            and path_stage(self.path) is None
            and self.log_format not in REPEATING
        )


def find_logs(source: Source) -> list[FoundLog]:
    """Return all logs, those of one rank in the order of their first records.

    What a framework wrote a second time is left out, and so is DLLogger's text beside its JSON
    lines.

    Args:
        source: Where to look.

    Raises:
        ConfigurationError: If a path, a pattern or the zone is invalid, there is no log, or one
            cannot be read.
    """
    anomalies = FileAnomalies()
    finder = FileFinder(source.paths, anomalies=anomalies)
    files = LogFiles(source, finder.covers)
    logs = []
    for found in finder.scan().files.values():
        if not files.repeats_twin(found.path):
            log = files.open(found.path)
            first_us, log_format, is_repeated = _first_record(log)
            if not is_repeated:
                size_bytes = found.status.st_size
                logs.append(FoundLog(found.path, log.identity, size_bytes, first_us, log_format))
    missing = [
        path for path in source.paths if not FileFinder([path], anomalies=anomalies).scan().files
    ]
    if missing:
        paths = " ".join(missing)
        raise ConfigurationError(
            f"there is no log at {paths}: name files, folders with *.json, *.jsonl, *.log, *.txt, "
            "*tfevents* or other files that begin with a record, or globs"
        )
    return sorted(
        logs, key=lambda log: (log.identity.run, log.identity.rank, log.first_us, log.path)
    )


def lines_of(log: LogFile) -> Iterator[bytes]:
    """Yield the lines of a log from its beginning, as ``read_lines`` does.

    Raises:
        ConfigurationError: If the file cannot be read.
    """
    try:
        log.observe()
        yield from read_lines(log.path)
    except OSError as error:
        raise ConfigurationError(
            f"{log.path} cannot be read ({in_words(error)}): make it readable, or leave it out"
        ) from error


def _first_record(log: LogFile) -> tuple[int, str, bool]:
    """Return the first record's time and format, and whether another log holds it as well.

    The files of a rank are read in the order of these times.
    """
    for number, line in enumerate(lines_of(log)):
        for _rank, item in log.reader.read(line):
            if not isinstance(item, (SeriesMetadata, ProcessStart)):
                log_format = item.log_format if isinstance(item, FileRecord) else ""
                return item.time_us, log_format, log.repeats_other([line])
        if number >= _PEEKED_LINES:
            break
    return 0, "", False


@dataclasses.dataclass(slots=True)
class ReadLogs:
    """What was found in the logs that were read.

    Attributes:
        lines: Lines that were read.
        ranks: Ranks that the lines belong to; known once all are read.
        interpolated: Records whose times are worked out, since the log has none.
        made_up: Files whose rows do not even say how long they took, with what that means.
        shared: Files that begin at a time before the end of another file of their rank.
        skipped: What lines held beside records, by reason (``REASONS[LINE]``).
        findings: What makes the records of each file doubtful, with its path.
        left_out: Values that are outside of the time range that was asked for.
    """

    lines: int = 0
    ranks: int = 0
    interpolated: int = 0
    made_up: list[str] = dataclasses.field(default_factory=list)
    shared: list[str] = dataclasses.field(default_factory=list)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    findings: list[tuple[str, LogFindings]] = dataclasses.field(default_factory=list)
    left_out: int = 0

    def guesses(self, naming: str) -> Iterator[str]:
        """Yield what had to be guessed about the logs, each in one line.

        Args:
            naming: How a user says how files are named, with an example.
        """
        if self.shared:
            more = f" and {len(self.shared) - 1} more" if len(self.shared) > 1 else ""
            yield (
                f"{self.shared[0]}{more}: same run and rank as another log of that time; if that "
                f"is wrong, say how files are named, for example {naming}"
            )
        if self.interpolated:
            yield (
                f"{count_of(self.interpolated, 'record')} without a time: worked out from the "
                "run's start and the durations of iterations, so pauses between them are missing"
            )

    def damage(self) -> str:
        """Return in one line how much gave no record although it should have; empty if nothing."""
        reasons = ", ".join(
            f"{count} {name}"
            for name, count in sorted(self.skipped.items())
            if name not in HARMLESS
        )
        return (
            f"lines that gave no record: {reasons}; otel-dllogger check FILE shows them"
            if reasons
            else ""
        )


class WholeLogs:
    """A reader of whole logs, which passes what they hold to their ranks.

    Args:
        source: How to read them.
        progress: Called with how many bytes were read since the last call.

    Attributes:
        ranks: The ranks of the logs.
        found: What was found so far.

    Raises:
        ConfigurationError: If a pattern or the zone is invalid.
    """

    def __init__(
        self, source: Source, *, progress: Callable[[int], object] = lambda _bytes: None
    ) -> None:
        self._files = LogFiles(source)
        self._progress = progress
        durations = ClassicDurations if source.step_histogram else None
        self.ranks = Ranks(max_series=source.max_series, durations=durations)
        self.found = ReadLogs()

    def read(self, logs: Iterable[FoundLog]) -> Iterator[tuple[LoggedRank, RankEntry]]:
        """Read logs to their ends.

        Args:
            logs: In the order of ``find_logs``.

        Returns:
            Each entry with the rank that has to take it before the next one is read.

        Raises:
            ConfigurationError: If a log cannot be read.
        """
        logs = list(logs)
        for log in logs:  # all of them first, to know how many there are
            self.ranks.of(log.identity, log.identity.rank)
        for log in logs:
            yield from self._read(log)
        self.found.ranks = sum(rank.state.last_log_us is not None for rank in self.ranks)

    def _read(self, found: FoundLog) -> Iterator[tuple[LoggedRank, RankEntry]]:
        log = self._files.open(found.path)
        findings = LogFindings(log.reader)
        self.found.findings.append((found.path, findings))
        known: dict[int, LoggedRank] = {}
        read_bytes = interpolated = 0
        for line in lines_of(log):
            self.found.lines += 1
            read_bytes += len(line)
            if read_bytes >= _PROGRESS_BYTES:
                self._progress(read_bytes)
                read_bytes = 0
            items = log.reader.read(line)
            if not items:
                findings.look(line)
            for number, item in items:
                rank = known.get(number)
                if rank is None:
                    rank = known[number] = self.ranks.of(log.identity, number)
                    if number == log.identity.rank and found.is_shared(rank.state.last_log_us):
                        self.found.shared.append(log.path)
                if type(item) is FileRecord and item.interpolated:
                    interpolated += 1
                yield rank, item
                findings.take(rank, item)
        self._progress(read_bytes)
        made_up = log.reader.context.guesses.get("times")
        if made_up is None:
            self.found.interpolated += interpolated
        else:
            self.found.made_up.append(f"{log.path}: {made_up}")
        skipped = self.found.skipped
        for reason, count in log.reader.skipped.items():
            skipped[reason] = skipped.get(reason, 0) + count

"""Logs that are there, read from their beginnings: files in the order of their runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.errors import BackfillError, in_words
from otel_dllogger.logs.reader import ProcessStart
from otel_dllogger.logs.source import LogFiles, read_lines
from otel_dllogger.logs.tail.anomalies import FileAnomalies
from otel_dllogger.logs.tail.find_files import FileFinder
from otel_dllogger.record import SeriesMetadata

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.run_identity import RunIdentity
    from otel_dllogger.logs.source import LogFile, Source

_PEEKED_LINES = 1_000


class FoundLog(NamedTuple):
    """A log that was found.

    Attributes:
        path: Where it is.
        identity: Whose lines it holds.
        size_bytes: How long it was when it was found.
        first_us: The time of its first record, microseconds since the Unix epoch; 0 if none
            of its first lines has one.
    """

    path: str
    identity: RunIdentity
    size_bytes: int
    first_us: int


def find_logs(source: Source) -> list[FoundLog]:
    """Return the logs that there are, those of one rank in the order of their first records.

    What MMEngine wrote a second time is left out, and DLLogger's text beside its JSON lines.

    Args:
        source: Where to look.

    Raises:
        BackfillError: If there is none, or one that cannot be read.
        ConfigurationError: If a path, a pattern or the zone cannot mean anything.
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
            f"there is no log at {paths}: name files, folders with *.json, *.jsonl, *.log or "
            "*.txt, or globs"
        )
    return sorted(
        logs, key=lambda log: (log.identity.run, log.identity.rank, log.first_us, log.path)
    )


def lines_of(log: LogFile) -> Iterator[bytes]:
    """Yield the lines of a log from its beginning, as ``read_lines``.

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

    The files of a rank go in the order of these times.
    """
    for number, line in enumerate(lines_of(log)):
        for _rank, item in log.reader.read(line):
            if not isinstance(item, (SeriesMetadata, ProcessStart)):
                return item.time_us, log.repeats_json([line])
        if number >= _PEEKED_LINES:
            break
    return 0, False

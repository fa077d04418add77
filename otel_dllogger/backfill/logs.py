"""Logs that are there, read from their beginnings: files in the order of their runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.backfill import BackfillError
from otel_dllogger.errors import in_words
from otel_dllogger.logs.duplicates import has_json_twin
from otel_dllogger.logs.parsers.detect import DLLOGGER_TEXT
from otel_dllogger.logs.read_lines import read_lines
from otel_dllogger.logs.reader import FileReader, Naming, Started
from otel_dllogger.logs.run_identity import Origin, is_copy
from otel_dllogger.logs.source import open_reader
from otel_dllogger.logs.tail.find_files import Discovery
from otel_dllogger.logs.tail.oddities import Oddities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.source import Source

_PEEKED_LINES = 1_000


class LogFile(NamedTuple):
    """Hold a log that was found.

    Attributes:
        path: Where it is.
        origin: Whose lines it holds.
        size_bytes: How long it was when it was found.
        first_us: The time of its first record, microseconds since the Unix epoch; 0 if none
            of its first lines has one.
    """

    path: str
    origin: Origin
    size_bytes: int
    first_us: int


def find_logs(source: Source) -> list[LogFile]:
    """Return the logs that there are, those of one rank in the order of their first records.

    What MMEngine wrote a second time is left out, and DLLogger's text beside its JSON lines.

    Args:
        source: Where to look.

    Raises:
        BackfillError: If there is none, or one that cannot be read.
        ConfigurationError: If a path, a pattern or the zone cannot mean anything.
    """
    origins = source.origins()
    oddities = Oddities()
    discovery = Discovery(source.paths, oddities=oddities)
    logs = []
    for found in discovery.scan().files.values():
        if not is_copy(found.path, discovery.covers):
            origin = origins.of(found.path)
            first_us, is_text = _first_record(found.path, origin, source)
            if not (is_text and has_json_twin(found.path, origins, discovery.covers)):
                logs.append(LogFile(found.path, origin, found.status.st_size, first_us))
    missing = [
        path for path in source.paths if not Discovery([path], oddities=oddities).scan().files
    ]
    if missing:
        paths = " ".join(missing)
        raise BackfillError(
            f"there is no log at {paths}: name files, folders with *.json, *.jsonl, *.log or "
            "*.txt, or globs"
        )
    return sorted(logs, key=lambda log: (log.origin.run, log.origin.rank, log.first_us, log.path))


def lines_of(log: LogFile) -> Iterator[bytes]:
    """Yield the lines of a log, as ``read_lines``.

    Raises:
        BackfillError: If the file cannot be read.
    """
    try:
        yield from read_lines(log.path)
    except OSError as error:
        raise BackfillError(
            f"{log.path} cannot be read ({in_words(error)}): make it readable, or leave it out"
        ) from error


def reader_of(log: LogFile, source: Source) -> FileReader:
    """Return a reader at the beginning of a log."""
    reader = open_reader(source, log.origin, log.path)
    status = os.stat(log.path)  # noqa: PTH116 - as everywhere where paths are text
    reader.observe(size_bytes=status.st_size, modified_us=status.st_mtime_ns // 1000)
    return reader


def _first_record(path: str, origin: Origin, source: Source) -> tuple[int, bool]:
    """Return the time of the first record, and whether it is DLLogger's text.

    The files of a rank go in the order of these times.
    """
    log = LogFile(path, origin, 0, 0)
    reader = reader_of(log, source)
    for number, line in enumerate(lines_of(log)):
        for _rank, item in reader.read(line):
            if not isinstance(item, (Naming, Started)):
                return item.time_us, DLLOGGER_TEXT in reader.entries
        if number >= _PEEKED_LINES:
            break
    return 0, False

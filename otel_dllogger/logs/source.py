"""The logs to read, how to read them, and how to open each of their files."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from typing import TYPE_CHECKING, Any, BinaryIO

from otel_dllogger.logs.parsers.context import MAX_LINE_BYTES, FileContext
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.parsers.tfrecord import HEADER_BYTES, is_frame
from otel_dllogger.logs.parsers.times import parse_zone
from otel_dllogger.logs.reader import FileReader
from otel_dllogger.logs.run_identity import RunIdentities
from otel_dllogger.logs.run_start import WHOLE_BYTES, find_iteration_us, find_start_us
from otel_dllogger.logs.tail.split_frames import read_frames
from otel_dllogger.logs.twins import find_twins
from otel_dllogger.metrics.store import DEFAULT_MAX_SERIES

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from otel_dllogger.logs.run_identity import RunIdentity

_HEAD_BYTES = 1 << 16
_PEEKED_LINES = 20_000  # a console may show a long configuration and a model first
_JSON = b"DLLL {"
_TEXT = re.compile(rb"DLLL? \d{4}-\d\d-\d\d ")


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Which logs to read, and how.

    Attributes:
        paths: Files, folders and globs.
        run: The name of the run of all files; None for each file's own.
        patterns: How files are named, as ``RunIdentities`` takes it.
        zone: The zone of times without an offset; None for the machine's own.
        conventions: Whether names say what metadata does not.
        max_series: The most series that one rank may have.
        step_histogram: Whether to export how long each training step took.
    """

    paths: Sequence[str]
    run: str | None = None
    patterns: Sequence[str] = ()
    zone: str | None = None
    conventions: bool = True
    max_series: int = DEFAULT_MAX_SERIES
    step_histogram: bool = False


class LogFiles:
    """The log files of a source.

    Args:
        source: How to read them.
        covers: Returns whether the file at a path is read at all; a file that is not read is not
            a reason to leave out another one with the same content.
        timing_bytes: How much of a file without times may be read to find when its run started.

    Attributes:
        identities: Finds the run, rank and host of a file.

    Raises:
        ConfigurationError: If a pattern or the zone is invalid.
    """

    def __init__(
        self,
        source: Source,
        covers: Callable[[str], bool] = lambda _path: True,
        *,
        timing_bytes: int = WHOLE_BYTES,
    ) -> None:
        parse_zone(source.zone)
        self._source = source
        self._covers = covers
        self._timing_bytes = timing_bytes
        self.identities = RunIdentities(source.paths, run=source.run, patterns=source.patterns)

    def open(
        self,
        path: str,
        state: dict[str, Any] | None = None,
        *,
        context: Callable[..., FileContext] = FileContext,
    ) -> LogFile:
        """Open a file, with a reader at its beginning or where an earlier reader stopped.

        Args:
            path: Where it is.
            state: The ``state`` of an earlier reader of the file, to continue from; None for 0.
            context: As ``FileReader`` takes it.
        """
        source, identity = self._source, self.identities.of(path)
        start_us = iteration_us = None
        if not state:
            most_bytes = self._timing_bytes
            start_us = find_start_us(path, zone=source.zone, most_bytes=most_bytes)
            iteration_us = find_iteration_us(path, most_bytes=most_bytes)
        reader = FileReader(
            identity,
            zone=source.zone,
            conventions=source.conventions,
            name="/".join(path.rsplit("/", 2)[-2:]),
            run_start_us=start_us,
            iteration_us=iteration_us,
            state=state,
            context=context,
        )
        return LogFile(path, identity, reader, self)

    def has_json_twin(self, path: str) -> bool:
        """Return whether DLLogger's JSON lines, of the same run and rank, are beside its text.

        Scripts usually have both backends, and ``| tee train.log``. The JSON lines hold more.

        Args:
            path: A file with records of DLLogger's StdOutBackend.
        """
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - links stay
        identity = self.identities.of(path)
        try:
            with os.scandir(folder) as entries:
                return any(
                    entry.name != name
                    and entry.is_file()
                    and self._covers(entry.path)
                    and self.identities.of(entry.path)[:2] == identity[:2]
                    and _JSON in _head(entry.path)
                    for entry in entries
                )
        except OSError:
            return False

    def repeats_twin(
        self, path: str, formats_of: Callable[[str], Container[str]] = lambda _path: ()
    ) -> bool:
        """Return whether another log of the same training is read instead of a file.

        It is the one that comes first in the order of its framework (``twins``), or one that was
        read before this file.

        Args:
            path: The file.
            formats_of: Returns the formats of what was read of another file before.
        """
        return any(
            self._covers(twin.path)
            and (
                twin.log_format in formats_of(twin.path)
                or (twin.is_preferred and self._has_steps(twin.path, twin.log_format))
            )
            and self._has_steps(path, twin.own_format)
            for twin in find_twins(path)
        )

    def _has_steps(self, path: str, log_format: str) -> bool:
        """Return whether a file has steps in a format; others may have such a name."""
        reader = self.open(path).reader
        try:
            for line in itertools.islice(read_lines(path), _PEEKED_LINES):
                for _rank, item in reader.read(line):
                    if (
                        isinstance(item, FileRecord)
                        and item.log_format == log_format
                        and item.step not in ((), (None,))
                    ):
                        return True
        except OSError:
            pass
        return False


class LogFile:
    """One log file that is open for reading.

    Attributes:
        path: Where it was when it was opened.
        identity: Its run, rank and host.
        reader: Reads its lines.
    """

    __slots__ = ("_files", "identity", "path", "reader")

    def __init__(
        self, path: str, identity: RunIdentity, reader: FileReader, files: LogFiles
    ) -> None:
        self.path = path
        self.identity = identity
        self.reader = reader
        self._files = files

    def observe(self, stamp: tuple[int, int] | None = None) -> None:
        """Note the file's state, before what was added to it is read.

        Args:
            stamp: Its length in bytes, and when it was changed, nanoseconds since the Unix
                epoch; None to ask the file system.

        Raises:
            OSError: If the file system does not say.
        """
        if stamp is None:
            status = os.stat(self.path)  # noqa: PTH116 - as everywhere where paths are text
            stamp = (status.st_size, status.st_mtime_ns)
        size_bytes, modified_ns = stamp
        self.reader.observe(size_bytes=size_bytes, modified_us=modified_ns // 1000)

    def repeats_other(self, lines: Iterable[bytes]) -> bool:
        """Return whether it is DLLogger's text, and the JSON lines beside it hold the same.

        Args:
            lines: The file's first lines.
        """
        return any(map(_TEXT.search, lines)) and self._files.has_json_twin(self.path)


def open_log(path: str, *, context: Callable[..., FileContext] = FileContext) -> LogFile:
    """Open a single file, as ``LogFiles.open`` does."""
    return LogFiles(Source([path])).open(path, context=context)


def read_lines(path: str | int) -> Iterator[bytes]:
    """Yield the lines of a file; a line that is too long is cut, but stays too long.

    The frames of an event file stand for lines; one that is too long is left out.

    Args:
        path: The file, or its descriptor, which is closed at the end.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - as everywhere where paths are text
        if is_frame(file.peek(HEADER_BYTES)[:HEADER_BYTES]):
            yield from read_frames(file, max_frame_bytes=MAX_LINE_BYTES)
            return
        while line := file.readline(MAX_LINE_BYTES + 2):
            yield line
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                _skip_line(file)


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass


def _head(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as everywhere where paths are text
            return file.read(_HEAD_BYTES)
    except OSError:
        return b""

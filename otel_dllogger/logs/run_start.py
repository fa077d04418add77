"""Find when the run of a log file started, for rows and lines that do not say their time."""

from __future__ import annotations

import functools
import os
import re
import stat
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.logs.parsers.context import MAX_LINE_BYTES, FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.parsers.tfrecord import HEADER_BYTES, is_frame
from otel_dllogger.logs.parsers.times import parse_datetime
from otel_dllogger.logs.run_identity import find_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

_STAMPED = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})_([0-9]{2})([0-9]{2})([0-9]{2})(?![0-9])")
_LINE = re.compile(rb"([0-9]{4})/([0-9]{2})/([0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2}) - ")
_SCALARS_FOLDER = "vis_data"
_FIRST_RECORDS = 20
_SUMMARIZED = "trainer_state.json"
_ANY_START_US = 10**15

WHOLE_BYTES = 1 << 26
"""How much of a file is read to add up how long its rows took, where all of it is read next."""

FOLLOWED_BYTES = 1 << 17
"""The same for files that are followed: a bridge has to answer and to stop meanwhile."""
_HEAD_BYTES = 1 << 16
_MAX_FILES = 1_000


def find_start_us(
    path: str, *, zone: str | None = None, most_bytes: int = WHOLE_BYTES
) -> int | None:
    """Return when the run of a file started.

    The first of these that says it counts: the file's name or its folder's, as MMEngine names
    them; the name of the dated twin of ``scalars.json``; the name or the first line of a text log
    beside them; for a file without times, its last change less the durations of its rows.

    Args:
        path: The file.
        zone: The zone of the machine that wrote it, as ``times.parse_zone`` takes it.
        most_bytes: How much of the file is read for that; it stands for the whole.

    Returns:
        Microseconds since the Unix epoch, None if nothing says it.
    """
    stamp_us = _stamp_us(find_stamp(path), zone)
    if stamp_us is not None:
        return stamp_us
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - links stay
    if not name.startswith("scalars.json"):
        return _timing(path, zone, most_bytes).start_us
    beside = folder.removesuffix(f"/{_SCALARS_FOLDER}")
    for where, ending in ((folder, ".json"), (beside, ".log")):
        for other in _files(where, ending):
            found_us = _stamp_us(other.rpartition("/")[2], zone)
            if found_us is None and ending == ".log":
                found_us = _first_line_us(other, zone)
            if found_us is not None:
                return found_us
    return _timing(path, zone, most_bytes).start_us


def find_iteration_us(path: str, *, most_bytes: int = WHOLE_BYTES) -> float | None:
    """Return how long an iteration of a run took on average, if only a summary says it.

    Args:
        path: The file.
        most_bytes: How much of the file is read for that.

    Returns:
        Microseconds, None if nothing says it, or the rows themselves do.
    """
    if not path.endswith(_SUMMARIZED):
        return None
    return _timing(path, None, most_bytes).iteration_us


def _stamp_us(text: str, zone: str | None) -> int | None:
    found = _STAMPED.search(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = found.groups()
    said = f"{year}-{month}-{day} {hour}:{minute}:{second}"
    return parse_datetime(said, zone=zone, last_us=None)


def _files(folder: str, ending: str) -> Iterator[str]:
    """Yield the files of a folder with an ending, the earliest name first."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.name.endswith(ending))
    except OSError:
        return
    for name in names[:_MAX_FILES]:
        yield f"{folder}/{name}"


def _first_line_us(path: str, zone: str | None) -> int | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as everywhere where paths are text
            found = _LINE.search(file.read(_HEAD_BYTES))
    except OSError:
        return None
    if found is None:
        return None
    year, month, day, clock = (group.decode() for group in found.groups())
    return parse_datetime(f"{year}-{month}-{day} {clock}", zone=zone, last_us=None)


class _Timing(NamedTuple):
    """When a run started, and how long an iteration took on average; None for what is not said."""

    start_us: int | None = None
    iteration_us: float | None = None


def _timing(path: str, zone: str | None, most_bytes: int) -> _Timing:
    """Return what the durations in a file say before its last change."""
    try:
        status = os.stat(path)  # noqa: PTH116 - as everywhere where paths are text
        if stat.S_ISREG(status.st_mode):  # a pipe is read once
            changed_us = status.st_mtime_ns // 1000
            return _measure(path, zone, changed_us, status.st_size, most_bytes)
    except (OSError, ValueError):  # a name that no file can have
        pass
    return _Timing()


@functools.lru_cache(maxsize=4096)
def _measure(
    path: str, zone: str | None, changed_us: int, size_bytes: int, most_bytes: int
) -> _Timing:
    """Read a file without times once, to add up how long its rows took.

    Of other files only the first record is read, or the first few, if these do not say how long
    they took. Of a very long file, the beginning stands for the whole.

    Args:
        path: The file.
        zone: The zone of times without an offset.
        changed_us: When it was last changed, microseconds since the Unix epoch.
        size_bytes: Its size.
        most_bytes: How much of it is read.

    Raises:
        OSError: If it cannot be read.
    """
    name = "/".join(path.rsplit("/", 2)[-2:])
    context = FileContext(zone=zone, name=name, run_start_us=_ANY_START_US)
    records = first_us = 0
    with open(path, "rb") as file:  # noqa: PTH123 - as everywhere where paths are text
        if is_frame(file.peek(HEADER_BYTES)[:HEADER_BYTES]):
            return _Timing()
        while line := file.readline(MAX_LINE_BYTES + 2):
            for entry in parse_line(line, context):
                if isinstance(entry, FileRecord):
                    if not entry.interpolated:
                        return _Timing()
                    records += 1
                    first_us = first_us or entry.time_us
            if context.offset_bytes > most_bytes:
                break
            if (
                not context.has_durations
                and not name.endswith(_SUMMARIZED)
                and (records >= _FIRST_RECORDS or context.offset_bytes > _HEAD_BYTES)
            ):
                return _Timing()
    if context.total_us and context.iteration:
        took_us, iteration_us = context.total_us, context.total_us / context.iteration
    elif context.has_durations and context.last_us is not None:
        # The first row of a training that goes on is that of all steps before it.
        rest_us = (context.last_us - first_us) * max(size_bytes, context.offset_bytes)
        took_us = first_us - _ANY_START_US + rest_us // context.offset_bytes
        iteration_us = None
    else:
        return _Timing()
    return _Timing(changed_us - took_us, iteration_us) if took_us < changed_us else _Timing()

"""Find when the run of a log file started, for rows and lines that do not say their time."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from orjson import JSONDecodeError, loads

from otel_dllogger.logs.parsers.times import parse_datetime
from otel_dllogger.logs.run_identity import find_stamp

if TYPE_CHECKING:
    from collections.abc import Iterator

_STAMPED = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})_([0-9]{2})([0-9]{2})([0-9]{2})(?![0-9])")
_LINE = re.compile(rb"([0-9]{4})/([0-9]{2})/([0-9]{2}) ([0-9]{2}:[0-9]{2}:[0-9]{2}) - ")
_SCALARS_FOLDER = "vis_data"
_SUMMED_BYTES = 1 << 26
_HEAD_BYTES = 1 << 16
_MAX_FILES = 1_000


def find_start_us(path: str, *, zone: str | None = None) -> int | None:
    """Return when the run of a file started.

    The first of these that says it counts: the file's name or its folder's, as MMEngine names
    them; the name of the dated twin of ``scalars.json``; the name or the first line of a text log
    beside them; for ``scalars.json``, the last change of the file less the durations of its rows.

    Args:
        path: The file.
        zone: The zone of the machine that wrote it, as ``times.parse_zone`` takes it.

    Returns:
        Microseconds since the Unix epoch, None if nothing says it.
    """
    stamp_us = _stamp_us(find_stamp(path), zone)
    folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100 - links stay
    if stamp_us is not None or not name.startswith("scalars.json"):
        return stamp_us
    beside = folder.removesuffix(f"/{_SCALARS_FOLDER}")
    for where, ending in ((folder, ".json"), (beside, ".log")):
        for other in _files(where, ending):
            found_us = _stamp_us(other.rpartition("/")[2], zone)
            if found_us is None and ending == ".log":
                found_us = _first_line_us(other, zone)
            if found_us is not None:
                return found_us
    return _start_by_rows_us(path)


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


def _start_by_rows_us(path: str) -> int | None:
    """Return the last change of a file less the durations of its rows."""
    total_s, before = 0.0, 0
    try:
        changed_us = os.stat(path).st_mtime_ns // 1000  # noqa: PTH116
        with open(path, "rb") as file:  # noqa: PTH123 - as everywhere where paths are text
            for line in file.readlines(_SUMMED_BYTES):
                try:
                    row = loads(line)
                    iteration = row.get("iter", row["step"])
                    distance = iteration - before if iteration > before else iteration
                    total_s += distance * row["time"] if "lr" in row or "iter" in row else 0
                    before = iteration
                except (JSONDecodeError, LookupError, TypeError, AttributeError):
                    continue
    except OSError:
        return None
    return changed_us - round(total_s * 1e6) if 0 < total_s < changed_us / 1e6 else None

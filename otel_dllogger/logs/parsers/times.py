"""Read the times of log lines, which may lack a zone or a year, or lie in a repeated hour."""

from __future__ import annotations

import functools
import re
import time
import zoneinfo
from datetime import datetime, timedelta, timezone, tzinfo

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.record import microseconds

MAX_TIME_US = 10**17
"""The year 5138; a later time is damage."""

_OUT_OF_ORDER_US = 60 * 10**6
_FOLD_US = 2 * 3600 * 10**6
_DAY_US = 24 * 3600 * 10**6
_CLOCK_SKEW_US = 300 * 10**6
_YEARS_BACK = 9  # between two leap years there are up to eight

_DATETIME = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)", re.ASCII)


@functools.lru_cache(maxsize=64)
def parse_zone(name: str | None) -> tzinfo | None:
    """Return a time zone.

    Args:
        name: A name of the IANA database (``Europe/Berlin``, ``UTC``), an offset
            (``+08:00``), or None for the machine's own.

    Returns:
        The zone; None for the machine's own.

    Raises:
        ConfigurationError: If there is no such zone.
    """
    if name is None:
        return None
    offset = _parse_offset(name)
    if offset is not None:
        return offset
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"no time zone {name!r}: pass a name from the IANA database, such as Europe/Berlin, or "
            "an offset, such as +08:00; if this machine has no time zones at all, install tzdata"
        ) from None


def _parse_offset(text: str) -> timezone | None:
    if text in ("Z", "UTC"):
        return timezone.utc
    found = _OFFSET.fullmatch(text)
    if found is None or int(found[2]) > 23 or int(found[3]) > 59:
        return None
    offset = timedelta(hours=int(found[2]), minutes=int(found[3]))
    return timezone(-offset if found[1] == "-" else offset)


def parse_datetime(text: str, *, zone: str | None, last_us: int | None) -> int | None:
    """Read ``2024-08-29 06:21:57.392533``, with or without an offset.

    Args:
        text: The text; it may hold more after the time.
        zone: The zone to use if the text has no offset, as ``parse_zone`` takes it.
        last_us: The time of the previous record, to resolve the hour that occurs twice.

    Returns:
        Microseconds since the Unix epoch, None if the text is not a time.
    """
    found = _DATETIME.match(text)
    if found is None:
        return None
    seconds, fraction, offset_text = found.groups()
    try:
        naive = datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}" if fraction else seconds)
    except ValueError:
        return None
    offset = _parse_offset(offset_text) if offset_text else None
    if offset is not None:
        return _valid(microseconds(naive.replace(tzinfo=offset)))
    return _local_us(naive, zone, last_us)


def find_year(
    month: int,
    day: int,
    clock: tuple[int, int, int],
    *,
    zone: str | None,
    reference_us: int | None,
    last_us: int | None,
    start_us: int | None = None,
) -> int | None:
    """Return a time without a year, in the latest year in which it is not after a reference.

    If the start of the run is known, it is the first year in which the time is not before that.

    A line is written before the last change of its file. If the file server's clock is up to
    five minutes behind, the result is the reference itself, not a time one year earlier.

    Args:
        month: The month.
        day: The day; the 29th of February is looked for in leap years.
        clock: Hours, minutes and seconds.
        zone: The zone, as ``parse_zone`` takes it.
        reference_us: When the file was last changed, microseconds since the Unix epoch;
            None for now.
        last_us: The time of the previous record, to resolve the hour that occurs twice.
        start_us: When the run started, microseconds since the Unix epoch; None if not known.

    Returns:
        Microseconds since the Unix epoch, None if there is no such day.
    """
    if start_us is not None:
        first = datetime.fromtimestamp((start_us - _DAY_US) // 10**6, timezone.utc).year
        for year in range(first, first + _YEARS_BACK):
            time_us = _in_year(year, (month, day, *clock), zone, last_us)
            if time_us is not None and time_us >= start_us - _DAY_US:
                return time_us
    if reference_us is None:
        reference_us = time.time_ns() // 1000
    latest = datetime.fromtimestamp(reference_us // 10**6, timezone.utc).year + 1
    for year in range(latest, latest - _YEARS_BACK - 1, -1):
        time_us = _in_year(year, (month, day, *clock), zone, last_us)
        if time_us is not None and time_us <= reference_us + _CLOCK_SKEW_US:
            return min(time_us, reference_us)
    return None


def _in_year(
    year: int, rest: tuple[int, int, int, int, int], zone: str | None, last_us: int | None
) -> int | None:
    try:
        naive = datetime(year, *rest)  # noqa: DTZ001 - its zone follows
    except ValueError:
        return None
    return _local_us(naive, zone, last_us)


def _local_us(naive: datetime, zone: str | None, last_us: int | None) -> int | None:
    """Return a local time as microseconds since the Unix epoch.

    When clocks are set back, an hour occurs twice. The first occurrence is taken, unless it lies
    more than a minute (and no more than two hours) before the previous record: logs go forward,
    and ranks that write at the same time are out of order by less than a minute. When clocks are
    set forward, an hour is skipped; a time in it is read as if the clock had not been changed
    (Python's ``fold=0``, PEP 495).
    """
    try:
        local = naive.replace(tzinfo=parse_zone(zone))
        first_us = microseconds(local)
        if last_us is not None and _OUT_OF_ORDER_US < last_us - first_us <= _FOLD_US:
            first_us = max(first_us, microseconds(local.replace(fold=1)))
    except (ValueError, OverflowError, OSError):  # the year 1, and what the C library refuses
        return None
    return _valid(first_us)


def _valid(time_us: int) -> int | None:
    return time_us if 0 < time_us < MAX_TIME_US else None

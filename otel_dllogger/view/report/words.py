"""How a report writes numbers, times and places for people."""

from __future__ import annotations

import math
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from otel_dllogger.errors import count_of
from otel_dllogger.view.goodput import REDONE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOTHING = "–"  # noqa: RUF001 - the dash of an empty cell
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_UNITS = ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def number(value: float | None, digits: int = 6) -> str:
    """Return a value with as many digits as help to compare it."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:.{digits}g}"


def parameter(value: float | str) -> str:
    """Return the value of a parameter."""
    return value if isinstance(value, str) else number(value, 12)


def moment(time_s: float | None) -> str:
    """Return a time in UTC, to the second."""
    if time_s is None:
        return NOTHING
    try:
        return f"{_EPOCH + timedelta(seconds=math.floor(time_s)):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return NOTHING


def duration(seconds: float | None) -> str:
    """Return a duration in two units at most: ``2 h 10 min``."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms" if seconds else "0 s"
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole_s = round(seconds)
    for length, name, lesser, lesser_name in _UNITS:
        if whole_s >= length:
            whole, rest = divmod(whole_s // lesser, length // lesser)
            return f"{whole:,} {name} {rest} {lesser_name}" if rest else f"{whole:,} {name}"
    return NOTHING


def share(part: float, whole: float) -> str:
    """Return a part in percent."""
    return f"{100 * part / whole:.1f} %" if whole > 0 else NOTHING


def excess(ratio: float | None) -> str:
    """Return how much longer a rank's step is than the median."""
    return NOTHING if ratio is None else f"{round(100 * ratio, 1) + 0.0:+.1f} %"  # no -0.0


def place(run: Mapping[str, Any]) -> str:
    """Return how far a run came."""
    found = []
    if run["epoch"] is not None:
        found.append(f"epoch {number(run['epoch'])}")
    if run["step"]:
        found.append(f"step {number(run['step'])}")
    return ", ".join(found) or NOTHING


def length_s(run: Mapping[str, Any]) -> float | None:
    """Return how long a run took, seconds; None if that is not known."""
    if run["begin_s"] is None or run["end_s"] is None:
        return None
    return max(float(run["end_s"] - run["begin_s"]), 0.0)


def redone(goodput: Mapping[str, Any], part: str) -> str:
    """Return how many steps were done again, for the part of the time that says it."""
    steps = round(goodput["redone_steps"])
    return f" ({count_of(steps, 'step')})" if part == REDONE and steps else ""


def goodput_notes(goodput: Mapping[str, Any]) -> list[str]:
    """Return what the split of the time does not show."""
    notes = []
    if goodput["at_risk_s"]:
        at_risk = duration(goodput["at_risk_s"])
        notes.append(f"At risk: {at_risk} of training since the last checkpoint.")
    return notes + [f"Not measured: {words}." for words in goodput["not_measured"]]


def event_step(event: Mapping[str, Any]) -> str:
    """Return the step that was logged with an event, else where the rank was."""
    return event["step_logged"] or number(event["step"])


def ranks(numbers: Sequence[int]) -> str:
    """Return the rank that had an event, or how many had it."""
    return str(numbers[0]) if len(numbers) == 1 else count_of(len(numbers), "rank")

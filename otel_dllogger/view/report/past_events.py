"""The events of past runs, one for all ranks that had it at the same step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from otel_dllogger.errors import printable, visible

if TYPE_CHECKING:
    from otel_dllogger.record import Event

MAX_EVENTS = 10_000
"""Events of a run that are kept; of those after them, only the number."""

_MAX_MARKS = 20
_MAX_TEXT = 200


class PastEvent:
    """An event of one or several ranks.

    Attributes:
        time_s: When the first rank had it, seconds since the Unix epoch.
        name: Its name.
        step: The step that was logged with it, as text; empty if none was.
        data: Its data in short, those of the rank whose log comes first; that says so where others
            have other data.
        x: Where on the axis of training steps the first rank was.
        ranks: The ranks that had it.
    """

    __slots__ = ("_own_data", "data", "name", "ranks", "step", "time_s", "x")

    def __init__(self, event: Event, rank: int, x: float) -> None:
        self.time_s = event.time_us / 1e6
        self.name = visible(printable(event.name)[:_MAX_TEXT])
        self.step = "" if event.step is None else _short(event.step)
        self.data = self._own_data = _short(event.plain)
        self.x = x
        self.ranks = [rank]

    def add_data(self, data: str) -> None:
        """Note the data of a further rank."""
        if data != self._own_data:
            self.data = f"rank {self.ranks[0]}: {self._own_data}; other ranks have other data"

    def to_plain(self) -> dict[str, Any]:
        """Return it as types of JSON."""
        return {
            "time_s": self.time_s,
            "name": self.name,
            "ranks": self.ranks,
            "step": self.x,
            "step_logged": self.step,
            "data": self.data,
        }


class PastEvents:
    """The events of one run.

    Attributes:
        left_out: How many were beyond ``MAX_EVENTS``.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int, float], PastEvent] = {}
        self.left_out = 0

    def take(self, event: Event, rank: int, *, attempt: int, x: float) -> None:
        """Take an event.

        Args:
            event: The event.
            rank: The rank that had it.
            attempt: Which of its processes had it.
            x: Where on the axis of training steps the rank was.
        """
        new = PastEvent(event, rank, x)
        key = (new.name, new.step, attempt, 0.0 if new.step else x)
        known = self._known.get(key)
        if known is not None:
            known.time_s = min(known.time_s, new.time_s)
            known.add_data(new.data)
            if known.ranks[-1] != rank:
                known.ranks.append(rank)
        elif len(self._known) < MAX_EVENTS:
            self._known[key] = new
        else:
            self.left_out += 1

    def in_order(self) -> list[PastEvent]:
        """Return them in the order of their times."""
        return sorted(self._known.values(), key=lambda event: (event.time_s, event.name))

    def marks(self) -> list[tuple[float, str]]:
        """Return the places and names of those that are not too many to be marked on curves."""
        places: dict[str, set[float]] = {}
        for event in self._known.values():
            places.setdefault(event.name, set()).add(event.x)
        return sorted(
            (x, name)
            for name, of_name in places.items()
            if len(of_name) <= _MAX_MARKS
            for x in of_name
        )


def _short(value: Any) -> str:
    """Return a plain value as text that fits into a cell."""
    if value is None:
        return ""
    if isinstance(value, dict):
        text = ", ".join(f"{key}: {_text(each)}" for key, each in value.items())
    else:
        text = _text(value)
    text = printable(text)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

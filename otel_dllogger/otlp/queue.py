"""The queue of logged entries for the thread that sends them; it is bounded and never blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.record import Event, Info, Metadata, Phase, Record
from otel_dllogger.runtime import fork
from otel_dllogger.runtime.interruptions import let_through

if TYPE_CHECKING:
    from collections.abc import Callable

Numbers = tuple[int, int, tuple[int, int], Mapping[str, float]]
"""The usual form of a ``log`` call: time_us, elapsed_us, step, and finite numbers."""


class Finish:
    """The entry for a run that finished successfully."""


class Told:
    """The entry for a signal that told the process to end.

    Args:
        told_us: When it came, microseconds since the Unix epoch.
    """

    def __init__(self, told_us: int) -> None:
        self.told_us = told_us


QueueEntry = Numbers | Record | Metadata | Info | Phase | Event | Finish | Told
"""What the queue holds; none of it belongs to the user."""

QUEUE_SHARE = 4
"""The queue always has one part in this many of all room, even when the backlog is full."""

ENTRY_BYTES = 400
"""The bytes that an entry takes by itself: tuple, dict, time, and its place in the queue."""

NUMBER_BYTES = 100
"""The bytes that a number takes: itself, and its place in a dict with a name not shared by others.

The characters of the name come on top."""

_SPARE_SHARE = 16  # of the room, freed at once, since each time all entries are looked at


class EntryQueue:
    """A queue of entries from the threads that log to the thread that sends.

    When the queue is full, the oldest entries are dropped: the rest is one unbroken stretch up to
    now, and the gap lies furthest back, where a backfill from the JSON log is safe.

    There is no lock: a signal handler may close the backend in the middle of a ``put`` of its own
    thread, and wait for the thread that takes entries. Correctness depends only on ``append`` and
    ``popleft``, which are atomic; the number of bytes is an estimate.

    Args:
        limit_bytes: The bytes that the entries may take, by a cheap estimate.
        on_pressure: Called once when half of the queue's guaranteed share is full; must not wait.
        count: Returns how much an entry counts if it is lost; by default, its metric values.
    """

    def __init__(
        self,
        limit_bytes: int,
        on_pressure: Callable[[], None],
        count: Callable[[QueueEntry], int] | None = None,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._pressure_bytes = limit_bytes // QUEUE_SHARE // 2
        self._on_pressure = on_pressure
        self._count = count or count_values
        self._entries: deque[QueueEntry] = deque()
        self._bytes = 0
        self._pressed = False
        self._dropped = self._told = 0
        self._closed = False
        self._silent = False
        fork.register(self)

    def put(self, entry: QueueEntry) -> None:
        """Append an entry.

        Args:
            entry: What was logged, detached from objects that the user may change.
        """
        if not self._closed:
            self._entries.append(entry)
            self._bytes += _size_bytes(entry)
            if self._bytes > self._pressure_bytes:
                self._relieve()
            if not self._closed:
                return
            if (taken := self.pop()) is None:  # emptied by a close that came meanwhile
                return
            entry = taken
        values = self._count(entry)
        if values and not self._silent:
            DIAGNOSTICS.count("otlp_exit", "logged after the OTLPBackend was closed", count=values)

    def _relieve(self) -> None:
        if not self._pressed:
            self._pressed = True
            self._on_pressure()
        if self._bytes <= self._limit_bytes:
            return
        self._bytes = sum(map(_size_bytes, self._entries.copy()))
        if self._bytes <= self._limit_bytes:
            return
        while self._bytes > self._limit_bytes - self._limit_bytes // _SPARE_SHARE:
            if len(self._entries) <= 1 or (entry := self.pop()) is None:
                return
            self._bytes -= _size_bytes(entry)
            self._dropped += self._count(entry)

    def pop(self) -> QueueEntry | None:
        """Remove and return the oldest entry, None if there is none."""
        try:
            return self._entries.popleft()
        except IndexError as error:
            let_through(error)
            return None

    def begin_take(self) -> tuple[int, int]:
        """Begin to take the current entries, whose bytes no longer count.

        Returns:
            The number of entries, and how many values were dropped since the last call.
        """
        self._pressed = False
        self._bytes = 0
        dropped = self._dropped
        told, self._told = self._told, dropped
        return len(self._entries), dropped - told

    def make_room(self, limit_bytes: int) -> None:
        """Set how many bytes the entries may take from now on."""
        self._limit_bytes = limit_bytes

    def close(self) -> int:
        """Accept no more entries; return how many values were left."""
        self._closed = True
        left = 0
        while (entry := self.pop()) is not None:
            left += self._count(entry)
        return left + self.begin_take()[1]

    def silence(self) -> None:
        """Accept no more entries, without counting them."""
        self._closed = self._silent = True

    def after_fork_in_child(self) -> None:
        """Forget the entries, which are the parent's to send."""
        self.silence()
        self._entries = deque()


def count_values(entry: QueueEntry) -> int:
    """Return how many metric values an entry holds; a rank is a label and does not count."""
    if isinstance(entry, Record) and entry.is_parameter:
        return 0
    numbers = _numbers_of(entry)
    return len(numbers) - ("rank" in numbers)


def _size_bytes(entry: QueueEntry) -> int:
    numbers = _numbers_of(entry)
    size_bytes = ENTRY_BYTES + NUMBER_BYTES * len(numbers) + sum(map(len, numbers))
    if isinstance(entry, (Metadata, Info, Event)) or (
        isinstance(entry, Record) and entry.is_parameter
    ):
        size_bytes += len(str(entry.plain))
    return size_bytes


def _numbers_of(entry: QueueEntry) -> Mapping[str, float]:
    if isinstance(entry, tuple):
        return entry[3]
    return entry.numbers if isinstance(entry, Record) else {}

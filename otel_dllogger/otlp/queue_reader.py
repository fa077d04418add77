"""What takes entries from a queue into a backlog: data points or log records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp.batches import SomeBatch
from otel_dllogger.otlp.queue import QUEUE_SHARE

if TYPE_CHECKING:
    from otel_dllogger.otlp.batches import Backlog
    from otel_dllogger.otlp.queue import EntryQueue, QueueEntry


class QueueReader(ABC, Generic[SomeBatch]):
    """A reader of a queue whose entries become something else in a backlog.

    Args:
        queue: The entries.
        backlog: Where what they become goes.
        max_queue_bytes: Bytes of memory for queue and backlog together.
    """

    DROPPED: ClassVar[str]
    """What is said when there is no room for more."""

    def __init__(
        self, queue: EntryQueue, backlog: Backlog[SomeBatch], *, max_queue_bytes: int
    ) -> None:
        self._queue = queue
        self._backlog = backlog
        self._max_queue_bytes = max_queue_bytes
        self._current: QueueEntry | None = None

    @abstractmethod
    def _take_entry(self, entry: QueueEntry | None) -> None:
        """Take one entry."""

    def _take_queued(self) -> tuple[int, int]:
        """Take all entries; return how many there were, and how many values were dropped."""
        count, dropped = self._queue.begin_take()
        for _ in range(count):
            self._current = self._queue.pop()
            try:
                self._take_entry(self._current)
            except Exception as error:
                DIAGNOSTICS.caught("backend_failed", "OTLPBackend", error)
        self._current = None
        return count, dropped

    def _make_room(self, dropped: int) -> None:
        """Share the memory between queue and backlog, and tell of what had no room.

        Args:
            dropped: What the queue dropped.
        """
        dropped += self._backlog.shrink()
        left_bytes = self._max_queue_bytes - self._backlog.size_bytes
        self._queue.make_room(max(left_bytes, self._max_queue_bytes // QUEUE_SHARE))
        if dropped:
            DIAGNOSTICS.count("otlp_queue", self.DROPPED, count=dropped)

"""Turn queued entries into encoded log records, in batches that wait to be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.otlp.log_records import becomes_log_record, encode_log_record
from otel_dllogger.otlp.queue_reader import QueueReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.otlp.batches import Backlog, ResourceKey
    from otel_dllogger.otlp.log_batches import LogBatch
    from otel_dllogger.otlp.queue import EntryQueue, QueueEntry


def count_log_records(_entry: QueueEntry) -> int:
    """Return how many log records an entry of the queue becomes."""
    return 1


class LogReplay(QueueReader["LogBatch"]):
    """The replay of a queue's entries, which become log records in a backlog.

    Args:
        queue: The entries.
        backlog: Where the log records go.
        resource: The run and the rank that they belong to.
        labels: The attributes of each.
        max_queue_bytes: Bytes of memory for queue and backlog together.
    """

    DROPPED = (
        "no collector accepts the log records, and the queue is full: the oldest are dropped; a "
        "JSON log still has them"
    )

    def __init__(
        self,
        queue: EntryQueue,
        backlog: Backlog[LogBatch],
        *,
        resource: ResourceKey,
        labels: Mapping[str, str],
        max_queue_bytes: int,
    ) -> None:
        super().__init__(queue, backlog, max_queue_bytes=max_queue_bytes)
        self._resource = resource
        self._labels = labels

    def close(self) -> int:
        """Accept no more entries; return how many did not become log records."""
        return self._queue.close() + (self._current is not None)

    def end(self) -> int:
        """Close, and let later entries pass as if there had never been a receiver."""
        left = self.close()
        self._queue.silence()
        return left

    def take(self, *, observe: bool = False) -> None:  # noqa: ARG002 - what metrics need
        """Turn everything that was queued so far into log records."""
        _, dropped = self._take_queued()
        self._make_room(dropped)

    def _take_entry(self, entry: QueueEntry | None) -> None:
        if becomes_log_record(entry):
            record = encode_log_record(entry, self._labels)
            self._backlog.batch_at(entry.time_us, len(record)).add(self._resource, record)

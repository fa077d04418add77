"""Turn logged entries into data points with the time at which they were logged.

Entries go through the same kind of store as those of a metrics page, in the thread that sends,
so that ranks, limits, counters and metadata have the same meaning. What the store admits becomes
a point. Internal metrics are observed now and then, as by a scrape.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_dllogger.metrics.internal import ObservationSchedule
from otel_dllogger.otlp.queue import Finish, Told, count_values
from otel_dllogger.otlp.queue_reader import QueueReader
from otel_dllogger.record import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.metrics.data_points import DataPoints
    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.otlp.batches import Backlog, Batch
    from otel_dllogger.otlp.queue import EntryQueue, QueueEntry

_MAX_TIME_US = 2**63 // 1000 - 1  # nanoseconds in 64 bits: the year 2262


class Replay(QueueReader["Batch"]):
    """The replay of a queue's entries, which become points in a backlog.

    Args:
        queue: The logged entries.
        backlog: Where the points go.
        points: The data points of a store that only this replay uses.
        max_queue_bytes: Bytes of memory for queue and backlog together.
        clock: Monotonic seconds.
    """

    DROPPED = (
        "no collector accepts the metrics, and the queue is full: the oldest values are dropped; a "
        "JSON log still has them"
    )

    def __init__(
        self,
        queue: EntryQueue,
        backlog: Backlog[Batch],
        points: DataPoints,
        *,
        max_queue_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(queue, backlog, max_queue_bytes=max_queue_bytes)
        self._points = points
        self._store = points.exported.store
        self._resource = (points.exported.topology.run, points.exported.topology.rank)
        self._clock = clock
        self._schedule = ObservationSchedule()  # which begins with the first entries

    def close(self) -> int:
        """Accept no more entries; return how many logged values did not become points."""
        left = self._queue.close()
        current = self._current
        return left if current is None else left + count_values(current)

    def take(self, *, observe: bool = False) -> None:
        """Turn everything that has been logged so far into points.

        Args:
            observe: Whether to observe the internal metrics even if that is not due yet.
        """
        is_first, told_us = self._schedule.due_us is None, self._store.told_us
        count, dropped = self._take_queued()
        self._points.exported.apply_late_metadata()
        now_us = int(self._clock() * 1e6)
        observe = observe or told_us != self._store.told_us
        if (is_first and count) or observe or self._schedule.is_due(now_us):
            self._schedule.take()
            self._schedule.note(now_us)  # again, even if nothing is logged: the rank is alive
            self._observe()
        self._make_room(dropped)

    def _take_entry(self, entry: QueueEntry | None) -> None:
        if isinstance(entry, tuple):
            time_us, elapsed_us, step, numbers = entry
            entry = Record(time_us, elapsed_us, step, None)
            entry.values = (numbers, numbers, True, True)
        if isinstance(entry, Finish):
            self._store.finish()
        elif isinstance(entry, Told):
            self._store.told_us = entry.told_us
        elif entry is not None:
            state = self._store.take(entry)
            if state is not None and isinstance(entry, Record):
                self._add_points(entry, state)

    def _add_points(self, record: Record, state: RankState) -> None:
        time_us = min(max(record.time_us, 0), _MAX_TIME_US)
        batch = self._backlog.batch_at(time_us, len(record.numbers) + 2)
        logged = self._points.logged(record, state)
        batch.logged += batch.add(self._resource, time_us, logged)
        batch.add(self._resource, time_us, self._points.moved(state))

    def _observe(self) -> None:
        time_us = time.time_ns() // 1000
        found = list(self._points.observed())
        self._backlog.batch_at(time_us, len(found)).add(self._resource, time_us, found)

"""From what was logged to data points with the time at which it was logged.

Entries go through the same store as those of a metrics page, in the thread that sends, so
that ranks, limits, counters and metadata mean the same. What the store admits becomes a
point; what the package knows itself is observed now and then, as a scrape does.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

from otel_dllogger.faults import FAULTS
from otel_dllogger.metrics.instruments import HELP
from otel_dllogger.otlp.losses import FULL
from otel_dllogger.otlp.queue import QUEUE_SHARE, Finish, count_values
from otel_dllogger.otlp.series import Description, LoggedSeries, Names, Series
from otel_dllogger.record import (
    ITERATION,
    Info,
    Metadata,
    Record,
    is_parameter_step,
    step_position,
)
from otel_dllogger.values import Values

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.metrics.store import SeriesStore
    from otel_dllogger.otlp.batches import Backlog
    from otel_dllogger.otlp.figures import Figures
    from otel_dllogger.otlp.queue import Entry, EntryQueue

FIGURES_INTERVAL_S = 15.0
"""Seconds between two observations of what the package knows itself, as between scrapes."""

_MAX_TIME_US = 2**63 // 1000 - 1  # nanoseconds of 64 bits: the year 2262


class Replay:
    """Turn a queue's entries into points of a backlog.

    Args:
        queue: What was logged.
        backlog: Where the points go.
        store: Of this replay alone.
        figures: What the package knows itself.
        max_queue_bytes: Memory for queue and backlog together.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        queue: EntryQueue,
        backlog: Backlog,
        store: SeriesStore,
        figures: Figures,
        *,
        max_queue_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names = Names(store)
        self._queue = queue
        self._backlog = backlog
        self._store = store
        self._figures = figures
        self._max_queue_bytes = max_queue_bytes
        self._clock = clock
        self._logged: dict[tuple[str, str], dict[str, LoggedSeries]] = {}
        self._places: dict[str, _PlaceSeries] = {}
        self._entries: deque[Entry] = deque()
        self._observe_at_s: float | None = None  # with the first entries

    @property
    def left(self) -> int:
        """Return how many logged values a take that goes on has not come to."""
        return sum(map(count_values, tuple(self._entries)))

    def take(self, *, observe: bool = False) -> None:
        """Turn everything that was logged by now into points.

        Args:
            observe: Observe the figures even if it is not yet time to.
        """
        entries, dropped = self._queue.take()
        first = self._observe_at_s is None and bool(entries)
        self._entries = entries
        while entries:
            try:
                self._take_entry(entries[0])
            except Exception as error:
                FAULTS.caught("backend_failed", "OTLPBackend", error)
            finally:
                entries.popleft()
        self.names.take_changes()
        now_s = self._clock()
        due = self._observe_at_s is not None and now_s >= self._observe_at_s
        if first or due or observe:
            self._observe_at_s = now_s + FIGURES_INTERVAL_S
            self._observe()
        dropped += self._backlog.shrink()
        left_bytes = self._max_queue_bytes - self._backlog.size_bytes
        self._queue.make_room(max(left_bytes, self._max_queue_bytes // QUEUE_SHARE))
        if dropped:
            FAULTS.drop(
                FULL,
                "no collector takes the metrics, and the queue is full: the oldest values are "
                "dropped; the JSON log has them",
                count=dropped,
            )
        FAULTS.speak()  # what the store left unsaid

    def _take_entry(self, entry: Entry) -> None:
        if isinstance(entry, tuple):
            time_us, elapsed_us, step, numbers = entry
            record = Record(time_us, elapsed_us, step, numbers)
            record.values = Values(numbers, numbers, finite=True, flat=True)
            self._take_record(record, ITERATION)
        elif isinstance(entry, Record):
            if is_parameter_step(entry.step):
                self._store.record(entry)
            else:
                self._take_record(entry, step_position(entry.step).granularity)
        elif isinstance(entry, Metadata):
            self._store.write_metadata(entry)
        elif isinstance(entry, Info):
            self._store.write_info(entry)
        elif isinstance(entry, Finish):
            self._store.finish()

    def _take_record(self, record: Record, granularity: str) -> None:
        state = self._store.record(record)
        if state is None:
            return
        numbers = record.convert().numbers
        time_us = min(max(record.time_us, 0), _MAX_TIME_US)
        batch = self._backlog.batch_at(time_us, len(numbers) + 2)
        cell = state.cells[granularity]
        known = self._logged.get((state.rank, granularity))
        if known is None:
            known = self._logged[state.rank, granularity] = {}
        for name, number in numbers.items():
            series = known.get(name)
            if series is None:
                if name not in cell:  # beyond the limit of series, or the rank
                    continue
                labels = {"run": self._store.run, "rank": state.rank, "granularity": granularity}
                series = known[name] = LoggedSeries(name, labels)
            batch.add(series, time_us, number)
            batch.logged += 1
        place = self._places.get(state.rank)
        if place is None:
            place = self._places[state.rank] = _PlaceSeries(self._store.run, state.rank)
        for figure, value in place.moved_to(state):
            batch.add(figure, time_us, value)

    def _observe(self) -> None:
        time_us = time.time_ns() // 1000
        found = list(self._figures.observe())
        batch = self._backlog.batch_at(time_us, len(found))
        for series, value in found:
            batch.add(series, time_us, value)


class _PlaceSeries:
    """Where a rank is: the two figures that have a point at every step that changes them."""

    def __init__(self, run: str, rank: str) -> None:
        labels = {"run": run, "rank": rank}
        self._epoch = Series(Description("dllogger.epoch", "", HELP["epoch"], labels))
        self._iteration = Series(Description("dllogger.iteration", "", HELP["iteration"], labels))
        self._last: tuple[float | None, float | None] = (None, None)

    def moved_to(self, state: RankState) -> list[tuple[Series, float]]:
        last_epoch, last_iteration = self._last
        moved = []
        if state.epoch is not None and state.epoch != last_epoch:
            moved.append((self._epoch, float(state.epoch)))
        if state.iteration is not None and state.iteration != last_iteration:
            moved.append((self._iteration, float(state.iteration)))
        self._last = (state.epoch, state.iteration)
        return moved

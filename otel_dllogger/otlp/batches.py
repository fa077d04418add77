"""Data points that wait to be sent, as compact columns in batches of limited size and age.

A point takes 16 bytes here, a time and a value, so that hours without a collector fit into
memory. Names and labels are determined when a batch is encoded, so metadata that comes a
little late still applies.
"""

from __future__ import annotations

from array import array
from collections import deque
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from otel_dllogger.metrics.step_durations import ExponentialPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.metrics.data_points import Series, Value

ResourceKey = tuple[str, int]
"""The run and the rank with whose OpenTelemetry resource points are sent."""

MAX_POINTS = 2_000
"""The most points of a batch: whatever the labels, it stays below gRPC's limit of 4 MiB."""

MAX_SPAN_US = 60_000_000
"""The most microseconds that a batch spans.

Prometheus refuses a whole request if one point is too old for its out-of-order window, so old
points are not sent together with recent ones.
"""

_POINT_BYTES = 18  # two numbers of 8 bytes, and the spare room of a growing array
_COLUMN_BYTES = 350
_HISTOGRAM_BYTES = 350  # and a small number for each bucket
_BUCKET_BYTES = 8
_MILLISECOND_US = 1_000


class Column:
    """The points of one series in a batch, in the order in which they were logged."""

    __slots__ = ("times_us", "values")

    def __init__(self) -> None:
        self.times_us = array("q")
        self.values = array("d")


class HistogramColumn:
    """The histograms of one series in a batch, in the order in which they were observed."""

    __slots__ = ("times_us", "values")

    def __init__(self) -> None:
        self.times_us = array("q")
        self.values: list[ExponentialPoint] = []


class Batch:
    """The points that are sent in one request.

    Attributes:
        columns: The points by resource and series.
        start_us: The time of its first entry, microseconds since the Unix epoch.
        last_us: The time of its last entry.
        points: The number of points.
        logged: The number of points that are values that the user logged.
    """

    __slots__ = (
        "_histogram_bytes",
        "_series",
        "columns",
        "last_us",
        "logged",
        "points",
        "start_us",
    )

    def __init__(self, start_us: int) -> None:
        self.columns: dict[ResourceKey, dict[Series, Column | HistogramColumn]] = {}
        self._series = 0
        self._histogram_bytes = 0
        self.start_us = self.last_us = start_us
        self.points = 0
        self.logged = 0

    @property
    def size_bytes(self) -> int:
        """Return the estimated memory that the batch takes."""
        return _COLUMN_BYTES * self._series + _POINT_BYTES * self.points + self._histogram_bytes

    @property
    def size(self) -> int:
        """Return the number of points."""
        return self.points

    def has_room(self, time_us: int, points: int) -> bool:
        """Return whether an entry of this time and size fits into this batch."""
        if abs(time_us - self.start_us) > MAX_SPAN_US:
            return False
        # A receiver that stores milliseconds must get all points of one millisecond together, or
        # it takes those in the second request for duplicates. But a batch must not grow for ever.
        return self.points + points <= MAX_POINTS or (
            self.points <= MAX_POINTS and _same_millisecond(self.last_us, time_us)
        )

    def add(
        self, resource: ResourceKey, time_us: int, values: Iterable[tuple[Series, Value]]
    ) -> int:
        """Add points of one time, and return how many.

        Args:
            resource: The resource that they belong to.
            time_us: Microseconds since the Unix epoch.
            values: The series and their values.
        """
        before = self.points
        columns = self.columns.get(resource)
        if columns is None:
            columns = self.columns[resource] = {}
        for series, value in values:
            column = columns.get(series)
            if column is None:
                is_number = not isinstance(value, ExponentialPoint)
                column = columns[series] = Column() if is_number else HistogramColumn()
                self._series += 1
            # It raises if it is not a number, before a time is added.
            column.values.append(value)  # type: ignore[arg-type]
            if type(column) is HistogramColumn:
                buckets = len(column.values[-1].counts)
                self._histogram_bytes += _HISTOGRAM_BYTES + _BUCKET_BYTES * buckets
            column.times_us.append(time_us)
            self.points += 1
        self.last_us = time_us
        return self.points - before


class Batching(Protocol):
    """A batch, as far as a backlog and a sender know it.

    Attributes:
        logged: The number of things in it that the user logged.
    """

    logged: int

    @property
    def size_bytes(self) -> int:
        """Return the estimated memory that the batch takes."""

    @property
    def size(self) -> int:
        """Return how many things it sends."""

    def has_room(self, time_us: int, size: int) -> bool:
        """Return whether an entry of this time and size fits into this batch."""


SomeBatch = TypeVar("SomeBatch", bound=Batching)


class Backlog(Generic[SomeBatch]):
    """Batches in order of time, the oldest of which are dropped if there is no room.

    Args:
        limit_bytes: The estimated bytes that all batches may take.
        make: Makes a batch whose first entry has this time, microseconds since the Unix epoch.
    """

    def __init__(self, limit_bytes: int, make: Callable[[int], SomeBatch]) -> None:
        self._limit_bytes = limit_bytes
        self._make = make
        self._batches: deque[SomeBatch] = deque()
        self._open: SomeBatch | None = None

    def __len__(self) -> int:
        return len(self._batches)

    @property
    def size_bytes(self) -> int:
        """Return the estimated memory that all batches take."""
        return sum(batch.size_bytes for batch in self._batches)

    @property
    def logged(self) -> int:
        """Return how many of the things that wait were logged."""
        return sum(batch.logged for batch in tuple(self._batches))

    def batch_at(self, time_us: int, size: int) -> SomeBatch:
        """Return the batch for an entry, which is a new one if the last is full.

        Args:
            time_us: The entry's time, microseconds since the Unix epoch.
            size: Roughly how much the entry will add, as the batch measures it.
        """
        batch = self._open
        if batch is None or not batch.has_room(time_us, size):
            batch = self._open = self._make(time_us)
            self._batches.append(batch)
        return batch

    def take_oldest(self) -> SomeBatch:
        """Remove and return the oldest batch, to which nothing is added any more."""
        batch = self._batches.popleft()
        if batch is self._open:
            self._open = None
        return batch

    def put_back(self, batch: SomeBatch) -> None:
        """Put the oldest batch back, to be sent later."""
        self._batches.appendleft(batch)

    def shrink(self) -> int:
        """Drop the oldest batches until the rest fits; return how much was lost."""
        size_bytes = self.size_bytes
        dropped = 0
        while size_bytes > self._limit_bytes and len(self._batches) > 1:
            batch = self.take_oldest()
            size_bytes -= batch.size_bytes
            dropped += batch.logged
        return dropped


def _same_millisecond(one_us: int, other_us: int) -> bool:
    return one_us // _MILLISECOND_US == other_us // _MILLISECOND_US

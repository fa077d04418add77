"""The history of one series, in bounded memory.

The values are kept in buckets of consecutive ones. Of each bucket the least, the greatest, the mean
and the last value are known, so that a spike is never averaged away. When there is no room for
another bucket, neighbours become one: a bucket may be merged, but it never moves.
"""

from __future__ import annotations

import math
from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from otel_dllogger.metrics.internal import in_range

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_BUCKETS = 4_096
"""The most buckets of one series."""

_LEAST_BUCKETS = 64
_BUDGET_BUCKETS = 64 * 20 * MAX_BUCKETS  # 64 ranks of 20 metrics, in 42 bytes each: 210 MiB
_GREATEST_FLOAT32 = 3.4e38
_MOST_COUNTED = 2**16 - 1


class Moment(NamedTuple):
    """One value of a series, with its place.

    Attributes:
        value: The value.
        x: The training step at which it was logged.
        time_s: When it was logged, seconds since the Unix epoch.
    """

    value: float
    x: float
    time_s: float


class Room:
    """The room that series share, so that any number of them stays within it.

    Attributes:
        buckets: The most buckets of one series.
    """

    __slots__ = ("_series", "buckets")

    def __init__(self) -> None:
        self._series = 0
        self.buckets = MAX_BUCKETS

    def admit(self) -> bool:
        """Make room for one more series; return whether the others must become shorter."""
        self._series += 1
        if self._series * self.buckets <= _BUDGET_BUCKETS or self.buckets <= _LEAST_BUCKETS:
            return False
        self.buckets //= 2
        return True

    def release(self) -> None:
        """Note that a series is gone."""
        self._series -= 1


class Columns(NamedTuple):
    """The buckets of a series, oldest first, as arrays of one length.

    Attributes:
        x: The training step of the last value.
        time_s: Its time, seconds since the Unix epoch.
        least: The least finite value; NaN if none is finite.
        greatest: The greatest finite value; NaN if none is finite.
        mean: The mean of the finite values; NaN if none is finite.
        last: The last value, which may be NaN or infinite.
        finite: How many values are finite.
        nonfinite: How many are NaN or infinite.
        segment: Number of the attempt, or of the pass over steps that were done again.
    """

    x: NDArray[np.float64]
    time_s: NDArray[np.float64]
    least: NDArray[np.float32]
    greatest: NDArray[np.float32]
    mean: NDArray[np.float32]
    last: NDArray[np.float32]
    finite: NDArray[np.uint32]
    nonfinite: NDArray[np.uint16]
    segment: NDArray[np.uint16]

    def where(self, chosen: NDArray[np.bool_]) -> Columns:
        """Return some of the buckets."""
        return Columns._make(column[chosen] for column in self)


_TYPECODES = "ddffffIHH"


class History:
    """The history of one series.

    Args:
        room: The room that it shares with other series.

    Attributes:
        count: How many values there were.
        nonfinite: How many of them were NaN or infinite.
        first_nonfinite: The first of those, None if there is none.
        last: The last value, None before the first.
        least: The least finite value, exactly, and where it was; None before the first.
        greatest: The greatest finite value, in the same way.
    """

    __slots__ = (
        "_columns",
        "_per_bucket",
        "_room",
        "_segment",
        "_time_s",
        "_values",
        "_x",
        "count",
        "first_nonfinite",
        "greatest",
        "last",
        "least",
        "nonfinite",
    )

    def __init__(self, room: Room) -> None:
        self._room = room
        self._columns = tuple(array(code) for code in _TYPECODES)
        self._per_bucket = 1
        self._values: list[float] = []  # of the bucket that is not full yet
        self._x = self._time_s = 0.0
        self._segment = 0
        self.count = 0
        self.nonfinite = 0
        self.first_nonfinite: Moment | None = None
        self.last: float | None = None
        self.least: Moment | None = None
        self.greatest: Moment | None = None

    def append(self, value: float, x: float, time_s: float, segment: int) -> None:
        """Add a value.

        Args:
            value: The value; NaN and infinity are counted, but not in means and extremes.
            x: The training step.
            time_s: When it was logged, seconds since the Unix epoch.
            segment: Number of the attempt or pass; a bucket has values of one only.
        """
        if type(value) is not float:
            value = in_range(value)
        values = self._values
        if values and (len(values) >= self._per_bucket or segment != self._segment):
            self._close()
            values = self._values
        values.append(value)
        self._x, self._time_s, self._segment = x, time_s, segment
        self.count += 1
        self.last = value
        if value - value != 0.0:  # NaN or infinite
            self.nonfinite += 1
            if self.first_nonfinite is None:
                self.first_nonfinite = Moment(value, x, time_s)
            return
        if self.least is None or self.greatest is None:
            self.least = self.greatest = Moment(value, x, time_s)
        elif value < self.least[0]:
            self.least = Moment(value, x, time_s)
        elif value > self.greatest[0]:
            self.greatest = Moment(value, x, time_s)

    def columns(self) -> Columns:
        """Return a copy of all buckets, with the one that is not full yet."""
        rows = len(self._columns[0])
        size = rows + bool(self._values)
        copies = []
        for column in self._columns:
            copy = np.empty(size, column.typecode)
            copy[:rows] = column
            copies.append(copy)
        if self._values:
            for copy, field in zip(copies, self._open_bucket(), strict=True):
                copy[rows] = field
        return Columns(*copies)

    def shrink(self) -> None:
        """Keep to the room that there is by now."""
        while len(self._columns[0]) > self._room.buckets:
            self._merge()

    def _close(self) -> None:
        for column, field in zip(self._columns, self._open_bucket(), strict=True):
            column.append(field)  # type: ignore[arg-type]  # each column has the type of its field
        self._values = []
        self.shrink()
        if len(self._columns[0]) >= self._room.buckets:
            self._merge()

    def _open_bucket(self) -> tuple[float, ...]:
        values = self._values
        finite, total = values, sum(values)
        if total - total != 0.0:
            finite = [value for value in values if value - value == 0.0]
            total = math.fsum(value / len(finite) for value in finite) * len(finite)
        least = greatest = mean = math.nan
        if finite:
            least, greatest, mean = min(finite), max(finite), total / len(finite)
        return (
            self._x,
            self._time_s,
            _fit(least),
            _fit(greatest),
            _fit(mean),
            _fit(values[-1]),
            len(finite),
            min(len(values) - len(finite), _MOST_COUNTED),
            min(self._segment, _MOST_COUNTED),
        )

    def _merge(self) -> None:
        """Make one bucket of each two neighbours of one segment; of any two if that is too few."""
        size = len(self._columns[0])
        columns = Columns(*(np.array(column) for column in self._columns))
        by_segment = _halves(columns.segment)
        starts = by_segment if len(by_segment) <= size * 3 // 4 else np.arange(0, size, 2)
        ends = np.append(starts[1:], size) - 1
        finite = np.add.reduceat(columns.finite.astype(np.float64), starts)
        weighted = np.where(columns.finite > 0, columns.mean.astype(np.float64), 0.0)
        sums = np.add.reduceat(weighted * columns.finite, starts)
        means = np.divide(sums, finite, out=np.full(len(starts), np.nan), where=finite > 0)
        nonfinite = np.add.reduceat(columns.nonfinite.astype(np.int64), starts)
        merged = (
            columns.x[ends],
            columns.time_s[ends],
            np.fmin.reduceat(columns.least, starts),
            np.fmax.reduceat(columns.greatest, starts),
            means,
            columns.last[ends],
            np.minimum(finite, 2**32 - 1),
            np.minimum(nonfinite, _MOST_COUNTED),
            columns.segment[ends],
        )
        self._columns = tuple(
            array(code, field.astype(code).tobytes())
            for code, field in zip(_TYPECODES, merged, strict=True)
        )
        self._per_bucket *= 2


def _halves(segment: NDArray[np.uint16]) -> NDArray[np.intp]:
    """Return where pairs begin, none of which holds two segments."""
    index = np.arange(len(segment))
    is_first = np.append(True, segment[1:] != segment[:-1])
    first = np.maximum.accumulate(np.where(is_first, index, 0))
    return np.flatnonzero((index - first) % 2 == 0)


def _fit(value: float) -> float:
    """Return a value as 32 bits can have it: one beyond their range becomes the greatest."""
    if value - value != 0.0:
        return value
    return min(max(value, -_GREATEST_FLOAT32), _GREATEST_FLOAT32)

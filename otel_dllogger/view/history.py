"""The history of one series, in bounded memory.

The values are kept in buckets of consecutive ones. Of each bucket the least, the greatest, the mean
and the last value are known, so that a spike is never averaged away. When there is no room for
another bucket, neighbours become one: a bucket may be merged, but it never moves.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otel_dllogger.metrics.internal import in_range

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAX_BUCKETS = 4_096
"""The most buckets of one series."""

_LEAST_BUCKETS = 64
_BUDGET_BUCKETS = 64 * 20 * MAX_BUCKETS  # 64 ranks of 20 metrics, in 42 bytes each: 210 MiB
_GREATEST_FLOAT32 = float(np.finfo(np.float32).max)
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
_CHUNK = 256  # values that are summarized together, since that takes one call of NumPy

Place = tuple[float, float, int]
"""Training step, time and segment of a record; all values of a record share one."""


class History:
    """The history of one series.

    Args:
        room: The room that it shares with other series.
    """

    __slots__ = (
        "_columns",
        "_first_nonfinite",
        "_greatest",
        "_in_last",
        "_last",
        "_least",
        "_nonfinite",
        "_per_bucket",
        "_places",
        "_room",
        "_segment",
        "_summarized",
        "_values",
    )

    def __init__(self, room: Room) -> None:
        self._room = room
        self._columns = tuple(array(code) for code in _TYPECODES)
        self._per_bucket = 1
        self._in_last = 0  # values in the last bucket, if that is not full yet
        self._values: list[float] = []  # that are in no bucket yet
        self._places: list[Place] = []
        self._segment = 0
        self._summarized = 0
        self._last: float | None = None  # of those that are in a bucket
        self._nonfinite = 0
        self._first_nonfinite: Moment | None = None
        self._least: Moment | None = None
        self._greatest: Moment | None = None

    def append(self, value: float, place: Place) -> None:
        """Add a value.

        Args:
            value: The value; NaN and infinity are counted, but not in means and extremes.
            place: The training step, the time in seconds since the Unix epoch, and the number of
                the attempt or pass; a bucket has values of one of these only.
        """
        if type(value) is not float:
            value = in_range(value)
        values = self._values
        if place[2] != self._segment:
            self._summarize(whole=True)
            self._segment = place[2]
        elif len(values) >= _CHUNK:
            self._summarize()
        values.append(value)
        self._places.append(place)

    @property
    def count(self) -> int:
        """Return how many values there were."""
        return self._summarized + len(self._values)

    @property
    def last(self) -> float | None:
        """Return the last value, None before the first."""
        return self._values[-1] if self._values else self._last

    @property
    def nonfinite(self) -> int:
        """Return how many values were NaN or infinite."""
        return self._nonfinite + sum(value - value != 0.0 for value in self._values)

    @property
    def first_nonfinite(self) -> Moment | None:
        """Return the first value that was NaN or infinite, None if there is none."""
        if self._first_nonfinite is not None:
            return self._first_nonfinite
        return next((one for one in self._pending() if one.value - one.value != 0.0), None)

    @property
    def least(self) -> Moment | None:
        """Return the least finite value, exactly, and where it was; None before the first."""
        known = () if self._least is None else (self._least,)
        found = (one for one in self._pending() if one.value - one.value == 0.0)
        return min((*known, *found), key=_value_of, default=None)

    @property
    def greatest(self) -> Moment | None:
        """Return the greatest finite value, in the same way."""
        known = () if self._greatest is None else (self._greatest,)
        found = (one for one in self._pending() if one.value - one.value == 0.0)
        return max((*known, *found), key=_value_of, default=None)

    def _pending(self) -> Iterator[Moment]:
        pairs = zip(self._values, self._places, strict=True)
        return (Moment(value, x, time_s) for value, (x, time_s, _segment) in pairs)

    def columns(self) -> Columns:
        """Return a copy of all buckets, with the one that is not full yet."""
        self._summarize()
        rest = self._buckets(len(self._values)) if self._values else None
        rows = len(self._columns[0])
        copies = []
        for number, column in enumerate(self._columns):
            copy = np.empty(rows + (rest is not None), column.typecode)
            copy[:rows] = column
            if rest is not None:
                copy[rows] = rest[number][0]
            copies.append(copy)
        return Columns._make(copies)

    def means_since(self, since_s: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return the times and the means of the newest buckets, without those that have none.

        Args:
            since_s: Seconds since the Unix epoch; a bucket with an earlier time, and all before
                it, are left out.
        """
        self._summarize()
        first = bisect_left(self._columns[1], since_s)
        times, means = (np.array(self._columns[number][first:]) for number in (1, 4))
        if self._values and self._places[-1][1] >= since_s:
            rest = self._buckets(len(self._values))
            times, means = np.append(times, rest[1]), np.append(means, rest[4])
        known = ~np.isnan(means)
        return times[known], means[known]

    def shrink(self) -> None:
        """Keep to the room that there is by now."""
        while len(self._columns[0]) > self._room.buckets:
            self._merge()

    def _summarize(self, *, whole: bool = False) -> None:
        """Make buckets of the values that are in none yet.

        Args:
            whole: Whether the last of them may have fewer values than the others.
        """
        values = self._values
        size = min(self._per_bucket, _CHUNK)
        number = len(values) // size * size
        if number:
            self._note_extremes(number)
            self._add(self._buckets(size), number)
        if whole and values:
            self._note_extremes(len(values))
            self._add(self._buckets(len(values)), len(values))
        if whole:
            self._in_last = 0

    def _add(self, buckets: tuple[NDArray[Any], ...], number: int) -> None:
        """Add buckets of the first values, which leave the list of those in none."""
        self._last = self._values[number - 1]
        del self._values[:number], self._places[:number]
        self._summarized += number
        for column, field in zip(self._columns, buckets, strict=True):
            column.frombytes(field.tobytes())
        if self._per_bucket > _CHUNK:
            if self._in_last:
                self._join_last()
            self._in_last += number
            if self._in_last >= self._per_bucket:
                self._in_last = 0
        while len(self._columns[0]) >= self._room.buckets:
            self._merge()

    def _note_extremes(self, number: int) -> None:
        values = np.array(self._values[:number])
        is_finite = np.isfinite(values)
        if not is_finite.all():
            self._nonfinite += int(number - is_finite.sum())
            if self._first_nonfinite is None:
                self._first_nonfinite = self._moment(int(is_finite.argmin()))
        if not is_finite.any():
            return
        least = self._moment(int(np.where(is_finite, values, np.inf).argmin()))
        greatest = self._moment(int(np.where(is_finite, values, -np.inf).argmax()))
        if self._least is None or least.value < self._least.value:
            self._least = least
        if self._greatest is None or greatest.value > self._greatest.value:
            self._greatest = greatest

    def _moment(self, index: int) -> Moment:
        x, time_s, _segment = self._places[index]
        return Moment(self._values[index], x, time_s)

    def _buckets(self, size: int) -> tuple[NDArray[Any], ...]:
        """Return the columns of as many buckets of one size as there are values for."""
        number = len(self._values) // size
        values = np.array(self._values[: number * size]).reshape(number, size)
        places = self._places[size - 1 : number * size : size]
        finite = np.isfinite(values)
        counts = finite.sum(axis=1)
        is_empty = counts == 0
        least = np.where(finite, values, np.inf).min(axis=1)
        greatest = np.where(finite, values, -np.inf).max(axis=1)
        shares = np.where(finite, values / np.maximum(counts, 1)[:, np.newaxis], 0.0)
        mean = shares.sum(axis=1)
        for column in (least, greatest, mean):
            column[is_empty] = np.nan
        fields = (
            [place[0] for place in places],
            [place[1] for place in places],
            _fit(least),
            _fit(greatest),
            _fit(mean),
            _fit(values[:, -1]),
            counts,
            size - counts,
            [min(place[2], _MOST_COUNTED) for place in places],
        )
        return tuple(
            np.asarray(field).astype(code) for code, field in zip(_TYPECODES, fields, strict=True)
        )

    def _merge(self) -> None:
        """Make one bucket of each two neighbours of one segment; of any two if that is too few."""
        size = len(self._columns[0])
        starts = _halves(np.array(self._columns[8]))
        if len(starts) > size * 3 // 4:
            starts = np.arange(0, size, 2)
        self._join(starts)
        self._per_bucket *= 2
        self._in_last = 0

    def _join_last(self) -> None:
        """Make one bucket of the last two."""
        self._join(np.delete(np.arange(len(self._columns[0])), -1))

    def _join(self, starts: NDArray[np.intp]) -> None:
        """Make one bucket of all from one start to the next."""
        columns = Columns._make(np.array(column) for column in self._columns)
        ends = np.append(starts[1:], len(columns.x)) - 1
        finite = np.add.reduceat(columns.finite.astype(np.float64), starts)
        weighted = np.where(columns.finite > 0, columns.mean.astype(np.float64), 0.0)
        sums = np.add.reduceat(weighted * columns.finite, starts)
        means = np.divide(sums, finite, out=np.full(len(starts), np.nan), where=finite > 0)
        nonfinite = np.add.reduceat(columns.nonfinite.astype(np.int64), starts)
        joined = (
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
            for code, field in zip(_TYPECODES, joined, strict=True)
        )


def _value_of(moment: Moment) -> float:
    return moment.value


def _halves(segment: NDArray[np.uint16]) -> NDArray[np.intp]:
    """Return where pairs begin, none of which holds two segments."""
    index = np.arange(len(segment))
    is_first = np.append(True, segment[1:] != segment[:-1])
    first = np.maximum.accumulate(np.where(is_first, index, 0))
    return np.flatnonzero((index - first) % 2 == 0)


def _fit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values as 32 bits can have them: one beyond their range becomes the greatest."""
    clipped = np.clip(values, -_GREATEST_FLOAT32, _GREATEST_FLOAT32)
    return np.where(np.isfinite(values), clipped, values)

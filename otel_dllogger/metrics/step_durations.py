"""How long each training step of a rank took, kept as a distribution.

A record that comes ten steps after the one before it tells how long the ten took together, not
each of them: all ten count, with a tenth of that time. An iteration that jumps tells nothing of so
many steps, and counts once. There is one class for each kind of output,
and a rank has an object of one of them, or none: a distribution is only kept where it was asked
for. Prometheus takes a classic histogram, OTLP an exponential one, and an OpenTelemetry SDK wants
every single value.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

BOUNDS_US = (
    *(1_000, 2_000, 5_000),
    *(10_000, 20_000, 50_000),
    *(100_000, 200_000, 500_000),
    *(1_000_000, 2_000_000, 5_000_000),
    *(10_000_000, 20_000_000, 30_000_000, 60_000_000),
    *(120_000_000, 300_000_000, 600_000_000),
)
"""The upper bounds of the buckets of a classic histogram, microseconds.

Steps of tiny models take a millisecond, stalls take minutes. Two and a half apart at most, so that
a quantile is off by less than that; round, and on the clock's marks above ten seconds, since
people read them.
"""

MAX_BUCKETS = 160
"""The most buckets of an exponential histogram.

Source: OpenTelemetry specification, "Base2 Exponential Bucket Histogram Aggregation".
"""

MAX_SCALE = 20
"""The scale with which an exponential histogram begins; from the same source."""

_MAX_STEPS = 1 << 31
"""The most steps of one interval; more of them are an iteration that jumped, always."""

_JUMP = 1_000
"""How many usual distances between iterations are a jump, as a guess."""


class StepDurations:
    """The distribution of the durations of one rank's steps.

    Attributes:
        series: How many series it is exported as.
    """

    __slots__ = ("_stride", "_stride_before", "_usual")
    series: ClassVar[int]

    def __init__(self) -> None:
        self._load_strides((1, 1))

    def _count(self, steps: float) -> int:
        """Return how many steps an interval counts as: a fraction of a step is one, so is a jump.

        A new distance is usual from the third time on: where the iteration goes back after a jump,
        the distance of the jump comes twice.

        Args:
            steps: The distance between two iterations, which are any numbers.
        """
        if steps == self._usual:
            return self._usual
        most = _JUMP * min(self._stride, self._stride_before)
        stride = max(int(min(steps, _MAX_STEPS)), 1)
        self._load_strides((self._stride, stride))
        return 1 if stride > most or stride == _MAX_STEPS else stride

    def _strides(self) -> list[int]:
        """Return the last two distances."""
        return [self._stride_before, self._stride]

    def _load_strides(self, strides: Iterable[int]) -> None:
        """Set the last two distances, and the one that counts as it is if it comes again."""
        self._stride_before, self._stride = (int(stride) for stride in strides)
        is_usual = self._stride_before == self._stride < _MAX_STEPS
        self._usual = self._stride if is_usual else -1

    def observe(self, interval_us: int, steps: float) -> None:
        """Count the steps between two records.

        Args:
            interval_us: Microseconds between the records, more than 0.
            steps: How many steps were made in them.
        """
        raise NotImplementedError

    def to_plain(self) -> Any:
        """Return the state as types of Python's JSON."""
        raise NotImplementedError

    def load_plain(self, plain: Any) -> None:
        """Restore the state from the result of ``to_plain``, written to JSON and read back.

        Raises:
            LookupError, TypeError, ValueError: If ``plain`` is anything else.
        """
        raise NotImplementedError


class ClassicDurations(StepDurations):
    """The buckets of a classic Prometheus histogram.

    Attributes:
        counts: How many steps took as long as each bucket says, and no less; one number for each
            bound, and one for what is longer than all of them.
        sum_us: Microseconds that all steps took.
    """

    __slots__ = ("counts", "sum_us")
    series = len(BOUNDS_US) + 3  # the bucket +Inf, the sum and the count

    def __init__(self) -> None:
        super().__init__()
        self.counts = [0] * (len(BOUNDS_US) + 1)
        self.sum_us = 0

    def observe(self, interval_us: int, steps: float) -> None:
        """Count the steps between two records."""
        usual = self._usual
        count = usual if steps == usual else self._count(steps)  # a call takes longer
        self.counts[bisect_left(BOUNDS_US, interval_us / count)] += count
        self.sum_us += interval_us

    def cumulated(self) -> list[int]:
        """Return how many steps took at most as long as each bound; the last number is all."""
        return list(itertools.accumulate(self.counts.copy()))

    def to_plain(self) -> Any:
        """Return the state as types of Python's JSON."""
        return {"counts": self.counts, "sum_us": self.sum_us, "strides": self._strides()}

    def load_plain(self, plain: Any) -> None:
        """Restore the state, unless it is that of other bounds."""
        counts = [int(count) for count in plain["counts"]]
        if len(counts) != len(self.counts):
            raise ValueError(f"{len(counts)} buckets are not {len(self.counts)}")
        self._load_strides(plain["strides"])
        self.counts, self.sum_us = counts, int(plain["sum_us"])


class ExponentialPoint(NamedTuple):
    """An exponential histogram at one moment.

    Attributes:
        scale: Bucket ``i`` holds what is above ``2 ** (i / 2 ** scale)`` seconds, up to the lower
            bound of the next one.
        offset: The number of the first bucket.
        counts: The buckets from there on.
        steps: How many there are.
        sum_s: Seconds that all of them took.
        least_s: Seconds of the shortest one.
        most_s: Seconds of the longest one.
    """

    scale: int
    offset: int
    counts: tuple[int, ...]
    steps: int
    sum_s: float
    least_s: float
    most_s: float


class ExponentialDurations(StepDurations):
    """The buckets of an OpenTelemetry exponential histogram, as fine as their number allows."""

    __slots__ = ("_counts", "_high", "_least_us", "_low", "_most_us", "_scale", "_sum_us")
    series = 1

    def __init__(self) -> None:
        super().__init__()
        self._scale = MAX_SCALE
        self._counts: dict[int, int] = {}
        self._low = self._high = 0
        self._sum_us = 0
        self._least_us = math.inf
        self._most_us = 0.0

    def observe(self, interval_us: int, steps: float) -> None:
        """Count the steps between two records."""
        count = self._count(steps)
        duration_us = interval_us / count
        index = bucket_index(duration_us / 1e6, self._scale)
        counts = self._counts
        self._low = min(self._low, index) if counts else index
        self._high = max(self._high, index) if counts else index
        counts[index] = counts.get(index, 0) + count
        self._sum_us += interval_us
        self._least_us = min(self._least_us, duration_us)
        self._most_us = max(self._most_us, duration_us)
        if self._high - self._low >= MAX_BUCKETS:
            self._merge()

    def _merge(self) -> None:
        """Halve the resolution until the buckets are few enough: two become one each time."""
        halvings = 0
        while (self._high >> halvings) - (self._low >> halvings) >= MAX_BUCKETS:
            halvings += 1
        merged: dict[int, int] = {}
        for index, count in self._counts.items():
            merged[index >> halvings] = merged.get(index >> halvings, 0) + count
        self._counts = merged
        self._low >>= halvings
        self._high >>= halvings
        self._scale -= halvings

    def point(self) -> ExponentialPoint | None:
        """Return the histogram as it is now, None before the first step."""
        counts = self._counts
        if not counts:
            return None
        return ExponentialPoint(
            self._scale,
            self._low,
            tuple(counts.get(index, 0) for index in range(self._low, self._high + 1)),
            sum(counts.values()),
            self._sum_us / 1e6,
            self._least_us / 1e6,
            self._most_us / 1e6,
        )

    def to_plain(self) -> Any:
        """Return the state as types of Python's JSON."""
        return {
            "scale": self._scale,
            "counts": sorted(self._counts.items()),
            "sum_us": self._sum_us,
            "least_us": self._least_us,
            "most_us": self._most_us,
            "strides": self._strides(),
        }

    def load_plain(self, plain: Any) -> None:
        """Restore the state."""
        self._load_strides(plain["strides"])
        self._scale = int(plain["scale"])
        self._counts = {int(index): int(count) for index, count in plain["counts"]}
        self._low, self._high = min(self._counts, default=0), max(self._counts, default=0)
        self._sum_us = int(plain["sum_us"])
        self._least_us, self._most_us = float(plain["least_us"]), float(plain["most_us"])


def bucket_index(value: float, scale: int) -> int:
    """Return the number of the bucket of an exponential histogram that holds a value.

    Source: OpenTelemetry specification, data model, "Exponential Histogram: Mapping function". The
    upper bound of a bucket belongs to it; for powers of two, which Python's logarithm is exact for,
    that holds exactly.

    Args:
        value: More than 0.
        scale: From 0 up: the times of steps never spread so far that a bucket holds more than an
            octave.
    """
    return math.ceil(math.ldexp(math.log2(value), scale)) - 1


class UnrecordedDurations(StepDurations):
    """Durations that an OpenTelemetry SDK has not been given yet.

    ``log`` must not wait for an SDK, so that they wait here for its next collection.
    """

    __slots__ = ("_intervals",)
    series = 1
    _MAX_INTERVALS = 1 << 16
    """If nobody collects, the oldest are forgotten: a minute of very short steps, some 8 MB."""
    _MAX_VALUES = 10_000
    """The most values of one interval, since an SDK takes them one by one, in microseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._intervals: deque[tuple[int, int]] = deque(maxlen=self._MAX_INTERVALS)

    def __bool__(self) -> bool:
        return bool(self._intervals)

    def observe(self, interval_us: int, steps: float) -> None:
        """Note the steps between two records."""
        self._intervals.append((interval_us, self._count(steps)))

    def take(self) -> Iterator[float]:
        """Yield the seconds of each step that was noted by now, once."""
        for _ in range(len(self._intervals)):
            try:
                interval_us, count = self._intervals.popleft()
            except IndexError:  # another thread of the package was quicker
                return
            yield from itertools.repeat(interval_us / count / 1e6, min(count, self._MAX_VALUES))

    def to_plain(self) -> Any:
        """Return None: what waits for an SDK is of this process alone."""

    def load_plain(self, plain: Any) -> None:
        """Do nothing, for the same reason."""

"""When something was so, in memory that does not grow with the log."""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MOST = 256
_END = attrgetter("end_us")


class Stretch(NamedTuple):
    """A stretch of time, in some or all of which something was so.

    Attributes:
        begin_us: When it begins, microseconds since the Unix epoch.
        end_us: When it ends, the same.
        time_us: For how long it was so in between, microseconds.
    """

    begin_us: int
    end_us: int
    time_us: int


class Stretches:
    """Stretches that do not overlap, in their order; if they are many, neighbors become one."""

    __slots__ = ("_stretches",)

    def __init__(self, stretches: Iterable[Stretch] = ()) -> None:
        self._stretches = list(stretches)

    def __len__(self) -> int:
        return len(self._stretches)

    def __iter__(self) -> Iterator[Stretch]:
        return iter(self._stretches)

    def copy(self) -> Stretches:
        """Return a copy, to which more can be added."""
        return Stretches(self._stretches)

    def add(self, begin_us: int, end_us: int, time_us: int) -> None:
        """Add a stretch, which becomes one with those that it overlaps.

        Args:
            begin_us: When it begins, microseconds since the Unix epoch.
            end_us: When it ends; a stretch that does not end after its begin adds nothing.
            time_us: For how long it was so, microseconds.
        """
        if end_us <= begin_us or time_us <= 0:
            return
        new = Stretch(begin_us, end_us, time_us)
        stretches = self._stretches
        while stretches and stretches[-1].end_us > new.begin_us:
            new = _joined(stretches.pop(), new)
        stretches.append(new)
        if len(stretches) > _MOST:
            older = stretches[:-1]
            pairs = zip(older[::2], older[1::2], strict=True)
            stretches[:-1] = [_joined(first, second) for first, second in pairs]

    def within(self, begin_us: int, end_us: int) -> int:
        """Return for how long it was so between two times, microseconds.

        Of a stretch that is not all between them, so much counts as its share says.
        """
        stretches, found_us = self._stretches, 0
        at = bisect_right(stretches, begin_us, key=_END)
        while at < len(stretches) and stretches[at].begin_us < end_us:
            first_us, last_us, time_us = stretches[at]
            between_us = min(last_us, end_us) - max(first_us, begin_us)
            found_us += time_us * between_us // (last_us - first_us)
            at += 1
        return found_us


def _joined(first: Stretch, second: Stretch) -> Stretch:
    begin_us = min(first.begin_us, second.begin_us)
    end_us = max(first.end_us, second.end_us)
    return Stretch(begin_us, end_us, min(first.time_us + second.time_us, end_us - begin_us))

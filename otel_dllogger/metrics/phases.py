"""What the time of a rank went to: the accounting of its phases.

Each second of a process is in one phase, the innermost one that is open. Where none is open, it
is ``startup`` until the first training record, and then ``train``, which is credited when the
next record shows that training went on; what such an interval has beyond ten times the usual is
``stalled``. The time since the last record is credited to nothing.

The accounting knows only entries: those of a Logger as they come, or the lines of its log, so the
page of a rank and that of the bridge agree. A phase has one entry, when it ends. If a record is
logged before that, the phase is announced by another one, since time in it is not training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.record import OPEN

if TYPE_CHECKING:
    from otel_dllogger.record import Phase

STARTUP, TRAIN, STALLED = "startup", "train", "stalled"
"""The phases of time in which no phase is open."""

PARTS_OF_A_STEP = frozenset((TRAIN, "data_wait", "communication"))
"""The phases that are a part of a training step; all others interrupt the training."""

MAX_NAMES = 100
"""The most names of phases, and of events, that a rank has series of."""

_STALL = 10
"""How many usual intervals are a stall."""

_LEAST_INTERVALS = 5
"""How many intervals show what is usual."""

_NUMBERS = ("_covered_us", "_outside_us", "_other_us")
_DICTS = ("times_us", "overlapped_us", "counts", "_announced")


class PhaseTimes:
    """The time of one rank by phase, in microseconds.

    Attributes:
        times_us: The time in each phase, without the phases in it, and without the time between
            records, of which only ``startup`` and ``stalled`` are here.
        overlapped_us: The time in each phase of other threads, which ran beside the loop.
        counts: How many phases ended, by name and outcome with a blank between them.
        due_us: An interval that ends before this has no phases in it and is not a stall, so
            ``end_interval`` need not be called.
    """

    __slots__ = (*_NUMBERS, *_DICTS, "_is_training", "_opened_us", "due_us")

    def __init__(self) -> None:
        self.times_us: dict[str, int] = {STARTUP: 0, STALLED: 0}
        self.overlapped_us: dict[str, int] = {}
        self.counts: dict[str, int] = {}
        self.due_us: float = 0
        self._is_training = False
        self._covered_us = 0  # the time in phases since the last training record
        self._outside_us = 0  # the same of those that are not part of a step
        self._other_us = 0  # the time of steps that is in phases, or stalled
        self._announced: dict[str, int] = {}  # what is credited of phases that are still open
        self._opened_us: int | None = None  # when the first of them was announced

    @property
    def names(self) -> set[str]:
        """Return the names of the phases so far, without those of time between records."""
        ended = {key.rpartition(" ")[0] for key in self.counts}
        return ended | self._announced.keys()

    @property
    def open_names(self) -> list[str]:
        """Return the names of the phases that were announced and have not ended."""
        return list(self._announced)

    def seconds_us(self, step_us: int) -> dict[str, int]:
        """Return the time in each phase.

        Args:
            step_us: The time that training steps took.
        """
        times = self.times_us.copy()
        times[TRAIN] = times.get(TRAIN, 0) + max(step_us - self._other_us, 0)
        return times

    def begin_process(self) -> None:
        """Note that another process writes from here on, which has no phases yet."""
        self.due_us = 0
        self._is_training = False
        self._covered_us = self._outside_us = 0
        self._announced.clear()
        self._opened_us = None

    def take(self, phase: Phase, mark_us: int, *, has_series: bool) -> None:
        """Take a phase that ended or that is announced.

        Args:
            phase: The phase.
            mark_us: The last training record, ``elapsed_us``.
            has_series: Whether there is room for the phase's series; otherwise its time is
                nowhere, but it is not training either.
        """
        name, is_open = phase.name, phase.outcome == OPEN
        if phase.is_overlapping:
            if has_series:
                self.overlapped_us[name] = self.overlapped_us.get(name, 0) + phase.self_us
                self._count(phase)
            return
        since_mark_us = max(phase.elapsed_us - mark_us - self._covered_us, 0)
        if is_open:
            new_us = min(phase.self_us, since_mark_us)
            if self._opened_us is None:
                self._opened_us = phase.elapsed_us
            self._announced[name] = self._announced.get(name, 0) + new_us
        elif name in self._announced:
            new_us = max(phase.self_us - self._announced.pop(name), 0)
            if not self._announced:
                self._opened_us = None
        else:
            # A record in it would have announced it, so it began after the last one.
            new_us = min(phase.self_us, since_mark_us)
        if has_series:
            self.times_us[name] = self.times_us.get(name, 0) + new_us
            if not is_open:
                self._count(phase)
        since_mark_us = min(new_us, since_mark_us)
        self._covered_us += since_mark_us
        if name not in PARTS_OF_A_STEP:
            self._outside_us += since_mark_us
        self.due_us = 0

    def _count(self, phase: Phase) -> None:
        key = f"{phase.name} {phase.outcome}"
        self.counts[key] = self.counts.get(key, 0) + 1

    def end_startup(self, mark_us: int, elapsed_us: int) -> None:
        """Take the first training record of a process.

        Args:
            mark_us: The summary of an epoch before it, else 0.
            elapsed_us: When it came.
        """
        self._is_training = True
        self.times_us[STARTUP] += self._without_phases(mark_us, elapsed_us)
        self._covered_us = self._outside_us = 0

    def end_epoch(self, mark_us: int, elapsed_us: int) -> None:
        """Take the summary of an epoch of a process that has logged no iterations.

        Args:
            mark_us: The summary before, else 0.
            elapsed_us: When it came.
        """
        if not self._is_training:
            self.end_startup(mark_us, elapsed_us)
            return
        train_us = self._without_phases(mark_us, elapsed_us)
        self.times_us[TRAIN] = self.times_us.get(TRAIN, 0) + train_us
        self._covered_us = self._outside_us = 0

    def end_interval(self, mark_us: int, elapsed_us: int, *, share: float, step_us: int) -> int:
        """Take the interval between two training records, and return what of it steps took.

        Args:
            mark_us: The record before.
            elapsed_us: The record.
            share: The steps between them as a share of all steps before.
            step_us: The time that all steps before took.
        """
        if not self._is_training:
            self.end_startup(mark_us, elapsed_us)
            return 0
        train_us = self._without_phases(mark_us, elapsed_us)
        steps_us = max(elapsed_us - mark_us - self._outside_us, 0)
        self._covered_us = self._outside_us = 0
        limit_us = _STALL * share * (step_us - self.times_us[STALLED])
        if limit_us > 0 and share * _LEAST_INTERVALS <= 1:
            stalled_us = max(train_us - round(limit_us), 0)
            self.times_us[STALLED] += stalled_us
            train_us -= stalled_us
            self.due_us = 0 if self._announced else elapsed_us + limit_us
        self._other_us += steps_us - train_us
        return steps_us

    def _without_phases(self, mark_us: int, elapsed_us: int) -> int:
        """Return the time between two records in which no phase is open."""
        end_us = elapsed_us if self._opened_us is None else min(self._opened_us, elapsed_us)
        return max(end_us - mark_us - self._covered_us, 0)

    def to_plain(self) -> dict[str, Any]:
        """Return everything as types of Python's JSON."""
        return {
            name: getattr(self, name) for name in (*_NUMBERS, *_DICTS, "_is_training", "_opened_us")
        }

    def load_plain(self, plain: dict[str, Any]) -> None:
        """Restore the result of ``to_plain``, written to JSON and read back.

        Raises:
            LookupError, TypeError: If ``plain`` is anything else.
        """
        for name in _NUMBERS:
            setattr(self, name, _whole(plain[name]))
        for name in _DICTS:
            getattr(self, name).update((key, _whole(us)) for key, us in plain[name].items())
        self._is_training = plain["_is_training"] is True
        opened_us = plain["_opened_us"]
        self._opened_us = None if opened_us is None else _whole(opened_us)


def _whole(value: object) -> int:
    """Return a value if it is an int.

    Raises:
        TypeError: If it is anything else.
    """
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an int")
    return value

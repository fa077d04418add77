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

_NUMBERS = ("_covered_us", "_outside_us", "_other_us", "_opened_us", "_before_us")
_DICTS = ("times_us", "overlapped_us")
_OTHERS = ("counts", "_is_training")


class PhaseTimes:
    """The time of one rank by phase, in microseconds.

    Attributes:
        times_us: The time in each phase, without the phases in it, and without the time between
            records, of which only ``startup`` and ``stalled`` are here.
        overlapped_us: The time in each phase of other threads, which ran beside the loop.
        counts: How many phases ended, by name and outcome.
        due_us: An interval that ends before this has no phases in it and is not a stall, so
            ``end_interval`` need not be called.
    """

    __slots__ = (*_NUMBERS, *_DICTS, *_OTHERS, "_announced", "due_us")

    def __init__(self) -> None:
        self.times_us: dict[str, int] = {STARTUP: 0, STALLED: 0}
        self.overlapped_us: dict[str, int] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.due_us: float = 0
        self._is_training = False
        self._covered_us = 0  # the time in phases since the last training record
        self._outside_us = 0  # the same of those that are not part of a step
        self._other_us = 0  # the time of steps that is in phases, or stalled
        # The phases that are open: name, when they began, and what of them is credited.
        self._announced: list[tuple[str, int, int]] = []
        self._opened_us = -1  # when the first of them were announced, together
        self._before_us = 0  # the time without a phase from the last record until then

    @property
    def names(self) -> set[str]:
        """Return the names of the phases so far, without those of time between records."""
        return self.counts.keys() | set(self.open_names)

    @property
    def open_names(self) -> list[str]:
        """Return the names of the phases that were announced and have not ended."""
        return [name for name, _, _ in self._announced.copy()]

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
        self._covered_us = self._outside_us = self._before_us = 0
        self._announced.clear()
        self._opened_us = -1

    def take(self, phase: Phase, mark_us: int, *, has_series: bool) -> None:
        """Take a phase that ended or that is announced.

        Args:
            phase: The phase.
            mark_us: The last training record, ``elapsed_us``.
            has_series: Whether there is room for the phase's series; otherwise its time is
                nowhere, but it is not training either.
        """
        name, self_us = phase.name, phase.self_us
        if phase.is_overlapping:
            if has_series:
                self.overlapped_us[name] = self.overlapped_us.get(name, 0) + self_us
                self._count(phase)
            return
        since_mark_us = phase.elapsed_us - mark_us - self._covered_us
        if since_mark_us < 0:  # noqa: PLR1730 - a call takes longer, here and below
            since_mark_us = 0
        if self._announced or phase.outcome is OPEN:
            self_us = self._new_us(phase, since_mark_us)
        elif self_us > since_mark_us:  # a record in it would have announced it
            self_us = since_mark_us
        if has_series:
            self.times_us[name] = self.times_us.get(name, 0) + self_us
            if phase.outcome is not OPEN:
                self._count(phase)
        if self_us > since_mark_us:  # noqa: PLR1730
            self_us = since_mark_us
        self._covered_us += self_us
        if name not in PARTS_OF_A_STEP:
            self._outside_us += self_us
        if phase.outcome is OPEN and phase.elapsed_us == self._opened_us:
            self._before_us = max(phase.elapsed_us - mark_us - self._covered_us, 0)
        self.due_us = 0

    def _new_us(self, phase: Phase, since_mark_us: int) -> int:
        """Return what of a phase is not credited yet, while some are announced."""
        begin_us = phase.elapsed_us - phase.duration_us
        if phase.outcome is OPEN:
            new_us = min(phase.self_us, since_mark_us)
            if not self._announced:
                self._opened_us = phase.elapsed_us
            self._announced.append((phase.name, begin_us, new_us))
            return new_us
        for announced in reversed(self._announced):  # the innermost one ends first
            if announced[:2] == (phase.name, begin_us):
                self._announced.remove(announced)
                return max(phase.self_us - announced[2], 0)
        return min(phase.self_us, since_mark_us)

    def _count(self, phase: Phase) -> None:
        counts = self.counts.get(phase.name)
        if counts is None:
            counts = self.counts[phase.name] = {}
        counts[phase.outcome] = counts.get(phase.outcome, 0) + 1

    def end_startup(self, mark_us: int, elapsed_us: int) -> None:
        """Take the first training record of a process.

        Args:
            mark_us: The summary of an epoch before it, else 0.
            elapsed_us: When it came.
        """
        self._is_training = True
        self.times_us[STARTUP] += self._without_phases(mark_us, elapsed_us)
        self._covered_us = self._outside_us = self._before_us = 0

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
        self._covered_us = self._outside_us = self._before_us = 0

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
        self._covered_us = self._outside_us = self._before_us = 0
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
        if self._announced:
            return self._before_us
        return max(elapsed_us - mark_us - self._covered_us, 0)

    def to_plain(self) -> dict[str, Any]:
        """Return everything as types of Python's JSON."""
        plain = {name: getattr(self, name) for name in (*_NUMBERS, *_DICTS, *_OTHERS)}
        plain["announced"] = [list(announced) for announced in self._announced]
        return plain

    def load_plain(self, plain: dict[str, Any]) -> None:
        """Restore the result of ``to_plain``, written to JSON and read back.

        Raises:
            LookupError, TypeError, ValueError: If ``plain`` is anything else.
        """
        for name in _NUMBERS:
            setattr(self, name, _whole(plain[name]))
        for name in _DICTS:
            getattr(self, name).update(_whole_by_name(plain[name]))
        for name, counts in _by_name(plain["counts"]).items():
            self.counts[name] = _whole_by_name(counts)
        for name, begin_us, credited_us in plain["announced"]:
            self._announced.append((str(name), _whole(begin_us), _whole(credited_us)))
        self._is_training = plain["_is_training"] is True


def _by_name(plain: object) -> dict[str, Any]:
    if type(plain) is not dict:
        raise TypeError(f"{plain!r} is not a dict")
    return plain


def _whole_by_name(plain: object) -> dict[str, int]:
    return {name: _whole(number) for name, number in _by_name(plain).items()}


def _whole(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an int")
    return value

"""What the time of a rank went to: the accounting of its phases.

Each second of a process is in one phase, the innermost one that is open. Where none is open, it
is ``startup`` until the first training record, and then ``train``, which is credited when the
next record shows that training went on; what such an interval has beyond ten times the usual is
``stalled``. The time since the last record is credited to nothing.

The accounting knows only entries: those of a Logger as they come, or the lines of its log, so the
page of a rank and that of the bridge agree. A phase has one entry, when it ends. If a record is
logged before that, the phase is announced by another one, since time in it is not training.

A record costs next to nothing here: ``RankState`` adds its interval to ``interval_us`` and moves
the mark. What of the intervals was in phases is taken out of them when a phase ends or when
somebody reads. Another thread may read at any moment; it may see a little less than there is, but
never more, so that the counters that are made of this do not go back.
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

_WITHOUT_PHASES = {STARTUP, TRAIN, STALLED}

MAX_NAMES = 100
"""The most names of phases, and of events, that a rank has series of."""

_STALL = 10
"""How many usual intervals are a stall."""

_FIND_AGAIN = 8
"""The usual interval is found again whenever so large a part of the time is over."""

_NEVER_US = 1 << 62
"""A time that does not come; an int, since comparing an int with a float takes longer."""

_LEAST_INTERVALS = 5
"""How many intervals show what is usual."""

_NUMBERS = (
    "interval_us",
    "mark_us",
    "_covered_us",
    "_outside_us",
    "_pending_mark_us",
    "_other_us",
    "_interrupted_us",
    "_opened_us",
    "_opened_mark_us",
    "_before_us",
    "_frozen_us",
)
_DICTS = ("times_us", "overlapped_us")
_OTHERS = ("counts", "_is_training")


class PhaseTimes:
    """The time of one rank by phase, in microseconds.

    Attributes:
        interval_us: All intervals between training records.
        mark_us: ``elapsed_us`` of the last training record.
        times_us: The time in each phase, without the phases in it, and without the time between
            records, of which only ``startup`` and ``stalled`` are here.
        overlapped_us: The time in each phase of other threads, which ran beside the loop.
        counts: How many phases ended, by name and outcome.
        limit_us: The longest interval that is not a stall.
        due_us: When ``limit_us`` is to be found again. Until then, a record after a shorter
            interval need not call ``end_interval``.
    """

    __slots__ = (*_NUMBERS, *_DICTS, *_OTHERS, "_announced", "due_us", "limit_us")

    def __init__(self) -> None:
        self.interval_us = 0
        self.mark_us = 0
        self.times_us: dict[str, int] = {STARTUP: 0, STALLED: 0}
        self.overlapped_us: dict[str, int] = {}
        self.counts: dict[str, dict[str, int]] = {}
        self.due_us = 0
        self.limit_us = 0
        self._is_training = False
        self._other_us = 0  # of the intervals: the time that is not training
        self._interrupted_us = 0  # the same: the time in phases that interrupt the training
        # The time in phases since a training record, which is the last one unless others came
        # meanwhile, and that of phases that interrupt the training.
        self._covered_us = 0
        self._outside_us = 0
        self._pending_mark_us = 0
        # The phases that are announced and open: name, begin, and what of them is credited.
        self._announced: list[tuple[str, int, int]] = []
        self._opened_us = -1  # when the first of them were announced, together
        self._opened_mark_us = 0  # the last training record at that time
        self._before_us = 0  # the time without a phase between the two
        self._frozen_us = 0  # the training until that record

    @property
    def names(self) -> set[str]:
        """Return the names of the phases so far, without those of time between records."""
        return self.counts.keys() | set(self.open_names)

    @property
    def open_names(self) -> list[str]:
        """Return the names of the phases that were announced and have not ended."""
        return [name for name, _, _ in self._announced.copy()]

    @property
    def step_us(self) -> int:
        """Return the time of training steps, without the phases that interrupt the training."""
        interval_us = self.interval_us  # first, since a record moves the mark before it adds
        interrupted_us = self._interrupted_us
        if self._pending_mark_us != self.mark_us:
            interrupted_us += self._outside_us
        return max(interval_us - interrupted_us, 0)

    def steps_us_until(self, elapsed_us: int) -> int:
        """Return the time of steps since the last training record; 0 before the first one.

        Args:
            elapsed_us: Until when.
        """
        if not self._is_training:
            return 0
        outside_us = self._outside_us if self._pending_mark_us == self.mark_us else 0
        return elapsed_us - self.mark_us - outside_us

    @property
    def _train_us(self) -> int:
        """Return the time between training records in which no phase was open."""
        if self._announced:
            is_over = self.mark_us != self._opened_mark_us
            return self._frozen_us + (self._before_us if is_over else 0)
        interval_us = self.interval_us
        other_us = self._other_us
        if self._pending_mark_us != self.mark_us:
            other_us += self._covered_us
        return max(interval_us - other_us, 0)

    def has_room_for(self, name: str) -> bool:
        """Return whether a phase may have series, as far as the number of names decides."""
        names = (self.times_us.keys() | self.overlapped_us.keys()) - _WITHOUT_PHASES
        return name in names or len(names) < MAX_NAMES

    def all_us(self) -> dict[str, int]:
        """Return the time in each phase, that between records included."""
        times = self.times_us.copy()
        times[TRAIN] = times.get(TRAIN, 0) + self._train_us
        return times

    def begin_process(self) -> None:
        """Note that another process writes from here on, which has no phases yet."""
        self._settle()
        if self._announced:
            self._close_announced(0)
        self._announced.clear()
        self.mark_us = self._pending_mark_us = self._covered_us = self._outside_us = 0
        self.limit_us = self.due_us = 0
        self._is_training = False

    def take(self, phase: Phase, *, has_series: bool) -> None:
        """Take a phase that ended or that is announced.

        Args:
            phase: The phase.
            has_series: Whether there is room for the phase's series; otherwise its time is
                nowhere, but it is not training either.
        """
        name, self_us = phase.name, phase.self_us
        if phase.is_overlapping:
            if has_series:
                self.overlapped_us[name] = self.overlapped_us.get(name, 0) + self_us
                self._count(phase)
            return
        if self._pending_mark_us != self.mark_us:
            self._settle()
        since_mark_us = phase.elapsed_us - self.mark_us - self._covered_us
        if since_mark_us < 0:  # noqa: PLR1730 - a call takes longer, here and below
            since_mark_us = 0
        if self._announced or phase.outcome is OPEN:
            new_us = self._new_us(phase, since_mark_us)
            if new_us is None:
                return
            self_us = new_us
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
            self._before_us = max(phase.elapsed_us - self.mark_us - self._covered_us, 0)

    def _settle(self) -> None:
        """Take out of the intervals what was in phases before the last training record."""
        self._other_us += self._covered_us
        self._interrupted_us += self._outside_us
        self._pending_mark_us = self.mark_us
        self._covered_us = self._outside_us = 0

    def _new_us(self, phase: Phase, since_mark_us: int) -> int | None:
        """Return what of a phase is not credited yet, while some are announced.

        Returns:
            Microseconds; None if it was announced before, as by a signal handler.
        """
        begin_us = phase.elapsed_us - phase.duration_us
        if phase.outcome is OPEN:
            if any(known[:2] == (phase.name, begin_us) for known in self._announced):
                return None
            new_us = min(phase.self_us, since_mark_us)
            if not self._announced:
                self._frozen_us = self._train_us
                self._opened_us, self._opened_mark_us = phase.elapsed_us, self.mark_us
            self.limit_us = self.due_us = _NEVER_US
            self._announced.append((phase.name, begin_us, new_us))
            return new_us
        for announced in reversed(self._announced):  # the innermost one ends first
            if announced[:2] == (phase.name, begin_us):
                new_us = max(phase.self_us - announced[2], 0)
                if len(self._announced) == 1:
                    self._close_announced(phase.elapsed_us - min(new_us, since_mark_us))
                self._announced.remove(announced)
                return new_us
        return min(phase.self_us, since_mark_us)

    def _close_announced(self, covered_until_us: int) -> None:
        """Note that no announced phase is open any more: since they were, no time was training."""
        if self.mark_us != self._opened_mark_us:
            self._other_us = self.interval_us - self._frozen_us - self._before_us
            self._covered_us = max(covered_until_us - self.mark_us, 0)
        self.limit_us = self.due_us = 0

    def _count(self, phase: Phase) -> None:
        counts = self.counts.get(phase.name)
        if counts is None:
            counts = self.counts[phase.name] = {}
        counts[phase.outcome] = counts.get(phase.outcome, 0) + 1

    def end_startup(self, elapsed_us: int) -> None:
        """Take the first training record of a process, at ``elapsed_us``."""
        self._is_training = True
        self._end_without_steps(elapsed_us, STARTUP)

    def end_epoch(self, elapsed_us: int) -> None:
        """Take the summary of an epoch, at ``elapsed_us``, of a process without iterations."""
        if self._is_training:
            self._end_without_steps(elapsed_us, TRAIN)
        else:
            self.end_startup(elapsed_us)

    def _end_without_steps(self, elapsed_us: int, name: str) -> None:
        new_us = max(elapsed_us - self.mark_us - self._covered_us, 0)
        if self._announced:
            new_us = self._before_us if self.mark_us == self._opened_mark_us else 0
            self._opened_mark_us, self._before_us = elapsed_us, 0
        self.times_us[name] = self.times_us.get(name, 0) + new_us
        self._begin_interval(elapsed_us)

    def _begin_interval(self, elapsed_us: int) -> None:
        """Begin an interval of which the time in phases before it is not a part."""
        self._covered_us = self._outside_us = 0
        self.mark_us = self._pending_mark_us = elapsed_us

    def end_interval(self, elapsed_us: int, *, share: float) -> None:
        """Take the interval from the last training record to the next one.

        Args:
            elapsed_us: The next one.
            share: The steps between them as a share of all steps before.
        """
        interval_us = elapsed_us - self.mark_us
        if not self._is_training:
            self.end_startup(elapsed_us)
            return
        if interval_us <= 0:  # with two Loggers, whose clocks did not begin together
            self._begin_interval(elapsed_us)
            return
        if not self._announced:
            self._look_for_stall(elapsed_us, share)
        self.mark_us = elapsed_us  # before the interval is added: see ``step_us``
        self.interval_us += interval_us

    def _look_for_stall(self, elapsed_us: int, share: float) -> None:
        if self._pending_mark_us != self.mark_us:
            self._settle()
        if share * _LEAST_INTERVALS > 1:
            return
        limit_us = int(_STALL * share * (self.step_us - self.times_us[STALLED]))
        if limit_us <= 0:
            return
        stalled_us = elapsed_us - self.mark_us - self._covered_us - limit_us
        if stalled_us > 0:
            self._other_us += stalled_us
            self.times_us[STALLED] += stalled_us
        self.limit_us = limit_us
        self.due_us = elapsed_us + max(elapsed_us // _FIND_AGAIN, limit_us)

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

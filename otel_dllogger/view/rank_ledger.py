"""What the time of each rank went to, over all of its processes, from its log alone.

The time in phases is that of ``metrics/phases.py``, which counts for pages as well. A log tells
more: when each process began and logged last, and which steps were done again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.metrics.phases import TRAIN
from otel_dllogger.record import EPOCH, ITERATION, Event, Phase, Record, step_position
from otel_dllogger.view.progress import Progress
from otel_dllogger.view.step_axis import StepAxis
from otel_dllogger.view.stretches import Stretches

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.logs.ranks import LoggedRank
    from otel_dllogger.logs.reader import RankEntry

COMMUNICATION, RESTORE = "communication", "restore"
BLOCKING = ("checkpoint", "validation", RESTORE)
"""Phases for which the other ranks wait where only some ranks are in them."""

SAVED, RESTORED = "checkpoint_saved", "checkpoint_restored"


class RankTimes(NamedTuple):
    """What the time of one rank went to; times are microseconds.

    Attributes:
        rank: The rank.
        start_us: When its first process started, since the Unix epoch.
        end_us: When it logged last, since the Unix epoch.
        uptime_us: The time of its processes, each until its last record.
        phases_us: The time in each phase.
        up: When it had a process, each until its last record.
        unsaid: When it had one of which its log does not say what it did: after the last step.
        blocked: When it was in each phase of ``BLOCKING``, without the phases in it.
        has_phases: Whether any phase was logged.
        has_steps: Whether any step, or the summary of an epoch, was logged.
        redone_share: What share of the training was done again.
        redone_steps: How many steps were done again.
        is_redone_known: Whether its log says what was done again, wherever something was.
        at_risk_us: The training since the last checkpoint; None if no checkpoint was logged, or
            the rank has finished.
    """

    rank: int
    start_us: int
    end_us: int
    uptime_us: int
    phases_us: Mapping[str, int]
    up: Stretches
    unsaid: Stretches
    blocked: Mapping[str, Stretches]
    has_phases: bool
    has_steps: bool
    redone_share: float
    redone_steps: float
    is_redone_known: bool
    at_risk_us: int | None


class RankLedger:
    """The accounting of one rank, in memory that does not grow with its log.

    Args:
        logged: The rank, which takes each item before the ledger does.
    """

    def __init__(self, logged: LoggedRank) -> None:
        self._rank = logged.rank
        self._state = logged.state
        self._axis = StepAxis()
        self._offset = 0.0  # of a counter that began anew
        self._progress = Progress()
        self._settled_us = 0
        self._start_us: int | None = None  # of the process
        self._first_us = 0
        self._last_us = 0
        self._elapsed_us = 0  # until the last record of the process
        self._uptime_us = 0
        self._up = Stretches()
        self._unsaid = Stretches()
        self._blocked = {name: Stretches() for name in BLOCKING}
        self._blocked_us = dict.fromkeys(BLOCKING, 0)
        self._gaps = Stretches()  # before phases, since the last step
        self._said_us = 0  # elapsed until the last step, or the last phase after it
        self._step_us = 0
        self._is_first = True  # the next training record is the first of its process
        self._at = 0.0
        self._stride = 1.0
        self._first_x: float | None = None  # of the counter
        self._back_to: float | None = None
        self._counts_anew = False
        self._has_restored = False
        self._restored_at: float | None = None
        self._saved_us: int | None = None
        self._saved_elapsed_us: int | None = None
        self._is_redone_known = True
        self._is_timed = True

    def take(self, item: RankEntry) -> None:
        """Take one item of the rank's log."""
        if not isinstance(item, (Record, Phase, Event)):
            return
        if self._state.start_us != self._start_us:
            self._begin_process(self._state.start_us)
        self._last_us = max(self._last_us, item.time_us)
        self._elapsed_us = max(self._elapsed_us, item.elapsed_us)
        if isinstance(item, Record):
            self._take_record(item)
        elif isinstance(item, Event):
            self._take_event(item)
        elif not item.is_overlapping:
            self._take_phase(item)

    def times(self) -> RankTimes | None:
        """Return what the time went to so far; None if the log has no times."""
        if self._start_us is None or not self._is_timed:
            return None
        self._settle()
        state, progress = self._state, self._progress
        worked_us = progress.kept_us + progress.lost_us
        up, unsaid = self._up.copy(), self._unsaid.copy()
        self._add_process(up, unsaid)
        at_risk_us = None
        if self._saved_us is not None and not state.finished:
            at_risk_us = max(progress.kept_us - self._saved_us, 0)
        return RankTimes(
            self._rank,
            self._first_us,
            self._last_us,
            self._uptime_us + self._elapsed_us,
            state.phases.all_us(),
            up,
            unsaid,
            self._blocked,
            bool(state.phases.counts or state.phases.open_names),
            self._first_x is not None,
            progress.lost_us / worked_us if worked_us else 0.0,
            progress.lost_steps,
            self._is_redone_known,
            at_risk_us,
        )

    def _begin_process(self, start_us: int) -> None:
        if self._start_us is None:
            self._first_us = start_us
        else:
            self._settle()
            self._uptime_us += self._elapsed_us
            self._add_process(self._up, self._unsaid)
        self._first_us = min(self._first_us, start_us)
        self._start_us = start_us
        self._elapsed_us = self._step_us = self._said_us = 0
        self._gaps = Stretches()
        self._axis.start()
        self._is_first = True
        self._has_restored = False
        self._back_to = self._restored_at = self._saved_elapsed_us = None

    def _take_record(self, record: Record) -> None:
        if isinstance(record, FileRecord) and record.interpolated:
            self._is_timed = False
        granularity = record.granularity
        state, axis = self._state, self._axis
        if granularity is ITERATION:
            axis.move(state.epoch, state.iteration)
        elif granularity is EPOCH and not axis.has_iterations:
            axis.move(state.epoch, None)
        else:
            return
        at = axis.x + self._offset
        if self._is_first:
            self._is_first = False
            at = self._resume(at)
        elif at < self._at:
            at = self._go_back(at)
        else:
            self._back_to = None
            if at > self._at:
                self._stride = at - self._at
        self._at = at
        if self._saved_elapsed_us is not None:
            self._divide_interval(record.elapsed_us)
        self._step_us = self._said_us = record.elapsed_us
        if self._gaps:
            self._gaps = Stretches()

    def _resume(self, at: float) -> float:
        """Take the first step of a process, and return its place."""
        progress, restored_at = self._progress, self._restored_at
        if self._first_x is None:
            self._first_x = self._axis.x
        elif self._counts_anew or (self._has_restored and self._axis.x <= self._first_x):
            # The steps of a process that went on from a checkpoint, and counts from its beginning.
            if self._saved_us is None:
                self._is_redone_known = False
            else:
                progress.cut_to_time(self._saved_us)
            self._offset += progress.end + self._stride - at
            at = self._axis.x + self._offset
        elif restored_at is not None and restored_at <= at:
            self._cut_to_step(restored_at)
        else:
            self._cut_to_step(at - self._stride)
        progress.begin(at)
        return at

    def _go_back(self, at: float) -> float:
        """Take a step before the last one of the process, and return the place of the process.

        A process may go back to a checkpoint. It may also log two counters in turn, so only the
        next record shows that: whether it is the step after this one.
        """
        is_beginning = self._first_x is not None and self._axis.x <= self._first_x
        if is_beginning and self._state.epoch is None:  # of an epoch, as it seems
            self._counts_anew = True
            self._offset += self._at + self._stride - at
            return self._axis.x + self._offset
        if self._back_to is None or at <= self._back_to:
            self._settle()
            self._back_to = at
            return self._at
        self._cut_to_step(self._back_to - self._stride)
        self._progress.begin(self._back_to)
        self._back_to = None
        return at

    def _cut_to_step(self, at: float) -> None:
        self._progress.cut_to_step(at)
        if self._saved_us is not None:
            self._saved_us = min(self._saved_us, self._progress.kept_us)

    def _take_phase(self, phase: Phase) -> None:
        """Note when the process was in a phase, and when nothing was said before it."""
        name, start_us = phase.name, self._start_us or 0
        if name == RESTORE:
            self._has_restored = True
        said_us, end_us = start_us + self._said_us, start_us + phase.elapsed_us
        begin_us = max(end_us - phase.duration_us, start_us)
        self._gaps.add(said_us, begin_us, begin_us - said_us)
        self._said_us = max(self._said_us, phase.elapsed_us)
        if name in self._blocked:
            credited_us = self._state.phases.times_us.get(name, 0)
            self._blocked[name].add(begin_us, end_us, credited_us - self._blocked_us[name])
            self._blocked_us[name] = credited_us

    def _add_process(self, up: Stretches, unsaid: Stretches) -> None:
        """Add when there was a process, and when its log does not say what it did."""
        start_us = self._start_us or 0
        said_us, end_us = start_us + self._said_us, start_us + self._elapsed_us
        up.add(start_us, end_us, self._elapsed_us)
        for gap in self._gaps:
            unsaid.add(*gap)
        unsaid.add(said_us, end_us, end_us - said_us)

    def _take_event(self, event: Event) -> None:
        if event.name == SAVED:
            self._settle()
            self._saved_us, self._saved_elapsed_us = self._progress.kept_us, event.elapsed_us
        elif event.name == RESTORED:
            self._has_restored = True
            place = step_position(event.step).place
            x = self._axis.find(*place) if place else None
            self._restored_at = None if x is None else x + self._offset

    def _divide_interval(self, elapsed_us: int) -> None:
        """Divide the training between two records, of which some was saved between them."""
        saved_us, saved_elapsed_us = self._saved_us, self._saved_elapsed_us
        self._saved_elapsed_us = None
        if saved_us is None or saved_elapsed_us is None or elapsed_us <= self._step_us:
            return
        self._settle()
        share = (saved_elapsed_us - self._step_us) / (elapsed_us - self._step_us)
        trained_us = self._progress.kept_us - saved_us
        self._saved_us = saved_us + round(trained_us * min(max(share, 0.0), 1.0))

    def _settle(self) -> None:
        """Add the training since the last time to the stretch that it belongs to."""
        state = self._state
        times_us = state.phases.all_us()
        worked_us = times_us.get(TRAIN, 0) + times_us.get(COMMUNICATION, 0)
        if worked_us > self._settled_us or not self._progress.is_empty:
            self._progress.extend(self._at, max(worked_us - self._settled_us, 0))
        self._settled_us = max(worked_us, self._settled_us)

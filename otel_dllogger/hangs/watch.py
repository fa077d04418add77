"""A watch over the records of this process, which writes the stacks of all threads after a hang.

A thread looks at what changes with each record anyway, so ``log`` does nothing for it. If nothing
changes for too long, and no open phase explains that, it writes the stacks. It has the GIL then,
as whoever looks at the frames of other threads should. While another thread holds the GIL, ours
does not run: the native timer, which it puts off as long as it runs, then writes them without it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import time
import weakref
from datetime import datetime, timezone
from typing import Any, Protocol

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.hangs.log_tail import LastStep, read_last_step, was_interrupted
from otel_dllogger.hangs.stacks_file import StacksFile, explain_unwritable
from otel_dllogger.hangs.stderr_stacks import format_stacks, write_to_stderr
from otel_dllogger.hangs.usual_interval import UsualInterval
from otel_dllogger.identity import detect_topology
from otel_dllogger.metrics.phases import PARTS_OF_A_STEP
from otel_dllogger.phases import PHASES
from otel_dllogger.runtime import fork
from otel_dllogger.runtime.native_timer import NativeTimer
from otel_dllogger.runtime.wakers import Waker, Worker

THREAD_NAME = "otel-dllogger-hangs"

_LOOKS = 20  # in the time of a limit
_LEAST_LOOK_S, _MOST_LOOK_S = 0.1, 1.0
_LATE_S = 0.5  # that a thread may be late on a machine that is busy


class WatchedLog(Protocol):
    """What is needed of a backend that writes a log."""

    @property
    def log_path(self) -> str:
        """Return the path of its file."""

    @property
    def log_end(self) -> int:
        """Return where in the file the last line ended that this process wrote."""

    def report_hang(self, data: dict[str, Any], step: Any) -> None:
        """Log the event."""


_watches: list[HangWatch] = []
"""The watches that are open. Only the first one looks: a process has one timer."""


class HangWatch:
    """A watch that begins with the first step in a log, and ends with the backend that writes it.

    Args:
        log: The backend; it is referenced weakly.
        limit_s: How long a silence is a hang, in seconds; None for ten times the usual interval.
    """

    def __init__(self, log: WatchedLog, limit_s: float | None) -> None:
        self._log = weakref.ref(log)
        self._limit_s = limit_s
        self._usual = UsualInterval()
        look_s = _MOST_LOOK_S if limit_s is None else limit_s / _LOOKS
        self._look_s = min(max(look_s, _LEAST_LOOK_S), _MOST_LOOK_S)
        self._stacks = StacksFile(f"{os.path.abspath(log.log_path)}.stacks")  # noqa: PTH100
        self._start = log.log_end
        self._topology = detect_topology()
        self._timer = NativeTimer()
        self._timer_due_s: float | None = None
        self._timer_size = 0  # of the file, when the timer was armed
        self._is_open = True
        self._is_training = False
        self._is_noted = False  # what there is to say of the current silence was said
        self._signs = _read_signs(log)
        self._changed_s = self._looked_s = time.monotonic()
        self._told: set[str] = set()
        self._waker = Waker()
        self._thread = Worker(THREAD_NAME, self._watch)
        fork.register(self)
        atexit.register(self.close)
        _watches.append(self)
        self._thread.ask()

    def close(self) -> None:
        """End the watch, without waiting for its thread."""
        atexit.unregister(self.close)
        self._is_open = False
        if self in _watches:
            _watches.remove(self)
        self._release()
        self._waker.wake()

    def after_fork_in_child(self) -> None:
        """Watch nothing: what a child logs is not the training's."""
        atexit.unregister(self.close)
        self._is_open = False
        _watches.clear()

    def _watch(self) -> None:
        while self._is_open:
            log = self._log()
            if log is None:
                self.close()
                return
            if _watches[:1] == [self]:
                try:
                    self._look(log, time.monotonic())
                except OSError as error:
                    self._tell_unwritable(error)
                except Exception as error:
                    DIAGNOSTICS.caught("backend_failed", "the watch over hangs", error)
            del log
            self._waker.wait(self._look_s)
        self._release()  # this thread may have been about to arm the timer

    def _release(self) -> None:
        self._timer.cancel()
        try:
            self._stacks.close()
        except OSError as error:
            self._tell_unwritable(error)

    def _look(self, log: WatchedLog, now_s: float) -> None:
        """Look whether something was logged since the last look, and act if nothing was."""
        looked_s, self._looked_s = self._looked_s, now_s
        changed_s = self._changed_s
        _, logged_to = self._signs
        signs = _read_signs(log)
        if signs != self._signs:
            self._note_life(log, signs, now_s)
        if not self._is_training:
            return
        if self._timer_due_s is not None and self._timer_due_s <= now_s:
            is_over = changed_s != self._changed_s
            fired_s = self._timer_due_s
            phases = PHASES.names(fired_s)
            is_explained = (
                was_interrupted(log.log_path, logged_to, time.time() - (now_s - fired_s))
                if is_over
                else _explain(phases)
            )
            self._note_timer(
                log, now_s - changed_s, phases, is_over=is_over, is_explained=is_explained
            )
        silence_s = now_s - self._changed_s
        limit_s = self._usual.limit_s() if self._limit_s is None else self._limit_s
        if self._is_noted or _explain(PHASES.names()):
            self._disarm()
        elif silence_s < limit_s:
            self._arm(limit_s - silence_s, now_s)
        elif now_s - looked_s < self._look_s + _LATE_S:  # else the whole process was stopped
            self._note_silence(log, silence_s)

    def _note_life(self, log: WatchedLog, signs: tuple[int, int], now_s: float) -> None:
        if self._is_training:
            self._usual.add(now_s - self._changed_s)
        else:
            self._is_training = read_last_step(log.log_path, self._start) is not None
        self._signs, self._changed_s, self._is_noted = signs, now_s, False

    def _note_silence(self, log: WatchedLog, silence_s: float) -> None:
        """Write the stacks, while other threads than the training loop's can go on."""
        self._is_noted = True
        self._disarm()
        last = read_last_step(log.log_path, self._start)
        if last is not None and last.is_summary:
            return
        phases = PHASES.names()
        heading = self._heading("hang", silence_s, last, phases)
        try:
            self._stacks.append_stacks(heading)
        except OSError as error:
            stacks = format_stacks()
            self._report(log, silence_s, last, phases, unwritable=error)
            write_to_stderr(f"{heading}\n{stacks}\n")  # last, since its reader may be slow
        else:
            self._report(log, silence_s, last, phases)

    def _note_timer(
        self,
        log: WatchedLog,
        silence_s: float,
        phases: list[str],
        *,
        is_over: bool,
        is_explained: bool,
    ) -> None:
        """Report what the timer wrote while this thread did not run, now that it does again.

        Args:
            log: The backend.
            silence_s: Seconds without a record.
            phases: The phases that were open when it wrote, and are.
            is_over: Whether something was logged meanwhile.
            is_explained: Whether an open phase explains the silence. The timer was armed before
                that began, and knows nothing of it.
        """
        self._timer_due_s = None
        if self._stacks.size() == self._timer_size:
            return
        last = read_last_step(log.log_path, self._start)
        what = (
            "the stacks above are not those of a hang, since a phase explains the silence"
            if is_explained
            else "the stacks above are those of a hang in which no other thread could run"
        )
        with contextlib.suppress(OSError):  # the stacks were written all the same
            self._stacks.append_line(self._heading(what, silence_s, last, phases))
        if not is_explained:
            self._is_noted = not is_over
            self._report(log, silence_s, last, phases)

    def _report(
        self,
        log: WatchedLog,
        silence_s: float,
        last: LastStep | None,
        phases: list[str],
        *,
        unwritable: OSError | None = None,
    ) -> None:
        """Log the event and warn.

        Args:
            log: The backend.
            silence_s: Seconds without a record.
            last: The last step.
            phases: The open phases.
            unwritable: Why the stacks are on standard error instead of in the file.
        """
        step = None if last is None else last.step
        file, where = {"file": self._stacks.path}, f"are in {self._stacks.path}"
        if unwritable is not None:
            reason, advice = explain_unwritable(unwritable)
            file = {}
            where = (
                f"are on standard error, since {self._stacks.path} cannot be written ({reason}: "
                f"{advice})"
            )
        data = {**file, "seconds": round(silence_s, 1), "open_phases": phases}
        log.report_hang(data, step)
        self._signs = _read_signs(log)  # the event is not a sign of life
        DIAGNOSTICS.warn(
            "hang",
            f"nothing was logged for {silence_s:.0f} s{_after(step)}: the stacks of all threads "
            f"{where}; if this is not a hang, raise hang_seconds, or put what takes so long into "
            "a phase",
        )

    def _arm(self, left_s: float, now_s: float) -> None:
        """Put the timer off until this thread, if it still runs, has acted long since."""
        descriptor = self._stacks.open()
        timeout_s = left_s + 2 * self._look_s + _LATE_S
        self._timer_size = self._stacks.size()
        if self._timer.arm(timeout_s, descriptor):
            self._timer_due_s = now_s + timeout_s
            return
        self._timer_due_s = None
        self._tell_once(
            "hang timer",
            "the timer of faulthandler seems to be in use, and is left alone: a hang in native "
            "code that holds the GIL leaves no stacks",
        )

    def _disarm(self) -> None:
        self._timer_due_s = None
        self._timer.cancel()

    def _heading(
        self, what: str, silence_s: float, last: LastStep | None, phases: list[str]
    ) -> str:
        """Return the line that says whose stacks these are, and when it was."""
        topology = self._topology
        now = datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")
        step = "unknown" if last is None else json.dumps(last.step)[:80]
        return (
            f"--- {now} {what}: run {topology.run}, rank {topology.rank}, pid {os.getpid()}, host "
            f"{topology.host}, nothing logged for {silence_s:.1f} s, last step {step}, open "
            f"phases: {', '.join(phases) or 'none'}"
        )

    def _tell_unwritable(self, error: OSError) -> None:
        reason, advice = explain_unwritable(error)
        self._tell_once(
            "hang stacks",
            f"{self._stacks.path} cannot be written ({reason}): a hang leaves its stacks on "
            f"standard error, and none while native code holds the GIL; {advice}",
        )

    def _tell_once(self, reason: str, message: str) -> None:
        if reason not in self._told:
            self._told.add(reason)
            DIAGNOSTICS.warn(reason, message)


def _read_signs(log: WatchedLog) -> tuple[int, int]:
    """Return what changes with each record, and with each phase that ends."""
    return DIAGNOSTICS.log_ns, log.log_end


def _explain(phases: list[str]) -> bool:
    """Return whether open phases explain a silence: one of them interrupts the training."""
    return not PARTS_OF_A_STEP.issuperset(phases)


def _after(step: Any) -> str:
    return "" if step is None else f" after step {json.dumps(step)[:80]}"

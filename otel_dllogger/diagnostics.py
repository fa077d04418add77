"""What the package could not do: counted always, said at a limited rate, raised never.

Logging must not fail training, so a fault becomes a number
(``dllogger_dropped_total{reason}``) and at most one warning line per reason and
minute on the standard ``otel_dllogger`` logger.

The line is written by a thread of the package's own. A handler of ``logging`` is foreign
code: it may be slow, call the package, or wait for a lock that another thread of training
holds. On that thread it meets none of the package's locks, and keeps no training waiting.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from _thread import get_ident
from collections import deque
from typing import TYPE_CHECKING

from otel_dllogger.runtime import fork
from otel_dllogger.runtime.interruptions import let_through
from otel_dllogger.runtime.locks import MAIN_THREAD, Impatient, Patient
from otel_dllogger.runtime.wakers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

WARNING_INTERVAL_S = 60.0
"""Seconds between two warnings of one reason."""

MAX_UNSAID = 100
"""Warnings that wait to be written at most."""

MAX_REASONS = 1_000
"""Reasons whose last warning is remembered."""

DRAIN_S = 2.0
"""Seconds that the end of a process waits for warnings to be written."""

RAISE_VARIABLE = "OTEL_DLLOGGER_RAISE"
"""Set to 1, it turns caught faults back into exceptions: for tests, not for training."""

REASONS = {
    "backend_failed": "a backend or a user's function raised",
    "discovery": "a discovery file could not be written",
    "disk_full": "lines that a full or broken disk did not take",
    "endpoint": "no port could be had for the metrics page",
    "file_replaced": "lines that went with a log file that was deleted under us",
    "format_failed": "a format function or format string raised; the plain value was printed",
    "instrument": "OpenTelemetry refused an instrument",
    "scrape": "a metrics page could not be rendered",
    "series_limit": "values of series beyond the limit",
    "statistic_failed": "a statistic of smoothed scalars could not be computed",
    "stdout": "lines that the standard output did not take",
    "torn_line": "a log file ended in half a line, from an earlier kill",
}
"""The values of the ``reason`` label; each exists at 0 from the start, so that rates work."""


class Faults:
    """Count what was not written or not exported, and warn about it now and then.

    Any thread may call any method at any time, and so may a signal handler: none waits for a
    lock, and none but ``drain`` waits at all.

    Args:
        clock: Monotonic seconds, for the rate of warnings.

    Attributes:
        dropped: What was lost, by reason.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent = False
        self._warned_at: dict[str, float] = {}
        self._uncounted: deque[tuple[str, int]] = deque()
        self._counting = threading.RLock()
        self._patient = Patient(self._counting)
        self._is_counting = False
        self._unsaid: deque[str] = deque()
        self._voice = Worker("otel-dllogger-warnings", self._speak)
        self.dropped = dict.fromkeys(REASONS, 0)
        fork.register(self)

    def after_fork_in_child(self) -> None:
        """Say nothing from now on: whatever is lost here is not the training's."""
        self._silent = True
        self._counting = threading.RLock()
        self._patient = Patient(self._counting)
        self._is_counting = False
        self._unsaid.clear()

    def drop(self, reason: str, message: str, *, count: int = 1) -> None:
        """Count a loss and warn about it, at most once a minute per reason.

        Args:
            reason: One of ``REASONS``.
            message: One line for the user: the value, the rule, the next step.
            count: How many records, values or series were lost.
        """
        self._uncounted.append((reason, count))
        try:
            with self._counting if get_ident() == MAIN_THREAD.ident else self._patient:
                if not self._is_counting:  # else a signal handler came in the middle of a sum
                    self._is_counting = True
                    try:
                        while self._uncounted:
                            name, more = self._uncounted[0]
                            self.dropped[name] = self.dropped.get(name, 0) + more
                            self._uncounted.popleft()
                    finally:
                        self._is_counting = False
        except Impatient:  # it is counted with the next one
            pass
        self.warn(reason, f'{message} (counted in dllogger_dropped_total{{reason="{reason}"}})')

    def warn(self, reason: str, message: str) -> None:
        """Warn without counting, at most once a minute per reason."""
        now_s = self._clock()
        warned_at = self._warned_at.get(reason)
        if self._silent or (warned_at is not None and now_s - warned_at < WARNING_INTERVAL_S):
            return
        if len(self._warned_at) >= MAX_REASONS:  # some have a name in them
            self._warned_at.clear()
        self._warned_at[reason] = now_s
        if len(self._unsaid) < MAX_UNSAID:
            self._unsaid.append(message)
        self._voice.ask()

    def caught(self, reason: str, where: str, error: Exception) -> None:
        """Account for an exception that stopped at the fault barrier.

        Args:
            reason: The value of the ``reason`` label.
            where: What was being done, for the warning.
            error: What was raised.

        Raises:
            Exception: ``error`` itself, where a signal handler of the application raised it,
                or where ``OTEL_DLLOGGER_RAISE=1``.
        """
        let_through(error)
        if os.environ.get(RAISE_VARIABLE) == "1":
            raise error
        self.drop(reason, f"{where}: {type(error).__name__}: {_one_line(error)}")

    def drain(self, most_s: float = DRAIN_S) -> None:
        """Wait until the warnings so far are written, at the end of a process for example.

        Args:
            most_s: Seconds to wait at most, for a handler that is slow.
        """
        if not self._unsaid or self._silent:
            return
        if self._voice.ask():
            self._voice.run(most_s)
        else:
            self._speak()

    def _speak(self) -> None:
        import logging  # noqa: PLC0415 - 10 ms that most runs never need

        logger = logging.getLogger("otel_dllogger")
        while self._unsaid:
            message = self._unsaid[0]
            with contextlib.suppress(Exception):  # a broken handler is not training's problem
                # Where logging is not configured, a line does not show by itself whose it is.
                logger.warning(
                    "%s", message if logger.hasHandlers() else f"otel_dllogger: {message}"
                )
            with contextlib.suppress(IndexError):
                self._unsaid.popleft()


def _one_line(error: Exception) -> str:
    from otel_dllogger.redaction import redact  # noqa: PLC0415 - of use after a fault only

    try:
        return redact(" ".join(str(error).split())[:300])
    except Exception as another:
        let_through(another)
        return "(its message cannot be shown)"


FAULTS = Faults()
"""The faults of this process: every backend counts here, the metrics show it."""

# Registered before any backend's own, so it runs after them all: they have things to say.
atexit.register(FAULTS.drain)


class LogTime:
    """Add up nanoseconds spent in ``log``.

    Additions of two threads at one moment may lose one of the two: a lock would cost
    more than what it counts.
    """

    __slots__ = ("nanoseconds",)

    def __init__(self) -> None:
        self.nanoseconds = 0


LOG_TIME = LogTime()
"""The sum over all Loggers of this process."""

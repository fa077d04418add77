"""What the package could not do: counted always, said at a limited rate, raised never.

Logging must not fail training, so a fault becomes a number
(``dllogger_dropped_total{reason}``) and at most one warning line per reason and
minute on the standard ``otel_dllogger`` logger.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WARNING_INTERVAL_S = 60.0
"""Seconds between two warnings of one reason."""

MAX_UNSAID = 100
"""Warnings that wait for the end of a call at most."""

RAISE_VARIABLE = "OTEL_DLLOGGER_RAISE"
"""Set to 1, it turns caught faults back into exceptions: for tests, not for training."""

REASONS = {
    "backend_failed": "a backend or a user's function raised",
    "discovery": "a discovery file could not be written",
    "disk_full": "lines that a full or broken disk did not take",
    "endpoint": "no port could be had for the metrics page",
    "file_replaced": "the log file was moved or deleted under us",
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

    Args:
        clock: Monotonic seconds, for the rate of warnings.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._silent = False
        self._warned_at: dict[str, float] = {}
        self.dropped = dict.fromkeys(REASONS, 0)
        self.unsaid: deque[tuple[str, str]] = deque()
        os.register_at_fork(after_in_child=self._after_fork_in_child)

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        self._silent = True

    def drop_quietly(self, reason: str, message: str, *, count: int = 1) -> None:
        """Count a loss where locks are held, and leave the warning to ``speak``.

        A handler of ``logging`` may wait for anything, even for a thread that waits here.

        Args:
            reason: One of ``REASONS``.
            message: As for ``drop``.
            count: As for ``drop``.
        """
        with self._lock:
            self.dropped[reason] += count
            if len(self.unsaid) < MAX_UNSAID:
                self.unsaid.append((reason, f"{message} {_counted(reason)}"))

    def warn_quietly(self, reason: str, message: str) -> None:
        """Leave a warning to ``speak``, as ``drop_quietly`` does."""
        if len(self.unsaid) < MAX_UNSAID:
            self.unsaid.append((reason, message))

    def speak(self) -> None:
        """Give the warnings that were left; to be called where no lock is held."""
        while self.unsaid:
            try:
                reason, message = self.unsaid.popleft()
            except IndexError:  # another thread was quicker
                return
            self.warn(reason, message)

    def drop(self, reason: str, message: str, *, count: int = 1) -> None:
        """Count a loss and warn about it, at most once a minute per reason.

        Args:
            reason: One of ``REASONS``.
            message: One line for the user: the value, the rule, the next step.
            count: How many records, values or series were lost.
        """
        with self._lock:
            self.dropped[reason] += count
        self.warn(reason, f"{message} {_counted(reason)}")

    def warn(self, reason: str, message: str) -> None:
        """Warn without counting, at most once a minute per reason."""
        with self._lock:
            now_s = self._clock()
            warned_at = self._warned_at.get(reason)
            if self._silent or (warned_at is not None and now_s - warned_at < WARNING_INTERVAL_S):
                return
            self._warned_at[reason] = now_s
        import logging  # noqa: PLC0415 - 10 ms that most runs never need

        with contextlib.suppress(Exception):  # a broken handler is not training's problem
            logger = logging.getLogger("otel_dllogger")
            # Where logging is not configured, a line does not say by itself who speaks.
            logger.warning("%s", message if logger.hasHandlers() else f"otel_dllogger: {message}")

    def caught(self, reason: str, where: str, error: Exception) -> None:
        """Account for an exception that stopped at the fault barrier.

        Args:
            reason: The value of the ``reason`` label.
            where: What was being done, for the warning.
            error: What was raised.

        Raises:
            Exception: ``error`` itself, where ``OTEL_DLLOGGER_RAISE=1``.
        """
        if os.environ.get(RAISE_VARIABLE) == "1":
            raise error
        self.drop(reason, f"{where}: {type(error).__name__}: {_one_line(error)}")


def _counted(reason: str) -> str:
    return f'(counted in dllogger_dropped_total{{reason="{reason}"}})'


def _one_line(error: Exception) -> str:
    try:
        return " ".join(str(error).split())[:300]
    except Exception:
        return "(its message cannot be shown)"


FAULTS = Faults()
"""The faults of this process: every backend counts here, the metrics show it."""

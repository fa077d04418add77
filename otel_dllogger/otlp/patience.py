"""Wait until a collector has answered, where training does not wait for it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from otel_dllogger.otlp.transport import Answer, Outcome

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from otel_dllogger.otlp.exporter import Exporter


class Stopped(BaseException):
    """Raised if the process should end before a collector has taken everything.

    It is not an Exception, so that code that catches the faults of single lines lets it through.
    """


class Refused(Stopped):
    """Raised if a collector refuses the points for good."""


class PatientAttempts:
    """Attempts to send a request, until a collector takes or refuses it.

    Args:
        exporter: Makes one attempt.
        what: What is sent, in words.
        stopping: Set when the process should end.
        tell: Takes a line for the user about a failure.
        patience_s: Seconds of failures after which it gives up; None for never.
    """

    def __init__(
        self,
        exporter: Exporter,
        *,
        what: str,
        stopping: threading.Event,
        tell: Callable[[str], object],
        patience_s: float | None = None,
    ) -> None:
        self._exporter = exporter
        self._what = what
        self._stopping = stopping
        self._tell = tell
        self._patience_s = math.inf if patience_s is None else patience_s

    def send(self, request: bytes) -> Answer:
        """Send a request, as often as it takes, and return the answer.

        Raises:
            Stopped: If the process should end, or ``patience_s`` has passed.
        """
        exporter, since_s = self._exporter, time.monotonic()
        while True:
            answer = exporter.attempt(request)
            if answer.outcome is not Outcome.RETRY:
                return answer
            if exporter.failures == 1:
                self._tell(f"no collector accepts the {self._what}, trying again: {answer.message}")
            wait_s = exporter.wait_s
            if time.monotonic() - since_s + wait_s > self._patience_s:
                raise Stopped(answer.message)
            if self._stopping.wait(wait_s):
                raise Stopped(answer.message)

"""Exporters, which send requests to one collector and retry with increasing waits."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp.transport import Answer, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.otlp.transport import Transport

FIRST_WAIT_S = 0.5
"""Seconds before the first retry of a request; doubled each time, with jitter."""

LONGEST_WAIT_S = 30.0

MAX_RETRY_AFTER_S = 300.0
"""The longest wait that a collector may ask for; anything longer is probably a mistake."""

_MAX_DOUBLINGS = 30


def backoff_s(failures: int, retry_after_s: float | None) -> float:
    """Return the seconds until the next attempt, with jitter so that ranks do not come at once.

    Args:
        failures: How many attempts failed before the last one.
        retry_after_s: The wait that the collector asked for, None if it did not.
    """
    wait_s: float = min(FIRST_WAIT_S * 2 ** min(failures, _MAX_DOUBLINGS), LONGEST_WAIT_S)
    wait_s *= random.uniform(0.5, 1.0)  # noqa: S311 - not a secret
    if retry_after_s is None:
        return wait_s
    return min(max(retry_after_s, wait_s), MAX_RETRY_AFTER_S)


class Exporter:
    """An exporter to one collector, which makes one attempt at a time and knows when it is due.

    Args:
        transport: Sends a request.
        timeout_s: Seconds that a request may take.
        misdirected: The outcome of a request for which the address or the permission is wrong:
            ``RETRY`` to wait until that is mended, ``REFUSED``, or ``MISDIRECTED`` as it is.
        clock: Monotonic seconds.

    Attributes:
        failures: How many consecutive attempts failed in a way that may pass.
        due_s: When the next attempt is due, by the clock.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float,
        misdirected: Outcome = Outcome.REFUSED,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._misdirected = misdirected
        self._clock = clock
        self.failures = 0
        self.due_s = clock()

    def attempt(self, request: bytes, most_s: float = math.inf) -> Answer:
        """Send a request once.

        Args:
            request: The request.
            most_s: The longest time that it may take, in seconds, even if ``timeout_s`` is more.

        Returns:
            The answer; if its outcome is ``RETRY``, a retry is due after ``wait_s``. An exception
            from the transport may pass, like a collector's failures.
        """
        try:
            answer = self._transport.send(request, min(self._timeout_s, most_s))
        except Exception as error:
            DIAGNOSTICS.caught("backend_failed", "a request to a collector", error)
            answer = Answer(Outcome.RETRY, message=f"{type(error).__name__}: {error}")
        if answer.outcome is Outcome.MISDIRECTED:
            answer = dataclasses.replace(answer, outcome=self._misdirected)
        if answer.outcome is Outcome.RETRY:
            self.due_s = self._clock() + backoff_s(self.failures, answer.retry_after_s)
            self.failures += 1
        else:
            self.failures = 0
        return answer

    @property
    def wait_s(self) -> float:
        """Return the seconds until the next attempt is due; 0 or less if it is due now."""
        return self.due_s - self._clock()

    def hasten(self) -> None:
        """Make the next attempt due now."""
        self.due_s = self._clock()

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

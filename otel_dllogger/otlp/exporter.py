"""Exporters, which send requests to one collector and retry with increasing waits."""

from __future__ import annotations

import dataclasses
import math
import random
import time
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import count_of
from otel_dllogger.otlp.batches import MAX_POINTS, Batch
from otel_dllogger.otlp.transport import Answer, Outcome

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from otel_dllogger.metrics.data_points import Series
    from otel_dllogger.otlp.batches import ResourceKey
    from otel_dllogger.otlp.encoder import Encoder
    from otel_dllogger.otlp.transport import Transport

FIRST_WAIT_S = 0.5
"""Seconds before the first retry of a request; doubled each time, with jitter."""

LONGEST_WAIT_S = 30.0

MAX_RETRY_AFTER_S = 300.0
"""The longest wait that a collector may ask for; anything longer is probably a mistake."""

_MAX_DOUBLINGS = 30
_TELL_INTERVAL_S = 60.0


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


class Stopped(BaseException):
    """Raised if the process should end before a collector has taken all points.

    It is not an Exception, so that code that catches the faults of single lines lets it through.
    """


class Refused(Stopped):
    """Raised if a collector refuses the points for good."""


class PatientExporter:
    """An exporter for points of many ranks that waits until a collector has taken them.

    It drops nothing for lack of room: the reader of the logs waits, and the logs keep what it
    has not read yet.

    Args:
        transport: Sends a request.
        encoder: Encodes it.
        timeout_s: Seconds that a request may take.
        stopping: Set when the process should end.
        tell: Takes a line for the user about a failure or a refusal.
        patience_s: Seconds of failures after which it gives up; None for never.
        skips_refused: Whether to go on after a request that a collector refuses as a whole;
            otherwise it gives up, and the points do not count as sent.

    Attributes:
        sent: The number of points that were taken.
        refused: The number of points that a collector refused.
        on_answer: Called when there are no unsent points left.
    """

    def __init__(
        self,
        transport: Transport,
        encoder: Encoder,
        *,
        timeout_s: float,
        stopping: threading.Event,
        tell: Callable[[str], object],
        patience_s: float | None = None,
        skips_refused: bool = True,
    ) -> None:
        misdirected = Outcome.RETRY if skips_refused else Outcome.REFUSED
        self._exporter = Exporter(transport, timeout_s=timeout_s, misdirected=misdirected)
        self._encoder = encoder
        self._stopping = stopping
        self._tell = tell
        self._patience_s = math.inf if patience_s is None else patience_s
        self._skips_refused = skips_refused
        self._told_at_s = -_TELL_INTERVAL_S
        self._batch: Batch | None = None
        self.sent = 0
        self.refused = 0
        self.on_answer: Callable[[], object] = lambda: None

    def add(self, resource: ResourceKey, points: Iterable[tuple[Series, int, float]]) -> None:
        """Add the points of one item; some may be sent at once.

        Args:
            resource: The resource that they belong to.
            points: The series, time in microseconds since the Unix epoch, and value of each.

        Raises:
            Stopped: If the process should end, or ``patience_s`` has passed.
        """
        for time_us, group in groupby(points, itemgetter(1)):
            values = ((series, value) for series, _time_us, value in group)
            while part := list(islice(values, MAX_POINTS)):
                batch = self._batch
                if batch is not None and not batch.has_room(time_us, len(part)):
                    if self._stopping.is_set():
                        raise Stopped("the process is about to end")
                    self.flush()
                    batch = None
                if batch is None:
                    batch = self._batch = Batch(time_us)
                batch.add(resource, time_us, part)

    def forget(self, resource: ResourceKey) -> None:
        """Forget a resource whose points were all sent."""
        self._encoder.forget(resource)

    def flush(self) -> None:
        """Send all points, and wait until a collector has taken them.

        Raises:
            Stopped: If the process should end, or ``patience_s`` has passed.
        """
        batch = self._batch
        if batch is not None:
            self._count(self._send(self._encoder.encode(batch)), batch.points)
            self._batch = None
            self.on_answer()

    def _send(self, request: bytes) -> Answer:
        exporter, since_s = self._exporter, time.monotonic()
        while True:
            answer = exporter.attempt(request)
            if answer.outcome is Outcome.REFUSED and not self._skips_refused:
                raise Refused(answer.message.rstrip(": "))
            if answer.outcome is not Outcome.RETRY:
                return answer
            if exporter.failures == 1:
                self._tell(f"no collector accepts the metrics, trying again: {answer.message}")
            wait_s = exporter.wait_s
            if time.monotonic() - since_s + wait_s > self._patience_s:
                raise Stopped(answer.message)
            if self._stopping.wait(wait_s):
                raise Stopped(answer.message)

    def _count(self, answer: Answer, points: int) -> None:
        refused = min(answer.refused, points) if answer.outcome is Outcome.TAKEN else points
        now_s = time.monotonic()
        if refused and now_s >= self._told_at_s + _TELL_INTERVAL_S:
            self._told_at_s = now_s
            why = answer.message.rstrip(": ")
            self._tell(
                f"a collector refused {count_of(self.refused + refused, 'point')} so far: {why}"
            )
        self.refused += refused
        self.sent += points - refused

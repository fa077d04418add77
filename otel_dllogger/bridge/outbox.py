"""Points of many ranks on their way to a collector: kept until it has taken them.

Nothing is ever dropped for want of room: whoever reads the logs waits, and the logs keep
what was not yet read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.resource import rank_resource
from otel_dllogger.otlp.backoff import backoff_s
from otel_dllogger.otlp.batches import MAX_POINTS, MAX_SPAN_US, Batch
from otel_dllogger.otlp.encoder import Encoder
from otel_dllogger.otlp.transport import Answer

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.ranks import Point, Rank
    from otel_dllogger.otlp.transport import Transport


_TELL_INTERVAL_S = 60.0


class Stopped(BaseException):
    """Say that the process is to end while a collector did not take what there is.

    No Exception: what is to catch the faults of single lines must let it through.
    """


class Refused(Stopped):
    """Say that a collector does not want what there is, now or later."""


class Outbox:
    """Send points in requests of a bounded size and span.

    Args:
        transport: Sends a request.
        timeout_s: Seconds that a request may take.
        stopping: Set when the process is to end.
        tell: Takes a line for the user: what failed, and what was refused.
        patience_s: Seconds of failures after which it gives up; None: never.
        skips_refused: Go on after a request that a collector refuses as a whole; otherwise it
            gives up, and the points are not as good as sent.

    Attributes:
        sent: Points that were taken.
        refused: Points that a collector did not want.
        on_answer: Called when all points that were added are off.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout_s: float,
        stopping: threading.Event,
        tell: Callable[[str], object],
        patience_s: float | None = None,
        skips_refused: bool = True,
    ) -> None:
        self._transport = transport
        self._timeout_s = timeout_s
        self._stopping = stopping
        self._tell = tell
        self._patience_s = patience_s
        self._skips_refused = skips_refused
        self._told_at_s = -_TELL_INTERVAL_S
        self._encoders: dict[tuple[str, int], Encoder] = {}
        self._batches: dict[Rank, Batch] = {}
        self._points = 0
        self._first_us = 0
        self.sent = 0
        self.refused = 0
        self.on_answer: Callable[[], object] = lambda: None

    def add(self, rank: Rank, points: Iterable[Point]) -> None:
        """Take the points of one item; they may be sent at once.

        Args:
            rank: The rank that they are of.
            points: Series, microseconds since the Unix epoch, values.

        Raises:
            Stopped: If the process is to end, or patience did.
        """
        for series, time_us, value in points:
            batch = self._batches.get(rank)
            if self._points and not self._belongs(batch, time_us):
                if self._stopping.is_set():
                    raise Stopped("the process is to end")
                self.flush()
                batch = None
            if not self._points:
                self._first_us = time_us
            if batch is None:
                batch = self._batches[rank] = Batch(time_us)
            batch.add(series, time_us, value)
            batch.last_us = time_us
            self._points += 1

    def forget(self, rank: Rank) -> None:
        """Keep nothing of a rank whose points were all sent."""
        self._encoders.pop((rank.run, rank.rank), None)

    def _belongs(self, batch: Batch | None, time_us: int) -> bool:
        """Tell whether a point goes into the request that is being filled."""
        if abs(time_us - self._first_us) > MAX_SPAN_US:
            return False
        # A receiver that keeps milliseconds must see the points of one together.
        same = batch is not None and batch.last_us // 1000 == time_us // 1000
        return self._points < MAX_POINTS or (same and self._points < 2 * MAX_POINTS)

    def flush(self) -> None:
        """Send what there is, until a collector has taken it.

        Raises:
            Stopped: If the process is to end, or patience did.
        """
        if not self._points:
            return
        # A request of several messages is the messages one after the other: each has a
        # resource of its own.
        request = b"".join(map(self._encode, self._batches, self._batches.values()))
        answer = self._send(request)
        self._count(answer)
        self._batches.clear()
        self._points = 0
        self.on_answer()

    def _encode(self, rank: Rank, batch: Batch) -> bytes:
        """Return the points of a rank as a message; none of what cannot be one."""
        try:
            key = (rank.run, rank.rank)
            encoder = self._encoders.get(key)
            if encoder is None:
                encoder = self._encoders[key] = Encoder(rank_resource(*key))
            return encoder.encode(batch)
        except Exception as error:  # the other ranks go on
            DIAGNOSTICS.caught("backend_failed", f"points of {rank.run}, rank {rank.rank}", error)
            return b""

    def _try(self, request: bytes) -> Answer:
        """Send a request once; whatever is raised may pass, as a collector's failures do."""
        try:
            return self._transport.send(request, self._timeout_s)
        except Exception as error:
            DIAGNOSTICS.caught("backend_failed", "a request to a collector", error)
            return Answer(taken=False, retry=True, message=f"{type(error).__name__}: {error}")

    def _send(self, request: bytes) -> Answer:
        failures, since_s = 0, time.monotonic()
        while True:
            answer = self._try(request)
            waits = answer.retry or (answer.misdirected and self._skips_refused)
            if answer.taken or (not waits and self._skips_refused):
                return answer
            if not waits:
                raise Refused(answer.message.rstrip(": "))
            if failures == 0:
                self._tell(f"no collector takes the metrics, trying again: {answer.message}")
            wait_s = backoff_s(failures, answer.retry_after_s)
            failures += 1
            tried_s = time.monotonic() - since_s
            if self._patience_s is not None and tried_s + wait_s > self._patience_s:
                raise Stopped(answer.message)
            if self._stopping.wait(wait_s):
                raise Stopped(answer.message)

    def _count(self, answer: Answer) -> None:
        refused = min(answer.refused, self._points) if answer.taken else self._points
        now_s = time.monotonic()
        if refused and now_s >= self._told_at_s + _TELL_INTERVAL_S:
            self._told_at_s = now_s
            why = answer.message.rstrip(": ")
            self._tell(f"a collector refused {self.refused + refused} points so far: {why}")
        self.refused += refused
        self.sent += self._points - refused

"""The thread that sends: batch after batch, again after a failure, and not for ever at exit."""

from __future__ import annotations

import math
import random
import threading
import time
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp.backoff import backoff_s
from otel_dllogger.otlp.transport import Answer
from otel_dllogger.runtime.closing import CLOSE_S
from otel_dllogger.runtime.wakers import Waker

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.otlp.batches import Backlog, Batch
    from otel_dllogger.otlp.encoder import Encoder
    from otel_dllogger.otlp.replay import Replay
    from otel_dllogger.otlp.transport import Transport

THREAD_NAME = "otel-dllogger-otlp"

EXIT_S = CLOSE_S
"""Seconds that a close takes at most, whatever the collector does."""

_ATTEMPTS_AT_EXIT = 3


class Sender:
    """Drain the queue into requests, in a thread of its own.

    Args:
        replay: Turns what was logged into points.
        backlog: Where it puts them.
        encoder: Turns a batch into bytes.
        transport: Sends the bytes.
        interval_s: Seconds that a value waits for others to share a request, about.
        timeout_s: Seconds that a request may take.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        replay: Replay,
        backlog: Backlog,
        encoder: Encoder,
        transport: Transport,
        *,
        interval_s: float,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replay = replay
        self._backlog = backlog
        self._encoder = encoder
        self._transport = transport
        self._interval_s = interval_s
        self._timeout_s = timeout_s
        self._clock = clock
        self._waker = Waker()
        # Over what is being sent, never held while it is; reentrant for signal handlers.
        self._lock = threading.RLock()
        self._sending: Batch | None = None
        self._failures = 0
        self._send_at_s = 0.0
        self._hurry = False
        self._hurried_s: float | None = None  # since when, without an answer
        self._close_by_s: float | None = None
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Let what was logged be sent now; wait for nothing."""
        self._waker.wake()

    def hurry(self) -> None:
        """Send now what there is, figures as well; wait for nothing.

        Where no answer comes, the time until ``begin_close`` counts for ``EXIT_S``.
        """
        if self._close_by_s is None:
            if self._hurried_s is None:
                self._hurried_s = self._clock()
            self._hurry = True
            self._waker.wake()

    def begin_close(self) -> None:
        """Send what there is and no more, for ``EXIT_S`` at most; wait for nothing."""
        if self._close_by_s is None:
            hurried_s = self._hurried_s
            begun_s = self._clock() if hurried_s is None else hurried_s
            self._close_by_s = begun_s + EXIT_S
            self._waker.wake()

    def close(self) -> int:
        """Wait until all is sent, until ``EXIT_S`` after the beginning at most.

        Returns:
            How many logged values no collector has taken. One that hangs may have got those
            of the request that is under way.
        """
        self.begin_close()
        self._thread.join(max(self._left_s(), 0.0))
        with self._lock:
            self._given_up = True
            lost = self._replay.close() + self._backlog.logged
            if self._sending is not None:
                lost += self._sending.logged
        self._transport.close()
        return lost

    def _run(self) -> None:
        while True:
            self._waker.wait(self._wait_s())
            if self._close_by_s is not None:
                break
            self._try(self._cycle)
        self._try(self._finish)

    def _try(self, do: Callable[[], None]) -> None:
        try:
            do()
        except Exception as error:
            DIAGNOSTICS.caught("backend_failed", "OTLPBackend", error)

    def _cycle(self) -> None:
        hurry, self._hurry = self._hurry, False
        if hurry:
            self._send_at_s = 0.0
        self._replay.take(observe=hurry)
        self._send_all()

    def _finish(self) -> None:
        """Send the rest, without a second try where the collector was not there before."""
        attempts = 1 if self._failures else _ATTEMPTS_AT_EXIT
        self._send_at_s = 0.0
        self._replay.take(observe=True)
        while self._backlog and attempts and not self._given_up:
            self._send_all()
            attempts -= 1
            wait_s = self._send_at_s - self._clock()
            if self._failures and attempts:
                if wait_s > self._left_s():
                    return
                self._waker.wait(wait_s)

    def _left_s(self) -> float:
        """Return the seconds until the end of closing, endless before it has begun."""
        return math.inf if self._close_by_s is None else self._close_by_s - self._clock()

    def _wait_s(self) -> float:
        """Return how long to wait; the ranks of a run should not all send at one moment."""
        interval_s = self._interval_s * random.uniform(0.8, 1.2)  # noqa: S311 - no secret
        if not self._failures:
            return interval_s
        # What is logged is taken meanwhile, so that the queue does not fill.
        return min(self._send_at_s - self._clock(), interval_s)

    def _send_all(self) -> None:
        """Send the batches that there are now; those that come meanwhile grow until later."""
        for _ in range(len(self._backlog)):
            if self._clock() < self._send_at_s or (left_s := self._left_s()) <= 0:
                return
            with self._lock:
                if self._given_up or not self._backlog:
                    return
                batch = self._sending = self._backlog.take_oldest()
            answer = self._send(batch, min(left_s, self._timeout_s))
            with self._lock:
                self._sending = None
                if self._given_up:
                    return
                if not answer.taken and answer.retry:
                    self._backlog.put_back(batch)
            if not answer.taken and answer.retry:
                self._failed(answer)
                return
            self._failures = 0
            self._hurried_s = None
            self._read(answer, batch)
            if self._close_by_s is None:
                self._replay.take()

    def _send(self, batch: Batch, timeout_s: float) -> Answer:
        try:
            return self._transport.send(self._encoder.encode(batch), timeout_s)
        except Exception as error:  # a bug: no second try would change it
            DIAGNOSTICS.caught("backend_failed", "OTLPBackend cannot send a batch", error)
            return Answer(taken=False, message="a batch that cannot be sent")

    def _read(self, answer: Answer, batch: Batch) -> None:
        """Count what a collector did not want; sending it again would change nothing."""
        if not answer.taken:
            self._refused(batch.logged, answer.message)
        elif answer.refused:
            self._refused(min(answer.refused, batch.points), answer.message)
        elif answer.message:
            DIAGNOSTICS.warn("otlp_message", f"the collector says: {answer.message}")

    def _refused(self, count: int, message: str) -> None:
        if count:
            DIAGNOSTICS.count("otlp_refused", f"a collector refused values: {message}", count=count)

    def _failed(self, answer: Answer) -> None:
        """Say when to try again."""
        wait_s = backoff_s(self._failures, answer.retry_after_s)
        self._failures += 1
        self._send_at_s = self._clock() + wait_s
        if self._failures > 1:  # once is a restart, or a connection that was idle for long
            DIAGNOSTICS.warn(
                "otlp_outage",
                f"no collector takes the metrics, they are kept and sent later: {answer.message}",
            )

"""The thread that sends batches, for a limited time at exit."""

from __future__ import annotations

import math
import random
import threading
import time
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp.batches import Batching, SomeBatch
from otel_dllogger.otlp.transport import Answer, Outcome
from otel_dllogger.runtime.closing import CLOSE_S
from otel_dllogger.runtime.wakers import Waker

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.otlp.batches import Backlog
    from otel_dllogger.otlp.exporter import Exporter

EXIT_S = CLOSE_S
"""The longest time that a close takes, in seconds, whatever the collector does."""

_ATTEMPTS_AT_EXIT = 3


Encoded_contra = TypeVar("Encoded_contra", bound=Batching, contravariant=True)


class Replaying(Protocol):
    """What turns a queue into batches."""

    def take(self, *, observe: bool = False) -> None:
        """Take everything that was queued so far."""

    def close(self) -> int:
        """Accept no more entries; return how much of what was logged is in no batch."""


class Encoding(Protocol[Encoded_contra]):
    """What turns a batch into a request."""

    def encode(self, batch: Encoded_contra) -> bytes:
        """Return the request, empty if nothing of the batch can be encoded."""


class Sender(Generic[SomeBatch]):
    """A sender that turns the queue into requests, on a thread of its own.

    Args:
        replay: Turns logged entries into batches.
        backlog: Where the batches go.
        encoder: Turns a batch into bytes.
        exporter: Sends the bytes.
        interval_s: Roughly the time that a value waits to share a request with others, in
            seconds.
        clock: Monotonic seconds.
    """

    THREAD_NAME = "otel-dllogger-otlp"
    NOUN = "metrics"
    UNITS = "values"

    def __init__(
        self,
        replay: Replaying,
        backlog: Backlog[SomeBatch],
        encoder: Encoding[SomeBatch],
        exporter: Exporter,
        *,
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._replay = replay
        self._backlog = backlog
        self._encoder = encoder
        self._exporter = exporter
        self._interval_s = interval_s
        self._clock = clock
        self._waker = Waker()
        # Protects the state of sending, but is not held while sending; reentrant for signal
        # handlers.
        self._lock = threading.RLock()
        self._sending: SomeBatch | None = None
        self._hurry = False
        self._hurried_s: float | None = None  # since when, if there was no answer yet
        self._close_by_s: float | None = None
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name=self.THREAD_NAME, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Have what was logged sent now, without waiting."""
        self._waker.wake()

    def hurry(self) -> None:
        """Have everything sent now, internal metrics included, without waiting.

        If no answer comes, the time until ``begin_close`` counts towards ``EXIT_S``.
        """
        if self._close_by_s is None:
            if self._hurried_s is None:
                self._hurried_s = self._clock()
            self._hurry = True
            self._waker.wake()

    def begin_close(self) -> None:
        """Begin to send what there is and no more, for ``EXIT_S`` at most, without waiting."""
        if self._close_by_s is None:
            hurried_s = self._hurried_s
            begun_s = self._clock() if hurried_s is None else hurried_s
            self._close_by_s = begun_s + EXIT_S
            self._waker.wake()

    def close(self) -> int:
        """Wait until everything is sent, but not longer than ``EXIT_S`` after closing began.

        Returns:
            How many logged values no collector has taken. A collector that hangs may have
            received those of the current request.
        """
        self.begin_close()
        self._thread.join(max(self._left_s(), 0.0))
        with self._lock:
            self._given_up = True
            lost = self._replay.close() + self._backlog.logged
            if self._sending is not None:
                lost += self._sending.logged
        self._exporter.close()
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
            self._exporter.hasten()
        self._replay.take(observe=hurry)
        self._send_all()

    def _finish(self) -> None:
        """Send the rest, without a second try if the collector was already unreachable."""
        exporter = self._exporter
        attempts = 1 if exporter.failures else _ATTEMPTS_AT_EXIT
        exporter.hasten()
        self._replay.take(observe=True)
        while self._backlog and attempts and not self._given_up:
            self._send_all()
            attempts -= 1
            if exporter.failures and attempts:
                if exporter.wait_s > self._left_s():
                    return
                self._waker.wait(exporter.wait_s)

    def _left_s(self) -> float:
        """Return the seconds until closing must end, infinite before it has begun."""
        return math.inf if self._close_by_s is None else self._close_by_s - self._clock()

    def _wait_s(self) -> float:
        """Return the seconds to wait, with jitter so that the ranks do not send all at once."""
        interval_s = self._interval_s * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
        if not self._exporter.failures:
            return interval_s
        # Entries are taken meanwhile, so that the queue does not fill up.
        return min(self._exporter.wait_s, interval_s)

    def _send_all(self) -> None:
        """Send the current batches; those that are begun meanwhile grow until the next time."""
        for _ in range(len(self._backlog)):
            if self._exporter.wait_s > 0 or (left_s := self._left_s()) <= 0:
                return
            with self._lock:
                if self._given_up or not self._backlog:
                    return
                batch = self._sending = self._backlog.take_oldest()
            answer = self._send(batch, left_s)
            with self._lock:
                self._sending = None
                if self._given_up:
                    return
                if answer.outcome is Outcome.RETRY:
                    self._backlog.put_back(batch)
            if answer.outcome is Outcome.RETRY:
                self._warn_of_outage(answer)
                return
            self._hurried_s = None
            self._read(answer, batch)
            if self._close_by_s is None:
                self._replay.take()

    def _send(self, batch: SomeBatch, most_s: float) -> Answer:
        request = self._encoder.encode(batch)
        if not request:  # a bug, which a second try would not change
            return Answer(Outcome.REFUSED, message="a batch that cannot be encoded")
        return self._exporter.attempt(request, most_s)

    def _read(self, answer: Answer, batch: SomeBatch) -> None:
        """Count what a collector refused, since sending it again would change nothing."""
        if answer.outcome is Outcome.REFUSED:
            self._refused(batch.logged, answer.message)
        elif answer.refused:
            self._refused(min(answer.refused, batch.size), answer.message)
        elif answer.message:
            DIAGNOSTICS.warn("otlp_message", f"the collector says: {answer.message}")

    def _refused(self, count: int, message: str) -> None:
        if count:
            DIAGNOSTICS.count(
                "otlp_refused", f"a collector refused {self.UNITS}: {message}", count=count
            )

    def _warn_of_outage(self, answer: Answer) -> None:
        if self._exporter.failures > 1:  # one is a restart, or an idle connection
            DIAGNOSTICS.warn(
                "otlp_outage",
                f"no collector accepts the {self.NOUN}, they are kept and sent later: "
                f"{answer.message}",
            )

"""An exporter for points of many ranks, from logs, that waits for a collector."""

from __future__ import annotations

import time
from itertools import groupby, islice
from operator import itemgetter
from typing import TYPE_CHECKING

from otel_dllogger.errors import count_of
from otel_dllogger.otlp.batches import MAX_POINTS, Batch
from otel_dllogger.otlp.exporter import Exporter
from otel_dllogger.otlp.patience import PatientAttempts, Refused, Stopped
from otel_dllogger.otlp.transport import Answer, Outcome

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from otel_dllogger.metrics.data_points import Series, Value
    from otel_dllogger.otlp.batches import ResourceKey
    from otel_dllogger.otlp.encoder import Encoder
    from otel_dllogger.otlp.log_exporter import PatientLogExporter
    from otel_dllogger.otlp.transport import Transport
    from otel_dllogger.record import Entry

_TELL_INTERVAL_S = 60.0


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
        logs: Sends what is not a metric as log records; None to leave it out.

    Attributes:
        sent: The number of points that were taken.
        refused: The number of points that a collector refused.
        on_answer: Called when there is nothing unsent left.
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
        logs: PatientLogExporter | None = None,
    ) -> None:
        misdirected = Outcome.RETRY if skips_refused else Outcome.REFUSED
        self._exporter = Exporter(transport, timeout_s=timeout_s, misdirected=misdirected)
        self._encoder = encoder
        self._attempts = PatientAttempts(
            self._exporter, what="metrics", stopping=stopping, tell=tell, patience_s=patience_s
        )
        self._logs = logs
        self._stopping = stopping
        self._tell = tell
        self._skips_refused = skips_refused
        self._told_at_s = -_TELL_INTERVAL_S
        self._batch: Batch | None = None
        self.sent = 0
        self.refused = 0
        self.on_answer: Callable[[], object] = lambda: None

    def add(self, resource: ResourceKey, points: Iterable[tuple[Series, int, Value]]) -> None:
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

    def add_entry(self, resource: ResourceKey, entry: Entry) -> None:
        """Add an entry whose points were added, if it is a log record as well.

        Args:
            resource: The resource that it belongs to.
            entry: An entry of a log.

        Raises:
            Stopped: If the process should end, or ``patience_s`` has passed.
        """
        if self._logs is not None:
            self._logs.add(resource, entry, self.flush)

    def forget(self, resource: ResourceKey) -> None:
        """Forget a resource of which everything was sent."""
        self._encoder.forget(resource)
        if self._logs is not None:
            self._logs.forget(resource)

    def flush(self) -> None:
        """Send all points and log records, and wait until a collector has taken them.

        Raises:
            Stopped: If the process should end, or ``patience_s`` has passed.
        """
        batch = self._batch
        if batch is not None:
            self._count(self._send(self._encoder.encode(batch)), batch.points)
            self._batch = None
        has_sent_logs = self._logs is not None and self._logs.flush()
        if batch is not None or has_sent_logs:
            self.on_answer()

    def _send(self, request: bytes) -> Answer:
        answer = self._attempts.send(request)
        if answer.outcome is Outcome.REFUSED and not self._skips_refused:
            raise Refused(answer.message.rstrip(": "))
        return answer

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

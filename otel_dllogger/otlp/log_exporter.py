"""Log records of many ranks, from logs, for a collector that is waited for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_dllogger.errors import count_of
from otel_dllogger.otlp.exporter import Exporter
from otel_dllogger.otlp.log_batches import LogBatch
from otel_dllogger.otlp.log_records import becomes_log_record, encode_log_record
from otel_dllogger.otlp.patience import PatientAttempts
from otel_dllogger.otlp.transport import Outcome

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from otel_dllogger.otlp.batches import ResourceKey
    from otel_dllogger.otlp.log_encoder import LogEncoder
    from otel_dllogger.otlp.transport import Transport
    from otel_dllogger.record import Entry


class PatientLogExporter:
    """An exporter for log records that waits until a collector has taken them.

    A collector that takes no logs ends it; what it refuses of them is left out. Both are told
    once, and neither ends the sending of points.

    Args:
        transport: Sends a request.
        encoder: Encodes it.
        timeout_s: Seconds that a request may take.
        stopping: Set when the process should end.
        tell: Takes a line for the user about a failure or a refusal.
        patience_s: Seconds of failures after which it gives up; None for never.
    """

    def __init__(
        self,
        transport: Transport,
        encoder: LogEncoder,
        *,
        timeout_s: float,
        stopping: threading.Event,
        tell: Callable[[str], object],
        patience_s: float | None = None,
    ) -> None:
        exporter = Exporter(transport, timeout_s=timeout_s, misdirected=Outcome.MISDIRECTED)
        self._attempts = PatientAttempts(
            exporter, what="log records", stopping=stopping, tell=tell, patience_s=patience_s
        )
        self._encoder = encoder
        self._tell = tell
        self._batch = LogBatch(0)
        self._has_ended = self._has_told = False

    def add(self, resource: ResourceKey, entry: Entry, flush: Callable[[], None]) -> None:
        """Add an entry of a log, unless it is only a metric.

        Args:
            resource: The run and the rank that it belongs to.
            entry: The entry.
            flush: Called first if there is no room; sends everything.

        Raises:
            Stopped: If the process should end, or ``patience_s`` has passed.
        """
        if self._has_ended or not becomes_log_record(entry):
            return
        run, rank = resource
        labels = {"run": run, "rank": str(rank)}
        record = encode_log_record(entry, labels, observed_us=time.time_ns() // 1000)
        if not self._batch.has_room(entry.time_us, len(record)):
            flush()
        if not self._has_ended:
            self._batch.add(resource, record)

    def forget(self, resource: ResourceKey) -> None:
        """Forget a resource whose log records were all sent."""
        self._encoder.forget(resource)

    def flush(self) -> bool:
        """Send all log records, and return whether there were any.

        Raises:
            Stopped: If the process should end, or ``patience_s`` has passed.
        """
        batch = self._batch
        if not batch.logged:
            return False
        answer = self._attempts.send(self._encoder.encode(batch))
        self._batch = LogBatch(0)
        why = answer.message.rstrip(": ")
        if answer.outcome is Outcome.MISDIRECTED:
            self._has_ended = True
            self._tell(
                f"the collector takes no logs, only metrics are sent: {why}; or set "
                "OTEL_LOGS_EXPORTER=none"
            )
        elif answer.outcome is Outcome.REFUSED or answer.refused:
            refused = batch.logged if answer.outcome is Outcome.REFUSED else answer.refused
            if not self._has_told:
                self._has_told = True
                self._tell(f"a collector refused {count_of(refused, 'log record')}: {why}")
        return True

"""The thread that sends log records, until a receiver says that it takes none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp.log_batches import LogBatch
from otel_dllogger.otlp.sender import Sender
from otel_dllogger.otlp.settings import are_logs_asked_for
from otel_dllogger.otlp.transport import Answer, Outcome

if TYPE_CHECKING:
    from typing import Any

    from otel_dllogger.otlp.log_replay import LogReplay


class LogSender(Sender[LogBatch]):
    """A sender of log records.

    It has a thread of its own, so that metrics do not wait for a receiver of logs that hangs. A
    receiver that takes no logs, as many take only metrics, ends it.
    """

    THREAD_NAME = "otel-dllogger-otlp-logs"
    NOUN = "log records"
    UNITS = "log records"

    def __init__(self, replay: LogReplay, *arguments: Any, **options: Any) -> None:
        super().__init__(replay, *arguments, **options)
        self._log_replay = replay

    def _read(self, answer: Answer, batch: LogBatch) -> None:
        if answer.outcome is not Outcome.MISDIRECTED:
            super()._read(answer, batch)
            return
        lost = batch.logged + self._log_replay.end()
        with self._lock:
            self._given_up = True
            while self._backlog:
                lost += self._backlog.take_oldest().logged
        self.begin_close()
        told = (
            "the collector takes no logs; events, parameters and info() are not sent from now on: "
            f"{answer.message}; or set OTEL_LOGS_EXPORTER=none"
        )
        # Nobody loses what nobody asked for: most receivers of metrics take no logs.
        if are_logs_asked_for():
            DIAGNOSTICS.count("otlp_refused", told, count=lost)
        else:
            DIAGNOSTICS.warn("otlp_logs", told)

"""A backend that sends every logged step over OTLP, with the time at which it was logged."""

from __future__ import annotations

import atexit
import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from otel_dllogger import arguments, settings
from otel_dllogger.diagnostics import DIAGNOSTICS, OTLP
from otel_dllogger.identity import detect_topology
from otel_dllogger.logger import RecordBackend
from otel_dllogger.metrics.step_durations import ExponentialDurations
from otel_dllogger.metrics.store import DEFAULT_MAX_SERIES, SeriesStore
from otel_dllogger.otlp.queue import QUEUE_SHARE, EntryQueue, Finish, Told
from otel_dllogger.phases import PHASES
from otel_dllogger.record import Info
from otel_dllogger.redaction import MAX_CHARACTERS
from otel_dllogger.runtime import closing
from otel_dllogger.runtime.exit_status import EXIT_STATUS
from otel_dllogger.runtime.termination import TERMINATION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.otlp.batches import Batch
    from otel_dllogger.otlp.log_sender import LogSender
    from otel_dllogger.otlp.sender import Sender
    from otel_dllogger.otlp.settings import OTLPOptions
    from otel_dllogger.record import Event, Metadata, Phase, Record

DEFAULT_MAX_QUEUE_BYTES = 64 << 20
LEAST_MAX_QUEUE_BYTES = 64 << 10
MAX_QUEUE_BYTES = 1 << 50
DEFAULT_INTERVAL_S = 5.0
MAX_INTERVAL_S = 300.0

LOGS_SHARE = 16
"""One part in this many of all room is for log records, if they are sent."""


class OTLPBackend(RecordBackend):
    """A backend that sends every step to a collector, with its own time.

    ``log`` appends to a queue and never waits. A thread sends the content of the queue, and
    retries after a failure. If no collector takes the values for so long that the queue is full,
    the oldest ones are dropped and counted as ``otlp_queue``. Values that a collector refuses
    are counted as ``otlp_refused``, and those that none had taken when the process ended as
    ``otlp_exit``.

    Names, units and labels are the same as on a metrics page. A NaN or Inf is marked as having
    no value, which ends its series until the next finite one. Epoch and iteration have a point
    at each step that changes them; the other ``dllogger_*`` metrics have one every 15 seconds
    and at the end, as if they were scraped.

    Events, parameters and ``info`` calls are sent as log records too, unless OTEL_LOGS_EXPORTER is
    ``none``, or there is an endpoint for metrics alone. A collector that takes no logs ends that
    with a warning. OTEL_EXPORTER_OTLP_LOGS_ENDPOINT sends them elsewhere; then the other
    OTEL_EXPORTER_OTLP_LOGS_* and OTEL_EXPORTER_OTLP_* variables apply to them, not the arguments.

    If an argument is not given, the OTEL_EXPORTER_OTLP_METRICS_* variable applies, else the
    OTEL_EXPORTER_OTLP_* one. With OTEL_SDK_DISABLED=true nothing is sent.

    Args:
        verbosity: The highest verbosity of a ``log`` call that is sent.
        endpoint: The collector's URL. For HTTP, ``/v1/metrics`` is appended unless it is there.
        protocol: ``http/protobuf`` or ``grpc``.
        headers: Headers of each request, for example for authorization.
        timeout_s: Seconds that one request may take.
        compression: ``none`` or ``gzip``.
        interval_s: Roughly the time that a value waits to share a request with others, in
            seconds.
        max_queue_bytes: Estimated bytes of memory for what waits to be sent.
        run: The run's name; by default the launcher's.
        rank: The rank; by default the launcher's.
        max_series: The most series; by default OTEL_DLLOGGER_MAX_SERIES, else 10,000.
        text_parameters: Whether to send parameters that are text too, as a label.
        step_histogram: Whether to send ``dllogger.step_duration``, an exponential histogram of how
            long each training step took; by default OTEL_DLLOGGER_STEP_HISTOGRAM, else not.

    Raises:
        ConfigurationError: If an argument is invalid.
        ImportError: If the packages of the extra ``otlp`` are missing.
    """

    def __init__(
        self,
        verbosity: int,
        *,
        endpoint: str | None = None,
        protocol: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        compression: str | None = None,
        interval_s: float = DEFAULT_INTERVAL_S,
        max_queue_bytes: int = DEFAULT_MAX_QUEUE_BYTES,
        run: str | None = None,
        rank: int | None = None,
        max_series: int | None = None,
        text_parameters: bool = False,
        step_histogram: bool | None = None,
    ) -> None:
        super().__init__(verbosity)
        settings.warn_of_unknown()
        arguments.text("endpoint", endpoint, step="pass an address such as 'http://localhost:4318'")
        arguments.headers("headers", headers)
        step = "pass True to export text as well, or leave it out"
        arguments.flag("text_parameters", text_parameters, step=step)
        step = f"leave it out for the default, {DEFAULT_INTERVAL_S:g}"
        interval_s = arguments.seconds("interval_s", interval_s, most=MAX_INTERVAL_S, step=step)
        max_queue_bytes = arguments.whole(
            "max_queue_bytes",
            max_queue_bytes,
            least=LEAST_MAX_QUEUE_BYTES,
            most=MAX_QUEUE_BYTES,
            step=f"leave it out for the default, {DEFAULT_MAX_QUEUE_BYTES}",
        )
        max_series = settings.max_series(max_series, DEFAULT_MAX_SERIES)
        step_histogram = settings.step_histogram(step_histogram)
        self.topology = detect_topology(run=run, rank=rank)
        # Taken once and never released: of two concurrent calls, one of which may be a signal
        # handler's, only one goes on.
        self._begun, self._closed = threading.Lock(), threading.Lock()
        self._sender: Sender[Batch] | None = None
        self._senders: tuple[Sender[Any], ...] = ()
        if settings.text(settings.SDK_DISABLED, "").lower() == "true":
            self._queue = self._log_queue = EntryQueue(max_queue_bytes, self.flush)
            self._put = self._put_log = self._queue.put
            self._queue.silence()
            return
        DIAGNOSTICS.count_from_zero(OTLP)
        from otel_dllogger.gpu.own_gpu import OWN_GPU  # noqa: PLC0415
        from otel_dllogger.otlp.settings import read_logs_options, read_options  # noqa: PLC0415

        given: dict[str, Any] = {
            "endpoint": endpoint,
            "protocol": protocol,
            "headers": headers,
            "timeout_s": timeout_s,
            "compression": compression,
        }
        options, logs_options = read_options(**given), read_logs_options(**given)
        logs_bytes = 0 if logs_options is None else max_queue_bytes // LOGS_SHARE
        max_queue_bytes -= logs_bytes
        self._queue = EntryQueue(max_queue_bytes, self.flush)
        self._put = self._queue.put
        self._log_queue = EntryQueue(logs_bytes, self.flush, count=lambda _entry: 1)
        self._put_log = self._log_queue.put
        self._sender = self._make_sender(
            options,
            interval_s=interval_s,
            max_queue_bytes=max_queue_bytes,
            max_series=max_series,
            text_parameters=text_parameters,
            step_histogram=step_histogram,
        )
        OWN_GPU.look_up()
        self._senders = (self._sender,)
        if logs_options is None:
            self._log_queue.silence()
        else:
            self._senders += (
                self._make_log_sender(
                    logs_options, interval_s=interval_s, max_queue_bytes=logs_bytes
                ),
            )
        for sender in self._senders:
            sender.start()
        closing.add(self)
        EXIT_STATUS.watch()
        TERMINATION.add(self)
        atexit.register(self._close_at_exit)

    def _make_sender(
        self,
        options: OTLPOptions,
        *,
        interval_s: float,
        max_queue_bytes: int,
        max_series: int,
        text_parameters: bool,
        step_histogram: bool,
    ) -> Sender[Batch]:
        # Imported here, so that importing the package does not wait for OpenTelemetry.
        from otel_dllogger.otlp.transport import open_transport  # noqa: PLC0415

        transport = open_transport(options)
        from otel_dllogger.metrics.data_points import DataPoints  # noqa: PLC0415
        from otel_dllogger.metrics.exported_store import ExportedStore  # noqa: PLC0415
        from otel_dllogger.otlp.batches import Backlog, Batch  # noqa: PLC0415
        from otel_dllogger.otlp.encoder import Encoder  # noqa: PLC0415
        from otel_dllogger.otlp.exporter import Exporter  # noqa: PLC0415
        from otel_dllogger.otlp.replay import Replay  # noqa: PLC0415
        from otel_dllogger.otlp.sender import Sender  # noqa: PLC0415

        start_us = time.time_ns() // 1000
        store = SeriesStore(
            run=self.topology.run,
            rank=self.topology.rank,
            start_us=start_us,
            max_series=max_series,
            durations=ExponentialDurations if step_histogram else None,
        )
        store.open_phases = partial(PHASES.times_us, self)
        exported = ExportedStore(store, self.topology, text_parameters=text_parameters)
        points = DataPoints(exported, start_us=start_us, of_process=True)
        backlog = Backlog(max_queue_bytes - max_queue_bytes // QUEUE_SHARE, Batch)
        replay = Replay(self._queue, backlog, points, max_queue_bytes=max_queue_bytes)
        encoder = Encoder()
        encoder.prepare((self.topology.run, self.topology.rank))  # with the current environment
        exporter = Exporter(transport, timeout_s=options.timeout_s)
        return Sender(replay, backlog, encoder, exporter, interval_s=interval_s)

    def _make_log_sender(
        self, options: OTLPOptions, *, interval_s: float, max_queue_bytes: int
    ) -> LogSender:
        from otel_dllogger.otlp.transport import Outcome, open_transport  # noqa: PLC0415

        transport = open_transport(options)
        from otel_dllogger.metrics.resource import process_resource  # noqa: PLC0415
        from otel_dllogger.otlp.batches import Backlog  # noqa: PLC0415
        from otel_dllogger.otlp.exporter import Exporter  # noqa: PLC0415
        from otel_dllogger.otlp.log_batches import LogBatch  # noqa: PLC0415
        from otel_dllogger.otlp.log_encoder import LogEncoder  # noqa: PLC0415
        from otel_dllogger.otlp.log_replay import LogReplay  # noqa: PLC0415
        from otel_dllogger.otlp.log_sender import LogSender  # noqa: PLC0415

        run, rank = self.topology.run, self.topology.rank
        backlog = Backlog(max_queue_bytes - max_queue_bytes // QUEUE_SHARE, LogBatch)
        replay = LogReplay(
            self._log_queue,
            backlog,
            resource=(run, rank),
            labels={"run": run, "rank": str(rank)},
            max_queue_bytes=max_queue_bytes,
        )
        encoder = LogEncoder(process_resource)
        encoder.prepare((run, rank))  # with the current environment
        exporter = Exporter(transport, timeout_s=options.timeout_s, misdirected=Outcome.MISDIRECTED)
        return LogSender(replay, backlog, encoder, exporter, interval_s=interval_s)

    def write_record(self, record: Record) -> None:
        """Take the values of one ``log`` call."""
        _plain, numbers, finite, _flat = record.values or record.convert()
        if finite and record.is_pair:  # a tuple takes a third of the memory of a record
            self._put((record.time_us, record.elapsed_us, record.step, numbers))
        else:
            detached = record.detach()
            self._put(detached)
            if detached.is_parameter:
                self._put_log(detached)

    def write_metadata(self, metadata: Metadata) -> None:
        """Take one ``metadata`` call."""
        self._put(metadata.detach())

    def write_info(self, info: Info) -> None:
        """Take one ``info`` call, whose numbers are parameters."""
        if type(info.data) is not str:
            info = info.detach()
            self._put(info)
            self._put_log(info)
            return
        self._put(Info(info.time_us, info.elapsed_us, ""))  # that there was one is all that counts
        # One character more than is sent, so that the end is known to be cut.
        text = info.data[: MAX_CHARACTERS + 1]
        self._put_log(Info(info.time_us, info.elapsed_us, text))

    def write_phase(self, phase: Phase) -> None:
        """Take a phase that ended or is announced."""
        self._put(phase.detach())

    def write_event(self, event: Event) -> None:
        """Take one ``event`` call."""
        event = event.detach()
        self._put(event)
        self._put_log(event)

    def flush(self) -> None:
        """Send what was logged now, without waiting: ``log`` is not the only call that is hot."""
        for sender in self._senders:
            sender.wake()

    def hurry(self) -> None:
        """Send what there is, since another backend is closing and this one may be next."""
        if os.getpid() == self.topology.pid:
            for sender in self._senders:
                sender.hurry()

    def begin_close(self) -> None:
        """Begin to close without waiting, for callers that close several backends."""
        if self._sender is None or os.getpid() != self.topology.pid:
            return
        if self._begun.acquire(blocking=False):
            TERMINATION.look()
            if EXIT_STATUS.is_clean():
                self._queue.put(Finish())
            for sender in self._senders:
                sender.begin_close()

    def note_told(self, told_us: int) -> None:
        """Send that a signal told the process to end, together with what there is."""
        self._queue.put(Told(told_us))
        self.flush()

    def begin_kill(self) -> float:
        """Return that the process does not wait for a collector before a signal ends it."""
        return 0.0

    def is_waiting(self) -> bool:
        """Return that there is nothing to wait for."""
        return False

    def end_kill(self) -> None:
        """Do nothing before a signal ends the process."""

    def _close_at_exit(self) -> None:
        closing.begin_all()
        self.close()

    def close(self) -> None:
        """Mark the run as finished, and send what there is, for two seconds at most.

        Several backends that a Logger closes, or that close when the process exits, share these
        two seconds. While an exception, or ``sys.exit`` with a code other than 0, ends the
        script, the run is not marked as finished, since that is not a clean close. Nor is it
        after a signal that told the process to end.
        """
        if self._sender is None or os.getpid() != self.topology.pid:
            return
        if not self._closed.acquire(blocking=False):
            return
        atexit.unregister(self._close_at_exit)
        self.begin_close()
        closing.remove(self)
        TERMINATION.remove(self)
        lost = sum(sender.close() for sender in self._senders)
        if lost:
            DIAGNOSTICS.count(
                "otlp_exit",
                "the process ends before a collector accepted the last values; a JSON log still "
                "has them",
                count=lost,
            )

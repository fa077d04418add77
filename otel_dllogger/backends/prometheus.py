"""A backend that serves every metric on a ``/metrics`` page of this rank, for Prometheus."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from otel_dllogger import arguments, settings
from otel_dllogger.backends.otel import OTelBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import EndpointError
from otel_dllogger.http.scrapers import Scrapers
from otel_dllogger.metrics.exported_store import ExportedStore
from otel_dllogger.metrics.resource import rank_resource
from otel_dllogger.metrics.step_durations import ClassicDurations
from otel_dllogger.runtime import closing
from otel_dllogger.runtime.exit_status import EXIT_STATUS
from otel_dllogger.runtime.termination import TERMINATION
from otel_dllogger.runtime.wakers import Waker

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from opentelemetry.metrics import MeterProvider

    from otel_dllogger.http.endpoint import MetricsEndpoint
    from otel_dllogger.http.service_discovery import DiscoveryFile
    from otel_dllogger.metrics.instruments import Instruments

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 9464
_MAX_PORT = 65535
_MAX_LINGER_S = 3600.0


class PrometheusBackend(OTelBackend):
    """A backend that serves the metrics of this process over HTTP.

    It has a MeterProvider of its own. If no port is available, training goes on without the
    page, with a warning, and this is counted as ``endpoint``.

    Args:
        verbosity: The highest verbosity of a ``log`` call that is exported.
        host: The address to listen on; by default OTEL_EXPORTER_PROMETHEUS_HOST, else 127.0.0.1.
        port: The port of local rank 0; the other ranks count up from it. A port that is in use
            is skipped; 0 means any free one. By default OTEL_EXPORTER_PROMETHEUS_PORT, else 9464.
        discovery_dir: A folder for a Prometheus file_sd file of this rank, "none" for no file; by
            default OTEL_DLLOGGER_DISCOVERY_DIR, else ``$XDG_RUNTIME_DIR/otel-dllogger``, else
            ``/tmp/otel-dllogger-<uid>``.
        linger_s: Seconds that ``close`` waits until somebody reads the page once more, so that
            Prometheus sees the last values and the end; by default OTEL_DLLOGGER_LINGER_SECONDS.
            If neither is set, a clean close waits for whoever has scraped the page regularly,
            for one scrape interval and 30 seconds at most.
        run: The run's name; by default the launcher's.
        rank: The rank; by default the launcher's.
        max_series: The most series; by default OTEL_DLLOGGER_MAX_SERIES, else 10,000.
        text_parameters: Whether to export parameters that are text too, as a label.
        step_histogram: Whether to export ``dllogger_step_duration_seconds``, a histogram of how
            long each training step took; by default OTEL_DLLOGGER_STEP_HISTOGRAM, else not.

    Attributes:
        problems: Why there is no page or no discovery file; each caused a warning and was
            counted.

    Raises:
        ConfigurationError: If an argument is invalid.
    """

    _durations = ClassicDurations

    def __init__(
        self,
        verbosity: int,
        *,
        host: str | None = None,
        port: int | None = None,
        discovery_dir: str | os.PathLike[str] | None = None,
        linger_s: float | None = None,
        run: str | None = None,
        rank: int | None = None,
        max_series: int | None = None,
        text_parameters: bool = False,
        step_histogram: bool | None = None,
    ) -> None:
        arguments.text("host", host, step="pass an address, or None for 127.0.0.1")
        if port is not None:
            step = "pass port=0 for any free port"
            port = arguments.whole("port", port, least=0, most=_MAX_PORT, step=step)
        if discovery_dir is not None:
            step = "pass a folder, or 'none' for no file"
            arguments.path("discovery_dir", discovery_dir, step=step)
        if linger_s is None:
            linger_s = settings.number(settings.LINGER, None, least=0.0, most=_MAX_LINGER_S)
        if linger_s is not None:
            step = "pass 0 not to wait"
            linger_s = arguments.seconds(
                "linger_s", linger_s, most=_MAX_LINGER_S, step=step, may_be_0=True
            )
        self._linger_s = linger_s
        self.endpoint: MetricsEndpoint | None = None
        self.discovery: DiscoveryFile | None = None
        self.problems: list[EndpointError] = []
        self._rendering_id: int | None = None  # of the thread that is collecting now
        self._was_scraped = False
        self._scrapers = Scrapers()
        self._ending_s: float | None = None  # when closing began
        self._end_scraped = Waker()
        self._end_scraped_s: float | None = None  # the last time
        # Taken once and never released: of two concurrent calls, one of which may be a signal
        # handler's, only one goes on.
        self._begun, self._closed = threading.Lock(), threading.Lock()
        super().__init__(
            verbosity,
            run=run,
            rank=rank,
            max_series=max_series,
            text_parameters=text_parameters,
            step_histogram=step_histogram,
        )
        self.endpoint = self._open_endpoint(host, port)
        self.discovery = self._announce(discovery_dir)
        closing.add(self)

    @property
    def url(self) -> str | None:
        """Return the address of the page, None if no port was available."""
        return None if self.endpoint is None else self.endpoint.url

    def _make_instruments(self, _meter_provider: MeterProvider | None) -> Instruments:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415
        from opentelemetry.sdk.metrics import (  # noqa: PLC0415
            AlwaysOffExemplarFilter,
            MeterProvider,
        )
        from prometheus_client import CollectorRegistry  # noqa: PLC0415

        from otel_dllogger.metrics.instruments import lift_cardinality_limit  # noqa: PLC0415
        from otel_dllogger.metrics.step_histogram import StepHistogramCollector  # noqa: PLC0415

        self._registry = CollectorRegistry(auto_describe=False)
        limits = lift_cardinality_limit(PrometheusMetricReader, self._store.max_series)
        reader = PrometheusMetricReader(registry=self._registry, scope_info_enabled=False, **limits)
        self._provider = MeterProvider(
            metric_readers=[reader],
            resource=rank_resource(self.topology.run, self.topology.rank),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        if self._store.durations is not None:
            self._registry.register(
                StepHistogramCollector(ExportedStore(self._store, self.topology))
            )
        return self._instruments_on(self._provider)

    def _open_endpoint(self, host: str | None, port: int | None) -> MetricsEndpoint | None:
        import logging  # noqa: PLC0415

        from otel_dllogger.http.endpoint import MetricsEndpoint  # noqa: PLC0415

        if host is None:
            host = settings.text(settings.HOST, DEFAULT_HOST)
        if port is None:
            port = int(
                settings.number(settings.PORT, DEFAULT_PORT, least=0, most=_MAX_PORT, whole=True)
            )
        if port:
            port = min(port + self.topology.local_rank, _MAX_PORT)
        try:
            endpoint = MetricsEndpoint(
                self._render,
                host=host,
                port=port,
                health=self._health,
                note_read=self._note_read,
            )
        except EndpointError as error:
            problem = EndpointError(
                f"no metrics are served: {error.problem}", step=error.step, argument=error.argument
            )
            DIAGNOSTICS.count("endpoint", str(problem))
            self.problems.append(problem)
            return None
        if port not in (0, endpoint.port):
            DIAGNOSTICS.warn("port_taken", f"port {port} is taken: metrics are at {endpoint.url}")
        logging.getLogger("otel_dllogger").info(
            "rank %d serves its metrics at %s", self.topology.rank, endpoint.url
        )
        return endpoint

    def _announce(self, directory: str | os.PathLike[str] | None) -> DiscoveryFile | None:
        from otel_dllogger.http.discovery_folder import folder_to_write  # noqa: PLC0415
        from otel_dllogger.http.service_discovery import DiscoveryFile  # noqa: PLC0415

        folder = None if self.endpoint is None else folder_to_write(directory)
        if folder is None or self.endpoint is None:
            return None
        address = self.endpoint.url.removeprefix("http://").removesuffix("/metrics")
        discovery = DiscoveryFile(
            folder.path, self.topology, address=address, given_by=folder.given_by
        )
        if discovery.problem is not None:
            self.problems.append(discovery.problem)
        return discovery

    def _render(self, accept: str) -> tuple[str, bytes]:
        from otel_dllogger.http.content_negotiation import choose_format  # noqa: PLC0415

        self.flush()
        encode, content_type = choose_format(accept)
        self._rendering_id = threading.get_ident()
        try:
            page: bytes = encode(self._registry)
        finally:
            self._rendering_id = None
        return content_type, page

    def _note_read(self, request: WSGIEnvironment, page_s: float) -> None:
        self._was_scraped = True
        self._scrapers.note(request, page_s)
        if self._ending_s is not None and page_s >= self._ending_s:
            self._end_scraped_s = time.monotonic()
            self._end_scraped.wake()

    def _health(self) -> dict[str, Any]:
        return {
            "run": self.topology.run,
            "rank": self.topology.rank,
            "seconds_since_last_log": self._store.seconds_since_last_log(time.time()),
        }

    def flush(self) -> None:
        """Create the instruments of new metrics, so that the next scrape has them.

        This does nothing in the middle of a scrape, where a finalizer on its thread may call it:
        the scrape has to end first.
        """
        if self._rendering_id != threading.get_ident():
            super().flush()

    def hurry(self) -> None:
        """Do nothing, since the page of this backend is always ready."""

    def begin_close(self) -> None:
        """Show the end on the page without waiting, for callers that close several backends."""
        if os.getpid() == self.topology.pid and self._begun.acquire(blocking=False):
            self._note_end()
            self._ending_s = time.monotonic()

    def note_told(self, told_us: int) -> None:
        """Note that a signal told the process to end, and do not wait for scrapers any more."""
        super().note_told(told_us)
        self._end_scraped.wake()

    def begin_kill(self) -> float:
        """Show the end on the page, and return how long to wait for a scrape of it."""
        self._ending_s = self._ending_s or time.monotonic()
        return (self._linger_s or 0.0) if self._was_scraped else 0.0

    def is_waiting(self) -> bool:
        """Return whether nobody has read the end from the page yet."""
        if self.endpoint is None or self._closed.locked():
            return False
        return self._end_scraped_s is None or self.endpoint.is_busy()

    def end_kill(self) -> None:
        """Remove the discovery file: Prometheus must not miss this process."""
        if self.discovery is not None:
            self.discovery.remove()

    def close(self) -> None:
        """Mark the run as finished, free the port, and remove the discovery file.

        This is also called at exit with code 0, and with any after a signal that told the process
        to end. If something else ends the script, an exception or ``sys.exit`` with another code,
        the file stays, and Prometheus sees a target that is down.
        """
        if os.getpid() != self.topology.pid or not self._closed.acquire(blocking=False):
            return
        self.begin_close()
        is_clean = EXIT_STATUS.is_clean()
        is_expected = is_clean or self._store.is_terminated()
        closing.remove(self)
        try:
            if self.endpoint is not None:
                self._close_endpoint(self.endpoint, is_clean=is_clean)
        finally:  # Ctrl-C ends the wait by an exception
            super().close()
            if self.discovery is not None and is_expected:
                self.discovery.remove()
            self._provider.shutdown()

    def _close_at_exit(self) -> None:
        TERMINATION.look()
        if EXIT_STATUS.is_clean() or self._store.is_terminated():
            closing.begin_all()
            # Nobody would catch it any more, and it does not change the exit status.
            with contextlib.suppress(KeyboardInterrupt):
                self.close()

    def _close_endpoint(self, endpoint: MetricsEndpoint, *, is_clean: bool) -> None:
        """Close the endpoint, after the end was scraped if that is to be waited for."""
        begun_s = self._ending_s = self._ending_s or time.monotonic()
        close_by_s = begun_s + closing.CLOSE_S
        try:
            while (until_s := self._lingers_until_s(begun_s, is_clean)) > time.monotonic():
                self._end_scraped.wait(until_s - time.monotonic())
            if self._linger_s != 0:
                close_by_s = (self._end_scraped_s or until_s) + closing.CLOSE_S
                endpoint.drain(close_by_s - time.monotonic())
        finally:
            endpoint.close(close_by_s)

    def _lingers_until_s(self, begun_s: float, is_clean: bool) -> float:
        """Return until when ``close`` waits, as far as is known now."""
        if self._linger_s is not None:
            return begun_s if self._end_scraped_s is not None else begun_s + self._linger_s
        TERMINATION.look()
        if not is_clean or self._store.is_told_to_end():
            return begun_s
        due_by_s = self._scrapers.due_by_s(begun_s)
        return due_by_s if due_by_s > begun_s and TERMINATION.is_watching() else begun_s

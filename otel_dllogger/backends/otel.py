"""A backend that exports every metric as an OpenTelemetry instrument on a MeterProvider."""

from __future__ import annotations

import atexit
import os
import time
from functools import partial
from typing import TYPE_CHECKING

from otel_dllogger import arguments, settings
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.identity import detect_topology
from otel_dllogger.logger import RecordBackend
from otel_dllogger.metrics.step_durations import UnrecordedDurations
from otel_dllogger.metrics.store import DEFAULT_MAX_SERIES, SeriesStore
from otel_dllogger.phases import PHASES
from otel_dllogger.runtime.exit_status import EXIT_STATUS
from otel_dllogger.runtime.termination import TERMINATION
from otel_dllogger.runtime.wakers import Worker
from otel_dllogger.version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider

    from otel_dllogger.metrics.instruments import Instruments
    from otel_dllogger.metrics.step_durations import StepDurations
    from otel_dllogger.record import Event, Info, Metadata, Phase, Record


REGISTER_S = 1.0
"""The longest time that a flush or a scrape waits for new instruments, in seconds."""


class OTelBackend(RecordBackend):
    """A backend that exports metrics through OpenTelemetry.

    It never sets, flushes or shuts down the provider, which belongs to the application. With
    the global one, ``opentelemetry-instrument`` and OTEL_METRICS_EXPORTER just work.

    Args:
        verbosity: The highest verbosity of a ``log`` call that is exported.
        meter_provider: Where the instruments are created; by default the global one.
        run: The run's name; by default the launcher's.
        rank: The rank; by default the launcher's.
        max_series: The most series that this process exports; any beyond that are counted as
            dropped. By default OTEL_DLLOGGER_MAX_SERIES, else 10,000.
        text_parameters: Whether to export parameters that are text too, as a label. Those whose
            names suggest secrets are never exported, and ``[redacted]`` replaces a secret within
            a text.
        step_histogram: Whether to export ``dllogger_step_duration_seconds``, a histogram of how
            long each training step took; by default OTEL_DLLOGGER_STEP_HISTOGRAM, else not.

    Raises:
        ConfigurationError: If an argument is invalid.
    """

    _durations: type[StepDurations] = UnrecordedDurations

    def __init__(
        self,
        verbosity: int,
        *,
        meter_provider: MeterProvider | None = None,
        run: str | None = None,
        rank: int | None = None,
        max_series: int | None = None,
        text_parameters: bool = False,
        step_histogram: bool | None = None,
    ) -> None:
        super().__init__(verbosity)
        settings.warn_of_unknown()
        step = "pass True to export text as well, or leave it out"
        arguments.flag("text_parameters", text_parameters, step=step)
        if not (meter_provider is None or hasattr(meter_provider, "get_meter")):
            step = "pass one from opentelemetry.sdk.metrics, or leave it out"
            arguments.refuse("meter_provider", meter_provider, "a MeterProvider", step)
        self.topology = detect_topology(run=run, rank=rank)
        self._store = SeriesStore(
            run=self.topology.run,
            rank=self.topology.rank,
            start_us=time.time_ns() // 1000,
            max_series=settings.max_series(max_series, DEFAULT_MAX_SERIES),
            durations=self._durations if settings.step_histogram(step_histogram) else None,
        )
        self._store.open_phases = partial(PHASES.times_us, self)
        self._text_parameters = text_parameters
        # The SDK holds its lock while it collects, for as long as the application's slowest
        # callback takes: ``log`` must not wait for it, not even at a metric's first value.
        self._registrar = Worker("otel-dllogger-instruments", self._register)
        self._instruments = self._make_instruments(meter_provider)
        from otel_dllogger.gpu.own_gpu import OWN_GPU  # noqa: PLC0415

        OWN_GPU.look_up()
        EXIT_STATUS.watch()
        TERMINATION.add(self)
        atexit.register(self._close_at_exit)

    def _make_instruments(self, meter_provider: MeterProvider | None) -> Instruments:
        # Imported here, so that importing the package does not wait for OpenTelemetry.
        from opentelemetry.metrics import get_meter_provider  # noqa: PLC0415

        self._store.on_new_series = self._registrar.ask
        return self._instruments_on(meter_provider or get_meter_provider())

    def _instruments_on(self, meter_provider: MeterProvider) -> Instruments:
        from otel_dllogger.metrics.instruments import Instruments  # noqa: PLC0415

        return Instruments(
            self._store,
            self.topology,
            meter_provider,
            version=__version__,
            text_parameters=self._text_parameters,
        )

    def write_record(self, record: Record) -> None:
        """Take the values of one ``log`` call."""
        self._store.take(record)

    def write_metadata(self, metadata: Metadata) -> None:
        """Take one ``metadata`` call."""
        self._store.take(metadata)

    def write_info(self, info: Info) -> None:
        """Take one ``info`` call, whose numbers are parameters."""
        self._store.take(info)

    def write_phase(self, phase: Phase) -> None:
        """Take a phase that ended or is announced."""
        self._store.take_phase(phase)

    def write_event(self, event: Event) -> None:
        """Take one ``event`` call."""
        self._store.take(event)

    def flush(self) -> None:
        """Give OpenTelemetry what is new, metrics and times of steps, for the next export.

        This waits while the SDK collects on another thread, but for a second at most.
        """
        if not self._instruments.is_current and os.getpid() == self.topology.pid:
            self._registrar.run(REGISTER_S)

    def _register(self) -> None:
        try:
            self._instruments.register_new()
        except Exception as error:
            DIAGNOSTICS.count("instrument", f"an instrument could not be created: {error}")
        try:
            self._instruments.record_step_durations()
        except Exception as error:
            DIAGNOSTICS.caught("instrument", "OpenTelemetry refused the durations of steps", error)

    def close(self) -> None:
        """Mark the run as finished; the provider is left to the application.

        While an exception, or ``sys.exit`` with a code other than 0, ends the script, the run is
        not marked as finished, since that is not a clean close. Nor is it after a signal that
        told the process to end.
        """
        atexit.unregister(self._close_at_exit)
        self._note_end()
        TERMINATION.remove(self)
        self.flush()
        self._store.closed = True

    def _note_end(self) -> None:
        TERMINATION.look()
        if EXIT_STATUS.is_clean():
            self._store.finish()

    def note_told(self, told_us: int) -> None:
        """Note that a signal told the process to end; only the first time counts."""
        if self._store.told_us is None or not self._store.is_terminated():
            self._store.told_us = told_us

    def begin_kill(self) -> float:
        """Return that the process need not wait before a signal ends it."""
        return 0.0

    def is_waiting(self) -> bool:
        """Return that there is nothing to wait for."""
        return False

    def end_kill(self) -> None:
        """Do nothing before a signal ends the process."""

    def _close_at_exit(self) -> None:
        if EXIT_STATUS.is_clean():
            self.close()

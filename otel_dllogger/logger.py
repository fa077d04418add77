"""The Logger, which turns each call into one record for every backend and never raises."""

from __future__ import annotations

import atexit
import contextlib
import weakref
from _thread import get_ident
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from math import isnan
from time import monotonic_ns, time_ns
from typing import Any, Protocol

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.phases import PHASES, OpenPhase, PhaseScope
from otel_dllogger.record import OPEN, Event, Info, Metadata, Phase, Record, microseconds
from otel_dllogger.values import key_text, safe_repr, to_number, to_plain

MAX_NAMES = 10_000
"""The largest number of metrics whose metadata a Logger remembers."""

MAX_KEYS = 100
"""The number of keys in one metric's metadata beyond which no more are remembered."""

MAX_NAME_CHARACTERS = 1_000
"""The longest name of such a metric, in characters; the log takes names of any length."""


class Verbosity:
    """DLLogger's verbosity levels, which are plain ints; scripts pass 2 as well.

    A backend takes the ``log`` calls whose verbosity is at most its own.

    Attributes:
        OFF: -1: a backend that takes no call of the levels below.
        DEFAULT: 0.
        VERBOSE: 1: the level of a ``Logger.log`` call that names none.
    """

    OFF = -1
    DEFAULT = 0
    VERBOSE = 1


class BackendProtocol(Protocol):
    """What a Logger requires of a backend of any class: DLLogger's own duck type.

    If a backend has ``info(timestamp, data)``, ``write_phase(phase)``, ``write_event(event)``,
    ``flush()`` and ``close()`` as well, they are called. A backend that needs only some of these
    derives from ``RecordBackend`` or ``Backend``.
    """

    @property
    def verbosity(self) -> int:
        """Return the highest ``verbosity`` of a ``log`` call that this backend takes."""

    def log(self, timestamp: datetime, elapsedtime: float, step: Any, data: Any) -> object:
        """Take one ``log`` call; arguments as for ``Backend.log``."""

    def metadata(
        self, timestamp: datetime, elapsedtime: float, metric: Any, metadata: Any
    ) -> object:
        """Take one ``metadata`` call; arguments as for ``Backend.log``."""


class Backend(ABC):
    """The base class of backends, which receive a Logger's calls; DLLogger's own plug point.

    A subclass defines ``log`` and ``metadata``; ``info``, ``flush`` and ``close`` do
    nothing unless it overrides them.

    Args:
        verbosity: The highest ``verbosity`` of a ``log`` call that this backend takes.
    """

    def __init__(self, verbosity: int) -> None:
        self._verbosity = verbosity

    @property
    def verbosity(self) -> int:
        """Return the highest verbosity that this backend takes."""
        return self._verbosity

    @abstractmethod
    def log(self, timestamp: datetime, elapsedtime: float, step: Any, data: Any) -> None:
        """Take one ``log`` call.

        Args:
            timestamp: The naive local time of the call.
            elapsedtime: Seconds since the Logger was made.
            step: The step as the user passed it.
            data: The data as the user passed it.
        """

    @abstractmethod
    def metadata(self, timestamp: datetime, elapsedtime: float, metric: Any, metadata: Any) -> None:
        """Take one ``metadata`` call; arguments as for ``log``."""

    def info(self, timestamp: datetime, data: Any) -> None:  # noqa: B027 - optional
        """Take one ``info`` call of TCAP DLLogger; ignored unless a subclass overrides this."""

    def flush(self) -> None:  # noqa: B027 - optional, as in DLLogger
        """Write what is held back; does nothing unless a subclass holds something back."""

    def close(self) -> None:
        """Release what the backend holds; by default the same as ``flush``."""
        self.flush()


# The classes that take whole entries, by the method of DLLogger that they do not override.
# A class is examined once, when it is created: the Logger reads no attributes of a class that is
# not of this kind, and a call costs no more than a look into a set.
_TAKES_RECORDS: set[type] = set()
_TAKES_METADATA: set[type] = set()
_TAKES_INFO: set[type] = set()


class RecordBackend(Backend):
    """A backend that takes whole entries, converted once for all backends.

    The package's own backends are of this kind. If a subclass overrides DLLogger's ``log``,
    ``metadata``, ``info`` or ``verbosity``, the Logger calls those instead.

    Args:
        verbosity: The highest ``verbosity`` of a ``log`` call that this backend takes.

    Raises:
        ConfigurationError: If ``verbosity`` is not a number.
    """

    def __init__(self, verbosity: int) -> None:
        if not (isinstance(verbosity, (int, float)) or hasattr(type(verbosity), "__index__")):
            raise ConfigurationError(
                f"verbosity={verbosity!r} is not a number; pass one first, as in "
                f"{type(self).__name__}(Verbosity.VERBOSE)"
            )
        super().__init__(verbosity)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.log is RecordBackend.log and cls.verbosity is RecordBackend.verbosity:
            _TAKES_RECORDS.add(cls)
        if cls.metadata is RecordBackend.metadata:
            _TAKES_METADATA.add(cls)
        if cls.info is RecordBackend.info:
            _TAKES_INFO.add(cls)

    @abstractmethod
    def write_record(self, record: Record) -> None:
        """Take one ``log`` call."""

    @abstractmethod
    def write_metadata(self, metadata: Metadata) -> None:
        """Take one ``metadata`` call."""

    def write_info(self, info: Info) -> None:
        """Take one ``info`` call; ignored unless a subclass overrides this."""

    def write_phase(self, phase: Phase) -> None:
        """Take a phase that ended or is announced; ignored unless a subclass overrides this."""

    def write_event(self, event: Event) -> None:
        """Take one ``event`` call; ignored unless a subclass overrides this."""

    def log(self, timestamp: datetime, elapsedtime: float, step: Any, data: Any) -> None:
        """Take one ``log`` call in DLLogger's form."""
        elapsed_us = round(elapsedtime * 1e6)
        self.write_record(Record(microseconds(timestamp), elapsed_us, step, data))

    def metadata(self, timestamp: datetime, elapsedtime: float, metric: Any, metadata: Any) -> None:
        """Take one ``metadata`` call in DLLogger's form."""
        elapsed_us = round(elapsedtime * 1e6)
        self.write_metadata(Metadata(microseconds(timestamp), elapsed_us, metric, metadata))

    def info(self, timestamp: datetime, data: Any) -> None:
        """Take one ``info`` call in TCAP DLLogger's form."""
        self.write_info(Info(microseconds(timestamp), 0, data))


_attached: list[tuple[Backend, type[Backend]]] = []


@contextlib.contextmanager
def attached(backend: Backend, *, as_one_of: type[Backend] | None = None) -> Iterator[Backend]:
    """Attach one more backend to every Logger of this process while the block runs.

    A Logger that already has a backend of the same class is left alone: one process must not
    export a series twice.

    Args:
        backend: The backend; it is used in addition to ``Logger.backends``, but is not in it.
        as_one_of: The class that counts as its own; None for its own.
    """
    entry = (backend, as_one_of or type(backend))
    _attached.append(entry)
    try:
        yield backend
    finally:
        _attached.remove(entry)


_loggers: weakref.WeakSet[Logger] = weakref.WeakSet()


def logger_of(backend: Backend) -> Logger | None:
    """Return a Logger that has a backend, None if none has it.

    Args:
        backend: The backend.
    """
    return next((logger for logger in tuple(_loggers) if logger.has_backend(backend)), None)


class Logger:
    """A logger that sends every call to every backend.

    If a backend raises, the call does not fail and the other backends still get it; the fault is
    counted in ``dllogger_dropped_total{reason="backend_failed"}``. So is anything else that goes
    wrong in a call. An exception that a signal handler of the application raises in the middle
    of a call is passed on to the application.

    Every method may be called by any thread, and by a signal handler that interrupts any of
    them.

    Args:
        backends: The backends in order. A list is kept as the very object that was passed, since
            scripts may change it at any time.

    Raises:
        ConfigurationError: If ``backends`` is not a collection of backends.
    """

    def __init__(self, backends: Iterable[BackendProtocol]) -> None:
        if not isinstance(backends, Iterable):
            raise ConfigurationError(
                f"backends={safe_repr(backends)} is not a list; pass one, as in [StdOutBackend(0)]"
            )
        self.backends: Any = list(backends) if isinstance(backends, Iterator) else backends
        for number, backend in enumerate(self.backends):
            if isinstance(backend, type) or not callable(getattr(backend, "log", None)):
                raise ConfigurationError(
                    f"backends[{number}]={safe_repr(backend)} is not a backend; make one, as in "
                    "StdOutBackend(Verbosity.DEFAULT)"
                )
        self.starttime = datetime.now()  # noqa: DTZ005 - naive, as DLLogger's
        self._start_ns = monotonic_ns()
        self.loop_ident = get_ident()
        self._metadata: dict[str, dict[str, Any]] = {}
        _loggers.add(self)
        atexit.register(self._settle)  # runs after the flush: handlers run in reverse order
        atexit.register(self.flush)

    def log(self, step: Any, data: Any, verbosity: int = 1) -> None:
        """Log the values of one step.

        Args:
            step: Where in the training this is: a number, a tuple of (epoch, iteration,
                validation iteration), ``()`` for the run, ``"PARAMETER"``, or any text.
            data: Values by metric name.
            verbosity: Only backends of at least this verbosity take the call.
        """
        start_ns = monotonic_ns()
        if type(verbosity) is not int:
            verbosity = _level(verbosity)  # type: ignore[assignment] # a float compares as well
        try:
            if PHASES.has_unannounced:
                _announce_phases()
            elapsed_us = (start_ns - self._start_ns) // 1000
            record = Record(time_ns() // 1000, elapsed_us, step, data)
            for backend in self._receivers() if _attached else tuple(self.backends or ()):
                try:
                    if type(backend) in _TAKES_RECORDS:  # which a proxy of such a backend is not
                        if backend._verbosity >= verbosity:  # noqa: SLF001
                            backend.write_record(record)
                    elif backend.verbosity >= verbosity:
                        backend.log(record.timestamp, record.elapsed_s, step, data)
                except Exception as error:
                    _caught(backend, "log", error)
        except Exception as error:  # ``backends`` cannot be iterated over
            _caught(self, "log", error)
        DIAGNOSTICS.log_ns += monotonic_ns() - start_ns

    def metadata(self, metric: Any, metadata: Any) -> None:
        """Describe a metric.

        Args:
            metric: The metric's name.
            metadata: ``unit``, ``GOAL`` (MINIMIZE, MAXIMIZE), ``STAGE`` (TRAIN, VAL,
                TEST, INFER), ``SCOPE`` (RANK, GLOBAL: whether a throughput is the rank's own or
                that of the run), ``format``, ``description``; all are optional.
        """
        entry = Metadata(*self._now_us(), metric, metadata)
        self._remember(entry.name, entry.plain)

        def give(backend: Any) -> None:
            if type(backend) in _TAKES_METADATA:
                backend.write_metadata(entry)
            else:
                backend.metadata(entry.timestamp, entry.elapsed_s, metric, metadata)

        self._call_each("metadata", give)

    def _remember(self, name: str, plain: object) -> None:
        known = self._metadata.get(name)
        if known is not None and len(known) > MAX_KEYS:
            return
        if known is None:
            if len(self._metadata) >= MAX_NAMES or len(name) > MAX_NAME_CHARACTERS:
                return
            known = self._metadata[name] = {}
        if isinstance(plain, dict):
            known.update(plain)

    def metadata_of(self, metric: str) -> dict[str, Any]:
        """Return the metadata of a metric so far, as plain values; empty if there is none."""
        return dict(self._metadata.get(metric, {}))

    def metadata_batch(self, metrics: Iterable[Any], metadata: Any) -> None:
        """Give several metrics the same metadata, as TCAP DLLogger does.

        Args:
            metrics: The metrics' names.
            metadata: As for ``metadata``.
        """
        try:
            for metric in metrics:
                self.metadata(metric, metadata)
        except Exception as error:
            _caught(self, "metadata_batch", error)

    def info(self, data: Any) -> None:
        """Log text or settings that belong to no step, as TCAP DLLogger does.

        Args:
            data: A string, a dict or an argparse Namespace.
        """
        entry = Info(*self._now_us(), data)

        def give(backend: Any) -> None:
            if type(backend) in _TAKES_INFO:
                backend.write_info(entry)
            elif callable(info := getattr(backend, "info", None)):  # NVIDIA's backends have none
                info(entry.timestamp, data)

        self._call_each("info", give)

    def phase(self, name: Any, *, step: Any = None) -> PhaseScope:
        """Return a phase of the training: a context manager, or a decorator of a function.

        Its time is counted by its name: in ``dllogger_phase_seconds_total`` without the phases
        in it, so that each second of the process is in one phase. On another thread than the one
        that made the Logger, it is in ``dllogger_phase_overlapped_seconds_total`` instead. The
        JSON log gets a line when it ends. A decorated generator is in the phase each time that it
        runs, until it yields.

        Args:
            name: What the process does meanwhile: ``data_wait``, ``validation``, ``checkpoint``,
                ``restore``, ``compile``, ``communication``, or any other text.
            step: The step to which it belongs, in any form that ``log`` takes.
        """
        return PhaseScope(self, name, step)

    def event(self, name: Any, data: Any = None, *, step: Any = None) -> None:
        """Log that something happened.

        Args:
            name: What happened, such as ``checkpoint_saved``.
            data: What is known of it: a dict, or None.
            step: The step at which it happened, in any form that ``log`` takes.
        """
        entry = Event(*self._now_us(), key_text(name), data, step)

        def give(backend: Any) -> None:
            if callable(write := getattr(backend, "write_event", None)):
                write(entry)

        self._call_each("event", give)

    def end_phase(self, phase: OpenPhase, outcome: str, end_ns: int) -> None:
        """Write a phase that ended; a ``PhaseScope`` calls this.

        Args:
            phase: The phase.
            outcome: One of ``record.OUTCOMES``.
            end_ns: When it ended, by the monotonic clock.
        """
        self._write_phase(phase, outcome, end_ns, PHASES.end(phase, end_ns))

    def has_backend(self, backend: object) -> bool:
        """Return whether a backend gets the calls of this Logger, itself or from another one."""
        return any(
            one is backend or getattr(one, "made", None) is backend for one in self._receivers()
        )

    def announce_phase(self, phase: OpenPhase, now_ns: int) -> None:
        """Write that a phase is open, before a record in it.

        Args:
            phase: The phase.
            now_ns: The time by the monotonic clock, the same for all that are announced together.
        """
        self._write_phase(phase, OPEN, now_ns, phase.announced_ns or 0)

    def _write_phase(self, phase: OpenPhase, outcome: str, now_ns: int, self_ns: int) -> None:
        try:
            elapsed_us = (now_ns - self._start_ns) // 1000
            # By its begin, so that both entries of a phase say exactly when that was.
            duration_us = elapsed_us - (phase.begin_ns - self._start_ns) // 1000
            entry = Phase(
                time_ns() // 1000,
                elapsed_us,
                phase.name,
                duration_us,
                # The others' time is rounded up, so that no time is in two phases.
                max(duration_us + (self_ns + phase.begin_ns - now_ns) // 1000, 0),
                outcome,
                phase.step,
                phase.is_overlapping,
            )
            for backend in self._receivers() if _attached else tuple(self.backends or ()):
                try:
                    if type(backend) in _TAKES_RECORDS:
                        backend.write_phase(entry)
                    elif callable(write := getattr(backend, "write_phase", None)):
                        write(entry)
                except Exception as error:
                    _caught(backend, "phase", error)
        except Exception as error:  # ``backends`` cannot be iterated over
            _caught(self, "phase", error)

    def flush(self) -> None:
        """Flush every backend; only lines that a full disk refused are ever held back."""
        self._call_each("flush", _caller_of("flush"), attached_too=False)

    def close(self) -> None:
        """Flush and close every backend: free ports, close files, remove discovery files.

        Later log calls still reach the log files.
        """
        PHASES.forget(self)
        # First tell the backends whose close takes time, so that they close at the same time.
        self._call_each("begin_close", _caller_of("begin_close"), attached_too=False)
        self._call_each("close", _caller_of("close"), attached_too=False)
        atexit.unregister(self.flush)
        atexit.unregister(self._settle)

    def _settle(self) -> None:
        """Count what is still unwritten at the end of a process that did not call ``close``."""
        self._call_each("settle", _caller_of("settle"), attached_too=False)

    def __enter__(self) -> Logger:  # noqa: PYI034 - Self came with Python 3.11
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def _call_each(
        self, what: str, call: Callable[[Any], object], *, attached_too: bool = True
    ) -> None:
        """Call the same function for every backend, even if it fails for some of them.

        Args:
            what: What the function does, for the warning.
            call: The function, which takes one backend.
            attached_too: Whether to include the backends that are attached to all Loggers.
        """
        try:
            for backend in self._receivers() if attached_too else list(self.backends or ()):
                try:
                    call(backend)
                except Exception as error:
                    _caught(backend, what, error)
        except Exception as error:  # ``backends`` cannot be iterated over
            _caught(self, what, error)

    def _now_us(self) -> tuple[int, int]:
        elapsed_ns = monotonic_ns() - self._start_ns
        return time_ns() // 1000, elapsed_ns // 1000

    def _receivers(self) -> list[Any]:
        own = list(self.backends or ())
        own_types = set(map(type, own))
        return own + [backend for backend, kind in _attached if kind not in own_types]


def _level(verbosity: object) -> float:
    """Return the verbosity of a call as a number; warn and return 0 if it is not a number."""
    number = to_number(to_plain(verbosity))
    if number is not None and not isnan(number):
        return number
    DIAGNOSTICS.warn(
        "verbosity",
        f"verbosity={safe_repr(verbosity)[:80]} of a log call is not a number: using 0; pass "
        "Verbosity.DEFAULT or Verbosity.VERBOSE",
    )
    return Verbosity.DEFAULT


def _caller_of(method: str) -> Callable[[Any], object]:
    def call(backend: Any) -> None:
        if callable(found := getattr(backend, method, None)):
            found()

    return call


def _announce_phases() -> None:
    now_ns = monotonic_ns()
    for phase in PHASES.take_unannounced(now_ns):
        phase.logger.announce_phase(phase, now_ns)


def _caught(backend: object, method: str, error: Exception) -> None:
    DIAGNOSTICS.caught("backend_failed", f"{type(backend).__name__}.{method} failed", error)

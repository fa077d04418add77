"""DLLogger's API, which exports every metric of a training run to OpenTelemetry and Prometheus.

``import otel_dllogger as dllogger`` works for scripts written for NVIDIA's ``dllogger`` and for
TCAP's ``tcap_dllogger``. The import has no side effects: no thread, no socket, no file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from otel_dllogger.runtime.platforms import require_posix

require_posix()  # first, since most of what follows needs modules that Windows lacks

from otel_dllogger.backends.json_stream import JSONStreamBackend
from otel_dllogger.backends.otel import OTelBackend
from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.backends.prometheus import PrometheusBackend
from otel_dllogger.backends.stdout import (
    StdOutBackend,
    default_metric_format,
    default_prefix_format,
    default_step_format,
)
from otel_dllogger.errors import (
    ConfigurationError,
    DLLLoggerAlreadyInitialized,
    DLLoggerNotInitialized,
)
from otel_dllogger.logger import (
    Backend,
    BackendProtocol,
    Logger,
    RecordBackend,
    Verbosity,
)
from otel_dllogger.phases import PhaseScope
from otel_dllogger.record import Event, Info, Metadata, Phase, Record
from otel_dllogger.runtime.exit_status import EXIT_STATUS
from otel_dllogger.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "GLOBAL_LOGGER",
    "Backend",
    "BackendProtocol",
    "ConfigurationError",
    "DLLLoggerAlreadyInitialized",
    "DLLoggerNotInitialized",
    "Event",
    "Info",
    "JSONStreamBackend",
    "Logger",
    "Metadata",
    "OTLPBackend",
    "OTelBackend",
    "Phase",
    "PhaseScope",
    "PrometheusBackend",
    "Record",
    "RecordBackend",
    "StdOutBackend",
    "Verbosity",
    "__version__",
    "default_metric_format",
    "default_prefix_format",
    "default_step_format",
    "event",
    "flush",
    "info",
    "init",
    "log",
    "metadata",
    "metadata_batch",
    "phase",
    "shutdown",
]


class NotInitializedObject:
    """A stand-in for the global Logger before ``init``; any use of it raises."""

    def __getattribute__(self, _name: str) -> NoReturn:
        raise DLLoggerNotInitialized(
            "DLLogger not initialized. Initialize DLLogger with init(backends) function"
        )


GLOBAL_LOGGER: Any = NotInitializedObject()
"""The Logger that the module's functions use, once ``init`` has been called."""


EXIT_STATUS.note_exits()


def init(backends: Iterable[BackendProtocol]) -> None:
    """Create the global Logger.

    Args:
        backends: Its backends, as for ``Logger``; the list may be empty.

    Raises:
        DLLLoggerAlreadyInitialized: If there already is one; ``shutdown()`` ends it.
    """
    global GLOBAL_LOGGER  # noqa: PLW0603 - DLLogger's own interface
    if type(GLOBAL_LOGGER) is not NotInitializedObject:
        raise DLLLoggerAlreadyInitialized(
            "DLLogger is already initialized; call init() only once, or call shutdown() first"
        )
    GLOBAL_LOGGER = Logger(backends)


def log(step: Any, data: Any, verbosity: int = Verbosity.DEFAULT) -> None:
    """Log the values of one step; see ``Logger.log``.

    Raises:
        DLLoggerNotInitialized: Before ``init``.
    """
    GLOBAL_LOGGER.log(step, data, verbosity=verbosity)


def metadata(metric: Any, metadata: Any) -> None:
    """Describe a metric; see ``Logger.metadata``.

    Raises:
        DLLoggerNotInitialized: Before ``init``.
    """
    GLOBAL_LOGGER.metadata(metric, metadata)


def metadata_batch(metrics: Iterable[Any], metadata: Any) -> None:
    """Give several metrics the same metadata; see ``Logger.metadata_batch``.

    Raises:
        DLLoggerNotInitialized: Before ``init``.
    """
    GLOBAL_LOGGER.metadata_batch(metrics, metadata)


def info(data: Any) -> None:
    """Log text or settings that belong to no step; see ``Logger.info``.

    Raises:
        DLLoggerNotInitialized: Before ``init``.
    """
    GLOBAL_LOGGER.info(data)


def phase(name: Any, *, step: Any = None) -> PhaseScope:
    """Return a phase of the training, for ``with`` or as a decorator; see ``Logger.phase``.

    The global Logger gets it when it begins, so a decorator may come before ``init``.

    Raises:
        DLLoggerNotInitialized: When it begins before ``init``.
    """
    return PhaseScope(_global_logger, name, step)


def event(name: Any, data: Any = None, *, step: Any = None) -> None:
    """Log that something happened; see ``Logger.event``.

    Raises:
        DLLoggerNotInitialized: Before ``init``.
    """
    GLOBAL_LOGGER.event(name, data, step=step)


def _global_logger() -> Logger:
    logger: Logger = GLOBAL_LOGGER
    return logger


def flush() -> None:
    """Flush every backend; see ``Logger.flush``.

    Raises:
        DLLoggerNotInitialized: Before ``init``.
    """
    GLOBAL_LOGGER.flush()


def shutdown() -> None:
    """Close the global Logger, if there is one; ``init`` may then be called again."""
    global GLOBAL_LOGGER
    logger, GLOBAL_LOGGER = GLOBAL_LOGGER, NotInitializedObject()
    if type(logger) is not NotInitializedObject:
        logger.close()

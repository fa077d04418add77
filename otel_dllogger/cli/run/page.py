"""The page that ``otel-dllogger run`` adds to a script, opened before the script starts."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_dllogger.backends.prometheus import PrometheusBackend
from otel_dllogger.cli.user_error import UserError, in_options
from otel_dllogger.diagnostics import FAULTS
from otel_dllogger.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class PageOptions:
    """Hold the options of ``run`` that are arguments of ``PrometheusBackend``.

    Attributes:
        host: The address to listen on, None for the default of the backend.
        port: The port of local rank 0, likewise.
        run: The run's name, likewise.
        discovery_dir: The discovery folder, likewise.
        linger_s: Seconds to wait at the end for a scrape, likewise.
        verbosity: The highest verbosity that is exported.
    """

    host: str | None
    port: int | None
    run: str | None
    discovery_dir: Path | None
    linger_s: float | None
    verbosity: int

    def open(self) -> PrometheusBackend:
        """Open the page; where it cannot be, that is counted and training goes on."""
        return PrometheusBackend(
            self.verbosity,
            host=self.host,
            port=self.port,
            run=self.run,
            discovery_dir=self.discovery_dir,
            linger_s=self.linger_s,
        )


def open_page(options: PageOptions) -> tuple[PrometheusBackend, list[str]]:
    """Open the page, or refuse: a run that is to be watched must not start blind.

    Args:
        options: Where to serve it.

    Returns:
        The backend, and warnings that do not keep the run from being watched.

    Raises:
        UserError: If no port or no discovery file could be had.
    """
    logger = logging.getLogger("otel_dllogger")
    messages = _Messages()
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(messages)
    try:
        backend = options.open()
    except ConfigurationError as error:
        raise UserError(in_options(str(error))) from error
    finally:
        FAULTS.drain()
        logger.removeHandler(messages)
        logger.propagate = propagate
    if FAULTS.dropped["endpoint"] or FAULTS.dropped["discovery"]:
        backend.close()
        raise UserError(in_options("; ".join(messages.lines)))
    return backend, messages.lines


class _Messages(logging.Handler):
    """Keep what the backend would warn of, without the name of the counter."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage().partition(" (counted in ")[0])

"""The page that ``otel-dllogger run`` adds to a script, opened before the script starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_dllogger.backends.prometheus import PrometheusBackend
from otel_dllogger.cli.user_error import UserError, in_options
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path


_STEPS = {
    "host": "pass --host 127.0.0.1",
    "port": "pass --port 0",
    "discovery_dir": "pass --discovery-dir with a folder that can be written",
}


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
    with DIAGNOSTICS.captured() as warnings:
        try:
            backend = options.open()
        except ConfigurationError as error:
            raise UserError(in_options(error, _STEPS)) from error
    messages = [message for reason, message in warnings if reason not in ("endpoint", "discovery")]
    if backend.problems:
        backend.close()
        problems = [in_options(problem, _STEPS) for problem in backend.problems]
        raise UserError("; ".join([*messages, *problems]))
    return backend, messages

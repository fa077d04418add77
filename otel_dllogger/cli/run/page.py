"""The page that ``otel-dllogger run`` adds to a script, and to the processes that it spawns."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from otel_dllogger import settings
from otel_dllogger.backends.prometheus import PrometheusBackend
from otel_dllogger.cli.terminal import UserError, in_options
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.http.discovery_folder import NONE

_STEPS = {
    "host": "pass --host 127.0.0.1",
    "port": "pass --port 0",
    "discovery_dir": "pass --discovery-dir with a folder that can be written, or none",
}


@dataclass(frozen=True, slots=True)
class PageOptions:
    """The options of ``run`` that are arguments of ``PrometheusBackend``.

    Attributes:
        host: The address to listen on, None for the backend's default.
        port: The port of local rank 0, likewise.
        run: The run's name, likewise.
        discovery_dir: The discovery folder, likewise.
        linger_s: Seconds to wait at the end for one more read of the page, likewise.
        verbosity: The highest verbosity that is exported.
    """

    host: str | None
    port: int | None
    run: str | None
    discovery_dir: Path | None
    linger_s: float | None
    verbosity: int

    def open(self) -> PrometheusBackend:
        """Open the page; if that fails, it is counted and training goes on."""
        return PrometheusBackend(
            self.verbosity,
            host=self.host,
            port=self.port,
            run=self.run,
            discovery_dir=self.discovery_dir,
            linger_s=self.linger_s,
        )


def open_page(options: PageOptions) -> tuple[PrometheusBackend, list[str]]:
    """Open the page, or refuse to: a run that is to be watched must not start unwatched.

    Args:
        options: Where to serve it.

    Returns:
        The backend, and warnings that do not keep the run from being watched.

    Raises:
        UserError: If no port was available, or no discovery file could be written into the folder
            of the option.
    """
    with DIAGNOSTICS.captured() as warnings:
        try:
            backend = options.open()
        except ConfigurationError as error:
            raise UserError(in_options(error, _STEPS)) from error
    # The folder of the variable may be one for all jobs of a cluster, and no reason not to train.
    fatal = [in_options(one, _STEPS) for one in backend.problems if one.argument]
    said = {str(problem) for problem in backend.problems if problem.argument}
    messages = [message for _reason, message in warnings if message not in said]
    if fatal or backend.url is None:
        backend.close()
        raise UserError("; ".join([*messages, *fatal]))
    return backend, messages


def describe_announcement(page: PrometheusBackend, options: PageOptions) -> str | None:
    """Return where a page is announced to Prometheus.

    Args:
        page: The page.
        options: Where it was to be announced.

    Returns:
        A line, None if it was not to be announced, or a warning has said why it is not.
    """
    if page.discovery is not None and page.discovery.is_written:
        return f"announced to Prometheus in {page.discovery.path.parent}"
    if options.discovery_dir is not None or settings.text(settings.DISCOVERY_DIR, ""):
        return None
    return (
        "not announced to Prometheus, since no folder for it can be written; set "
        f"{settings.DISCOVERY_DIR} to one, or to {NONE}"
    )


VARIABLE = "_OTEL_DLLOGGER_PAGE"
"""The environment variable that carries the options to the children."""


def hand_down(options: PageOptions, run: str) -> None:
    """Pass the options on to the processes that this one spawns.

    Args:
        options: The options of this process's page.
        run: The run's name as this process found it; the children are part of it.
    """
    handed = asdict(replace(options, run=run))
    os.environ[VARIABLE] = json.dumps(handed, default=os.fspath)


def inherited_options() -> PageOptions | None:
    """Return the options that the parent passed on, None if there are none."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    fields = json.loads(text)
    folder = fields["discovery_dir"]
    return PageOptions(**{**fields, "discovery_dir": None if folder is None else Path(folder)})

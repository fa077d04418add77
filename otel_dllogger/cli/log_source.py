"""What the commands for other people's logs share: an exporter, and messages to the user."""

from __future__ import annotations

import contextlib
import fnmatch
import os
from typing import TYPE_CHECKING

import click

from otel_dllogger.cli.terminal import UserError, in_options, missing_extra
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.http.listener import MAX_PORT
from otel_dllogger.redaction import redact_users

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from otel_dllogger.errors import EndpointError
    from otel_dllogger.otlp.patient_exporter import PatientExporter


_LISTEN = "pass --listen with another address, such as 127.0.0.1:0 for any free port"
_STEPS = {
    "host": _LISTEN,
    "port": _LISTEN,
    "endpoint": "give an address such as {example}, or set OTEL_EXPORTER_OTLP_ENDPOINT",
}


def say(message: str) -> None:
    """Print one line for the user."""
    with contextlib.suppress(OSError):  # a message that nobody can read is not a reason to end
        click.echo(f"otel-dllogger: {redact_users(message)}", err=True)


def explain(error: ConfigurationError | EndpointError | ImportError) -> str:
    """Return what an error says in the words of the command line."""
    if isinstance(error, ImportError):
        return missing_extra(error, "otlp")
    return in_options(error, _STEPS)


def parse_address(text: str, option: str = "--listen") -> tuple[str, int]:
    """Read ``HOST:PORT``, ``[::1]:PORT``, or a port alone, which is on this machine.

    Args:
        text: The address.
        option: The option that has it.

    Raises:
        UserError: If it is none of them.
    """
    host, _, port = text.strip().rpartition(":")
    if not (port.isascii() and port.isdigit() and int(port) <= MAX_PORT):
        raise UserError(
            f"{option} {text} is not a HOST:PORT with a port from 0 to {MAX_PORT}; write it as "
            "127.0.0.1:9464"
        )
    return host.strip("[]") or "127.0.0.1", int(port)


def is_log(path: Path) -> bool:
    """Return whether a file begins as a log does."""
    from otel_dllogger.logs.parsers.tfrecord import is_frame  # noqa: PLC0415
    from otel_dllogger.logs.source import open_log, read_lines  # noqa: PLC0415

    if not path.is_file():
        return False
    try:
        first = next(read_lines(str(path)), b"")
        return is_frame(first) or bool(open_log(str(path)).reader.read(first))
    except OSError:
        return False


def is_among(path: Path, paths: Sequence[str]) -> bool:
    """Return whether a file is one of the logs to be read, or would be if it were there.

    Args:
        path: The file.
        paths: Files, folders and globs. If one is invalid, there are no logs; whoever reads them
            says so.
    """
    from otel_dllogger.logs.tail.anomalies import FileAnomalies  # noqa: PLC0415
    from otel_dllogger.logs.tail.candidates import NAMES  # noqa: PLC0415
    from otel_dllogger.logs.tail.find_files import FileFinder  # noqa: PLC0415

    try:
        finder = FileFinder(paths, anomalies=FileAnomalies())
    except ConfigurationError:
        return False
    try:
        status = path.stat()
    except FileNotFoundError:
        is_named = any(fnmatch.fnmatch(path.name, name) for name in NAMES)
        return is_named and finder.covers(os.path.realpath(path))
    except OSError:
        return False
    return any(os.path.samestat(status, found.status) for found in finder.scan().files.values())


def open_exporter(
    url: str,
    stopping: threading.Event,
    tell: Callable[[str], object],
    *,
    patience_s: float | None = None,
    skips_refused: bool = True,
) -> PatientExporter:
    """Return an exporter that sends points, events and parameters to a collector.

    Args:
        url: The collector's URL.
        stopping: Set when the process is to end.
        tell: Takes a line for the user.
        patience_s: As ``PatientExporter`` takes it.
        skips_refused: As ``PatientExporter`` takes it.

    Raises:
        ConfigurationError: If the URL, or an environment variable of OTLP, is invalid.
        ImportError: If the packages of the extra ``otlp`` are missing.
    """
    from otel_dllogger.otlp.settings import read_logs_options, read_options  # noqa: PLC0415
    from otel_dllogger.otlp.transport import open_transport  # noqa: PLC0415

    otlp = read_options(endpoint=url)
    logs_options = read_logs_options(endpoint=url)
    transport = open_transport(otlp)
    from otel_dllogger.metrics.resource import logged_resource  # noqa: PLC0415
    from otel_dllogger.otlp.encoder import Encoder  # noqa: PLC0415
    from otel_dllogger.otlp.log_encoder import LogEncoder  # noqa: PLC0415
    from otel_dllogger.otlp.log_exporter import PatientLogExporter  # noqa: PLC0415
    from otel_dllogger.otlp.patient_exporter import PatientExporter  # noqa: PLC0415

    logs = None
    if logs_options is not None:
        logs = PatientLogExporter(
            open_transport(logs_options),
            LogEncoder(logged_resource),
            timeout_s=logs_options.timeout_s,
            stopping=stopping,
            tell=tell,
            patience_s=patience_s,
        )
    return PatientExporter(
        transport,
        Encoder(logged_resource),
        timeout_s=otlp.timeout_s,
        stopping=stopping,
        tell=tell,
        patience_s=patience_s,
        skips_refused=skips_refused,
        logs=logs,
    )

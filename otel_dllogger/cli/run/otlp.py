"""The OTLP that ``otel-dllogger run`` adds to a script if the environment names a collector."""

from __future__ import annotations

from otel_dllogger import settings
from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.cli.run.first_record import AtFirstRecord
from otel_dllogger.cli.terminal import note
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.redaction import redact_address

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")


def find_collector() -> tuple[str | None, list[str]]:
    """Return where the environment says that metrics are to be sent.

    Nothing that is wrong with it keeps a script from running: the page and the log have it all.

    Returns:
        The address, None if nothing is or can be sent; and warnings.
    """
    if not _is_wanted():
        return None, []
    from otel_dllogger.otlp.settings import (  # noqa: PLC0415 - rarely needed
        read_logs_options,
        read_options,
    )
    from otel_dllogger.otlp.transport import check_packages  # noqa: PLC0415

    with DIAGNOSTICS.captured() as warnings:
        try:
            options, logs_options = read_options(), read_logs_options()
            for each in filter(None, (options, logs_options)):
                check_packages(each.protocol)
        except (ConfigurationError, ImportError) as error:
            return None, [f"nothing is sent over OTLP: {error}"]
    return redact_address(options.address), [message for _reason, message in warnings]


def otlp_at_first_record(
    verbosity: int, run: str | None, rank: int | None = None, *, told: str = ""
) -> AtFirstRecord:
    """Return a backend that sends every step, once there is one.

    Args:
        verbosity: The highest verbosity that is sent.
        run: The run's name.
        rank: The rank; None for the one that the launcher sets until the first record.
        told: The address to print once there is one, none if empty: a script that has a backend
            of its own may send elsewhere, and one that logs nothing sends nothing.
    """

    def make() -> OTLPBackend:
        backend = OTLPBackend(verbosity, run=run, rank=rank)
        if told:
            note(f"every step is sent to {told}")
        return backend

    return AtFirstRecord(verbosity, make)


def _is_wanted() -> bool:
    if not any(settings.text(name, "") for name in _ENDPOINTS):
        return False
    if settings.text(settings.SDK_DISABLED, "").lower() == "true":
        return False
    return settings.exports_otlp(settings.METRICS_EXPORTER)

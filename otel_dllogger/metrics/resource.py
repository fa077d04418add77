"""The OpenTelemetry resource and scope of a rank, which say who sends, and from where.

A receiver may make each attribute of a resource a label of each series, as VictoriaMetrics does,
or of ``target_info``. What is new at each restart, as the process id, is therefore not in the
resource of metrics, but only in that of log records.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, cast

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.identity import host_name
from otel_dllogger.metrics.naming import label_text
from otel_dllogger.redaction import redact, redact_arguments
from otel_dllogger.secret_names import is_secret_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.resources import Resource
    from opentelemetry.util.types import AttributeValue

SCOPE: Final = "otel_dllogger"
"""The name of the instrumentation scope."""

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"
"""The semantic conventions that the names of attributes follow."""

_RUNTIME = ("process.runtime.name", "process.runtime.version", "process.runtime.description")
_PROCESS = (*_RUNTIME, "process.pid")


def rank_resource(run: str, rank: int) -> Resource:
    """Return the resource for the metrics of a rank that is this process.

    It has the host, the Python and the Slurm job. What a detector of OpenTelemetry says comes
    before that, and OTEL_RESOURCE_ATTRIBUTES before both. Secrets are left out.

    Args:
        run: The run's name.
        rank: The rank of this process.
    """
    return _resource(run, rank, _detect(_RUNTIME))


def process_resource(run: str, rank: int) -> Resource:
    """Return the resource for the log records of a rank, which has its process id as well.

    Args:
        run: The run's name.
        rank: The rank of this process.
    """
    return _resource(run, rank, _detect(_PROCESS))


def logged_resource(run: str, rank: int) -> Resource:
    """Return the resource of a rank that is known from its logs, so not of this host or process.

    Args:
        run: The run's name.
        rank: The rank.
    """
    return _resource(run, rank, {})


def _detect(names: Sequence[str]) -> dict[str, AttributeValue]:
    """Return the host, the Slurm job and some attributes of OpenTelemetry's process detector.

    Args:
        names: The names of those attributes.
    """
    from opentelemetry.sdk.resources import ProcessResourceDetector  # noqa: PLC0415 - not at import

    found: dict[str, AttributeValue] = {"host.name": host_name()}
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        found["slurm.job.id"] = job
    try:
        process = ProcessResourceDetector().detect().attributes
    except Exception as error:  # psutil cannot name the user of every container
        DIAGNOSTICS.caught("backend_failed", "OpenTelemetry's process detector", error)
        return found
    return {**found, **{name: process[name] for name in names if name in process}}


def _resource(run: str, rank: int, detected: Mapping[str, AttributeValue]) -> Resource:
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - not at import

    # The SDK's own instance id is random: every restart would be a new instance.
    created = Resource.create({"service.instance.id": f"{run}/{rank}"})
    attributes = {**detected, **created.attributes}
    if str(attributes.get("service.name", "")).startswith("unknown_service"):
        attributes["service.name"] = "otel_dllogger"
    clean = {
        key: _clean(value)
        for key, value in attributes.items()
        if not is_secret_name(key, str(value))
    }
    return Resource(clean, created.schema_url or SCHEMA_URL)


def _clean(value: AttributeValue) -> AttributeValue:
    """Return a value without secrets, and without bytes that would make every export fail.

    ``process.command_args``, if a detector of OpenTelemetry adds it, is the command line.
    """
    if isinstance(value, str):
        return label_text(redact(value))
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return [label_text(item) for item in redact_arguments(cast("Sequence[str]", value))]
    return value

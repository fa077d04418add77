"""The OpenTelemetry resource of a rank, which identifies the sender of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from otel_dllogger.metrics.naming import label_text
from otel_dllogger.redaction import redact, redact_arguments
from otel_dllogger.secret_names import is_secret_name

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.util.types import AttributeValue


def rank_resource(run: str, rank: int) -> Resource:
    """Return the resource of a rank, with OTEL_RESOURCE_ATTRIBUTES and without secrets.

    Args:
        run: The run's name.
        rank: The rank of this process.
    """
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - not at import

    # The SDK's own instance id is random: every restart would be a new instance.
    resource = Resource.create({"service.instance.id": f"{run}/{rank}"})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "otel_dllogger"}))
    clean = {
        key: _clean(value)
        for key, value in resource.attributes.items()
        if not is_secret_name(key, str(value))
    }
    return Resource(clean, resource.schema_url)


def _clean(value: AttributeValue) -> AttributeValue:
    """Return a value without secrets, and without bytes that would make every export fail.

    ``process.command_args``, if a detector of OpenTelemetry adds it, is the command line.
    """
    if isinstance(value, str):
        return label_text(redact(value))
    if isinstance(value, Sequence) and all(isinstance(item, str) for item in value):
        return [label_text(item) for item in redact_arguments(cast("Sequence[str]", value))]
    return value

"""The OpenTelemetry resource of a rank: who sends the metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.metrics.mapping import label_text

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource


def rank_resource(run: str, rank: int) -> Resource:
    """Return the resource of a rank, with what OTEL_RESOURCE_ATTRIBUTES says.

    Args:
        run: The run's name.
        rank: The rank of this process.
    """
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - not at import

    # The SDK's own instance id is random: every restart would be a new instance.
    resource = Resource.create({"service.instance.id": f"{run}/{rank}"})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "otel_dllogger"}))
    # One byte that is no text in the environment would make every export fail.
    clean = {
        key: label_text(value) if isinstance(value, str) else value
        for key, value in resource.attributes.items()
    }
    return Resource(clean, resource.schema_url)

"""The resources of what is sent, each encoded only once.

``ResourceMetrics`` and ``ResourceLogs`` begin with the same fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage

from otel_dllogger.otlp.any_value import key_values

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.proto.logs.v1.logs_pb2 import ResourceLogs
    from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics
    from opentelemetry.sdk.resources import Resource

    from otel_dllogger.otlp.batches import ResourceKey


class ResourceMessages:
    """The resources of runs and ranks as messages; an encoder derives from this.

    Args:
        message: The message that holds a resource.
        resource_of: Returns the resource of a run and a rank.
    """

    def __init__(
        self,
        message: type[ResourceMetrics | ResourceLogs],
        resource_of: Callable[[str, int], Resource],
    ) -> None:
        self._message = message
        self._resource_of = resource_of
        self._resources: dict[ResourceKey, bytes] = {}

    def prepare(self, key: ResourceKey) -> bytes:
        """Return a resource as a message; its environment variables are read only once."""
        known = self._resources.get(key)
        if known is None:
            resource = self._resource_of(*key)
            known = self._resources[key] = self._message(
                resource=ResourceMessage(attributes=key_values(resource.attributes)),
                schema_url=resource.schema_url,
            ).SerializeToString()
        return known

    def forget(self, key: ResourceKey) -> None:
        """Forget a resource of which everything was sent."""
        self._resources.pop(key, None)

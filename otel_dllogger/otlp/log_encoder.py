"""Encode a batch of log records as an OTLP request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage

from otel_dllogger.metrics.resource import SCHEMA_URL, SCOPE
from otel_dllogger.otlp.any_value import key_values
from otel_dllogger.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.resources import Resource

    from otel_dllogger.otlp.batches import ResourceKey
    from otel_dllogger.otlp.log_batches import LogBatch


class LogEncoder:
    """An encoder of log records, which makes each resource only once.

    Args:
        resource_of: Returns the resource of a run and a rank.
    """

    def __init__(self, resource_of: Callable[[str, int], Resource]) -> None:
        self._resource_of = resource_of
        self._resources: dict[ResourceKey, bytes] = {}

    def prepare(self, key: ResourceKey) -> bytes:
        """Return a resource as a message; its environment variables are read only once."""
        known = self._resources.get(key)
        if known is None:
            resource = self._resource_of(*key)
            known = self._resources[key] = ResourceLogs(
                resource=ResourceMessage(attributes=key_values(resource.attributes)),
                schema_url=resource.schema_url,
            ).SerializeToString()
        return known

    def forget(self, key: ResourceKey) -> None:
        """Forget a resource of which everything was sent."""
        self._resources.pop(key, None)

    def encode(self, batch: LogBatch) -> bytes:
        """Return a batch as the bytes of an ``ExportLogsServiceRequest``."""
        request = ExportLogsServiceRequest()
        for key, records in batch.records.items():
            resource = request.resource_logs.add()
            resource.MergeFromString(self.prepare(key))
            scope = InstrumentationScope(name=SCOPE, version=__version__)
            resource.scope_logs.append(
                ScopeLogs(
                    scope=scope,
                    log_records=map(LogRecord.FromString, records),
                    schema_url=SCHEMA_URL,
                )
            )
        encoded: bytes = request.SerializeToString()
        return encoded

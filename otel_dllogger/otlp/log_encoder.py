"""Encode a batch of log records as an OTLP request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from otel_dllogger.metrics.resource import SCHEMA_URL, SCOPE
from otel_dllogger.otlp.resource_messages import ResourceMessages
from otel_dllogger.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.sdk.resources import Resource

    from otel_dllogger.otlp.log_batches import LogBatch


class LogEncoder(ResourceMessages):
    """An encoder of log records, which makes each resource only once.

    Args:
        resource_of: Returns the resource of a run and a rank.
    """

    def __init__(self, resource_of: Callable[[str, int], Resource]) -> None:
        super().__init__(ResourceLogs, resource_of)

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

"""Encode a batch as an OTLP request.

Resource, scope and labels are encoded once each, by OpenTelemetry's own messages. Only 18 bytes
differ from point to point, a time and a value. They are packed by hand, which is ten times as
fast as a message per point: otherwise the interpreter that runs the training would have to wait.

Source: opentelemetry-proto, ``opentelemetry/proto/metrics/v1/metrics.proto``, and
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import operator
import struct
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    AGGREGATION_TEMPORALITY_CUMULATIVE,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Metric,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.resource import SCHEMA_URL, SCOPE, rank_resource
from otel_dllogger.otlp.any_value import key_values
from otel_dllogger.otlp.batches import HistogramColumn
from otel_dllogger.otlp.resource_messages import ResourceMessages
from otel_dllogger.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.sdk.resources import Resource

    from otel_dllogger.metrics.data_points import Description, Series
    from otel_dllogger.otlp.batches import Batch, Column, ResourceKey

# The tag of a field is its number and its wire type: 1 is 8 bytes, 2 is a length and the content.
_TIME = NumberDataPoint.TIME_UNIX_NANO_FIELD_NUMBER << 3 | 1
_DOUBLE = NumberDataPoint.AS_DOUBLE_FIELD_NUMBER << 3 | 1
_POINT = struct.Struct("<BQBd")
# The flag for "no value": a receiver ends the series there, as if a scrape no longer had it. The
# NaN is sent along, for receivers that keep what was logged.
_NO_VALUE = bytes((NumberDataPoint.FLAGS_FIELD_NUMBER << 3, 1))


class Encoder(ResourceMessages):
    """An encoder of batches, which encodes each resource only once.

    Args:
        resource_of: Returns the resource of a run and a rank.
    """

    def __init__(self, resource_of: Callable[[str, int], Resource] = rank_resource) -> None:
        super().__init__(ResourceMetrics, resource_of)
        scope = InstrumentationScope(name=SCOPE, version=__version__)
        self._scope = ScopeMetrics(scope=scope, schema_url=SCHEMA_URL).SerializeToString()

    def encode(self, batch: Batch) -> bytes:
        """Return a batch as the bytes of an ``ExportMetricsServiceRequest``.

        Points of a resource that cannot be encoded are left out and counted as a fault, so that
        they do not hold up others; if nothing is left, the bytes are empty.
        """
        encoded = []
        for (run, rank), columns in batch.columns.items():
            try:
                encoded.append(self._encode((run, rank), columns))
            except Exception as error:
                DIAGNOSTICS.caught("backend_failed", f"points of {run}, rank {rank}", error)
        return b"".join(encoded)

    def _encode(
        self, key: ResourceKey, columns: Mapping[Series, Column | HistogramColumn]
    ) -> bytes:
        """Return the points of one resource as a field of the request.

        A request with several of these fields, one after another, has several resources.
        """
        metrics: dict[tuple[str, str, _Kind], list[bytes]] = {}
        texts: dict[tuple[str, str, _Kind], str] = {}
        for series, column in columns.items():
            description = series.describe()
            kind = _SUM if description.start_us is not None else _GAUGE
            if isinstance(column, HistogramColumn):
                kind = _HISTOGRAM
                encoded_points = _histograms(description, column)
            else:
                encoded_points = _points(_prefix(series, description), column)
            metric_key = (description.name, description.unit, kind)
            texts[metric_key] = description.text
            metrics.setdefault(metric_key, []).extend(encoded_points)
        encoded = [self._scope]
        for metric_key, points in metrics.items():
            name, unit, kind = metric_key
            head = Metric(name=name, unit=unit, description=texts[metric_key]).SerializeToString()
            # Fields may come in any order and more than once: these are merged with the points.
            points.append(kind.settings)
            metric = head + _field(kind.field, b"".join(points))
            encoded.append(_field(ScopeMetrics.METRICS_FIELD_NUMBER, metric))
        scope = _field(ResourceMetrics.SCOPE_METRICS_FIELD_NUMBER, b"".join(encoded))
        return _field(1, self.prepare(key) + scope)  # the request's resource_metrics


class _Kind(NamedTuple):
    """What a metric is: its field in the message, and what is in there beside its points."""

    field: int
    settings: bytes


_GAUGE = _Kind(Metric.GAUGE_FIELD_NUMBER, b"")
_SUM = _Kind(
    Metric.SUM_FIELD_NUMBER,
    Sum(
        aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE, is_monotonic=True
    ).SerializeToString(),
)
_HISTOGRAM = _Kind(
    Metric.EXPONENTIAL_HISTOGRAM_FIELD_NUMBER,
    ExponentialHistogram(
        aggregation_temporality=AGGREGATION_TEMPORALITY_CUMULATIVE
    ).SerializeToString(),
)


def _histograms(description: Description, column: HistogramColumn) -> list[bytes]:
    """Return the points of a histogram, of which there is one in a quarter minute."""
    attributes = key_values(description.attributes)
    encoded = []
    for time_us, value in sorted(zip(column.times_us, column.values, strict=True)):
        point = ExponentialHistogramDataPoint(
            attributes=attributes,
            start_time_unix_nano=(description.start_us or 0) * 1000,
            time_unix_nano=time_us * 1000,
            count=value.steps,
            sum=value.sum_s,
            scale=value.scale,
            positive=ExponentialHistogramDataPoint.Buckets(
                offset=value.offset, bucket_counts=value.counts
            ),
            min=value.least_s,
            max=value.most_s,
        )
        encoded.append(
            _field(ExponentialHistogram.DATA_POINTS_FIELD_NUMBER, point.SerializeToString())
        )
    return encoded


def _points(prefix: bytes, column: Column) -> list[bytes]:
    times_us, values = column.times_us, column.values
    pairs = zip(times_us, values, strict=True)
    if any(map(operator.gt, times_us, islice(times_us, 1, None))):
        pairs = iter(sorted(pairs, key=operator.itemgetter(0)))  # type: ignore[assignment]
    size = len(prefix) + _POINT.size
    head = b"\x0a" + _length(size) + prefix
    head_of_none = b"\x0a" + _length(size + len(_NO_VALUE)) + _NO_VALUE + prefix
    pack = _POINT.pack
    return [
        (head if value - value == 0.0 else head_of_none)
        + pack(_TIME, time_us * 1000, _DOUBLE, value)
        for time_us, value in pairs
    ]


def _prefix(series: Series, description: Description) -> bytes:
    """Return the encoded beginning that all points of a series share."""
    if series.prefix is None or series.prefix[0] is not description:
        point = NumberDataPoint(attributes=key_values(description.attributes))
        if description.start_us is not None:
            point.start_time_unix_nano = description.start_us * 1000
        series.prefix = (description, point.SerializeToString())
    return series.prefix[1]


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _length(len(content)) + content


def _length(value: int) -> bytes:
    """Return a number as protobuf encodes it: seven bits per byte, the lowest first."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)

"""Real OTLP receivers over HTTP and gRPC, which accept, delay, refuse or never answer."""

from __future__ import annotations

import gzip
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from tests.support.http import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

DEADLINE_S = 60.0


@dataclass(frozen=True)
class Point:
    """One data point as it arrived; the value of a histogram is its count."""

    name: str
    unit: str
    labels: dict[str, str]
    time_us: int
    value: float
    flags: int
    start_us: int
    is_sum: bool
    histogram: Any = None

    @property
    def series(self) -> tuple[Any, ...]:
        """Return what distinguishes the series from all others."""
        return self.name, self.unit, *sorted(self.labels.items())


@dataclass(frozen=True)
class Request:
    """One request, whether it was taken or not."""

    resource: dict[str, str]
    scope: tuple[str, str]
    schema_urls: tuple[str, str]
    points: list[Point]
    headers: dict[str, str]
    status: int


@dataclass(frozen=True)
class LogRecord:
    """One log record as it arrived."""

    event: str
    time_us: int
    observed_us: int
    severity: tuple[int, str]
    body: Any
    labels: dict[str, str]


@dataclass(frozen=True)
class LogsRequest:
    """One request with log records, whether it was taken or not."""

    resource: dict[str, Any]
    scope: tuple[str, str]
    schema_urls: tuple[str, str]
    records: list[LogRecord]
    headers: dict[str, str]
    status: int


Answered = tuple[Any, dict[str, str], bytes]


@dataclass
class Collector:
    """The base class of all receivers.

    Attributes:
        requests: The requests with metrics in the order in which they came.
        answer: Returns status, headers and body for a request; the body of a 200 is a response.
        hold: Answers wait for this event.
        logs_requests: The requests with log records in the order in which they came.
        answer_logs: As ``answer``, for log records.
        hold_logs: As ``hold``, for log records.
    """

    requests: list[Request] = field(default_factory=list)
    answer: Callable[[list[Point]], Answered] = lambda _points: (200, {}, b"")
    hold: threading.Event = field(default_factory=threading.Event)
    waiting: int = 0
    logs_requests: list[LogsRequest] = field(default_factory=list)
    answer_logs: Callable[[list[LogRecord]], Answered] = lambda _records: (200, {}, b"")
    hold_logs: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.hold.set()
        self.hold_logs.set()
        self._lock = threading.Lock()

    def take(self, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Decode a request, note it and return the answer."""
        *sender, points = decode(body)
        with self._lock:
            self.waiting += 1
            status, extra, answer = self.answer(points)
        self.hold.wait(DEADLINE_S)
        with self._lock:
            self.requests.append(Request(*sender, points, headers, status))
        return status, extra, answer

    def take_logs(self, body: bytes, headers: dict[str, str]) -> Answered:
        """Do the same for a request with log records."""
        decoded = decode_logs(body)
        with self._lock:
            status, extra, answer = self.answer_logs(decoded[-1])
        self.hold_logs.wait(DEADLINE_S)
        with self._lock:
            self.logs_requests.append(LogsRequest(*decoded, headers, status))
        return status, extra, answer

    @property
    def records(self) -> list[LogRecord]:
        """Return the log records of all requests that were taken."""
        with self._lock:
            taken = [one for one in self.logs_requests if one.status == 200]
        return [record for request in taken for record in request.records]

    def wait_for_records(self, count: int) -> list[LogRecord]:
        """Return the log records once ``count`` of them have come."""
        wait_until(lambda: len(self.records) >= count, DEADLINE_S)
        return self.records

    @property
    def points(self) -> list[Point]:
        """Return the points of all requests that were taken."""
        with self._lock:
            return [point for one in self.requests if one.status == 200 for point in one.points]

    def values(self, name: str, **labels: str) -> list[float]:
        """Return the values of a name, with these labels, in the order in which they came."""
        return [point.value for point in self.named(name, **labels)]

    def named(self, name: str, **labels: str) -> list[Point]:
        """Return the points of a name, with these labels, in the order in which they came."""
        return [
            point
            for point in self.points
            if point.name == name and labels.items() <= point.labels.items()
        ]

    def wait_for(self, name: str, count: int, **labels: str) -> list[float]:
        """Return the values of a name once ``count`` of them have come."""
        wait_until(lambda: len(self.values(name, **labels)) >= count, DEADLINE_S)
        return self.values(name, **labels)


def decode(
    body: bytes,
) -> tuple[dict[str, str], tuple[str, str], tuple[str, str], list[Point]]:
    """Decode a request with OpenTelemetry's own messages.

    Returns:
        The resource of the first process, its scope, the schemas of both, and the points of all
        processes.
    """
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (  # noqa: PLC0415
        ExportMetricsServiceRequest,
    )

    found = ExportMetricsServiceRequest.FromString(body).resource_metrics
    scopes = [scope for resource in found for scope in resource.scope_metrics]
    assert len(scopes) == len(found)
    points = []
    for metric in (metric for scope in scopes for metric in scope.metrics):
        kind = metric.WhichOneof("data")
        if kind == "sum":
            assert metric.sum.is_monotonic
        if kind != "gauge":
            assert getattr(metric, kind).aggregation_temporality == 2  # cumulative
        for point in getattr(metric, kind).data_points:
            is_histogram = kind == "exponential_histogram"
            assert is_histogram or point.WhichOneof("value") == "as_double"
            assert point.time_unix_nano % 1000 == 0
            points.append(
                Point(
                    metric.name,
                    metric.unit,
                    text_of(point.attributes),
                    point.time_unix_nano // 1000,
                    float(point.count) if is_histogram else point.as_double,
                    point.flags,
                    point.start_time_unix_nano // 1000,
                    kind == "sum",
                    point if is_histogram else None,
                )
            )
    scope = scopes[0].scope
    return (
        text_of(found[0].resource.attributes),
        (scope.name, scope.version),
        (found[0].schema_url, scopes[0].schema_url),
        points,
    )


def decode_logs(
    body: bytes,
) -> tuple[dict[str, Any], tuple[str, str], tuple[str, str], list[LogRecord]]:
    """Decode a request of one process with OpenTelemetry's own messages.

    Returns:
        Its resource, its scope, the schemas of both, and the log records.
    """
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (  # noqa: PLC0415
        ExportLogsServiceRequest,
    )

    (resource,) = ExportLogsServiceRequest.FromString(body).resource_logs
    (scope,) = resource.scope_logs
    records = [
        LogRecord(
            one.event_name,
            one.time_unix_nano // 1000,
            one.observed_time_unix_nano // 1000,
            (one.severity_number, one.severity_text),
            value_of(one.body),
            text_of(one.attributes),
        )
        for one in scope.log_records
    ]
    return (
        {one.key: value_of(one.value) for one in resource.resource.attributes},
        (scope.scope.name, scope.scope.version),
        (resource.schema_url, scope.schema_url),
        records,
    )


def value_of(value: Any) -> Any:
    """Return an ``AnyValue`` as a plain value."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "kvlist_value":
        return {one.key: value_of(one.value) for one in found.values}
    return [value_of(one) for one in found.values] if kind == "array_value" else found


def text_of(attributes: Any) -> dict[str, str]:
    """Return attributes that must all be text."""
    assert {"string_value"} >= {one.value.WhichOneof("value") for one in attributes}
    found = {one.key: one.value.string_value for one in attributes}
    assert len(found) == len(attributes)
    return found


class HTTPCollector(Collector):
    """A receiver over HTTP on a free port of the loopback interface, or on a given one."""

    def __init__(self, port: int = 0) -> None:
        super().__init__()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                if headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                headers["path"] = self.path
                take = collector.take_logs if self.path.endswith("logs") else collector.take
                status, extra, answer = take(body, headers)
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:  # which a redirected POST becomes
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_arguments: object) -> None:
                pass  # a client that went away

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.hold.set()
        self.hold_logs.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class GRPCCollector(Collector):
    """A receiver over gRPC; the status of an answer is 200, or the name of a gRPC status code."""

    def __init__(self, port: int = 0, *, takes_logs: bool = True) -> None:
        super().__init__()
        import grpc  # noqa: PLC0415
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (  # noqa: PLC0415
            LogsServiceServicer,
            add_LogsServiceServicer_to_server,
        )
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: PLC0415
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (  # noqa: PLC0415
            MetricsServiceServicer,
            add_MetricsServiceServicer_to_server,
        )

        def export(take: Any, response: Any, request: Any, context: Any) -> Any:
            headers = {one.key: one.value for one in context.invocation_metadata()}
            status, extra, answer = take(request.SerializeToString(), headers)
            if status != 200:
                context.set_trailing_metadata(tuple(extra.items()))
                context.abort(getattr(grpc.StatusCode, str(status)), "refused by the test")
            return response.FromString(answer)

        take, take_logs = self.take, self.take_logs

        class Metrics(MetricsServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
                response = metrics_service_pb2.ExportMetricsServiceResponse
                return export(take, response, request, context)

        class Logs(LogsServiceServicer):
            def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
                response = logs_service_pb2.ExportLogsServiceResponse
                return export(take_logs, response, request, context)

        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add_MetricsServiceServicer_to_server(Metrics(), self._server)
        if takes_logs:
            add_LogsServiceServicer_to_server(Logs(), self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.hold.set()
        self.hold_logs.set()
        self._server.stop(None).wait()


class BlackHole:
    """A receiver that accepts connections, but never reads or answers."""

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        return self

    def __exit__(self, *_error: object) -> None:
        self._socket.close()


def free_port() -> int:
    """Return a port on which nothing is listening now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port

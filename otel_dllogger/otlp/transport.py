"""Transports, which send one request to a collector and interpret the answer.

Source: OTLP specification 1.x, https://opentelemetry.io/docs/specs/otlp/, "OTLP/gRPC
Response" and "OTLP/HTTP Response". OpenTelemetry's own exporters for Python are not used
here: they report neither why a request failed nor which points were refused, retry it
themselves for up to ten seconds, and take tens of microseconds for each point.
"""

from __future__ import annotations

import dataclasses
import email.utils
import enum
import gzip
import importlib.util
import math
import time
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from otel_dllogger.errors import in_words, installing, one_line
from otel_dllogger.otlp.settings import GRPC, HTTP, LOGS, METRICS
from otel_dllogger.redaction import REDACTED, redact
from otel_dllogger.version import USER_AGENT

if TYPE_CHECKING:
    from otel_dllogger.otlp.settings import OTLPOptions

_MAX_ANSWER_BYTES = 65_536
_SHORTEST_SECRET = 8
_MESSAGE_CHARACTERS = 330
_RETRYABLE_STATUSES = frozenset((429, 502, 503, 504))
_MISDIRECTED_STATUSES = frozenset((401, 403, 404, 405, 407))
_MISDIRECTED_CODES = frozenset(("UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED"))
_RETRYABLE_CODES = frozenset(
    ("CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS")
)
_BAD_REQUEST = 400
_NO_SUCH_PATH = (404, 405)
_NO_SUCH_PATH_OF_VICTORIAMETRICS = b"unsupported path"  # with status 400
_PACKAGES = {GRPC: ("grpc", "google.rpc"), HTTP: ("requests",)}
_BASES = ("/opentelemetry", "/api/v1/otlp")  # of VictoriaMetrics and Prometheus


class Outcome(enum.Enum):
    """The outcome of a request."""

    TAKEN = enum.auto()  # as a whole or in part
    RETRY = enum.auto()  # the same request may be taken later
    MISDIRECTED = enum.auto()  # the address or the permission is wrong; a user may fix it
    REFUSED = enum.auto()  # a retry will not help


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request.

    Attributes:
        outcome: The outcome of the request.
        retry_after_s: Seconds that the collector asks to wait, if it does.
        refused: How many points or log records of a request that was taken in part were refused.
        message: A line for the user; empty if there is nothing to report.
    """

    outcome: Outcome
    retry_after_s: float | None = None
    refused: int = 0
    message: str = ""


class Transport(Protocol):
    """A transport of requests to one collector."""

    def send(self, request: bytes, timeout_s: float) -> Answer:
        """Send a request and wait for the answer, for ``timeout_s`` at most."""

    def close(self) -> None:
        """Abort the current request, if that is possible, and free all resources."""


def check_packages(protocol: str) -> None:
    """Check that the packages for a protocol are installed, without importing them.

    Args:
        protocol: One of ``settings.PROTOCOLS``.

    Raises:
        ImportError: If one is missing, with the next step.
    """
    for name in ("opentelemetry.proto", *_PACKAGES[protocol]):
        try:
            is_there = importlib.util.find_spec(name) is not None
        except ImportError:  # the package that it is a part of
            is_there = False
        if not is_there:
            raise _missing(name)


def open_transport(options: OTLPOptions) -> Transport:
    """Return the transport for the protocol, which does not connect yet.

    Args:
        options: Where requests go, and how.

    Raises:
        ImportError: If the packages that it needs are not installed, with the next step.
    """
    try:
        # The messages are needed for either protocol; better to fail now than in a thread.
        import opentelemetry.proto.metrics.v1.metrics_pb2  # noqa: F401, PLC0415

        return _GRPCTransport(options) if options.protocol == GRPC else _HTTPTransport(options)
    except ImportError as error:
        raise _missing(error.name or str(error)) from None


def _missing(package: str) -> ImportError:
    message = f"OTLPBackend needs the package {package}: {installing('otlp')}"
    return ImportError(message, name=package)


class _HTTPTransport:
    def __init__(self, options: OTLPOptions) -> None:
        import requests  # noqa: PLC0415 - optional, and 60 ms

        self._errors = requests.RequestException
        self._safe = _Safe(options)
        self._url = options.address
        self._right_path = _right_path(options)
        self._gzip = options.compression == "gzip"
        self._session = session = requests.Session()
        session.headers["user-agent"] = USER_AGENT
        session.headers.update(options.headers)
        session.headers["content-type"] = "application/x-protobuf"
        if self._gzip:
            session.headers["content-encoding"] = "gzip"
        # Otherwise a .netrc would override the authorization in the headers.
        session.auth = lambda request: request
        self._verify = options.certificate or True
        self._certificate: Any = options.client_certificate
        if options.client_certificate and options.client_key:
            self._certificate = (options.client_certificate, options.client_key)

    def send(self, request: bytes, timeout_s: float) -> Answer:
        if self._gzip:
            request = gzip.compress(request, compresslevel=1)
        try:
            with self._session.post(
                self._url,
                data=request,
                timeout=timeout_s,
                verify=self._verify,
                cert=self._certificate,
                allow_redirects=False,  # a POST would become a GET
                stream=True,
            ) as response:
                body = next(response.iter_content(_MAX_ANSWER_BYTES), b"")
                status, headers = response.status_code, response.headers
        except (self._errors, OSError) as error:
            return Answer(Outcome.RETRY, message=self._safe(in_words(error, named=True)))
        if 200 <= status < 300:
            return _partly(body, self._safe)
        is_wrong_path = status in _NO_SUCH_PATH or (
            status == _BAD_REQUEST and _NO_SUCH_PATH_OF_VICTORIAMETRICS in body
        )
        outcome = Outcome.REFUSED
        if status in _RETRYABLE_STATUSES:
            outcome = Outcome.RETRY
        elif 300 <= status < 400 or status in _MISDIRECTED_STATUSES or is_wrong_path:
            outcome = Outcome.MISDIRECTED
        said = self._safe(f"HTTP status {status} {response.reason or ''}: {one_line(body)}")
        return Answer(
            outcome,
            retry_after_s=parse_retry_after(headers.get("retry-after")),
            message=f"{said.rstrip(': ')}; {self._right_path}" if is_wrong_path else said,
        )

    def close(self) -> None:
        self._session.close()


class _GRPCTransport:
    def __init__(self, options: OTLPOptions) -> None:
        import grpc  # noqa: PLC0415 - optional, and 100 ms
        from google.rpc import (  # type: ignore[import-untyped] # noqa: PLC0415 - as above
            error_details_pb2,
            status_pb2,
        )

        self._retry_info, self._status = error_details_pb2.RetryInfo, status_pb2.Status
        self._error = grpc.RpcError
        # gRPC sets this header itself, with its own name after ours or the user's.
        headers = {"user-agent": USER_AGENT, **options.headers}
        user_agent = headers.pop("user-agent")
        self._safe = _Safe(options)
        self._metadata = tuple(headers.items())
        arguments: dict[str, Any] = {
            "compression": grpc.Compression.Gzip if options.compression == "gzip" else None,
            "options": [
                ("grpc.primary_user_agent", user_agent),
                # Otherwise it waits for up to two minutes before it reconnects.
                ("grpc.initial_reconnect_backoff_ms", 500),
                ("grpc.max_reconnect_backoff_ms", 5_000),
            ],
        }
        if options.secure:
            credentials = grpc.ssl_channel_credentials(
                *map(
                    _content,
                    (options.certificate, options.client_key, options.client_certificate),
                )
            )
            self._channel = grpc.secure_channel(options.address, credentials, **arguments)
        else:
            self._channel = grpc.insecure_channel(options.address, **arguments)
        self._export: Any = self._channel.unary_unary(options.signal.method)  # bytes in, bytes out

    def send(self, request: bytes, timeout_s: float) -> Answer:
        try:
            return self._taken(request, timeout_s)
        except self._error as error:
            return self._failed(error)
        except ValueError as error:  # the channel was closed
            return Answer(Outcome.RETRY, message=self._safe(in_words(error, named=True)))

    def _taken(self, request: bytes, timeout_s: float) -> Answer:
        answer = self._export(request, timeout=timeout_s, metadata=self._metadata)
        return _partly(answer, self._safe)

    def _failed(self, error: Any) -> Answer:
        code = error.code().name
        delay_s = self._delay_s(error)
        outcome = Outcome.REFUSED
        # RESOURCE_EXHAUSTED is final unless the collector says when to retry.
        if code in _RETRYABLE_CODES or (code == "RESOURCE_EXHAUSTED" and delay_s is not None):
            outcome = Outcome.RETRY
        elif code in _MISDIRECTED_CODES:
            outcome = Outcome.MISDIRECTED
        return Answer(
            outcome,
            retry_after_s=delay_s,
            message=self._safe(f"gRPC status {code}: {one_line(error.details())}"),
        )

    def _delay_s(self, error: Any) -> float | None:
        """Return the wait that a ``RetryInfo`` among the error's details asks for."""
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                try:
                    details = self._status.FromString(value).details
                    for detail in details:
                        info = self._retry_info()
                        if detail.Unpack(info):
                            delay_s: float = info.retry_delay.ToTimedelta().total_seconds()
                            return delay_s
                except Exception:
                    return None
        return None

    def close(self) -> None:
        self._channel.close()


def parse_retry_after(text: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for, None if it is not valid.

    Source: RFC 9110, 10.2.3: a number of seconds or a date.

    Args:
        text: The header's value.
    """
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (TypeError, ValueError):
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _right_path(options: OTLPOptions) -> str:
    """Return what to do if nothing takes the signal at the URL's path."""
    if options.signal is LOGS:
        return (
            "set OTEL_EXPORTER_OTLP_LOGS_ENDPOINT to a receiver of logs, such as "
            "http://HOST:9428/insert/opentelemetry/v1/logs of VictoriaLogs"
        )
    if urlsplit(options.address).path.rstrip("/").endswith(_BASES):
        return f"add {METRICS.path} to OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"
    return (
        "the endpoint of VictoriaMetrics is http://HOST:8428/opentelemetry, that of "
        "Prometheus, with --web.enable-otlp-receiver, http://HOST:9090/api/v1/otlp"
    )


def _partly(body: bytes, safe: _Safe) -> Answer:
    """Read the answer to a request that was taken, perhaps without some of what was in it.

    The answers to metrics and to logs have the same two fields, under other names.
    """
    from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2  # noqa: PLC0415

    try:
        answer = metrics_service_pb2.ExportMetricsServiceResponse.FromString(body)
    except Exception:  # from a server with an answer of its own
        return Answer(Outcome.TAKEN)
    partial = answer.partial_success
    return Answer(
        Outcome.TAKEN,
        refused=max(partial.rejected_data_points, 0),
        message=safe(one_line(partial.error_message)),
    )


class _Safe:
    """A filter for messages to show: a server may repeat what it was sent, headers included.

    Args:
        options: The headers that were sent.
    """

    def __init__(self, options: OTLPOptions) -> None:
        words = (word for value in options.headers.values() for word in value.split())
        self._secrets = [word for word in words if len(word) >= _SHORTEST_SECRET]

    def __call__(self, message: str) -> str:
        for secret in self._secrets:
            message = message.replace(secret, REDACTED)
        return redact(message)[:_MESSAGE_CHARACTERS]


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:  # noqa: PTH123 - pathlib takes longer to import
        return file.read()

"""Read where and how to send OTLP, from arguments first, then from the standard variables.

Source: OpenTelemetry specification, OpenTelemetry Protocol Exporter,
https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from otel_dllogger import arguments, settings
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.redaction import redact_address

if TYPE_CHECKING:
    from collections.abc import Mapping

HTTP = "http/protobuf"
GRPC = "grpc"
PROTOCOLS = (HTTP, GRPC)
COMPRESSIONS = ("none", "gzip")

_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_HTTP_DEFAULT = "http://localhost:4318"
_GRPC_DEFAULT = "http://localhost:4317"
_TIMEOUT_DEFAULT_S = 10.0
_TIMEOUT_MAX_S = 300.0

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Signal(NamedTuple):
    """One of OTLP's signals.

    Attributes:
        name: Its name in variables.
        path: The path to which its requests are posted.
        method: The method of gRPC that takes its requests.
    """

    name: str
    path: str
    method: str


METRICS = Signal(
    "METRICS",
    "/v1/metrics",
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
)
LOGS = Signal("LOGS", "/v1/logs", "/opentelemetry.proto.collector.logs.v1.LogsService/Export")

_METRICS_PATHS = (METRICS.path, "/api/v1/push")  # VictoriaMetrics has two names for the same


@dataclasses.dataclass(frozen=True, slots=True)
class OTLPOptions:
    """Where requests of one signal go, and how.

    Attributes:
        signal: The signal.
        protocol: ``http/protobuf`` or ``grpc``.
        address: The whole URL for HTTP, which may hold a password, ``host:port`` for gRPC.
        secure: Whether to use TLS.
        headers: Sent with each request; they may hold secrets.
        timeout_s: Seconds that one request may take.
        compression: ``none`` or ``gzip``.
        certificate: A file with the authorities to trust, None for the system's.
        client_certificate: A file with this client's certificate.
        client_key: A file with this client's key.
    """

    signal: Signal
    protocol: str
    address: str = dataclasses.field(repr=False)
    secure: bool
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    timeout_s: float
    compression: str
    certificate: str | None
    client_certificate: str | None
    client_key: str | None


def read_options(
    signal: Signal = METRICS,
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    compression: str | None = None,
) -> OTLPOptions:
    """Combine arguments and variables.

    Args:
        signal: The signal that is sent.
        endpoint: A URL; for HTTP, the path of the signal is appended unless it is there.
        protocol: One of ``PROTOCOLS``.
        headers: Headers in addition to those of the environment, which they override.
        timeout_s: Seconds that one request may take.
        compression: One of ``COMPRESSIONS``.

    Raises:
        ConfigurationError: If an argument, or the endpoint in the environment, is invalid.
    """
    chosen = _choose(signal, "protocol", protocol, PROTOCOLS)
    find_address = _http_address if chosen == HTTP else _grpc_address
    address, secure = find_address(signal, endpoint)
    return OTLPOptions(
        signal=signal,
        protocol=chosen,
        address=address,
        secure=secure,
        headers=_headers(signal, headers, "ascii" if chosen == GRPC else "latin-1"),
        timeout_s=_timeout_s(signal, timeout_s),
        compression=_choose(signal, "compression", compression, COMPRESSIONS),
        certificate=_variable(signal, "CERTIFICATE") or None,
        client_certificate=_variable(signal, "CLIENT_CERTIFICATE") or None,
        client_key=_variable(signal, "CLIENT_KEY") or None,
    )


def read_logs_options(
    *,
    endpoint: str | None = None,
    protocol: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    compression: str | None = None,
) -> OTLPOptions | None:
    """Return the options of the logs that go with metrics, None if no logs are to be sent.

    The arguments are those of the metrics. Where OTEL_EXPORTER_OTLP_LOGS_ENDPOINT names a
    receiver of its own, they do not apply: the headers may hold a secret that is not for it.
    Where an address is set for metrics alone, none is known for logs.

    Raises:
        ConfigurationError: If the endpoint in the environment is invalid.
    """
    if not settings.exports_otlp(settings.LOGS_EXPORTER):
        return None
    if settings.text(_own_variable(LOGS, "ENDPOINT"), ""):
        return read_options(LOGS)
    is_for_metrics_alone = settings.text(_own_variable(METRICS, "ENDPOINT"), "")
    if not endpoint and is_for_metrics_alone and not settings.text(_ENDPOINT, ""):
        return None
    return read_options(
        LOGS,
        endpoint=endpoint,
        protocol=protocol,
        headers=headers,
        timeout_s=timeout_s,
        compression=compression,
    )


def are_logs_asked_for() -> bool:
    """Return whether a variable asks for logs, rather than that they go along with metrics."""
    names = (settings.LOGS_EXPORTER, _own_variable(LOGS, "ENDPOINT"))
    return any(settings.text(name, "") for name in names)


def _variable(signal: Signal, name: str) -> str:
    """Return the value of a setting: the one for the signal, else the one for all signals."""
    return settings.text(_set_variable(signal, name), "")


def _set_variable(signal: Signal, name: str) -> str:
    """Return the name of the variable that a setting comes from."""
    own = _own_variable(signal, name)
    return own if settings.text(own, "") else f"OTEL_EXPORTER_OTLP_{name}"


def _own_variable(signal: Signal, name: str) -> str:
    return f"OTEL_EXPORTER_OTLP_{signal.name}_{name}"


def _choose(signal: Signal, option: str, argument: str | None, allowed: tuple[str, ...]) -> str:
    """Return an option; an invalid argument is an error, an invalid variable a warning."""
    if argument is not None:
        step = f"pass {option}={allowed[0]!r}, or leave it out"
        arguments.one_of(option, argument, allowed, step=step)
        return argument
    variable = _set_variable(signal, option.upper())
    text = settings.text(variable, "").lower()
    if text and text not in allowed:
        DIAGNOSTICS.warn(
            f"environment {option}",
            f"{variable}={text!r} is not one of {', '.join(allowed)}: "
            f"using {allowed[0]}; correct it or unset it",
        )
    return text if text in allowed else allowed[0]


def _http_address(signal: Signal, endpoint: str | None) -> tuple[str, bool]:
    """Return the URL to post to.

    The variable for one signal, as OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, is used as it is. The
    path of the signal is appended to OTEL_EXPORTER_OTLP_ENDPOINT and to an argument, unless they
    end with it: people give either. It replaces that of another signal.
    """
    variable = None if endpoint else _set_variable(signal, "ENDPOINT")
    url = endpoint or _variable(signal, "ENDPOINT") or _HTTP_DEFAULT
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https"):
        raise _not_an_address(variable, url, _HTTP_DEFAULT)
    path = parts.path.rstrip("/")
    if variable in (None, _ENDPOINT):
        given = next(filter(path.endswith, (*_METRICS_PATHS, LOGS.path)), "")
        if given not in (_METRICS_PATHS if signal is METRICS else (LOGS.path,)):
            path = path.removesuffix(given) + signal.path
        url = urlsplit(url)._replace(path=path).geturl()
    return url, parts.scheme == "https"


def _grpc_address(signal: Signal, endpoint: str | None) -> tuple[str, bool]:
    """Return the target of the channel, and whether it uses TLS.

    The scheme decides; without one, OTEL_EXPORTER_OTLP_INSECURE does, which is false by default.
    """
    variable = None if endpoint else _set_variable(signal, "ENDPOINT")
    given = url = endpoint or _variable(signal, "ENDPOINT") or _GRPC_DEFAULT
    if "://" not in url:
        insecure = _variable(signal, "INSECURE").lower() == "true"
        url = f"{'http' if insecure else 'https'}://{url}"
    parts = _split(url)
    if parts is not None and parts.scheme == "unix":
        return url, False
    if parts is None or parts.scheme not in ("http", "https"):
        raise _not_an_address(variable, given, _GRPC_DEFAULT)
    return parts.netloc.rpartition("@")[2], parts.scheme == "https"


@dataclasses.dataclass(frozen=True, slots=True)
class _Parts:
    scheme: str
    netloc: str
    path: str


def _split(url: str) -> _Parts | None:
    """Return the parts of an address, None if it is not one."""
    try:
        url.encode()  # raises for a lone surrogate
        parts = urlsplit(url)
        _ = parts.port  # raises if it is not a number
    except ValueError:
        return None
    if not parts.hostname and parts.scheme != "unix":
        return None
    return _Parts(parts.scheme.lower(), parts.netloc, parts.path)


def _not_an_address(variable: str | None, url: str, example: str) -> ConfigurationError:
    """Return the error for an address from a variable, or from the argument if that is None."""
    step = (
        f"pass an address such as endpoint={example!r}, or set {_ENDPOINT}"
        if variable is None
        else f"set it to an address such as {example}"
    )
    return ConfigurationError(
        f"{variable or 'endpoint'}={redact_address(url)!r} is not the address of a collector",
        step=step,
        argument="" if variable else "endpoint",
        example=example,
    )


def _headers(signal: Signal, argument: Mapping[str, str] | None, encoding: str) -> dict[str, str]:
    """Return the headers of the environment and of the argument, which takes precedence.

    Warnings name an invalid header but do not show it: requests and gRPC would show all of it,
    and so would OpenTelemetry's own reader of the variable.
    """
    headers: dict[str, str] = {}
    for entry in filter(None, map(str.strip, _variable(signal, "HEADERS").split(","))):
        name, equals, value = map(str.strip, entry.partition("="))
        if " " not in value:  # the specification has them encoded
            name, value = unquote(name).strip(), unquote(value).strip()
        if equals and _is_header(name, value, encoding):
            headers[name.lower()] = value
        else:
            DIAGNOSTICS.warn(
                "environment headers",
                "OTEL_EXPORTER_OTLP_HEADERS has an entry that is not name=value, or not in "
                f"{encoding}: it is left out; separate entries with commas, and percent-encode "
                "other characters",
            )
    for name, value in (argument or {}).items():
        if not _is_header(name, value.strip() if isinstance(value, str) else value, encoding):
            raise ConfigurationError(
                "headers has an invalid name, or a value that is not one line of text in "
                f"{encoding}: pass headers={{'name': 'value'}}, both of them text"
            )
        headers[name.lower()] = value.strip()
    return headers


def _is_header(name: object, value: object, encoding: str) -> bool:
    """Return whether both name and value can be sent (RFC 9110, 5.1 and 5.5)."""
    return (
        isinstance(name, str)
        and _HEADER_NAME.fullmatch(name) is not None
        and isinstance(value, str)
        and _CONTROL.search(value) is None
        and value.encode(encoding, "ignore").decode(encoding) == value
    )


def _timeout_s(signal: Signal, argument: float | None) -> float:
    """Return the time limit of a request.

    In the specification OTEL_EXPORTER_OTLP_TIMEOUT is in milliseconds, while OpenTelemetry's
    exporters for Python read seconds. Nobody wants 10 ms or three hours, so both can be supported.
    """
    if argument is not None:
        step = f"leave it out for the default, {_TIMEOUT_DEFAULT_S:g}"
        return arguments.seconds("timeout_s", argument, most=_TIMEOUT_MAX_S, step=step)
    name = _set_variable(signal, "TIMEOUT")
    value = settings.number(name, _TIMEOUT_DEFAULT_S, least=0.001, most=_TIMEOUT_MAX_S * 1000)
    return value if value <= _TIMEOUT_MAX_S else value / 1000

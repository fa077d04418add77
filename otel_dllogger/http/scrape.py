"""Fetch a ``/metrics`` page as Prometheus does, and read it with Prometheus' own parser."""

from __future__ import annotations

import http.client
import re
import secrets
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from otel_dllogger.http.listener import MAX_PORT
from otel_dllogger.redaction import redact_address
from otel_dllogger.version import USER_AGENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from prometheus_client import Metric
    from typing_extensions import Buffer

SCANNED_PORTS = range(9464, 9464 + 64)
"""Ports of this machine that ranks take if nobody says otherwise."""

MAX_PAGE_BYTES = 256 * 2**20
"""Bytes of a page that are read; 10,000 series are about 2 MiB."""

_ADDRESS = re.compile(r"(?:(?P<host>[\w.-]+|\[[0-9a-fA-F:.]+\])?:)?(?P<port>\d{1,5})(?P<path>/.*)?")
_ENDLESS = ("text/event-stream", "multipart/x-mixed-replace")
_CHUNK_BYTES = 1 << 16
_READER = secrets.token_hex(4)
_OPENMETRICS = "application/openmetrics-text"
_ACCEPT = "text/plain;version=0.0.4;q=1,*/*;q=0.1"


class UnreachableError(Exception):
    """Nothing answers; the message says why in a few words."""


class UnreadablePageError(Exception):
    """What was fetched is not a metrics page; the message says from which line on."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What an address answered.

    Attributes:
        status: The HTTP status, 200 if all is well.
        content_type: The Content-Type as it was sent.
        text: The body.
    """

    status: int
    content_type: str
    text: str


def page_url(target: str) -> str | None:
    """Return the address of a page, None if the target is not an address.

    Args:
        target: A URL with or without a path, ``host:port``, or a port of this machine.
    """
    if target.startswith(("http://", "https://")):
        scheme, _, rest = target.partition("://")
        host, _slash, path = rest.partition("/")
        return f"{scheme}://{host}/{path or 'metrics'}" if host else None
    match = _ADDRESS.fullmatch(target)
    if match is None or int(match["port"]) > MAX_PORT:
        return None
    path = match["path"] or ""
    return f"http://{match['host'] or '127.0.0.1'}:{match['port']}" + (
        path if len(path) > 1 else "/metrics"
    )


def why_refused(url: str) -> str | None:
    """Return what is wrong with an address and what to do, None if it may be fetched.

    Args:
        url: The address of a page, as ``page_url`` returns it.
    """
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        return f"{redact_address(url)} is not an address; write it as 127.0.0.1:9464"
    try:
        is_port = parts.port != 0
    except ValueError:
        is_port = False
    if "@" in parts.netloc or ("@" in url and not is_port):
        return (
            f"{redact_address(url)} has a user or a password, which are not supported in addresses "
            "of pages; leave them out"
        )
    if not is_port:
        port = parts.netloc.rpartition(":")[2]
        return f"{redact_address(url)}: {port!r} is not a port; pass one from 1 to {MAX_PORT}"
    return None


def fetch(
    url: str,
    *,
    timeout_s: float = 10.0,
    silence_s: float = 10.0,
    max_bytes: int = MAX_PAGE_BYTES,
    is_repeated: bool = False,
) -> Answer:
    """Fetch a page, without any proxy, since Prometheus does not use one either.

    The body of a stream, which has no end by its type, is not read.

    Args:
        url: Its address.
        timeout_s: Seconds for the whole page, however its parts arrive.
        silence_s: Seconds for the connection, and until the next part arrives.
        max_bytes: A longer page is refused.
        is_repeated: Whether the page is fetched regularly, so that a rank that ends waits until
            its end was seen, as it does for Prometheus.

    Raises:
        UnreachableError: If nothing answers, or the answer does not end in time.
    """
    limits = _Limits(time.monotonic() + timeout_s, silence_s)
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), _Handler(limits), _SecureHandler(limits)
    )
    try:
        headers = {"Accept": _ACCEPT, "User-Agent": USER_AGENT}
        if is_repeated:
            headers["X-Prometheus-Scrape-Timeout-Seconds"] = str(timeout_s)
            # A rank tells those who scrape it apart by address and agent, and waits for each.
            headers["User-Agent"] = f"{USER_AGENT} reader/{_READER}"
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http only
        try:
            response = opener.open(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            content_type = response.headers.get("Content-Type") or ""
            body = b"" if is_endless(content_type) else _read(response, max_bytes)
            return Answer(response.status, content_type, body.decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnreachableError(_why(error)) from error


def is_endless(content_type: str) -> bool:
    """Return whether what has this type is a stream, which never ends."""
    return content_type.lower().startswith(_ENDLESS)


def parse_page(text: str, content_type: str = "") -> list[Metric]:
    """Read a page.

    Args:
        text: The page.
        content_type: Distinguishes OpenMetrics from Prometheus' older format.

    Raises:
        UnreadablePageError: If it is not a metrics page.
    """
    read = text_string_to_metric_families
    if content_type.startswith(_OPENMETRICS) or text.rstrip().endswith("# EOF"):
        from prometheus_client.openmetrics.parser import (  # noqa: PLC0415 - rarely needed
            text_string_to_metric_families as read_openmetrics,
        )

        read = read_openmetrics
    try:
        return list(read(text))
    except Exception as error:  # the parser raises whatever its indexing meets
        raise UnreadablePageError(_where(text, error)) from error


def _read(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    chunks, left = [], max_bytes
    while chunk := response.read(_CHUNK_BYTES):
        chunks.append(chunk)
        left -= len(chunk)
        if left < 0:
            raise UnreachableError(f"its page is longer than {max_bytes >> 20} MiB")
    return b"".join(chunks)


class _Limits(NamedTuple):
    """When an answer must be there, and how long each wait for a part of it may take."""

    end_s: float
    silence_s: float

    def left_s(self) -> float:
        """Return how long to wait now, in seconds."""
        left_s = min(self.end_s - time.monotonic(), self.silence_s)
        if left_s <= 0.0:
            raise TimeoutError
        return left_s


class _Socket(socket.socket):
    """A socket whose receiving ends at one time, however often something arrives before."""

    limits = _Limits(0.0, 0.0)

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        self.settimeout(self.limits.left_s())
        return super().recv_into(buffer, nbytes, flags)


class _SecureSocket(ssl.SSLSocket):
    """The same with TLS."""

    limits = _Limits(0.0, 0.0)

    def recv_into(self, buffer: Buffer, nbytes: int | None = None, flags: int = 0) -> int:
        self.settimeout(self.limits.left_s())
        return super().recv_into(buffer, nbytes, flags)


class _Connection(http.client.HTTPConnection):
    limits = _Limits(0.0, 0.0)

    def connect(self) -> None:
        self.timeout = self.limits.left_s()
        super().connect()
        timed = _Socket(fileno=self.sock.detach())
        timed.limits = self.limits
        timed.settimeout(self.limits.left_s())
        self.sock = timed


class _SecureConnection(http.client.HTTPSConnection):
    limits = _Limits(0.0, 0.0)

    def connect(self) -> None:
        self.timeout = self.limits.left_s()
        super().connect()
        if isinstance(self.sock, _SecureSocket):
            self.sock.limits = self.limits


class _Handler(urllib.request.HTTPHandler):
    def __init__(self, limits: _Limits) -> None:
        super().__init__()
        self._limits = limits

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        def connection(host: str, **options: Any) -> _Connection:
            made = _Connection(host, **options)
            made.limits = self._limits
            return made

        return self.do_open(connection, req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, limits: _Limits) -> None:
        super().__init__()
        self._limits = limits

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        context = ssl.create_default_context()
        context.sslsocket_class = _SecureSocket

        def connection(host: str, **options: Any) -> _SecureConnection:
            made = _SecureConnection(host, context=context, **options)
            made.limits = self._limits
            return made

        return self.do_open(connection, req)


def _why(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(reason, TimeoutError):
        return "no whole answer in time"
    if isinstance(reason, socket.gaierror):
        return "the host is unknown"
    if isinstance(reason, http.client.HTTPException):
        return f"what listens there does not speak HTTP ({type(reason).__name__})"
    return str(getattr(reason, "strerror", None) or reason)


def _where(text: str, error: Exception) -> str:
    read: Callable[[str], Iterable[Metric]] = text_string_to_metric_families
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            list(read(f"{line}\n"))
        except Exception:
            return f"line {number} is not a metric: {line[:60]!r}"
    return str(error)[:200]

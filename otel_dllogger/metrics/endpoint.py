"""The HTTP endpoint of one rank: ``/metrics`` for Prometheus, ``/health`` for people.

It runs inside the training process, so it is bounded whatever its clients do: two
threads, a cap on connections, on request bytes and on the bytes of pages that wait for
slow readers. One thread moves bytes, the other renders. Everything that waits for the
second is served as one batch from one rendering, which is both the single flight and
the freshness: a batch is complete before its page is begun.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import json
import logging
import math
import os
import queue
import socket
import stat
import struct
import threading
import time
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask

from otel_dllogger.errors import EndpointError
from otel_dllogger.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MAX_CONNECTIONS = 256
"""Open connections; one more ends the oldest idle or slow one."""

MAX_HELD_BYTES = 64 * 2**20
"""Bytes of different pages that may wait for slow readers; beyond it the oldest reader goes."""

STALLED_S = 20.0
"""Seconds in which a begun request must be complete, and a response taken."""

IDLE_S = 75.0
"""Seconds a connection may stay open between requests."""

CLOSE_S = 2.0
"""Seconds that ``close`` waits for each thread."""

PORT_MAX = 65535
_BACKLOG = 1024
_GZIP_FROM_BYTES = 1024
_SEND_BUFFER_BYTES = 128 * 1024
_SHARED_PAGES = 4
_TURN_S = 1.0
_EVERY_INTERFACE = ("0.0.0.0", "::")  # noqa: S104 - compared with, never listened on

_INDEX = (
    "<!DOCTYPE html><title>otel_dllogger</title>"
    '<p>Metrics of this rank: <a href="/metrics">/metrics</a>, <a href="/health">/health</a>\n'
)
_PORT_STEP = "pass port=0 or set OTEL_EXPORTER_PROMETHEUS_PORT"
_HOST_STEP = "pass host='127.0.0.1' or set OTEL_EXPORTER_PROMETHEUS_HOST"

# What waitress has to say (a client that went away, a queue that grew) is for a web
# server's operator: it stays off the stderr of a training run.
_log = logging.getLogger("otel_dllogger.waitress")
_log.propagate = False
_log.addHandler(logging.NullHandler())


@dataclass(frozen=True, slots=True)
class _Page:
    status: str
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()

    def zipped(self) -> _Page:
        if len(self.body) < _GZIP_FROM_BYTES:
            return self
        body = gzip.compress(self.body, compresslevel=1)
        return replace(self, body=body, headers=(*self.headers, ("Content-Encoding", "gzip")))


def _line(status: str, text: str, *headers: tuple[str, str]) -> _Page:
    return _Page(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers)


class _Body(ReadOnlyFileBasedBuffer):
    """A response body that refers to the shared page, where waitress would copy bytes."""

    def __init__(self, page: bytes) -> None:
        super().__init__(io.BytesIO(page))
        self.page = page


class _Task(WSGITask):
    logger = _log


class _Channel(HTTPChannel):
    """A connection that knows how long its client has kept it waiting."""

    logger = _log
    task_class = _Task

    def __init__(self, *args: Any, **options: Any) -> None:
        self.since_s = time.monotonic()
        super().__init__(*args, **options)

    def writable(self) -> bool:
        # waitress polls, and spins, while the other thread still appends to the answer.
        return not self.requests and super().writable()

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self.since_s = time.monotonic()
        return super().received(data)

    def write_soon(self, data: bytes) -> int:
        self.since_s = time.monotonic()
        return super().write_soon(data)

    def service(self) -> None:
        # A pipelining client gets one answer: many, unread, would block this thread.
        if len(self.requests) > 1:
            cast("dict[str, str]", self.requests[0].headers)["CONNECTION"] = "close"
        super().service()

    def answer(self) -> None:
        try:
            self.service()
        except BaseException:  # a SystemExit in the user's callbacks, too, ends one request only
            self.cancel()
            self.server.pull_trigger()

    def deadline_s(self) -> float:
        if self.requests:
            return math.inf
        idle = self.request is None and not self.total_outbufs_len
        return self.since_s + (IDLE_S if idle else STALLED_S)

    def drop(self) -> None:
        # waitress waits for a socket to become writable before it closes it, which a
        # client that never reads never lets happen; nor shall the kernel keep its bytes.
        if self.socket is not None and self.total_outbufs_len:
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.handle_close()


class _Server(TcpWSGIServer):
    """A waitress server with a batch in place of its thread pool, and with evictions."""

    channel_class = _Channel
    logger = _log
    trigger: Any
    active_channels: dict[int, _Channel]  # type: ignore[assignment]  # the stub says one channel

    def __init__(self, application: WSGIApplication, sock: socket.socket) -> None:
        self.waiting: queue.SimpleQueue[_Channel | None] = queue.SimpleQueue()
        self.paused_until_s = 0.0
        self.sockets: dict[int, Any] = {}
        settings = Adjustments(
            backlog=_BACKLOG,
            clear_untrusted_proxy_headers=False,
            ident=None,
            log_socket_errors=False,
            max_request_body_size=16 * 1024,
            max_request_header_size=16 * 1024,
            outbuf_high_watermark=2**40,  # the rendering thread never waits for a client
            sockets=[sock],
        )
        # waitress would send from both threads, which then fight over the interpreter's lock.
        settings.send_bytes = settings.outbuf_high_watermark
        settings.socket_options = [
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            # Unread bytes in the kernel count against the container of the training run.
            (socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES),
        ]
        super().__init__(
            application,
            map=self.sockets,
            _sock=sock,
            dispatcher=ThreadedTaskDispatcher(),  # has no threads until told
            adj=settings,
            sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
            bind_socket=False,
        )
        self.trigger.logger = _log

    def channels(self) -> list[_Channel]:
        return list(self.active_channels.values())

    def add_task(self, task: Any) -> None:
        self.waiting.put(task)

    def readable(self) -> bool:
        if not self.accepting or time.monotonic() < self.paused_until_s:
            return False
        channels = self.channels()
        return len(channels) < MAX_CONNECTIONS or not all(channel.requests for channel in channels)

    def handle_accept(self) -> None:
        for _ in range(MAX_CONNECTIONS):
            pair = self.accept() if self.readable() else None
            if pair is None:
                return
            self.set_socket_options(pair[0])
            if len(self.active_channels) >= MAX_CONNECTIONS:
                self.evict()
            self.channel_class(self, *pair, self.adj, map=self.sockets)

    def handle_error(self) -> None:
        # Out of file descriptors, most likely. waitress would close the listening socket
        # on one error and spin on another.
        self.paused_until_s = time.monotonic() + _TURN_S

    handle_close = handle_error

    def evict(self) -> None:
        candidates = [channel for channel in self.channels() if not channel.requests]
        min(candidates, key=lambda one: (one.total_outbufs_len > 0, one.since_s)).drop()

    def drop_overdue(self) -> None:
        now_s = time.monotonic()
        held: dict[int, int] = {}
        for channel in sorted(self.channels(), key=lambda one: one.since_s, reverse=True):
            for buffer in tuple(channel.outbufs):
                if isinstance(buffer, _Body):
                    held[id(buffer.page)] = len(buffer.page)
            hoarded = len(held) > 1 and sum(held.values()) > MAX_HELD_BYTES
            if channel.deadline_s() < now_s or (hoarded and not channel.requests):
                channel.drop()

    def serve_sockets(self) -> None:
        while self.accepting:
            self.serve_turn()

    def serve_turn(self) -> None:
        try:
            self.drop_overdue()
            wasyncore.loop(_TURN_S, use_poll=True, map=self.sockets, count=1)
        except Exception as error:
            _count("serving the metrics endpoint", error)
            time.sleep(_TURN_S)

    def serve_batch(self) -> bool:
        batch = [self.waiting.get()]
        with contextlib.suppress(queue.Empty):
            while True:
                batch.append(self.waiting.get_nowait())
        for channel in batch:
            if channel is None:
                return False
            channel.answer()
        return True

    def shut(self) -> None:
        self.accepting = False
        for one in list(self.sockets.values()):
            if one is not self.trigger:
                wasyncore.dispatcher.close(one)


class MetricsEndpoint:
    """Serve ``/metrics`` and ``/health`` over HTTP from two daemon threads.

    Args:
        render: Takes a request's Accept header, gives the content type and the page. It is
            called on one thread at a time, and once for all requests that wait at that
            moment with the same Accept header; always after they came in.
        host: Name or address to listen on; the default is reachable from this machine only.
        port: TCP port, 0 for any free one.
        health: Gives what ``/health`` shows beside ``{"status": "ok"}``.
        port_tries: Number of ports to try, counted up from ``port``, while they are taken.

    Attributes:
        host: The address listened on.
        port: The port listened on.
        url: Where to scrape.

    Raises:
        EndpointError: The host or port cannot be listened on.
    """

    def __init__(
        self,
        render: Callable[[str], tuple[str, bytes]],
        *,
        host: str = "127.0.0.1",
        port: int = 9464,
        health: Callable[[], Mapping[str, object]] | None = None,
        port_tries: int = 100,
    ) -> None:
        self._render = render
        self._health = health or dict
        self._pages: dict[tuple[str, bool], _Page] = {}
        self._server = _Server(self._application, _listen(host, port, port_tries))
        self._closed = False
        self.host, self.port = self._server.sockinfo[3][:2]
        literal = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"http://{literal}:{self.port}/metrics"
        _open_endpoints.add(self)
        self._threads = [
            threading.Thread(target=target, name=f"otel-dllogger-{name}", daemon=True)
            for name, target in (("http", self._server.serve_sockets), ("scrape", self._scrape))
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self.close()
            self._server.trigger.close()
            raise EndpointError(
                f"{self.url} needs two threads ({error}); raise the limit on threads (ulimit -u)"
            ) from error

    def close(self) -> None:
        """Stop the threads and free the port at once; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._server.accepting = False
        self._server.trigger.pull_trigger()
        http, scrape = self._threads
        _join(http)
        self._server.shut()
        self._server.waiting.put(None)
        _join(scrape)
        _open_endpoints.discard(self)

    def _abandon(self) -> None:
        self._closed = True
        self._server.shut()
        self._server.trigger.close()
        _close_all_on(self.host, self.port)

    def _scrape(self) -> None:
        while self._server.serve_batch():
            self._pages.clear()
        # Only now does nobody write to the pipe, whose number the training run may get.
        self._server.trigger.close()

    def _application(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        page = self._page(environ)
        length = ("Content-Length", str(len(page.body)))
        start_response(page.status, [("Content-Type", page.content_type), length, *page.headers])
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        return cast("Iterable[bytes]", _Body(page.body))

    def _page(self, environ: WSGIEnvironment) -> _Page:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _line("405 Method Not Allowed", "405: GET or HEAD", ("Allow", "GET, HEAD"))
        path = environ["PATH_INFO"]
        if path == "/metrics":
            zipped = _accepts_gzip(environ.get("HTTP_ACCEPT_ENCODING", ""))
            return self._metrics(environ.get("HTTP_ACCEPT", ""), zipped=zipped)
        if path == "/health":
            return _guarded("asking for the health", self._healthy)
        if path == "/":
            return _Page("200 OK", "text/html; charset=utf-8", _INDEX.encode())
        return _line("404 Not Found", "404: see /metrics and /health")

    def _metrics(self, accept: str, *, zipped: bool) -> _Page:
        page = self._pages.get((accept, zipped))
        if page is None:
            if zipped:
                page = self._metrics(accept, zipped=False).zipped()
            else:
                page = _guarded("rendering the metrics page", lambda: self._rendered(accept))
            if len(self._pages) >= _SHARED_PAGES:
                self._pages.pop(next(iter(self._pages)))
            self._pages[accept, zipped] = page
        return page

    def _rendered(self, accept: str) -> _Page:
        content_type, body = self._render(accept)
        return _Page("200 OK", content_type, body, (("Vary", "Accept, Accept-Encoding"),))

    def _healthy(self) -> _Page:
        body = json.dumps({"status": "ok", **self._health()}, default=str)
        return _Page("200 OK", "application/json", f"{body}\n".encode())


_open_endpoints: weakref.WeakSet[MetricsEndpoint] = weakref.WeakSet()


def _abandon_in_child() -> None:
    # A child that kept the sockets would keep the port, and its clients, after the parent.
    for endpoint in list(_open_endpoints):
        endpoint._abandon()  # noqa: SLF001 - the hook of this module


def _join(thread: threading.Thread) -> None:
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(CLOSE_S)


def _close_all_on(host: str, port: int) -> None:
    # A connection that is being accepted or closed at the moment of the fork is known to
    # the other thread's stack alone, which the child does not have: ask the kernel.
    with contextlib.suppress(OSError):
        for link in Path("/proc/self/fd").iterdir():
            _close_if_on(host, port, int(link.name))


def _close_if_on(host: str, port: int, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return
        sock = socket.socket(fileno=descriptor)
        try:
            internet = sock.family in (socket.AF_INET, socket.AF_INET6)
            if internet and sock.type == socket.SOCK_STREAM:
                address = sock.getsockname()
                if address[1] == port and host in (address[0], *_EVERY_INTERFACE):
                    os.close(descriptor)
        finally:
            sock.detach()


os.register_at_fork(after_in_child=_abandon_in_child)


def _guarded(what: str, make: Callable[[], _Page]) -> _Page:
    try:
        return make()
    except Exception as error:
        _count(what, error)
        return _line("500 Internal Server Error", f"500: {what} raised {type(error).__name__}")


def _count(what: str, error: Exception) -> None:
    # Under OTEL_DLLOGGER_RAISE=1 it comes back, but these threads have nobody to catch it.
    with contextlib.suppress(Exception):
        FAULTS.caught("scrape", what, error)


def _accepts_gzip(accept_encoding: str) -> bool:
    for coding in accept_encoding.lower().split(","):
        name, _, quality = coding.partition(";")
        if name.strip() in ("gzip", "x-gzip"):
            return quality.replace(" ", "").rstrip("0.") != "q="
    return False


def _listen(host: str, port: int, tries: int) -> socket.socket:
    """Open a listening socket on the first port that is free.

    Raises:
        EndpointError: No port could be opened.
    """
    name = host.strip("[]")
    if not name:
        raise EndpointError("host is empty; pass 127.0.0.1, or 0.0.0.0 for every interface")
    if not 0 <= port <= PORT_MAX:
        raise EndpointError(f"port {port} is not in 0 to {PORT_MAX}; {_PORT_STEP}")
    last = min(port + tries - 1, PORT_MAX) if port else port
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        raise EndpointError(f"host {host!r} is unknown; {_HOST_STEP}") from error
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    for candidate in range(port, last + 1):
        sock = socket.socket(family, kind, protocol)
        refused = _bind(sock, (address[0], candidate, *address[2:]))
        if refused is None:
            return sock
        sock.close()
        if refused.errno != errno.EADDRINUSE:
            raise EndpointError(_refusal(refused, host, candidate)) from refused
    raise EndpointError(f"ports {port} to {last} on {host!r} are all taken; {_PORT_STEP}")


def _bind(sock: socket.socket, address: tuple[Any, ...]) -> OSError | None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Two ranks can bind one port in the same moment: listen() decides.
        sock.listen(_BACKLOG)
    except OSError as error:
        return error
    return None


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs privileges; {_PORT_STEP}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host {host!r} is not an address of this machine; {_HOST_STEP}"
    return f"{host!r} port {port} cannot be listened on ({error.strerror}); {_HOST_STEP}"

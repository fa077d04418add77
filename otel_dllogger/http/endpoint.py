"""The HTTP endpoint of one rank: ``/metrics`` for Prometheus, ``/health`` for people.

It runs inside the training process, so its resources are limited whatever its clients do: two
threads, and limits on connections, on request bytes and on the bytes of pages that wait for
slow readers. One thread moves bytes, the other renders. All requests that wait for the second
are served as one batch from one rendering. This gives both a single flight and fresh pages: a
batch is complete before the rendering of its page begins.
"""

from __future__ import annotations

import gzip
import html
import json
import os
import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from otel_dllogger.errors import EndpointError
from otel_dllogger.http.content_negotiation import accepts_gzip, choose_format
from otel_dllogger.http.listener import open_listener
from otel_dllogger.http.server import BoundedServer, SharedBody, count_fault
from otel_dllogger.runtime import closing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

CLOSE_S = closing.CLOSE_S
"""Seconds that ``close`` waits for its threads if it is not given a deadline."""

_LEAST_CLOSE_S = 0.1
_GZIP_FROM_BYTES = 1024
_LOOK_S = 0.005

_INDEX = (
    "<!DOCTYPE html><title>otel_dllogger</title>"
    '<p>Metrics of this rank: <a href="/metrics">/metrics</a>, <a href="/health">/health</a>\n'
)
_LIVE = '<p>Curves, live: <a href="{0}">{0}</a>\n'


@dataclass(frozen=True, slots=True)
class _Page:
    status: str
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    begun_s: float | None = None  # when its rendering began, if it is a metrics page

    def zipped(self) -> _Page:
        if len(self.body) < _GZIP_FROM_BYTES:
            return self
        body = gzip.compress(self.body, compresslevel=1)
        return replace(self, body=body, headers=(*self.headers, ("Content-Encoding", "gzip")))


def _line(status: str, text: str, *headers: tuple[str, str]) -> _Page:
    return _Page(status, "text/plain; charset=utf-8", f"{text}\n".encode(), headers)


class MetricsEndpoint:
    """An HTTP endpoint that serves ``/metrics`` and ``/health`` from two daemon threads.

    Args:
        render: Takes a request's Accept header and returns the content type and the page. It is
            called on one thread at a time, once for all requests that are waiting for the same
            format, and always after they came in.
        host: Name or address to listen on; the default is reachable from this machine only.
        port: TCP port, 0 for any free one.
        health: Returns what ``/health`` shows in addition to ``{"status": "ok"}``.
        note_read: Takes each request for ``/metrics`` and the monotonic time at which the
            rendering of its page began, before the page is sent.
        port_tries: How many ports to try while they are in use, counting up from ``port``.
        live_page: The address of another page that shows the same live, for people.

    Attributes:
        host: The address that the endpoint listens on.
        port: The port that the endpoint listens on.
        url: The URL to scrape.

    Raises:
        EndpointError: If it cannot listen on the host or port.
    """

    def __init__(
        self,
        render: Callable[[str], tuple[str, bytes]],
        *,
        host: str = "127.0.0.1",
        port: int = 9464,
        health: Callable[[], Mapping[str, object]] | None = None,
        note_read: Callable[[WSGIEnvironment, float], object] | None = None,
        port_tries: int = 100,
        live_page: str = "",
    ) -> None:
        self._render = render
        self._index = _INDEX + (_LIVE.format(html.escape(live_page)) if live_page else "")
        self._health = health or dict
        self._note_read = note_read
        self._pages: dict[tuple[str, bool], _Page] = {}
        self._server = BoundedServer(self._application, open_listener(host, port, tries=port_tries))
        # Taken once and never released: of two concurrent calls, one of which may be a signal
        # handler's, only one goes on.
        self._closed = threading.Lock()
        self._pid = os.getpid()
        self.host, self.port = self._server.sockinfo[3][:2]
        literal = f"[{self.host}]" if ":" in self.host else self.host
        self.url = f"http://{literal}:{self.port}/metrics"
        self._threads = [
            threading.Thread(target=target, name=f"otel-dllogger-{name}", daemon=True)
            for name, target in (("http", self._server.serve_sockets), ("scrape", self._scrape))
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError as error:
            self.close()
            self._server.close_trigger()
            raise EndpointError(
                f"{self.url} needs two threads ({error})",
                step="raise the limit on threads (ulimit -u)",
            ) from error

    def drain(self, most_s: float) -> None:
        """Wait until the current requests are answered.

        Args:
            most_s: The longest time to wait for clients that do not read, in seconds.
        """
        deadline_s = time.monotonic() + most_s
        while self._server.busy() and time.monotonic() < deadline_s:
            time.sleep(_LOOK_S)

    def is_busy(self) -> bool:
        """Return whether a request is not answered yet."""
        return bool(self._server.busy())

    def close(self, by_s: float | None = None) -> None:
        """Stop the threads and free the port at once.

        A second call does nothing, nor does one in a forked child, where everything is closed.

        Args:
            by_s: The monotonic time until which to wait for the threads. The wait is never
                shorter than a moment, which is all they need unless a rendering hangs.
        """
        if os.getpid() != self._pid or not self._closed.acquire(blocking=False):
            return
        by_s = time.monotonic() + CLOSE_S if by_s is None else by_s
        self._server.accepting = False
        self._server.trigger.pull_trigger()
        http, scrape = self._threads
        _join(http, by_s)
        self._server.shut()
        self._server.waiting.put(None)
        _join(scrape, by_s)

    def _scrape(self) -> None:
        while self._server.serve_batch():
            self._pages.clear()
        # From now on nothing wakes the other thread.
        self._server.close_trigger()

    def _application(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        page = self._page(environ)
        if self._note_read is not None and page.begun_s is not None:
            self._note_read(environ, page.begun_s)
        length = ("Content-Length", str(len(page.body)))
        start_response(page.status, [("Content-Type", page.content_type), length, *page.headers])
        if environ["REQUEST_METHOD"] == "HEAD":
            return []
        return cast("Iterable[bytes]", SharedBody(page.body))

    def _page(self, environ: WSGIEnvironment) -> _Page:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _line("405 Method Not Allowed", "405: GET or HEAD", ("Allow", "GET, HEAD"))
        path = environ["PATH_INFO"]
        if path == "/metrics":
            zipped = accepts_gzip(environ.get("HTTP_ACCEPT_ENCODING", ""))
            return self._metrics(environ.get("HTTP_ACCEPT", ""), zipped=zipped)
        if path == "/health":
            return _guarded("rendering the health page", self._healthy)
        if path == "/":
            return _Page("200 OK", "text/html; charset=utf-8", self._index.encode())
        return _line("404 Not Found", "404: see /metrics and /health")

    def _metrics(self, accept: str, *, zipped: bool) -> _Page:
        key = (choose_format(accept)[1], zipped)
        page = self._pages.get(key)
        if page is None:
            if zipped:
                page = self._metrics(accept, zipped=False).zipped()
            else:
                page = _guarded("rendering the metrics page", lambda: self._rendered(accept))
            self._pages[key] = page
        return page

    def _rendered(self, accept: str) -> _Page:
        begun_s = time.monotonic()
        content_type, body = self._render(accept)
        headers = (("Vary", "Accept, Accept-Encoding"),)
        return _Page("200 OK", content_type, body, headers, begun_s)

    def _healthy(self) -> _Page:
        body = json.dumps({"status": "ok", **self._health()}, default=str)
        return _Page("200 OK", "application/json", f"{body}\n".encode())


def _join(thread: threading.Thread, by_s: float) -> None:
    if thread.is_alive() and thread is not threading.current_thread():
        thread.join(max(by_s - time.monotonic(), _LEAST_CLOSE_S))


def _guarded(what: str, make: Callable[[], _Page]) -> _Page:
    try:
        return make()
    except Exception as error:
        count_fault(what, error)
        return _line("500 Internal Server Error", f"500: {what} raised {type(error).__name__}")

"""Collectors for OTLP, most of which are no help."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

if TYPE_CHECKING:
    import random

KINDS = ("works", "moody", "black_hole", "closed")


class Collectors:
    """Run one collector of each kind on the loopback.

    Attributes:
        urls: Where each kind is.
        points: How many points were taken.
        refusals: How many requests were not.

    Args:
        dice: Where chance comes from.
    """

    def __init__(self, dice: random.Random) -> None:
        self.points = 0
        self.refusals = 0
        self._dice = dice
        self._lock = threading.Lock()
        self._hole = socket.create_server(("127.0.0.1", 0), backlog=4)
        self._held: list[socket.socket] = []
        # Bound and not listening: refused, and nobody else's until the end.
        self._closed = socket.socket()
        self._closed.bind(("127.0.0.1", 0))
        self._servers = {kind: self._serve(moody=kind == "moody") for kind in KINDS[:2]}
        ports = {kind: server.server_port for kind, server in self._servers.items()}
        ports["black_hole"] = self._hole.getsockname()[1]
        ports["closed"] = self._closed.getsockname()[1]
        self.urls = {kind: f"http://127.0.0.1:{port}" for kind, port in ports.items()}
        threading.Thread(target=self._swallow, daemon=True).start()

    def _serve(self, *, moody: bool) -> ThreadingHTTPServer:
        collectors = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                status = collectors.take(body, moody=moody)
                self.send_response(status)
                if status in (429, 503):
                    self.send_header("retry-after", "1")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_arguments: object) -> None:
                pass  # a client that was killed

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        return server

    def take(self, body: bytes, *, moody: bool) -> int:
        """Return the status of the answer to a request."""
        with self._lock:
            status = self._dice.choice((200, 200, 400, 429, 500, 503)) if moody else 200
            slow = moody and self._dice.random() < 0.1
        if slow:
            time.sleep(2.5)  # longer than its clients wait
        request = ExportMetricsServiceRequest.FromString(body)
        count = sum(
            len(getattr(metric, metric.WhichOneof("data")).data_points)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )
        with self._lock:
            if status == 200:
                self.points += count
            else:
                self.refusals += 1
        return status

    def _swallow(self) -> None:
        """Accept connections and do nothing with them."""
        while True:
            try:
                client, _ = self._hole.accept()
            except OSError:
                return
            self._held = [*self._held[-20:], client]

    def close(self) -> None:
        """Free the ports."""
        for server in self._servers.values():
            server.shutdown()
            server.server_close()
        self._hole.close()
        self._closed.close()

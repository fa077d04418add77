"""Well-behaved and misbehaving clients for the endpoint's tests."""

from __future__ import annotations

import contextlib
import http.client
import selectors
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


def ask(port: int, path: str = "/metrics", *, method: str = "GET", **headers: str) -> Answer:
    """Send one request and read the whole answer; a header's ``_`` becomes ``-``."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, headers=names)
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, fields, response.read())
    finally:
        connection.close()


def connect(port: int, sent: bytes = b"", *, receive_bytes: int | None = None) -> socket.socket:
    """Open a connection and send these bytes, without reading."""
    client = socket.socket()
    if receive_bytes is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    client.settimeout(20)
    client.connect(("127.0.0.1", port))
    client.sendall(sent)
    return client


def read_to_end(client: socket.socket) -> bytes:
    """Read until the server ends the connection, by a close or a reset."""
    chunks = []
    try:
        while chunk := client.recv(1 << 18):
            chunks.append(chunk)
    except ConnectionError:
        pass
    return b"".join(chunks)


def scrape_at_once(port: int, count: int) -> list[int]:
    """Scrape over ``count`` connections at once, from one thread; return the bytes of each."""
    received = dict.fromkeys(range(count), 0)
    with selectors.DefaultSelector() as selector:
        for number in received:
            client = connect(port, SCRAPE)
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ, number)
        while selector.get_map():
            for key, _ in selector.select(20):
                client, chunk = key.fileobj, b""
                with contextlib.suppress(ConnectionError):
                    chunk = client.recv(1 << 20)
                received[key.data] += len(chunk)
                if not chunk:
                    selector.unregister(client)
                    client.close()
    return list(received.values())


def wait_until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait for a condition; a condition that stays false fails the test."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not within {within_s} s: {condition}")
        time.sleep(0.002)

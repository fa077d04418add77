"""HTTP clients that no endpoint deserves."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.soak.scraper import Targets

HELD = 40
"""Connections that are held open at a time."""

REST_EVERY_S = 5.0
REST_S = 1.5
"""Now and then all let go, so that the descriptors of a rank itself can be counted."""

_GET = b"GET /metrics HTTP/1.1\r\nHost: soak\r\n"

_ACCEPT = (
    b"application/openmetrics-text; version=9.9.9, */*;q=nan",
    b"\xff\xfe;;;,,,q=",
    b"text/plain; version=0.0.4; escaping=" + b"x" * 2000,
    b"*/*, " * 500,
    b"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
)


def _requests(dice: random.Random) -> bytes:
    """Return what one client sends."""
    return dice.choice(
        (
            b"",
            _GET[: dice.randrange(len(_GET))],
            _GET + b"\r\n",
            _GET + b"Accept: " + dice.choice(_ACCEPT) + b"\r\n\r\n",
            _GET + b"Accept-Encoding: gzip;q=0, gzip, identity;q=nan\r\n\r\n",
            (_GET + b"\r\n") * 30,
            _GET + b"X: " + b"y" * 70_000,
            b"POST /metrics HTTP/1.1\r\nHost: soak\r\nContent-Length: 99999999\r\n\r\nabc",
            b"GET /metrics HTTP/1.1\r\nHost: soak\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET /../../etc/passwd HTTP/1.1\r\nHost: soak\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: soak\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            bytes(dice.randrange(256) for _ in range(200)),
        )
    )


class HostileClients:
    """Bother the endpoints of all ranks from one thread.

    Attributes:
        count: How many connections were made.

    Args:
        targets: Returns the ports of the ranks.
        dice: Where chance comes from.
    """

    def __init__(self, targets: Callable[[], Targets], dice: random.Random) -> None:
        self.count = 0
        self._targets = targets
        self._dice = dice
        self._held: list[socket.socket] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        rest_s = time.monotonic() + REST_EVERY_S
        while not self._stop.wait(self._dice.expovariate(10)):
            if time.monotonic() > rest_s:
                self._let_go()
                self._stop.wait(REST_S)
                rest_s = time.monotonic() + REST_EVERY_S
            for target in self._targets():
                with contextlib.suppress(OSError):
                    self._bother(target.port)
            while len(self._held) > HELD:
                self._held.pop(self._dice.randrange(len(self._held))).close()

    def _bother(self, port: int) -> None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(1)
        self._held.append(client)
        client.connect(("127.0.0.1", port))
        self.count += 1
        for byte in (sent := _requests(self._dice))[:20]:
            client.sendall(bytes((byte,)))
        client.sendall(sent[20:])
        if self._dice.random() < 0.5:
            client.recv(self._dice.randrange(1, 5000))
        if self._dice.random() < 0.3:
            client.shutdown(socket.SHUT_WR)
        if self._dice.random() < 0.3:
            self._held.remove(client)
            client.close()

    def close(self) -> None:
        """Let go of all connections."""
        self._stop.set()
        self._thread.join()
        self._let_go()

    def _let_go(self) -> None:
        while self._held:
            self._held.pop().close()

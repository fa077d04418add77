"""Serve the live page until a signal says to end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from starlette.types import ASGIApp

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_END_S = 2
_UNREAD_MS = 30_000
_MAX_CONNECTIONS = 512
_MAX_HEADER_BYTES = 32 * 1024
_SEND_BUFFER_BYTES = 256 * 1024


class PageServer(uvicorn.Server):
    """A server of an application.

    Args:
        app: The application.
        end: Ends its streams, for which a server would wait.
    """

    def __init__(self, app: ASGIApp, end: Callable[[], object]) -> None:
        self._end = end
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # broken requests are warnings
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
                http="h11",
                lifespan="on",
                limit_concurrency=_MAX_CONNECTIONS,
                log_config=None,
                loop="asyncio",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_END_S,
                ws="none",
            )
        )

    def serve_on(self, listener: socket.socket) -> None:
        """Answer requests until ``should_exit`` is set, or in the main thread by a signal."""
        _limit(listener)
        asyncio.run(self.serve([listener]))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is open; uvicorn calls this."""
        self._end()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End on signals; uvicorn would send them again afterwards, for another exit code."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit)
            for number in _SIGNALS
            if signal.getsignal(number) is not signal.SIG_IGN  # as nohup sets it
        }
        try:
            yield
        finally:
            for number in before:
                signal.signal(number, signal.SIG_IGN)  # a second one would kill Python as it ends


def _limit(listener: socket.socket) -> None:
    """Set what accepted sockets inherit: the kernel ends those whose client does not read."""
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MS)

"""A waitress server whose resources are limited whatever its clients do.

waitress is used for what it does well: HTTP over poll, in pure Python, with limits on the size
of a request. This module adds what its settings cannot provide: one batch of waiting requests
instead of a pool of threads, and bodies that are shared instead of copied. Its
``channel_timeout`` starts again with each byte from a slow client, and does not end a client
that never reads, since it waits until it can write. At its ``connection_limit`` it accepts no
new clients, while here the oldest idle or slow client has to make room.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import math
import queue
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, cast

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.http.listener import BACKLOG
from otel_dllogger.runtime.own_sockets import OWN, own_pair

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from otel_dllogger.runtime.own_sockets import OwnSocket

MAX_CONNECTIONS = 256
"""The most open connections; one more ends the oldest idle or slow one."""

MAX_HELD_BYTES = 64 * 2**20
"""The most bytes of different pages that wait for slow readers; beyond it the oldest is ended."""

STALLED_S = 20.0
"""Seconds in which a request must be completed once begun, and a response read."""

IDLE_S = 75.0
"""Seconds that a connection may stay open between requests."""

_SEND_BUFFER_BYTES = 128 * 1024
_TURN_S = 1.0

# Waitress' messages (a client that went away, a queue that grew) are meant for the operator of a
# web server, so they are kept off the stderr of a training run.
_log = logging.getLogger("otel_dllogger.waitress")
_log.propagate = False
_log.addHandler(logging.NullHandler())


class SharedBody(ReadOnlyFileBasedBuffer):
    """A response body that refers to the shared page instead of copying its bytes."""

    def __init__(self, page: bytes) -> None:
        super().__init__(io.BytesIO(page))
        self.page = page


class _Task(WSGITask):
    logger = _log


class _Channel(HTTPChannel):
    """A connection that knows how long it has been waiting for its client."""

    logger = _log
    task_class = _Task

    def __init__(self, *args: Any, **options: Any) -> None:
        self.since_s = time.monotonic()
        super().__init__(*args, **options)

    def writable(self) -> bool:
        # Otherwise waitress would spin in its poll while the other thread appends to the answer.
        return not self.requests and super().writable()

    def received(self, data: bytes) -> bool:
        if self.request is None:
            self.since_s = time.monotonic()
        return super().received(data)

    def write_soon(self, data: bytes) -> int:
        self.since_s = time.monotonic()
        return super().write_soon(data)

    def service(self) -> None:
        # A pipelining client gets only one answer: many unread ones would block this thread.
        if len(self.requests) > 1:
            cast("dict[str, str]", self.requests[0].headers)["CONNECTION"] = "close"
        super().service()

    def answer(self) -> None:
        try:
            self.service()
        except BaseException:  # even a SystemExit in a user's callback ends only one request
            self.cancel()
            self.server.pull_trigger()

    def deadline_s(self) -> float:
        if self.requests:
            return math.inf
        idle = self.request is None and not self.total_outbufs_len
        return self.since_s + (IDLE_S if idle else STALLED_S)

    def drop(self) -> None:
        # waitress closes a socket only once it is writable, which never happens if the client
        # never reads. Nor should the kernel keep the unread bytes.
        if self.socket is not None and self.total_outbufs_len:
            with contextlib.suppress(OSError):
                linger = struct.pack("ii", 1, 0)
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.handle_close()


class _Trigger(wasyncore.dispatcher):
    """A trigger that wakes the thread that waits for sockets.

    waitress uses a pipe for this, and writes to its number even if that now belongs to other code.
    """

    logger = _log

    def __init__(self, sockets: dict[int, Any]) -> None:
        self.waker, self.woken = own_pair()
        super().__init__(self.woken, map=sockets)

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.recv(8192)

    def pull_trigger(self) -> None:
        with contextlib.suppress(OSError):  # full, in which case it wakes anyway; or lost
            self.waker.send(b"x")

    def close(self) -> None:
        super().close()
        self.waker.close()


class BoundedServer(TcpWSGIServer):
    """A waitress server that serves batches, without a thread pool, and can evict clients."""

    channel_class = _Channel
    logger = _log
    trigger: _Trigger  # type: ignore[assignment]  # the stub says a number
    active_channels: dict[int, _Channel]  # type: ignore[assignment]  # the stub says one channel

    def __init__(self, application: WSGIApplication, sock: OwnSocket) -> None:
        self.waiting: queue.SimpleQueue[_Channel | None] = queue.SimpleQueue()
        self.paused_until_s = 0.0
        self.sockets: dict[int, Any] = {}
        settings = Adjustments(
            backlog=BACKLOG,
            clear_untrusted_proxy_headers=False,
            ident=None,
            log_socket_errors=False,
            max_request_body_size=16 * 1024,
            max_request_header_size=16 * 1024,
            outbuf_high_watermark=2**40,  # the rendering thread never waits for a client
            sockets=[sock],
        )
        # waitress would send from both threads, which would then compete for the GIL. Passed as
        # an argument, this setting warns of its removal, which waitress<4 rules out for us.
        settings.send_bytes = settings.outbuf_high_watermark
        # Accepted sockets inherit the listener's options. Unread bytes in the kernel count
        # towards the memory of the training run's container.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        with OWN.lock:  # waitress opens a pipe
            super().__init__(
                application,
                map=self.sockets,
                _sock=sock,
                dispatcher=ThreadedTaskDispatcher(),  # has no threads until told to
                adj=settings,
                sockinfo=(sock.family, sock.type, sock.proto, sock.getsockname()),
                bind_socket=False,
            )
            self.trigger.close()
        self.trigger = _Trigger(self.sockets)
        self.vital = (sock, self.trigger.waker, self.trigger.woken)

    def channels(self) -> list[_Channel]:
        """Return the open connections."""
        return list(self.active_channels.values())

    def busy(self) -> bool:
        """Return whether a request is waiting for its answer, or an answer for its client."""
        return any(one.requests or one.total_outbufs_len for one in self.channels())

    def add_task(self, task: Any) -> None:
        """Add a request to the next batch; waitress calls this with the connection."""
        self.waiting.put(task)

    def readable(self) -> bool:
        """Return whether one more connection can be accepted; waitress calls this."""
        if not self.accepting or time.monotonic() < self.paused_until_s:
            return False
        channels = self.channels()
        return len(channels) < MAX_CONNECTIONS or not all(channel.requests for channel in channels)

    def handle_accept(self) -> None:
        """Accept the waiting connections, and make room for them."""
        for _ in range(MAX_CONNECTIONS):
            pair = self.accept() if self.readable() else None
            if pair is None:
                return
            if len(self.active_channels) >= MAX_CONNECTIONS:
                self.evict()
            self.channel_class(self, *pair, self.adj, map=self.sockets)

    def handle_error(self) -> None:
        """Stop accepting connections for a while."""
        # The process is probably out of file descriptors. waitress would close the listening
        # socket on one error and spin on another.
        self.paused_until_s = time.monotonic() + _TURN_S

    handle_close = handle_error

    def evict(self) -> None:
        """End the oldest idle connection, or the oldest slow one if none is idle."""
        candidates = [channel for channel in self.channels() if not channel.requests]
        min(candidates, key=lambda one: (one.total_outbufs_len > 0, one.since_s)).drop()

    def drop_overdue(self) -> None:
        """End connections that take too long, and those that hoard pages."""
        now_s = time.monotonic()
        held: dict[int, int] = {}
        for channel in sorted(self.channels(), key=lambda one: one.since_s, reverse=True):
            for buffer in tuple(channel.outbufs):
                if isinstance(buffer, SharedBody):
                    held[id(buffer.page)] = len(buffer.page)
            hoarded = len(held) > 1 and sum(held.values()) > MAX_HELD_BYTES
            if channel.deadline_s() < now_s or (hoarded and not channel.requests):
                channel.drop()

    def drop_lost(self) -> None:
        """Drop sockets that other code closed by number, and shut down if a vital one is lost."""
        for channel in self.channels():
            sock = cast("OwnSocket | None", channel.socket)
            if sock is not None and not sock.is_ours():
                channel.drop()
        if self.accepting and not all(one.is_ours() for one in self.vital):
            self.shut()
            what = "its sockets were closed by something else, so it no longer serves"
            count_fault("serving the metrics endpoint", OSError(errno.EBADF, what))

    def serve_sockets(self) -> None:
        """Move bytes until ``shut`` is called; the loop of one thread."""
        while self.accepting:
            self.serve_turn()

    def serve_turn(self) -> None:
        """Move the bytes that can be moved, waiting for a second at most."""
        try:
            self.drop_lost()
            self.drop_overdue()
            wasyncore.loop(_TURN_S, use_poll=True, map=self.sockets, count=1)
        except Exception as error:
            count_fault("serving the metrics endpoint", error)
            time.sleep(_TURN_S)

    def serve_batch(self) -> bool:
        """Wait for requests and answer all that are waiting; the work of the other thread.

        Returns:
            False once no more requests will come.
        """
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
        """Close every socket except those with which the other thread may wake this one."""
        self.accepting = False
        for one in list(self.sockets.values()):
            if one is not self.trigger:
                wasyncore.dispatcher.close(one)

    def close_trigger(self) -> None:
        """Close the sockets of the trigger, once neither thread uses them."""
        self.trigger.close()


def count_fault(what: str, error: Exception) -> None:
    """Count a fault of the endpoint, without ever raising."""
    # Under OTEL_DLLOGGER_RAISE=1 the fault is raised, but nothing in these threads catches it.
    with contextlib.suppress(Exception):
        DIAGNOSTICS.caught("scrape", what, error)

"""Sockets that belong to one process: a forked child closes its copies at once.

A child that kept them would keep the port and the clients after its parent has ended. The code
that opens them records them. They are opened and closed under a lock that a fork takes as well,
so that a fork cannot come between a system call and the matching entry.

A script that closes all descriptors (``os.closerange``, as daemons do) closes these as well,
and the files that it opens next get their numbers. So each socket is identified by what it
refers to, and a number that now refers to something else is not read, written to or closed.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import socket
import threading
from typing import Any

from otel_dllogger.runtime import fork

LONGEST_WAIT_S = 1.0
"""The longest time that a fork waits, in seconds; it waits only for single system calls."""

# A client that went away must not end a script that restored the default action of SIGPIPE.
_NO_SIGNAL: int = getattr(socket, "MSG_NOSIGNAL", 0)


class OwnDescriptors:
    """The open sockets of this process.

    Attributes:
        lock: Held around each opening and closing, and by a thread while it forks. It is
            reentrant for signal handlers that fork.
        open: The open sockets.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open: set[OwnSocket] = set()

    def before_fork(self) -> None:
        """Let other threads finish what they are opening or closing."""
        self.lock.acquire(timeout=LONGEST_WAIT_S)

    def after_fork_in_parent(self) -> None:
        """Let other threads go on."""
        with contextlib.suppress(RuntimeError):  # ``before_fork`` gave up waiting for the lock
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Close everything, so that none of the parent's sockets is open here."""
        self.lock = threading.RLock()  # its holder is not in this process
        for one in tuple(self.open):
            with contextlib.suppress(OSError):
                one.close()

    def before_exit(self) -> None:
        """Detach numbers that now belong to other code, which Python would close at exit."""
        for one in tuple(self.open):
            if not one.is_ours():
                one.close()


OWN = OwnDescriptors()


class OwnSocket(socket.socket):
    """A socket for this process alone, as are the connections that it accepts.

    Once the number refers to something else, the methods that a server calls raise an
    ``OSError``, as on a closed socket.
    """

    _identity: tuple[int, int] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:
        with OWN.lock:
            super().__init__(*args, **options)
            self._identity = _identity(self.fileno())
            OWN.open.add(self)

    def is_ours(self) -> bool:
        """Return whether it is open and its number still refers to it."""
        return self._identity is not None and self._identity == _identity(self.fileno())

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; this must not block, since a fork would wait for it as well."""
        with OWN.lock:
            self._check()
            accepted, address = super().accept()
            own = OwnSocket(self.family, self.type, self.proto, fileno=accepted.detach())
        return own, address

    def recv(self, *args: Any) -> bytes:
        """Receive bytes."""
        self._check()
        return super().recv(*args)

    def send(self, data: Any, flags: int = 0) -> int:
        """Send bytes; there is no signal if no client receives them."""
        self._check()
        return super().send(data, flags | _NO_SIGNAL)

    def getsockopt(self, *args: Any) -> Any:
        """Return an option; reading an error clears it."""
        self._check()
        return super().getsockopt(*args)

    def setsockopt(self, *args: Any) -> None:
        """Set an option."""
        self._check()
        super().setsockopt(*args)

    def close(self) -> None:
        """Close it, or forget the number if other code owns it now; a second call does nothing."""
        with OWN.lock:
            OWN.open.discard(self)
            if self.is_ours():
                super().close()
            else:
                self.detach()

    def _check(self) -> None:
        if not self.is_ours():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def own_pair() -> tuple[OwnSocket, OwnSocket]:
    """Open two connected sockets, neither of which blocks."""
    with OWN.lock:
        pair = [
            OwnSocket(one.family, one.type, one.proto, fileno=one.detach())
            for one in socket.socketpair()
        ]
    for one in pair:
        one.setblocking(False)
    return pair[0], pair[1]


def _identity(descriptor: int) -> tuple[int, int] | None:
    """Return what a descriptor refers to, which is unique among those open at the same time."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


atexit.register(OWN.before_exit)
fork.register(OWN)

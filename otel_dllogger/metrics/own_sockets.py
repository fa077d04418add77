"""Sockets and pipes of this process alone: a forked child closes its copies at once.

A child that kept them would keep the port, and the clients, after its parent's end. Which
they are is known by what opens them. They are opened and closed under a lock that a fork
takes as well, so that it cannot come between a system call and the entry that goes with it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_WAIT_S = 1.0
"""Seconds that a fork waits at most; what it waits for are single system calls."""


class OwnDescriptors:
    """Know what is open, and how to close it.

    Attributes:
        lock: Held around each opening and closing, and by a thread while it forks. Reentrant,
            for a signal handler that forks.
        open: What closes each of them.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open: dict[object, Callable[[], object]] = {}

    def before_fork(self) -> None:
        """Let other threads finish what they are opening or closing."""
        self.lock.acquire(timeout=LONGEST_WAIT_S)

    def after_fork_in_parent(self) -> None:
        """Let them go on."""
        with contextlib.suppress(RuntimeError):  # the wait was given up
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Close everything; nothing of the parent's is open here any more."""
        self.lock = threading.RLock()  # whoever held it is not in this process
        closers, self.open = tuple(self.open.values()), {}
        for close in closers:
            with contextlib.suppress(OSError):
                close()


OWN = OwnDescriptors()


class OwnSocket(socket.socket):
    """A socket, and the connections that it accepts, for this process alone."""

    def __init__(self, *args: Any, **options: Any) -> None:
        with OWN.lock:
            super().__init__(*args, **options)
            OWN.open[self] = super().close

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; not to be waited for, since a fork waits for it as well."""
        with OWN.lock:
            accepted, address = super().accept()
            own = OwnSocket(self.family, self.type, self.proto, fileno=accepted.detach())
        return own, address

    def close(self) -> None:
        """Close it; a second time does nothing."""
        with OWN.lock:
            super().close()
            OWN.open.pop(self, None)


os.register_at_fork(
    before=OWN.before_fork,
    after_in_parent=OWN.after_fork_in_parent,
    after_in_child=OWN.after_fork_in_child,
)

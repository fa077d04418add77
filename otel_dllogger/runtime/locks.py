"""Locks for which only the main thread waits without a time limit.

A signal handler runs on the main thread and may interrupt anything, even the few lines under one
of our locks. If it waits for another thread, for example to join it, and that thread logs,
neither would ever continue. So other threads give up after a while and do without the lock.

The main thread does wait: no handler can keep another thread from releasing the lock. It uses
the lock itself in a ``with`` statement, which no exception from a handler can split.
"""

from __future__ import annotations

from _thread import get_ident
from typing import TYPE_CHECKING

from otel_dllogger.runtime import fork

if TYPE_CHECKING:
    import threading

LOCK_TIMEOUT_S = 0.5
"""Seconds that a thread waits for work that takes another thread microseconds."""


class LockTimeout(Exception):  # noqa: N818 - not an error
    """Raised if a lock could not be acquired in time."""


class MainThread:
    """The thread that runs signal handlers; after a fork it is the one that forked.

    Attributes:
        ident: What ``get_ident`` returns on that thread.
    """

    __slots__ = ("__weakref__", "ident")

    def __init__(self) -> None:
        import threading  # noqa: PLC0415 - only for this

        self.ident = threading.main_thread().ident

    def after_fork_in_child(self) -> None:
        """Note that the thread that forked is the only one."""
        self.ident = get_ident()


MAIN_THREAD = MainThread()
fork.register(MAIN_THREAD)


class TimedLock:
    """A wrapper through which threads other than the main one take a lock.

    Args:
        lock: The lock.
    """

    __slots__ = ("_lock",)

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=LOCK_TIMEOUT_S):
            raise LockTimeout

    def __exit__(self, *_error: object) -> None:
        self._lock.release()

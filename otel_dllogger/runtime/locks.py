"""Locks that no thread but the main one waits for without an end.

A signal handler runs on the main thread, in the middle of anything, also of a few lines under
one of our locks. Where it waits for another thread, as to join one, and that one logs, neither
would ever go on. So other threads give up after a while and do without the lock.

The main thread waits: no handler comes between another thread and its release. It uses the lock
itself, in a ``with``, which no exception of a handler can come into the middle of.
"""

from __future__ import annotations

from _thread import get_ident
from typing import TYPE_CHECKING

from otel_dllogger.runtime import fork

if TYPE_CHECKING:
    import threading

LOCK_TIMEOUT_S = 0.5
"""Seconds that a thread waits for what another does in microseconds."""


class LockTimeout(Exception):  # noqa: N818 - not an error of anybody's
    """Raised where a lock was not to be had in time."""


class MainThread:
    """Which thread runs signal handlers; after a fork it is the one that forked.

    Attributes:
        ident: What ``get_ident`` returns there.
    """

    __slots__ = ("__weakref__", "ident")

    def __init__(self) -> None:
        import threading  # noqa: PLC0415 - for this alone

        self.ident = threading.main_thread().ident

    def after_fork_in_child(self) -> None:
        """Take note that the thread that forked is the only one."""
        self.ident = get_ident()


MAIN_THREAD = MainThread()
fork.register(MAIN_THREAD)


class TimedLock:
    """A lock as other threads than the main one take it.

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

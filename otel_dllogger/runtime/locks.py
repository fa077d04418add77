"""Locks for which only the main thread waits without a time limit.

A signal handler runs on the main thread and may interrupt anything, even the few lines under one
of our locks. If it waits for another thread, for example to join it, and that thread logs,
neither would ever continue. So other threads give up after a while and do without the lock.

The main thread does wait: no handler can keep another thread from releasing the lock. Nor does an
exception that a handler raises leave the lock taken, wherever it strikes.
"""

from __future__ import annotations

import sys
from _thread import get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from otel_dllogger.runtime import fork

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

Result = TypeVar("Result")

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


if sys.version_info >= (3, 14):

    def locked(lock: threading.RLock, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function under a lock.

        Since Python 3.14, a handler may raise between the call that takes the lock and the block
        of a ``with`` statement, so the lock would never be released. Between a ``try`` and
        whether it is the outermost one, and between the release and what precedes it, there is
        no call, and so no handler.

        Args:
            lock: The lock; a signal handler may call this while its thread holds the lock.
            function: The function, which must not call foreign code.
            arguments: Its arguments.

        Returns:
            What the function returns.

        Raises:
            LockTimeout: If another thread than the main one waited for too long.
        """
        is_nested = lock._is_owned()  # type: ignore[attr-defined]  # noqa: SLF001 - as Condition does
        try:
            if not is_nested:
                if get_ident() == MAIN_THREAD.ident:
                    lock.acquire()
                elif not lock.acquire(timeout=LOCK_TIMEOUT_S):
                    raise LockTimeout
            return function(*arguments)
        finally:
            if not is_nested:
                try:  # noqa: SIM105 - it would let signals in
                    lock.release()
                except RuntimeError:  # it was not taken
                    pass

else:

    def locked(lock: threading.RLock, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function under a lock, as above.

        Here, no handler can raise between taking the lock and the block of a ``with`` statement.
        """
        if get_ident() == MAIN_THREAD.ident:
            with lock:
                return function(*arguments)
        if not lock.acquire(timeout=LOCK_TIMEOUT_S):
            raise LockTimeout
        try:
            return function(*arguments)
        finally:
            lock.release()

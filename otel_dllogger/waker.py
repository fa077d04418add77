"""A wait that any thread and any signal handler may end."""

from __future__ import annotations

import contextlib
import threading


class Waker:
    """Wake a thread that waits; once is as good as often.

    Not an Event: to set one takes a lock, for which a signal handler that logs would wait for
    ever where it came while its own thread held it, and so would a forked child.
    """

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> None:
        """End the wait that is under way, or the next one."""
        with contextlib.suppress(RuntimeError):  # it was woken and has not slept since
            self._asleep.release()

    def wait(self, timeout_s: float) -> None:
        """Wait for a ``wake`` since the last wait, for so many seconds at most."""
        self._asleep.acquire(timeout=max(timeout_s, 0.0))

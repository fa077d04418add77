"""The timer of ``faulthandler``, which writes stacks even while a thread holds the GIL.

A process has one such timer. An armed timer hangs a forked child at its exit, whatever the child
does: so it is cancelled before each fork, and armed again in the parent.
"""

from __future__ import annotations

import faulthandler
import gc
import sys
import threading

from otel_dllogger.runtime import fork

LONGEST_WAIT_S = 1.0
"""The longest time that a fork waits, in seconds; arming takes some 35 microseconds."""


class NativeTimer:
    """The timer, armed by one thread, unless somebody else uses it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._armed: tuple[float, int] | None = None
        self._is_held = False  # by a thread that forks
        self._is_child = False
        fork.register(self)

    def arm(self, timeout_s: float, descriptor: int) -> bool:
        """Have the stacks of all threads written later, unless it is armed again before that.

        Args:
            timeout_s: Seconds until then.
            descriptor: The open file to which they are written.

        Returns:
            Whether it is armed; it is not where it belongs to somebody else.
        """
        with self._lock:
            if self._is_child or _is_of_others():
                self._armed = None
                return False
            faulthandler.dump_traceback_later(timeout_s, file=descriptor)
            self._armed = timeout_s, descriptor
            return True

    def cancel(self) -> None:
        """Cancel it, if it was armed here."""
        with self._lock:
            if self._armed is not None and not _is_of_others():
                faulthandler.cancel_dump_traceback_later()
            self._armed = None

    def before_fork(self) -> None:
        """Cancel it, and let nobody arm it until the fork is done."""
        self._is_held = self._lock.acquire(timeout=LONGEST_WAIT_S)
        if self._armed is not None and not _is_of_others():
            faulthandler.cancel_dump_traceback_later()

    def after_fork_in_parent(self) -> None:
        """Arm it again; whoever holds the lock for too long will."""
        if not self._is_held:
            return
        try:
            if self._armed is not None:
                self.arm(*self._armed)
        finally:
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Never arm it: the log is the parent's."""
        self._lock = threading.RLock()  # its holder is not in this process
        self._armed = None
        self._is_child = True


def _is_of_others() -> bool:
    """Return whether somebody else seems to use the timer.

    No function tells. But the module refers to each file object to which it will write, and here
    it only gets numbers. One such file is that of ``faulthandler.enable``. Another one is the
    timer's or, which looks the same, that of ``faulthandler.register``. pytest gives the timer a
    number as well, and arms it for each test.
    """
    files = sum(hasattr(type(one), "fileno") for one in gc.get_referents(faulthandler))
    return files > faulthandler.is_enabled() or "_pytest.faulthandler" in sys.modules

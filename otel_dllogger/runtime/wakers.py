"""Waits and threads that any thread and any signal handler may start and end."""

from __future__ import annotations

import sys
import threading
from _thread import start_new_thread
from collections import deque
from typing import TYPE_CHECKING

from otel_dllogger.runtime import fork
from otel_dllogger.runtime.interruptions import let_through

if TYPE_CHECKING:
    from collections.abc import Callable


class Waker:
    """Wake a thread that waits; waking it several times has the effect of once.

    Not an Event: to set one takes a lock. A signal handler that logs would wait for it for ever
    if its own thread held it at that moment, and so would a forked child.
    """

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> None:
        """End the wait that is under way, or the next one."""
        _release(self._asleep)  # unless it was woken and has not slept since

    def wait(self, timeout_s: float) -> None:
        """Wait for a ``wake`` since the last wait, for so many seconds at most."""
        self._asleep.acquire(timeout=max(timeout_s, 0.0))


class Worker:
    """A task that runs on a thread of its own whenever somebody asks for it.

    Training's threads hand over what may wait or call foreign code, such as OpenTelemetry and
    handlers of ``logging``: whatever locks a training thread holds, this one holds none of
    them. The thread exists while there is something to do.

    Args:
        name: The thread's name.
        task: What to do. It may be called on two threads at once, though hardly ever, and must
            not raise.
    """

    def __init__(self, name: str, task: Callable[[], None]) -> None:
        self._name = name
        self._task = task
        self._wanted = False
        self._waiting: deque[threading.Lock] = deque()
        self._running = threading.Lock()
        self._thread_id: int | None = None
        fork.register(self)

    def ask(self) -> bool:
        """Have the task run soon, from its beginning; never wait for it.

        Returns:
            False if no thread can be started: the process has too many, or ends.
        """
        self._wanted = True
        if sys.is_finalizing():  # a thread that is started now never comes to run
            return False
        if not self._running.acquire(blocking=False):
            return True  # whoever runs looks once more before it ends
        try:
            start_new_thread(self._start, ())
        except BaseException as error:
            # Where a signal handler raised it, nobody knows whether the thread was started.
            _release(self._running)
            if isinstance(error, RuntimeError):
                let_through(error)
                return False
            raise
        return True

    def run(self, most_s: float) -> bool:
        """Have the task run from its beginning, and wait for its end.

        Args:
            most_s: Seconds to wait at most; the task itself may be slower.

        Returns:
            Whether it has ended. On the task's own thread it has not, and nothing is waited for.
        """
        if self._thread_id == threading.get_ident():
            return False
        done = threading.Lock()
        done.acquire()
        self._waiting.append(done)
        return self.ask() and done.acquire(timeout=most_s)

    def after_fork_in_child(self) -> None:
        """Forget a thread that the child of a fork does not have."""
        self._running = threading.Lock()
        self._waiting = deque()

    def _start(self) -> None:
        """Start the thread that has a name, from one that has none.

        ``Thread.start`` waits until the new thread runs, which may begin with a collection of
        garbage, in which a finalizer may wait for a lock that is held where the task is wanted.
        """
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError as error:  # no more threads, or the process ends
            let_through(error)
            _release(self._running)

    def _run(self) -> None:
        while True:
            self._thread_id = threading.get_ident()
            while self._wanted:
                self._wanted = False
                waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
                try:
                    self._task()
                finally:
                    for done in waiting:
                        done.release()
            self._thread_id = None
            _release(self._running)
            # Whoever asked after the last look and before the release has started no thread.
            if not self._wanted or not self._running.acquire(blocking=False):
                return


def _release(lock: threading.Lock) -> None:
    """Release a lock that need not be held."""
    try:
        lock.release()
    except RuntimeError as error:
        let_through(error)

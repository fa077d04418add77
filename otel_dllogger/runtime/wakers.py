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
    """A means to wake a waiting thread; several wakes have the same effect as one.

    It is not an Event, since setting an Event takes a lock. A signal handler that logs would wait
    for ever for that lock if its own thread held it at that moment, and so would a forked child.
    """

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def wake(self) -> None:
        """End the wait that is under way, or the next one."""
        _release(self._asleep)  # no effect if it was woken and has not waited since

    def wait(self, timeout_s: float) -> None:
        """Wait until ``wake`` is called, or was since the last wait, or the time is up."""
        self._asleep.acquire(timeout=max(timeout_s, 0.0))


class Worker:
    """A task that runs on a thread of its own whenever it is asked for.

    Training threads hand over work that may wait or call foreign code, such as OpenTelemetry
    and handlers of ``logging``: whatever locks a training thread holds, this thread holds none
    of them. The thread exists only while there is something to do.

    Args:
        name: The thread's name.
        task: The task. In rare cases it is called on two threads at once, and it must not raise.
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
        """Have the task run soon, from its beginning, without waiting for it.

        Returns:
            False if no thread can be started: the process has too many, or is exiting.
        """
        self._wanted = True
        if sys.is_finalizing():  # a thread that is started now would never run
            return False
        if not self._running.acquire(blocking=False):
            return True  # the thread that runs looks once more before it ends
        try:
            start_new_thread(self._start, ())
        except BaseException as error:
            # If a signal handler raised it, it is unknown whether the thread was started.
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
            Whether it has ended. On the task's own thread it has not, and this does not wait.
        """
        if self._thread_id == threading.get_ident():
            return False
        done = threading.Lock()
        done.acquire()
        self._waiting.append(done)
        return self.ask() and done.acquire(timeout=most_s)

    def after_fork_in_child(self) -> None:
        """Forget the thread, which does not exist in a forked child."""
        self._running = threading.Lock()
        self._waiting = deque()

    def _start(self) -> None:
        """Start the named thread, from a thread without a name.

        ``Thread.start`` waits until the new thread runs. That may begin with a garbage
        collection, in which a finalizer may wait for a lock that the asking thread holds.
        """
        try:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError as error:  # no more threads, or the process is exiting
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
            # A request between the last look and the release has not started a thread.
            if not self._wanted or not self._running.acquire(blocking=False):
                return


def _release(lock: threading.Lock) -> None:
    """Release a lock, which may already be released."""
    try:
        lock.release()
    except RuntimeError as error:
        let_through(error)

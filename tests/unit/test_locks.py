"""A lock that a signal handler cannot leave taken, wherever its exception strikes."""

from __future__ import annotations

import signal
import threading

import pytest

from otel_dllogger.runtime import locks
from otel_dllogger.runtime.locks import LockTimeout, locked

pytestmark = pytest.mark.newest_only


class TimeIsUpError(Exception):
    """Raised by the handler."""


def test_exceptions_of_a_handler_leave_no_lock_taken():
    """Some of 3,000 of them strike between taking the lock and what is done under it."""
    lock, calls, raised = threading.RLock(), 0, 0

    def raise_it(*_signal):
        raise TimeIsUpError

    def count():
        nonlocal calls
        calls += 1

    before = signal.signal(signal.SIGALRM, raise_it)
    try:
        while raised < 3000:
            try:
                signal.setitimer(signal.ITIMER_REAL, 2e-5 + raised % 100 * 1e-6)
                for _ in range(20_000):  # it is lost in a callback of the garbage collector
                    locked(lock, count)
            except TimeIsUpError:
                raised += 1
            assert not lock._is_owned(), raised
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert calls > 1000


def test_a_handler_may_take_the_lock_that_its_thread_holds():
    """It is released by the one that took it."""
    lock = threading.RLock()

    def outer():
        assert "inner" == locked(lock, lambda: "inner")
        assert lock._is_owned()
        return "outer"

    assert "outer" == locked(lock, outer)
    assert not lock._is_owned()


def test_another_thread_gives_up_and_leaves_the_lock_alone(monkeypatch):
    """It does without, and the holder still has it."""
    monkeypatch.setattr(locks, "LOCK_TIMEOUT_S", 0.01)
    lock, outcomes = threading.RLock(), []

    def other():
        try:
            outcomes.append(locked(lock, lambda: "taken"))
        except LockTimeout:
            outcomes.append("gave up")

    def wait_for_other():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return lock._is_owned()

    assert locked(lock, wait_for_other)
    wait_for_other()
    assert ["gave up", "taken"] == outcomes

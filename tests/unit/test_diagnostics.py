"""Faults: counted always, said at a limited rate, raised never but under tests."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

import pytest

from otel_dllogger.diagnostics import (
    FAULTS,
    OTLP,
    PROCESS,
    RAISE_VARIABLE,
    REASONS,
    WARNING_INTERVAL_S,
    Faults,
)
from tests.support.spoken import SpokenLog

DEADLINE_S = 30


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    """The time of the faults under test."""
    return Clock()


@pytest.fixture
def faults(clock):
    """Faults of their own."""
    return Faults(clock)


@pytest.fixture
def caplog(caplog, faults):
    """What was logged, the warnings of these faults included."""
    return SpokenLog(caplog, faults)


def test_every_reason_exists_at_zero(faults):
    """A rate over a counter needs its first zero."""
    assert faults.dropped == dict.fromkeys(REASONS[PROCESS], 0)
    assert FAULTS.dropped.keys() == REASONS[PROCESS].keys()


def test_a_part_shows_its_reasons_once_it_is_in_use(faults):
    """At 0, and what is counted of them by then stays."""
    faults.drop("otlp_exit", "lost")
    faults.count_from_zero(OTLP)
    zeros = dict.fromkeys([*REASONS[PROCESS], *REASONS[OTLP]], 0)
    assert faults.dropped == {**zeros, "otlp_exit": 1}


def test_drop_counts_and_warns(faults, caplog):
    """A loss is a number and one line that says where the number is."""
    faults.drop("stdout", "nothing is printed")
    faults.drop("disk_full", "lines are lost", count=7)
    found = {reason: count for reason, count in faults.dropped.items() if count}
    assert found == {"stdout": 1, "disk_full": 7}
    assert caplog.record_tuples == [
        (
            "otel_dllogger",
            logging.WARNING,
            'nothing is printed (counted in dllogger_dropped_total{reason="stdout"})',
        ),
        (
            "otel_dllogger",
            logging.WARNING,
            'lines are lost (counted in dllogger_dropped_total{reason="disk_full"})',
        ),
    ]


def test_one_warning_a_minute_and_reason(faults, clock, caplog):
    """The rate is limited, the count is not."""
    said = []
    for passed_s in (0.0, 0.0, WARNING_INTERVAL_S - 0.1, 0.1, 0.1, 2 * WARNING_INTERVAL_S):
        clock.now_s += passed_s
        caplog.clear()
        faults.drop("stdout", "lost")
        said.append(len(caplog.records))
    assert said == [1, 0, 0, 1, 0, 1]
    assert faults.dropped["stdout"] == 6
    assert WARNING_INTERVAL_S == 60.0


def test_reasons_do_not_silence_each_other(faults, caplog):
    """Each reason has a rate of its own, also those that are not counted."""
    for reason in ("stdout", "disk_full", "environment", "stdout", "environment"):
        faults.warn(reason, reason)
    assert [record.getMessage() for record in caplog.records] == [
        "stdout",
        "disk_full",
        "environment",
    ]
    assert set(faults.dropped.values()) == {0}


def test_a_message_is_no_format(faults, caplog):
    """Percent signs of a metric's name are text."""
    faults.warn("stdout", "eval_90%_latency %s %d")
    assert caplog.messages == ["eval_90%_latency %s %d"]


def test_captured_warnings_are_not_written(faults, caplog):
    """Whoever captures them says them in words of its own; what is counted is counted."""
    with faults.captured() as captured:
        faults.drop("endpoint", "no metrics are served")
        faults.warn("port_taken", "port 80 is taken")
        faults.warn("port_taken", "port 81 is taken")
    faults.warn("port_taken", "within the minute")
    faults.warn("environment", "written again")
    assert captured == [
        ("endpoint", "no metrics are served"),
        ("port_taken", "port 80 is taken"),
    ]
    assert caplog.messages == ["written again"]
    assert faults.dropped["endpoint"] == 1


def test_caught_names_the_place_and_the_error(faults, caplog):
    """One line, however many the error's own message has, and a short one."""
    faults.caught("backend_failed", "Mine.log failed", ValueError("two\n  lines " + "x" * 1000))
    counted = ' (counted in dllogger_dropped_total{reason="backend_failed"})'
    message = f"two lines {'x' * 1000}"[:300]
    assert caplog.messages == [f"Mine.log failed: ValueError: {message}{counted}"]
    assert faults.dropped["backend_failed"] == 1


def test_an_error_that_cannot_be_shown(faults, caplog):
    """An error whose str raises is told by its type."""

    class Hidden(Exception):  # noqa: N818 - an error like any other
        def __str__(self):
            raise RuntimeError("no text")

    faults.caught("backend_failed", "Mine.log failed", Hidden())
    assert caplog.messages[0].startswith("Mine.log failed: Hidden: (its message cannot be shown)")


@pytest.mark.parametrize(
    ("value", "raises"), [("1", True), ("0", False), ("", False), ("true", False), (None, False)]
)
def test_the_variable_that_raises(monkeypatch, faults, value, raises):
    """Only 1 raises, and what is raised is not counted."""
    if value is not None:
        monkeypatch.setenv(RAISE_VARIABLE, value)
    error = KeyError("theirs")
    raised = None
    try:
        faults.caught("backend_failed", "here", error)
    except KeyError as found:
        raised = found
    assert raised is (error if raises else None)
    assert faults.dropped["backend_failed"] == (0 if raises else 1)


def test_a_logging_handler_that_raises(faults):
    """A broken handler of the application fails nothing."""

    class Broken(logging.Handler):
        asked = 0

        def emit(self, record):
            Broken.asked += 1
            raise RuntimeError("handler")

    logger = logging.getLogger("otel_dllogger")
    handler = Broken()
    logger.addHandler(handler)
    try:
        faults.drop("stdout", "lost")
        faults.warn("disk_full", "lost")
        faults.drain()
    finally:
        logger.removeHandler(handler)
    assert (Broken.asked, faults.dropped["stdout"]) == (2, 1)


def test_a_handler_that_logs_into_the_faults_again(faults):
    """A handler that meets a fault itself does not hang."""

    class Reentrant(logging.Handler):
        def emit(self, record):
            faults.drop("disk_full", "lost while warning")

    logger = logging.getLogger("otel_dllogger")
    handler = Reentrant()
    logger.addHandler(handler)
    try:
        faults.drop("stdout", "lost")
        faults.drain()
    finally:
        logger.removeHandler(handler)
    assert faults.dropped["disk_full"] == 2  # of both warnings


def test_threads_count_every_loss(faults):
    """The count is exact, whoever counts at the same moment."""

    def lose():
        for _number in range(1000):
            faults.drop("stdout", "lost")

    threads = [threading.Thread(target=lose) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults.dropped["stdout"] == 4000


def test_a_forked_child_is_silent():
    """The child counts for itself and says nothing, even where its parent held the lock."""
    code = """
import os, sys
from otel_dllogger.diagnostics import FAULTS
with FAULTS._counting:
    child = os.fork()
    if child == 0:
        FAULTS.drop("stdout", "of the child")
        os._exit(FAULTS.dropped["stdout"])
FAULTS.drop("stdout", "of the parent")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), FAULTS.dropped["stdout"])
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    expected = 'otel_dllogger: of the parent (counted in dllogger_dropped_total{reason="stdout"})\n'
    assert (result.stdout, result.stderr) == ("1 1\n", expected)

"""Diagnostics: counted always, said at a limited rate, raised never but under tests."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading

import pytest

from otel_dllogger.diagnostics import (
    DIAGNOSTICS,
    OTLP,
    PROCESS,
    RAISE_VARIABLE,
    REASONS,
    WARNING_INTERVAL_S,
    Diagnostics,
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
    """The time of the diagnostics under test."""
    return Clock()


@pytest.fixture
def diagnostics(clock):
    """Diagnostics of their own, whose warnings are not in the log of the next test."""
    own = Diagnostics(clock)
    yield own
    own.drain()


@pytest.fixture
def caplog(caplog, diagnostics):
    """What was logged, the warnings of these diagnostics included."""
    return SpokenLog(caplog, diagnostics)


def test_every_reason_exists_at_zero(diagnostics):
    """A rate over a counter needs its first zero."""
    assert diagnostics.dropped == dict.fromkeys(REASONS[PROCESS], 0)
    assert DIAGNOSTICS.dropped.keys() == REASONS[PROCESS].keys()


def test_a_part_shows_its_reasons_once_it_is_in_use(diagnostics):
    """At 0, and what is counted of them by then stays."""
    diagnostics.count("otlp_exit", "lost")
    diagnostics.count_from_zero(OTLP)
    zeros = dict.fromkeys([*REASONS[PROCESS], *REASONS[OTLP]], 0)
    assert diagnostics.dropped == {**zeros, "otlp_exit": 1}


def test_drop_counts_and_warns(diagnostics, caplog):
    """A loss is a number and one line that says where the number is."""
    diagnostics.count("stdout", "nothing is printed")
    diagnostics.count("disk_full", "lines are lost", count=7)
    found = {reason: count for reason, count in diagnostics.dropped.items() if count}
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


def test_one_warning_a_minute_and_reason(diagnostics, clock, caplog):
    """The rate is limited, the count is not."""
    said = []
    for passed_s in (0.0, 0.0, WARNING_INTERVAL_S - 0.1, 0.1, 0.1, 2 * WARNING_INTERVAL_S):
        clock.now_s += passed_s
        caplog.clear()
        diagnostics.count("stdout", "lost")
        said.append(len(caplog.records))
    assert said == [1, 0, 0, 1, 0, 1]
    assert diagnostics.dropped["stdout"] == 6
    assert WARNING_INTERVAL_S == 60.0


def test_reasons_do_not_silence_each_other(diagnostics, caplog):
    """Each reason has a rate of its own, also those that are not counted."""
    for reason in ("stdout", "disk_full", "environment", "stdout", "environment"):
        diagnostics.warn(reason, reason)
    assert [record.getMessage() for record in caplog.records] == [
        "stdout",
        "disk_full",
        "environment",
    ]
    assert set(diagnostics.dropped.values()) == {0}


def test_a_message_is_no_format(diagnostics, caplog):
    """Percent signs of a metric's name are text."""
    diagnostics.warn("stdout", "eval_90%_latency %s %d")
    assert caplog.messages == ["eval_90%_latency %s %d"]


def test_captured_warnings_are_not_written(diagnostics, caplog):
    """Whoever captures them says them in words of its own; what is counted is counted."""
    with diagnostics.captured() as captured:
        diagnostics.count("endpoint", "no metrics are served")
        diagnostics.warn("port_taken", "port 80 is taken")
        diagnostics.warn("port_taken", "port 81 is taken")
    diagnostics.warn("port_taken", "within the minute")
    diagnostics.warn("environment", "written again")
    assert captured == [
        ("endpoint", "no metrics are served"),
        ("port_taken", "port 80 is taken"),
    ]
    assert caplog.messages == ["written again"]
    assert diagnostics.dropped["endpoint"] == 1


def test_caught_names_the_place_and_the_error(diagnostics, caplog):
    """One line, however many the error's own message has, and a short one."""
    diagnostics.caught(
        "backend_failed", "Mine.log failed", ValueError("two\n  lines " + "x" * 1000)
    )
    counted = ' (counted in dllogger_dropped_total{reason="backend_failed"})'
    message = f"two lines {'x' * 1000}"[:300]
    assert caplog.messages == [f"Mine.log failed: ValueError: {message}{counted}"]
    assert diagnostics.dropped["backend_failed"] == 1


def test_an_error_that_cannot_be_shown(diagnostics, caplog):
    """An error whose str raises is told by its type."""

    class Hidden(Exception):  # noqa: N818 - an error like any other
        def __str__(self):
            raise RuntimeError("no text")

    diagnostics.caught("backend_failed", "Mine.log failed", Hidden())
    assert caplog.messages[0].startswith("Mine.log failed: Hidden: (its message cannot be shown)")


@pytest.mark.parametrize(
    ("value", "raises"), [("1", True), ("0", False), ("", False), ("true", False), (None, False)]
)
def test_the_variable_that_raises(monkeypatch, diagnostics, value, raises):
    """Only 1 raises, and what is raised is not counted."""
    if value is not None:
        monkeypatch.setenv(RAISE_VARIABLE, value)
    error = KeyError("theirs")
    raised = None
    try:
        diagnostics.caught("backend_failed", "here", error)
    except KeyError as found:
        raised = found
    assert raised is (error if raises else None)
    assert diagnostics.dropped["backend_failed"] == (0 if raises else 1)


def test_a_logging_handler_that_raises(diagnostics):
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
        diagnostics.count("stdout", "lost")
        diagnostics.warn("disk_full", "lost")
        diagnostics.drain()
    finally:
        logger.removeHandler(handler)
    assert (Broken.asked, diagnostics.dropped["stdout"]) == (2, 1)


def test_a_handler_that_logs_into_the_faults_again(diagnostics):
    """A handler that meets a fault itself does not hang."""

    class Reentrant(logging.Handler):
        def emit(self, record):
            diagnostics.count("disk_full", "lost while warning")

    logger = logging.getLogger("otel_dllogger")
    handler = Reentrant()
    logger.addHandler(handler)
    try:
        diagnostics.count("stdout", "lost")
        diagnostics.drain()
    finally:
        logger.removeHandler(handler)
    assert diagnostics.dropped["disk_full"] == 2  # of both warnings


def test_threads_count_every_loss(diagnostics):
    """The count is exact, whoever counts at the same moment."""

    def lose():
        for _number in range(1000):
            diagnostics.count("stdout", "lost")

    threads = [threading.Thread(target=lose) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert diagnostics.dropped["stdout"] == 4000


def test_a_forked_child_is_silent():
    """The child counts for itself and says nothing, even where its parent held the lock."""
    code = """
import os, sys
from otel_dllogger.diagnostics import DIAGNOSTICS
with DIAGNOSTICS._counting:
    child = os.fork()
    if child == 0:
        DIAGNOSTICS.count("stdout", "of the child")
        os._exit(DIAGNOSTICS.dropped["stdout"])
DIAGNOSTICS.count("stdout", "of the parent")
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), DIAGNOSTICS.dropped["stdout"])
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

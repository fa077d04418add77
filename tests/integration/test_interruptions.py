"""Exceptions that a signal handler of the application raises are the application's."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys

import pytest

from otel_dllogger import JSONStreamBackend, Logger
from otel_dllogger.logger import Backend
from otel_dllogger.runtime.interruptions import let_through
from tests.support.command import uncovered
from tests.support.paths import TESTS

SCRIPTS = TESTS / "scripts"
DEADLINE_S = 120


def fail(signum, frame):
    """Handle a signal as scripts with a time limit do."""
    raise TimeoutError("too late")


class Handlers:
    """Handlers of other forms."""

    def method(self, signum, _frame):
        raise TimeoutError("too late")

    def __call__(self, *arguments):
        fail(*arguments)


def without_arguments(signum, frame):
    """Let go of what was given, as many do."""
    del signum, frame
    raise TimeoutError("too late")


def through_frames(signum, frame):
    """Give the names other values."""
    signum = signal.Signals(signum).name
    while frame is not None:
        frame = frame.f_back
    raise TimeoutError(signum)


HANDLERS = {
    "without arguments": without_arguments,
    "through frames": through_frames,
    "function": fail,
    "method": Handlers().method,
    "object": Handlers(),
    "partial": functools.partial(lambda _extra, signum, frame: fail(signum, frame), "extra"),
    "lambda": lambda signum, frame: fail(signum, frame),  # noqa: PLW0108 - as scripts do
}


def raised_in(handler):
    """Return what a handler raises into code that a signal interrupts."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        signal.raise_signal(signal.SIGUSR1)
    except TimeoutError as error:
        return error
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("handler", HANDLERS.values(), ids=HANDLERS)
def test_a_handlers_exception_is_raised_again(handler):
    """It is known by the handler that is installed, whatever form it has."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        error = raised_in(handler)
        signal.signal(signal.SIGUSR1, handler)
        with pytest.raises(TimeoutError) as again:
            let_through(error)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert again.value is error


def test_a_handler_that_is_no_longer_installed_is_known_by_what_it_was_given():
    """As one that takes itself out before it raises."""
    error = raised_in(fail)
    with pytest.raises(TimeoutError):
        let_through(error)


def test_a_helper_that_is_given_a_frame_is_not_a_handler():
    """An exception of a user's own code about frames is a fault like any other."""

    def where(frame, depth=1):
        return frame.f_locals["missing"], depth

    try:
        where(sys._getframe(), 1)
    except KeyError as error:
        let_through(error)


@pytest.mark.parametrize("frame", [None, sys._getframe()])
def test_any_other_exception_is_not(frame):
    """A function of the user's that looks like a handler is none unless it interrupted."""
    try:
        fail(10, frame)
    except TimeoutError as error:
        let_through(error)


def test_an_exception_of_a_backend_within_a_handler_is_a_fault(counted):
    """What a handler's own log call meets stops there, as elsewhere."""

    class Failing(Backend):
        def log(self, *_arguments):
            raise ValueError("of the backend")

        metadata = log

    logger = Logger([Failing(1)])
    before = signal.signal(signal.SIGUSR1, lambda *_: logger.log((0, 1), {}))
    try:
        signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert {"backend_failed": 1} == counted()


@pytest.mark.parametrize("kind", ["TimeoutError", "ValueError", "Limit"])
def test_every_time_limit_arrives_and_the_file_is_right(kind, tmp_path):
    """Limits that strike in the middle of log() all arrive; what was acknowledged is there once."""
    tries = 150
    result = subprocess.run(
        [sys.executable, SCRIPTS / "time_limit.py", tmp_path / "log", str(tries), kind],
        capture_output=True,
        text=True,
        env=uncovered(),
        timeout=DEADLINE_S,
        check=True,
    )
    raised, arrived, acknowledged, dropped = json.loads(result.stdout)
    lines = (tmp_path / "log").read_bytes().split(b"\n")
    assert b"" == lines.pop()
    numbers = [json.loads(line[5:])["data"]["number"] for line in lines]
    assert (tries, tries) == (raised, arrived)
    assert len(numbers) == len(set(numbers))
    assert set(acknowledged) <= set(numbers)
    assert "backend_failed" not in dropped


def test_a_limit_in_a_drain_does_not_double_a_line(tmp_path, monkeypatch):
    """A line that was kept, and written when the handler raised, is not written again."""
    logger = Logger([backend := JSONStreamBackend(1, tmp_path / "log")])
    file = backend.file
    write, plan = os.write, [28, None, None]  # ENOSPC, then an interruption after the write

    def interrupted(fd, data):
        step = plan.pop(0) if plan else None
        if step is not None:
            raise OSError(step, "No space left on device")
        written = write(fd, data)
        if len(plan) == 1:
            signal.raise_signal(signal.SIGUSR1)
        return written

    monkeypatch.setattr(file, "_write", interrupted)
    before = signal.signal(signal.SIGUSR1, fail)
    try:
        with pytest.raises(TimeoutError):
            logger.log((0, 1), {"loss": 1})
        logger.log((0, 2), {"loss": 2})
    finally:
        signal.signal(signal.SIGUSR1, before)
    logger.close()
    steps = [json.loads(line[5:])["step"] for line in (tmp_path / "log").read_text().splitlines()]
    assert [[0, 1], [0, 2]] == steps


def test_a_limit_after_a_short_write_does_not_stop_the_log(tmp_path, monkeypatch):
    """The rest of the line follows with the next one, whichever call the handler strikes at."""
    backend = JSONStreamBackend(1, tmp_path / "log")
    logger, file = Logger([backend]), backend.file
    plan = [True]

    def short(fd, data):
        return os.write(fd, data[:5] if plan and plan.pop() else data)

    def struck(_attempts):
        monkeypatch.undo()
        raise TimeoutError("as a handler does when the call begins")

    monkeypatch.setattr(file, "_write", short)
    monkeypatch.setattr(file, "_drain", struck)
    logger.log((0, 1), {"loss": 1})
    logger.log((0, 2), {"loss": 2})
    logger.close()
    steps = [json.loads(line[5:])["step"] for line in (tmp_path / "log").read_text().splitlines()]
    assert [[0, 1], [0, 2]] == steps

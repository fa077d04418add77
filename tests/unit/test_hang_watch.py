"""The parts of the watch over hangs; tests/system/test_hangs.py has real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

import otel_dllogger as dllogger
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.hangs import stacks_file
from otel_dllogger.hangs.log_tail import read_last_step, was_interrupted
from otel_dllogger.hangs.stacks_file import StacksFile
from otel_dllogger.hangs.usual_interval import UsualInterval
from otel_dllogger.hangs.watch import THREAD_NAME, HangWatch
from otel_dllogger.settings import AUTO, hang_limit
from tests.support.http import wait_until

pytestmark = pytest.mark.newest_only

VARIABLE = "OTEL_DLLOGGER_HANG_SECONDS"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [("", 0), ("0", 0), ("90", 90), ("2.5", 2.5), ("auto", AUTO), (" Auto ", AUTO), ("yes", 0)],
)
def test_the_variable(monkeypatch, raw, expected):
    """It is a number, auto, or nothing."""
    monkeypatch.setenv(VARIABLE, raw)
    assert hang_limit(None) == expected


def test_a_variable_that_is_neither_is_told_of(monkeypatch, caplog):
    """One line says what may be written."""
    monkeypatch.setenv(VARIABLE, "often")
    DIAGNOSTICS._warned_at.clear()
    hang_limit(None)
    DIAGNOSTICS.drain()
    assert f"{VARIABLE}='often' is not auto or a number from 0 to 86400: using 0" in caplog.text


def test_the_argument_takes_precedence(monkeypatch):
    """So a script may switch off what its environment asks for."""
    monkeypatch.setenv(VARIABLE, "90")
    assert hang_limit(0) == 0
    assert hang_limit("auto") == AUTO


@pytest.mark.parametrize("wrong", ["soon", -1, True, float("nan"), 86_401])
def test_an_invalid_argument_is_refused(tmp_path, wrong):
    """The error says what to pass, and no file is made."""
    with pytest.raises(ConfigurationError, match=r"hang_seconds=.*; pass 'auto', or 0"):
        dllogger.JSONStreamBackend(1, tmp_path / "log.json", hang_seconds=wrong)
    assert not list(tmp_path.iterdir())


def test_nothing_is_watched_unless_it_is_asked_for(tmp_path):
    """There is no thread."""
    backend = dllogger.JSONStreamBackend(1, tmp_path / "log.json")
    assert backend._hang_watch is None
    backend.close()


@pytest.mark.parametrize(
    ("gaps_s", "limit_s"),
    [
        ([], 300),
        ([0.5] * 4, 300),  # not yet usual
        ([0.5] * 5, 60),
        ([10] * 5, 100),
        ([10] * 99 + [5000], 100),  # one checkpoint changes nothing
        ([100] * 5, 300),
        ([600], 1200),  # epochs
        ([600] * 50, 1200),
    ],
)
def test_the_automatic_limit(gaps_s, limit_s):
    """Ten usual intervals, from one to five minutes."""
    usual = UsualInterval()
    for gap_s in gaps_s:
        usual.add(gap_s)
    assert usual.limit_s() == limit_s


def line(step, kind="LOG"):
    """Return a line of DLLogger's, with data in which anything may stand."""
    return f'DLLL {{"type": "{kind}", "step": {step}, "data": {{"x": "type: LOG"}}}}\n'


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("", None),
        (line('"PARAMETER"'), None),
        (line("[0, 1]") + line("null", "METADATA"), [0, 1]),
        (line("[0, 1]") + line("[0, 2]") + 'DLLL {"type": "LOG", "st', [0, 2]),
        (line("[]"), []),
        (line("[0, 1]") + "x" * 70_000, None),  # beyond what is read
    ],
)
def test_the_last_step(tmp_path, text, step):
    """It is that of the last whole LOG line, parameters aside."""
    log = tmp_path / "log.json"
    log.write_text(text)
    last = read_last_step(str(log), 0)
    assert (last and last.step) == step
    assert (last is not None and last.is_summary) == (step == [])


def test_steps_of_an_earlier_process_do_not_count(tmp_path):
    """A log to which is appended begins where this process began to write; a rotated one, anew."""
    log = tmp_path / "log.json"
    log.write_text(line("[0, 1]"))
    start = log.stat().st_size
    assert read_last_step(str(log), start) is None
    assert read_last_step(str(log), start + 1) is not None
    assert read_last_step(str(tmp_path / "none.json"), 0) is None


def test_a_phase_that_the_log_tells_of_explains_a_silence(tmp_path):
    """Neither one before or after it does, nor a part of a step, nor one on another thread."""
    log = tmp_path / "log.json"
    backend = dllogger.JSONStreamBackend(1, log)
    logger = dllogger.Logger([backend])
    times_s = [in_phase(logger, name) for name in ("checkpoint", "data_wait", "restore")]
    beside = threading.Thread(target=lambda: times_s.append(in_phase(logger, "checkpoint")))
    beside.start()
    beside.join()
    with logger.phase("validation"):
        times_s.append(later())
        later()
        logger.log((0, 1), {"loss": 1.0})  # which announces it
        seen = [was_interrupted(str(log), 0, at_s) for at_s in times_s]
    assert seen == [True, False, True, False, True]
    end = backend.log_end
    logger.close()
    assert not was_interrupted(str(log), 0, times_s[0] - 1)
    assert not was_interrupted(str(log), end, times_s[0])


def in_phase(logger, name):
    """Be in a phase, and return when that was."""
    with logger.phase(name):
        at_s = later()
        later()
    return at_s


def later():
    """Return a time that is later than what was noted before, by any clock."""
    begin_s = time.time()
    wait_until(lambda: time.time() > begin_s + 0.001)
    return time.time()


def test_the_file_of_stacks_is_bounded(tmp_path, monkeypatch):
    """One that has grown too large begins anew."""
    monkeypatch.setattr(stacks_file, "MAX_BYTES", 100)
    stacks = StacksFile(str(tmp_path / "log.json.stacks"))
    for number in range(3):
        stacks.append_stacks(f"heading {number}")
    text = (tmp_path / "log.json.stacks").read_text()
    assert text.startswith("heading 2\n")
    assert text.count("heading") == 1
    assert "test_the_file_of_stacks_is_bounded" in text
    stacks.close()
    assert (tmp_path / "log.json.stacks").exists()


def test_an_empty_file_of_stacks_is_removed(tmp_path):
    """But nothing that somebody else put in its place."""
    stacks = StacksFile(str(tmp_path / "a"))
    stacks.open()
    stacks.close()
    assert not list(tmp_path.iterdir())
    stacks.open()
    (tmp_path / "a").unlink()
    (tmp_path / "a").touch()
    stacks.close()
    assert (tmp_path / "a").exists()


def test_a_descriptor_that_is_not_ours_any_more_is_not_written_to(tmp_path):
    """A script closed all descriptors, and opened a file that got the number."""
    stacks = StacksFile(str(tmp_path / "a"))
    os.close(stacks.open())
    with (tmp_path / "checkpoint").open("w"):
        stacks.append_stacks("heading")
    assert (tmp_path / "checkpoint").read_text() == ""
    assert (tmp_path / "a").read_text().startswith("heading")
    stacks.close()


def test_a_link_in_its_place_is_refused(tmp_path, caplog):
    """The watch says so once, and training goes on."""
    (tmp_path / "log.json.stacks").symlink_to(tmp_path / "else")
    DIAGNOSTICS._warned_at.clear()
    backend = dllogger.JSONStreamBackend(1, tmp_path / "log.json", hang_seconds=60)
    logger = dllogger.Logger([backend])
    logger.log((0, 1), {"loss": 1.0})
    watch = backend._hang_watch
    for _ in range(2):
        with pytest.raises(OSError) as raised:
            watch._arm(1.0, 0.0)
        watch._tell_unwritable(raised.value)
    logger.close()
    DIAGNOSTICS.drain()
    assert caplog.text.count("log.json.stacks cannot be written (") == 1
    assert not (tmp_path / "else").exists()


def test_a_pipe_has_no_place_for_stacks(tmp_path, caplog):
    """One line says so."""
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    DIAGNOSTICS._warned_at.clear()
    backend = dllogger.JSONStreamBackend(1, tmp_path / "pipe", hang_seconds=60)
    backend.close()
    os.close(reader)
    DIAGNOSTICS.drain()
    assert "pipe is not a file, so there is no place for stacks beside it" in caplog.text


OWNERS = {
    "nobody": ("", "True"),
    "the fatal errors": ("faulthandler.enable()", "True"),
    "somebody": ("faulthandler.dump_traceback_later(600)", "False"),
    "both": ("faulthandler.enable(); faulthandler.dump_traceback_later(600)", "False"),
    "perhaps somebody": ("faulthandler.register(10)", "False"),
}


@pytest.mark.parametrize("owner", OWNERS)
def test_the_timer_of_somebody_else_is_left_alone(owner):
    """Before it is armed here and afterwards."""
    begin, expected = OWNERS[owner]
    script = (
        "import faulthandler\n"
        "from otel_dllogger.runtime.native_timer import NativeTimer\n"
        "timer = NativeTimer()\n"
        f"{begin}\n"
        "print(timer.arm(600, 2))\n"
        "timer.cancel()\n"
        "faulthandler.dump_traceback_later(600)\n"
        "print(timer.arm(600, 2))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [expected, "False"]


def test_only_the_first_log_of_a_process_is_watched_beside(tmp_path, monkeypatch):
    """A process hangs once, and has one timer; the next one takes over when that closes."""
    monkeypatch.setenv(VARIABLE, "60")
    looking = []
    monkeypatch.setattr(HangWatch, "_look", lambda self, *_: looking.append(self))
    first, second = (dllogger.JSONStreamBackend(1, tmp_path / name) for name in ("a", "b"))
    wait_until(lambda: looking)
    assert set(looking) == {first._hang_watch}
    first.close()
    wait_until(lambda: second._hang_watch in looking)
    second.close()
    assert THREAD_NAME.startswith("otel-dllogger-")


def test_a_silence_of_this_process_leaves_its_stacks(tmp_path, caplog):
    """The event says which phases are open; what is logged then ends the hang."""
    path = tmp_path / "log.json"
    backend = dllogger.JSONStreamBackend(1, path, hang_seconds=0.2)
    logger = dllogger.Logger([backend])
    try:
        with logger.phase("data_wait"):
            logger.log((0, 1), {"loss": 1.0})
            wait_until(lambda: b'"EVENT"' in path.read_bytes(), within_s=30)
        logger.log((0, 2), {"loss": 1.0})
    finally:
        logger.close()
    stacks = (tmp_path / "log.json.stacks").read_text()
    assert "nothing logged for" in stacks
    assert "open phases: data_wait" in stacks
    assert "wait_until" in stacks
    (event,) = [line for line in path.read_text().splitlines() if '"EVENT"' in line]
    assert '"name": "hang", "step": [0, 1]' in event
    assert '"open_phases": ["data_wait"]' in event
    DIAGNOSTICS.drain()
    assert "nothing was logged for" in caplog.text

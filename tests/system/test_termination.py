"""Processes that are told to end, by real signals: what their pages say, and that they end."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.command import environment
from tests.support.http import ask

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

DEADLINE_S = 30
LINGER_S = 15

# What a script does until it is told to end. It prints a line once it is ready.
BEGIN = """
import asyncio, ctypes, os, signal, subprocess, sys, threading, time
early = os.environ.get("EARLY")
if early:
    exec(early)
import otel_dllogger as dllogger
backend = dllogger.PrometheusBackend(1, port=0, discovery_dir=sys.argv[1], run="r", rank=0)
logger = dllogger.Logger([backend])
logger.log((0, 1), {"loss": 1})
def ready():
    print(backend.endpoint.port, flush=True)
def train():
    ready()
    while True:
        time.sleep(0.01)
"""
LEAVE = "signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}))\n"
FLAG = """
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
ready()
while not told:
    time.sleep(0.01)
logger.log((0, 2), {"loss": 1})
"""
STUCK = """
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
ready()
libc.pthread_mutex_lock(mutex)  # no signal ends this wait, as in a collective operation
"""
ON_ASYNCIO = """
async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    ready()
    await ended.wait()
asyncio.run(main())
print("asyncio was told", file=sys.stderr)
"""

# The script, the signal, the exit status, and what is left on standard error.
ENDINGS = {
    "SIGTERM": ("train()", signal.SIGTERM, -signal.SIGTERM, ""),
    "SIGTERM in C": (STUCK, signal.SIGTERM, -signal.SIGTERM, ""),
    "SIGINT": ("train()", signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt"),
    "own handler, 0": (LEAVE.format(code=0) + "train()", signal.SIGTERM, 0, ""),
    "own handler, 3": (LEAVE.format(code=3) + "train()", signal.SIGTERM, 3, ""),
    "own handler that sets a flag": (FLAG, signal.SIGTERM, 0, ""),
    "with": ("with logger:\n    train()", signal.SIGINT, -signal.SIGINT, "KeyboardInterrupt"),
}


@contextlib.contextmanager
def running(folder: Path, source: str, **variables: str) -> Iterator[tuple[subprocess.Popen, int]]:
    """Run a script until it is ready; yield its process and the port of its page."""
    with subprocess.Popen(
        [sys.executable, "-c", BEGIN + source, str(folder)],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                pytest.fail(process.communicate()[1])
            yield process, int(line)
        finally:
            process.kill()


def state(port: int) -> tuple[float, float]:
    """Return what a page says of a rank: finished, terminated."""
    page = ask(port).body.decode()
    finished, terminated = (
        float(re.search(rf"^dllogger_run_{name}{{.*}} (.*)$", page, re.MULTILINE)[1])
        for name in ("finished", "terminated")
    )
    return finished, terminated


def scrape_twice(port: int) -> None:
    """Read a page as Prometheus does, so that it is waited for."""
    for _ in range(2):
        assert ask(port, X_Prometheus_Scrape_Timeout_Seconds="10").status == 200


def state_until(port: int, wanted: tuple[float, float]) -> tuple[float, float]:
    """Return what a page says, as soon as that is the wanted state, or at a deadline."""
    by_s = time.monotonic() + DEADLINE_S
    while (found := state(port)) != wanted and time.monotonic() < by_s:
        time.sleep(0.01)
    return found


def announced(folder: Path) -> int:
    return len(list(folder.glob("*.json")))


@pytest.mark.parametrize("name", ENDINGS)
def test_a_signal_is_told_to_one_scrape_and_ends_the_process_as_ever(tmp_path, name):
    """The page says so until a scrape has seen it; then the exit status is that of the signal."""
    source, number, code, said = ENDINGS[name]
    with running(tmp_path, source, OTEL_DLLOGGER_LINGER_SECONDS=str(LINGER_S)) as (process, port):
        assert ((0, 0), 1) == (state(port), announced(tmp_path))
        process.send_signal(number)
        begun_s = time.monotonic()
        time.sleep(0.3)  # no scrape comes before the script's own handler ran
        assert (0, 1) == state(port)
        errors = process.communicate(timeout=DEADLINE_S)[1]
        assert time.monotonic() - begun_s < LINGER_S - 2
    assert (code, 0) == (process.returncode, announced(tmp_path))
    assert said in errors if said else not errors


@pytest.mark.parametrize("name", ENDINGS)
def test_a_process_that_need_not_linger_ends_at_once(tmp_path, name):
    """As it does by default; the file goes, so that nobody looks for the rank."""
    source, number, code, _said = ENDINGS[name]
    with running(tmp_path, source) as (process, _port):
        begun_s = time.monotonic()
        process.send_signal(number)
        process.communicate(timeout=DEADLINE_S)
        assert time.monotonic() - begun_s < 5
    assert (code, 0) == (process.returncode, announced(tmp_path))


def test_nobody_is_waited_for_who_never_came(tmp_path):
    """A rank that nobody has scraped does not wait for a scrape before SIGTERM ends it."""
    with running(tmp_path, "train()", OTEL_DLLOGGER_LINGER_SECONDS="60") as (process, _port):
        process.terminate()
        begun_s = time.monotonic()
        process.communicate(timeout=DEADLINE_S)
        assert time.monotonic() - begun_s < 10  # half of the longest wait
    assert -signal.SIGTERM == process.returncode


def test_a_scrape_that_does_not_come_is_given_up(tmp_path):
    """Before whatever sent SIGTERM takes SIGKILL, however long ``linger_s`` is."""
    early = "from otel_dllogger.runtime import termination; termination.MOST_WAIT_S = 0.5"
    with running(tmp_path, "train()", EARLY=early, OTEL_DLLOGGER_LINGER_SECONDS="3600") as (
        process,
        port,
    ):
        state(port)
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
    assert (-signal.SIGTERM, 0) == (process.returncode, announced(tmp_path))


def test_a_second_signal_ends_the_wait(tmp_path):
    """Who does not want to wait for a scrape sends SIGTERM once more."""
    with running(tmp_path, "train()", OTEL_DLLOGGER_LINGER_SECONDS="60") as (process, port):
        state(port)
        begun_s = time.monotonic()
        process.terminate()
        time.sleep(0.5)
        assert process.poll() is None
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
        assert time.monotonic() - begun_s < 15
    assert (-signal.SIGTERM, 0) == (process.returncode, announced(tmp_path))


# Scripts that end cleanly once a file is there, and would then wait longer for a third scrape
# than a test may take.
ENDS = """
from otel_dllogger.http import scrapers
scrapers.SLACK_S = 29
ready()
while not os.path.exists(sys.argv[1] + "/go"):
    time.sleep(0.01)
"""
OWN = """
told = []
signal.signal({number}, lambda *_: told.append(1))
"""
GOES_ON = "logger.close()\nsys.exit(3 if told else 4)"
SECOND = "other = dllogger.Logger([dllogger.PrometheusBackend(1, port=0, run='s', rank=0)])\n"
SECOND += "for backend in other.backends:\n    backend._scrapers = logger.backends[0]._scrapers"

# The script, the signal that comes while it waits, the exit status, what is left on its standard
# error.
WAITS = {
    "SIGTERM at exit": (ENDS, signal.SIGTERM, -signal.SIGTERM, ""),
    "SIGINT at exit": (ENDS, signal.SIGINT, 0, ""),
    "SIGINT at exit, two pages": (SECOND + ENDS, signal.SIGINT, 0, ""),
    "own handler at exit": (OWN.format(number=15) + ENDS, signal.SIGTERM, 0, ""),
    "SIGTERM in close": (ENDS + "logger.close()", signal.SIGTERM, -signal.SIGTERM, ""),
    "SIGINT in close": (ENDS + "logger.close()", signal.SIGINT, -2, "KeyboardInterrupt"),
    "own handler in close": (OWN.format(number=15) + ENDS + GOES_ON, signal.SIGTERM, 3, ""),
    "own handler of SIGINT": (OWN.format(number=2) + ENDS + GOES_ON, signal.SIGINT, 3, ""),
    "own handler that exits": (LEAVE.format(code=5) + ENDS + "logger.close()", 15, 5, ""),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_signal_ends_the_wait_for_a_regular_scrape(tmp_path, name):
    """At once; the exit status and the script's own handlers are as without the wait."""
    source, number, code, said = WAITS[name]
    with running(tmp_path, source) as (process, port):
        scrape_twice(port)
        (tmp_path / "go").touch()
        assert (1, 0) == state_until(port, (1, 0))
        process.send_signal(number)
        begun_s = time.monotonic()
        errors = process.communicate(timeout=DEADLINE_S)[1]
        assert time.monotonic() - begun_s < 10
    assert (code, 0) == (process.returncode, announced(tmp_path))
    assert said in errors if said else not errors


# Ends that are not clean, or that the process was told to come to: the script, the signal that
# ends it, and the exit status.
NO_WAITS = {
    "SIGTERM": (ENDS, signal.SIGTERM, -signal.SIGTERM),
    "SIGINT": (ENDS, signal.SIGINT, -signal.SIGINT),
    "flag": (OWN.format(number=15) + ENDS.replace("while not", "while not told and not"), 15, 0),
    "flag and a summary": (
        OWN.format(number=15)
        + ENDS.replace("while not", "while not told and not")
        + 'logger.log((), {"loss": 1})\nlogger.close()',
        signal.SIGTERM,
        0,
    ),
    "asyncio": (
        ENDS.partition("ready()")[0] + ON_ASYNCIO + "logger.close()",
        signal.SIGTERM,
        0,
    ),
    "exception": (ENDS + "1 / 0", None, 1),
    "exit code": (ENDS + "sys.exit(3)", None, 3),
    "child": (
        ENDS + "child = os.fork()\nif not child:\n    logger.close()\n    sys.exit()\n"
        "assert os.waitpid(child, 0)[1] == 0\nos._exit(6)",
        None,
        6,
    ),
}


@pytest.mark.parametrize("name", NO_WAITS)
def test_only_a_clean_end_waits_for_a_regular_scrape(tmp_path, name):
    """A process that was told to end does so at once, as does one that fails."""
    source, number, code = NO_WAITS[name]
    with running(tmp_path, source) as (process, port):
        scrape_twice(port)
        begun_s = time.monotonic()
        if number is None:
            (tmp_path / "go").touch()
        else:
            process.send_signal(number)
        process.communicate(timeout=DEADLINE_S)
        assert time.monotonic() - begun_s < 10
    assert code == process.returncode


@pytest.mark.parametrize(
    ("source", "number"),
    [
        ("signal.signal(15, signal.SIG_IGN); train()", signal.SIGTERM),
        ("train()", signal.SIGCONT),
        ("signal.signal(10, lambda *_: None); train()", signal.SIGUSR1),
    ],
    ids=["ignored", "another", "another with a handler"],
)
def test_other_signals_tell_nothing(tmp_path, source, number):
    """What does not reach the script, and what does not tell it to end."""
    with running(tmp_path, source) as (process, port):
        process.send_signal(number)
        time.sleep(0.3)
        assert (0, 0) == state(port)
        assert process.poll() is None


@pytest.mark.parametrize(
    ("source", "code"),
    [("ready(); time.sleep(0.3); 1 / 0", 1), ("ready(); time.sleep(0.3); sys.exit(2)", 2)],
)
def test_an_end_without_a_signal_is_not_told(tmp_path, source, code):
    """The rank vanishes: its file stays."""
    with running(tmp_path, source) as (process, _port):
        process.communicate(timeout=DEADLINE_S)
    assert (code, 1) == (process.returncode, announced(tmp_path))


def test_a_run_that_finished_stays_finished(tmp_path):
    """Its summary was logged before the signal came, or after it."""
    source = 'logger.log((), {"loss": 1}); told = []\nsignal.signal(15, told.append)\ntrain()'
    source = source.replace("told.append", "lambda *_: told.append(1)")
    with running(tmp_path, source) as (process, port):
        process.terminate()
        time.sleep(0.3)
        assert (1, 0) == state(port)
    after = FLAG + 'logger.log((), {"loss": 1})\nlogger.flush()\ntime.sleep(60)'
    with running(tmp_path, after) as (process, port):
        process.terminate()
        assert (1, 0) == state_until(port, (1, 0))


def test_a_script_that_goes_on_is_not_terminated(tmp_path):
    """One that logs more than five minutes after the signal, here a signal of long ago."""
    source = """
try:
    train()
except KeyboardInterrupt:
    logger.log((0, 2), {"loss": 1})
    while not os.path.exists(sys.argv[1] + "/go"):
        time.sleep(0.01)
    backend._store.told_us -= 301_000_000
    logger.log((0, 3), {"loss": 1})
    time.sleep(60)
"""
    with running(tmp_path, source) as (process, port):
        assert (0, 0) == state(port)
        process.send_signal(signal.SIGINT)
        assert (0, 1) == state_until(port, (0, 1))
        (tmp_path / "go").touch()
        assert (0, 0) == state_until(port, (0, 0))


def test_a_script_sees_and_sets_handlers_as_ever(tmp_path):
    """What it asks for is the default, and what it sets is what it gets."""
    source = """
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
told = []
def mine(*arguments):
    told.append(arguments)
before = signal.signal(signal.SIGTERM, mine)
assert before is signal.SIG_DFL and signal.getsignal(signal.SIGTERM) is mine
os.kill(os.getpid(), signal.SIGTERM)
assert len(told) == 1
assert signal.signal(signal.SIGTERM, before) is mine
train()
"""
    with running(tmp_path, source) as (process, port):
        assert (0, 1) == state_until(port, (0, 1))
        process.terminate()
        errors = process.communicate(timeout=DEADLINE_S)[1]
    assert ("", -signal.SIGTERM) == (errors, process.returncode)


def test_asyncio_and_handlers_of_c_keep_theirs(tmp_path):
    """A loop has its own descriptor, and a C library its own handler: both are left alone."""
    with running(tmp_path, ON_ASYNCIO) as (process, _port):
        process.terminate()
        assert "asyncio was told\n" == process.communicate(timeout=DEADLINE_S)[1]
    assert 0 == process.returncode
    early = "import faulthandler; faulthandler.register(15, chain=True)"
    with running(tmp_path, "train()", EARLY=early) as (process, _port):
        process.terminate()
        errors = process.communicate(timeout=DEADLINE_S)[1]
    assert ("most recent call first" in errors, -signal.SIGTERM) == (True, process.returncode)


def test_a_descriptor_that_a_script_has_taken_stays_its_own(tmp_path):
    """It gets the numbers of signals as before, also after the backend is gone."""
    early = """
import socket
mine, theirs = socket.socketpair()
mine.settimeout(10)
theirs.setblocking(False)
signal.set_wakeup_fd(theirs.fileno())
"""
    source = """
import _signal
assert type(_signal.getsignal(15)) is int
signal.signal(signal.SIGTERM, lambda *_: None)
assert signal.set_wakeup_fd(theirs.fileno()) == theirs.fileno()
for _ in range(2):
    os.kill(os.getpid(), signal.SIGTERM)
    assert mine.recv(10) == bytes([signal.SIGTERM])
    logger.close()
assert signal.set_wakeup_fd(-1) == theirs.fileno()
ready()
"""
    with running(tmp_path, source, EARLY=early) as (process, _port):
        errors = process.communicate(timeout=DEADLINE_S)[1]
    assert ("", 0) == (errors, process.returncode)


def test_a_forked_child_has_the_signals_of_a_script_without_this_package(tmp_path):
    """Neither the handler nor the descriptor, whose number the child may use for a file."""
    source = """
import _signal
child = os.fork()
if not child:
    is_free = type(_signal.getsignal(15)) is int and signal.set_wakeup_fd(-1) == -1
    os._exit(0 if is_free else 1)
assert os.waitpid(child, 0)[1] == 0
assert type(_signal.getsignal(15)) is not int
ready()
"""
    with running(tmp_path, source) as (process, _port):
        errors = process.communicate(timeout=DEADLINE_S)[1]
    assert ("", 0) == (errors, process.returncode)


def test_children_end_as_ever_and_tell_their_parent_nothing(tmp_path):
    """Forked and spawned ones, ended at once or later, by SIGTERM; exit statuses are theirs."""
    source = """
import multiprocessing
codes = set()
for number in range(60):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    time.sleep((number % 3) * 0.002)
    child.terminate()
    child.join(10)
    codes.add(child.exitcode)
child = subprocess.Popen(
    [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"],
    stdout=subprocess.PIPE,
)
child.stdout.readline()
child.terminate()
codes.add(child.wait(10))
assert codes == {-15}, codes
assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())
train()
"""
    with running(tmp_path, source) as (process, port):
        assert ((0, 0), 1) == (state(port), announced(tmp_path))
        process.terminate()
        process.communicate(timeout=DEADLINE_S)
    assert (-signal.SIGTERM, 0) == (process.returncode, announced(tmp_path))


def test_a_launcher_ends_its_ranks(tmp_path):
    """As torchrun does when one fails: that one vanished, the others were told to end."""
    begin = BEGIN.replace(", rank=0", "")
    launcher = f"""
import os, subprocess, sys
ranks = [
    subprocess.Popen(
        [sys.executable, "-c", {begin!r} + source, sys.argv[1]],
        stdout=subprocess.PIPE,
        env={{**os.environ, "RANK": str(rank), "WORLD_SIZE": "3"}},
    )
    for rank, source in enumerate(("train()", {STUCK!r}, "ready(); 1 / 0"))
]
for rank in ranks:
    rank.stdout.readline()
assert ranks[2].wait() == 1
for rank in ranks[:2]:
    rank.terminate()
print([rank.wait(10) for rank in ranks])
"""
    done = subprocess.run(
        [sys.executable, "-c", launcher, str(tmp_path)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    assert "[-15, -15, 1]\n" == done.stdout
    (left,) = tmp_path.glob("*.json")
    assert left.name.startswith("dllogger_r_2_")


def test_signals_are_as_they_were_after_the_last_close(tmp_path):
    """Neither a handler nor a descriptor is left, in any thread."""
    source = """
import _signal
logger.close()
assert type(_signal.getsignal(15)) is int
assert signal.set_wakeup_fd(-1) == -1
by = time.time() + 10
while any("signals" in t.name for t in threading.enumerate()) and time.time() < by:
    time.sleep(0.01)
assert not any("signals" in t.name for t in threading.enumerate())
def make():
    dllogger.PrometheusBackend(1, port=0)
thread = threading.Thread(target=make)
thread.start(); thread.join()
assert type(_signal.getsignal(15)) is int and signal.set_wakeup_fd(-1) == -1
ready()
"""
    with running(tmp_path, source) as (process, _port):
        errors = process.communicate(timeout=DEADLINE_S)[1]
    assert ("", 0) == (errors, process.returncode)

"""Foreign code may call any public function at any moment: it neither hangs nor loses a line."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.command import uncovered
from tests.support.paths import TESTS

SCRIPTS = TESTS / "scripts"
DEADLINE_S = 120


JOINING = """
import faulthandler, json, signal, sys, threading
faulthandler.dump_traceback_later(60, exit=True)
import otel_dllogger as dllogger
from otel_dllogger.runtime import locks
from otel_dllogger.diagnostics import DIAGNOSTICS

locks.LOCK_TIMEOUT_S = 0.02  # a test has less of it
dllogger.init([dllogger.JSONStreamBackend(1, sys.argv[1]), dllogger.PrometheusBackend(1, port=0)])
logged = [0, 0]

def work():
    while not stop.is_set():
        dllogger.log((1, logged[1]), {"worker": 1.0, f"m{logged[1] % 50}": 1.0})
        DIAGNOSTICS.count("stdout", "of the worker")
        logged[1] += 1

def handle(*_):
    stop.set()
    worker.join()

signal.signal(signal.SIGALRM, handle)
for turn in range(60):
    stop = threading.Event()
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    signal.setitimer(signal.ITIMER_REAL, 0.004 + turn * 1e-5)
    while not stop.is_set():
        dllogger.log((0, logged[0]), {"main": 1.0})
        DIAGNOSTICS.count("stdout", "of the main thread")
        logged[0] += 1
dllogger.shutdown()
DIAGNOSTICS.count("stdout", "the last")
print(json.dumps([logged, DIAGNOSTICS.dropped["stdout"]]))
"""


def result_of(*arguments):
    """Run a Python program that prints its result; one that hangs shows its stacks."""
    result = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env=uncovered(),
        timeout=DEADLINE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_a_signal_handler_may_wait_for_a_thread_that_logs(tmp_path):
    """As one that stops workers: they do without a lock that the handler's thread holds."""
    (of_main, of_worker), counted = result_of("-W", "ignore", "-c", JOINING, tmp_path / "log")
    steps = [json.loads(line[5:])["step"] for line in (tmp_path / "log").read_text().splitlines()]
    expected = [[0, number] for number in range(of_main)]
    expected += [[1, number] for number in range(of_worker)]
    assert expected == sorted(steps)
    assert of_main + of_worker + 1 == counted


@pytest.mark.parametrize("how", ["signal", "logging", "del", "value"])
def test_foreign_code_calls_every_function_with_every_backend(how, tmp_path):
    """Handlers, finalizers and values call while a scrape and the main thread are in the same."""
    logged, foreign = result_of(SCRIPTS / "reenter.py", how, tmp_path, "20")
    lines = [json.loads(line[5:]) for line in (tmp_path / "log").read_text().splitlines()]
    numbers = [line["data"]["number"] for line in lines if line["type"] == "LOG"]
    assert list(range(logged)) == sorted(numbers)
    assert foreign > 0

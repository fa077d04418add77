"""Run ``otel-dllogger`` as a user does, in its own process and its own folder."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "otel_dllogger")
TIMEOUT_S = 60

_LEFT_OUT = ("OTEL_", "RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_", "SLURM_", "_OTEL_")


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without variables of launchers and settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    return {**kept, **variables}


def uncovered() -> dict[str, str]:
    """Return an environment in which coverage.py does not measure processes.

    Its collector takes a lock that is not an RLock in any thread that runs a new file. A signal
    handler or a forked child that runs at such a moment would wait for it for ever.
    """
    return environment() | {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}


def otel_dllogger(
    *arguments: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command and wait for its end; its lines are not wrapped, unless COLUMNS says so."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**{"COLUMNS": "250", **variables}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def assert_user_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a command failed with one line that says these words."""
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("otel-dllogger: ")
    for word in words:
        assert word in done.stderr


_FORK_BESIDE = """
import os, signal, sys, threading
started, go_on = threading.Event(), threading.Event()

def hold():
    started.set()
    go_on.wait(30)

{program}
thread = threading.Thread(target=beside)
thread.start()
started.wait(30)
if (pid := os.fork()) == 0:
    signal.alarm(30)  # a child that hangs must not outlive the test
    os._exit(0 if answers() else 3)  # an exception ends it with 1
status = os.waitpid(pid, 0)[1]
go_on.set()
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def assert_forked_child_answers(program: str) -> None:
    """Fork while another thread is in the middle of something, and check the child's answer.

    Args:
        program: Defines ``beside``, which the thread runs and which calls ``hold()`` in its
            middle, and ``answers``, which the child runs: true if its result is right.
    """
    code = _FORK_BESIDE.format(program=program)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=TIMEOUT_S, env=uncovered())

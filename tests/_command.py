"""Run ``otel-dllogger`` as a user does: a process of its own, in a folder of its own."""

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
    """Give this process's environment, without launchers and settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_LEFT_OUT)}
    return {**kept, **variables}


def uncovered() -> dict[str, str]:
    """Give an environment whose processes coverage.py leaves alone.

    Its collector takes a lock that is no RLock in whatever thread meets a new file: a signal
    handler or a forked child that comes at such a moment waits for it for ever.
    """
    return environment() | {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}


def otel_dllogger(
    *arguments: str, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=environment(**variables),
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

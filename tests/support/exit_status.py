"""Run many scripts at a time that watch how they end."""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
from typing import TYPE_CHECKING

from tests.support.command import environment
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 60

# Every script below does what a backend does: watch, and query the result at its end.
WATCHED = """
import atexit
from otel_dllogger.runtime.exit_status import EXIT_STATUS
def watch():
    EXIT_STATUS.watch()
    atexit.register(lambda: print("finished" if EXIT_STATUS.is_clean() else "failed", flush=True))
def ask():
    print("finished" if EXIT_STATUS.is_clean() else "failed", flush=True)
"""

BEGIN = """
import inspect, sys
early = inspect.unwrap(sys.exit)  # as of a script that imported it before this package
from watched import watch
def main():
    return 0
def raise_in(code):
    raise SystemExit(code)
watch()
"""


def run_all(
    folder: Path, commands: dict[str, list[str]]
) -> dict[str, subprocess.CompletedProcess[str]]:
    """Run processes, several at a time, and return the result of each."""
    (folder / "watched.py").write_text(WATCHED)

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment(PYTHONPATH=f"{folder}{os.pathsep}{ROOT}"),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return dict(zip(commands, pool.map(run, commands.values()), strict=True))


def in_words(expected: dict[str, bool]) -> dict[str, str]:
    return {name: "finished" if clean else "failed" for name, clean in expected.items()}

"""Helpers of the tests with scripts that were written for DLLogger."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from otel_dllogger import Backend, Verbosity

DEADLINE_S = 30


class Keeper(Backend):
    """A user's backend, with DLLogger's two abstract methods and nothing else."""

    def __init__(self, verbosity=Verbosity.VERBOSE):
        super().__init__(verbosity=verbosity)
        self.logged = []
        self.described = []

    def log(self, timestamp, elapsedtime, step, data):
        self.logged.append((timestamp, elapsedtime, step, data))

    def metadata(self, timestamp, elapsedtime, metric, metadata):
        self.described.append((timestamp, elapsedtime, metric, metadata))

    @property
    def steps(self):
        return [step for _timestamp, _elapsedtime, step, _data in self.logged]


def read_lines(path):
    """Read a log back as DLLogger's users do."""
    with Path(path).open() as file:
        return [json.loads(line[4:]) for line in file]


def run_script(tmp_path, code, *arguments, tz="UTC", **environ):
    """Run a script in its own process, and return its stdout, stderr and exit code."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "TZ": tz, **environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return result.stdout, result.stderr, result.returncode

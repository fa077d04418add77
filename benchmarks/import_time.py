"""The time that ``import otel_dllogger`` adds to the interpreter's start."""

from __future__ import annotations

import statistics
import subprocess
import sys

TARGET_MS = 50.0
RUNS = 15


def import_ms() -> float:
    """Return the median over fresh interpreters of the time from ``-X importtime``."""
    command = [sys.executable, "-X", "importtime", "-c", "import otel_dllogger"]
    times_us = []
    for _ in range(RUNS):
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        times_us.append(int(lines.splitlines()[-1].split("|")[1]))
    return statistics.median(times_us) / 1000

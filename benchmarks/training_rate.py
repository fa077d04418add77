"""The time of one ``log`` call between two training steps.

In a tight loop, the caches of the processor hold nothing but the call's own code and data. A
training step of some ten milliseconds puts megabytes of others there, so that the same call takes
ten times as long: this is what a user pays.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.baseline import BaselineLogger, BufferedJSONBackend
from benchmarks.log_call import NAMES
from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 150
STEP_MS = 100
"""The length of a step of which the shares are given."""
_TOUCHED_BYTES = 64 * 2**20
"""What each step reads and writes; more than the caches of a core hold."""
_PAUSE_S = 0.01


def run(folder: Path) -> dict[str, float]:
    """Measure one call per step, all cases in turn.

    Args:
        folder: An empty folder for the log files.

    Returns:
        The median of each case in microseconds, by name; the baseline is the first.
    """
    data = dict.fromkeys(NAMES, 1.5)
    baseline = BaselineLogger([BufferedJSONBackend(1, folder / "baseline")])
    json = Logger([JSONStreamBackend(1, folder / "json")])
    page = PrometheusBackend(1, port=0, run="training-rate")
    both = Logger([JSONStreamBackend(1, folder / "both"), page])
    cases: dict[str, Callable[[int], object]] = {
        "DLLogger's work, buffered": lambda i: baseline.log((1, i), data),
        "JSON": lambda i: json.log((1, i), data),
        "JSON + Prometheus": lambda i: both.log((1, i), data),
    }
    times_us: dict[str, list[float]] = {name: [] for name in cases}
    others = bytearray(_TOUCHED_BYTES)
    for step in range(STEPS):
        for name, call in cases.items():
            others = bytearray(others)  # reads one block and writes another
            time.sleep(_PAUSE_S)  # as a step waits for its device
            start_ns = time.perf_counter_ns()
            call(step)
            times_us[name].append((time.perf_counter_ns() - start_ns) / 1000)
    json.close()
    both.close()
    return {name: statistics.median(times) for name, times in times_us.items()}


def main() -> None:
    """Measure, and print Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        times_us = run(Path(folder))
    base_us = next(iter(times_us.values()))
    print(
        f"| one `log` of ten values, once per training step | us a call | of the baseline "
        f"| of a step of {STEP_MS} ms |"
    )
    print("|---|---:|---:|---:|")
    for name, us in times_us.items():
        print(f"| {name} | {us:.0f} | {us / base_us:.2f} | {us / STEP_MS / 10:.2f} % |")

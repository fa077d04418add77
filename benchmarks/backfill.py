"""The time and memory of a backfill: ``python -m benchmarks.backfill``.

The time is end to end, from the logs of four ranks to Prometheus blocks, compared with promtool
alone on the same samples. The memory is the peak of a backfill of very many samples.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

RANKS = 4
METRICS = 5
SAMPLES = 1_000_000
MANY_SAMPLES = 20_000_000
STEP_S = 0.5
ROUNDS = 3
TARGET = 2.5
MEMORY_TARGET_MIB = 512

_START_S = 1_760_000_000
_COMMAND = (sys.executable, "-m", "otel_dllogger", "backfill")
_PEAK = (
    "import sys; from otel_dllogger.cli.main import main; code = main(sys.argv[1:]); "
    "print([line for line in open('/proc/self/status') if line.startswith('VmHWM')][0]); "
    "sys.exit(code)"
)


class EndToEnd(NamedTuple):
    """The time that a backfill takes.

    Attributes:
        samples: How many samples there were.
        ours_s: The median time of the backfill in seconds.
        promtool_s: The median time of promtool alone in seconds.
    """

    samples: int
    ours_s: float
    promtool_s: float


def write_logs(folder: Path, samples: int) -> None:
    """Write logs with the given number of values."""
    steps = samples // RANKS // METRICS
    for rank in range(RANKS):
        with (folder / f"run_rank{rank}.json").open("w") as file:
            for step in range(steps):
                elapsed_s = step * STEP_S
                entry = {"timestamp": f"{_START_S + elapsed_s:.6f}", "elapsedtime": f"{elapsed_s}"}
                entry |= {"type": "LOG", "step": [step // 1000, step]}
                data = {
                    f"train.metric_{i}": (step * 7919 + i) % 10_007 / 13 for i in range(METRICS)
                }
                file.write("DLLL " + json.dumps({**entry, "data": data}) + "\n")


def end_to_end(folder: Path, samples: int = SAMPLES) -> EndToEnd:
    """Run a backfill into Prometheus, and promtool's part of it alone, in turns."""
    logs = folder / "logs"
    logs.mkdir()
    write_logs(logs, samples)
    text = folder / "samples"
    subprocess.run([*_COMMAND, "-q", logs, "--to", "openmetrics", text], check=True)
    ours, promtool = [], []
    for number in range(ROUNDS):
        data = folder / f"data{number}"
        data.mkdir()
        start_s = time.perf_counter()
        subprocess.run([*_COMMAND, "-q", logs, "--to", "prometheus", data], check=True)
        between_s = time.perf_counter()
        subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", text, folder / f"p{number}"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        ours.append(between_s - start_s)
        promtool.append(time.perf_counter() - between_s)
    with text.open("rb") as lines:
        count = sum(line[:1] != b"#" for line in lines)
    return EndToEnd(count, statistics.median(ours), statistics.median(promtool))


def peak_mib(folder: Path, samples: int = MANY_SAMPLES) -> float:
    """Return the peak memory of a backfill of very many samples into Prometheus, in MiB."""
    logs, data = folder / "many", folder / "data"
    logs.mkdir()
    data.mkdir()
    write_logs(logs, samples)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, "backfill", "-q", logs, "--to", "prometheus", data],
        check=True,
        capture_output=True,
        text=True,
    )
    return int(done.stdout.split()[-2]) / 1024


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        took = end_to_end(Path(folder))
    print(
        f"Backfill of {took.samples:,} samples into Prometheus: {took.ours_s:.1f} s, "
        f"{took.ours_s / took.promtool_s:.2f} of promtool alone (target: at most {TARGET:g})."
    )
    with tempfile.TemporaryDirectory() as folder:
        memory_mib = peak_mib(Path(folder))
    print(
        f"Memory of a backfill of {MANY_SAMPLES:,} values into Prometheus, without promtool: "
        f"{memory_mib:.0f} MiB at most (target: at most {MEMORY_TARGET_MIB})."
    )


if __name__ == "__main__":
    main()

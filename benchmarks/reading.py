"""The time to read logs for what shows them: ``python -m benchmarks.reading``.

It is compared with the reader of ``backfill``, up to where samples are sorted, on the same logs.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.backfill import write_logs
from otel_dllogger.backfill.samples import SampleReader
from otel_dllogger.backfill.sorting import SampleSorter
from otel_dllogger.logs.source import Source
from otel_dllogger.logs.whole_logs import find_logs
from otel_dllogger.view.log_source import LogSource
from otel_dllogger.view.model import Model

VALUES = 1_000_000
ROUNDS = 5
TARGET = 1.0


class Reading(NamedTuple):
    """What it takes to read logs.

    Attributes:
        model_s: The median processor time into a model, in seconds.
        backfill_s: That of the reader of a backfill.
    """

    model_s: float
    backfill_s: float


def run(folder: Path, values: int = VALUES) -> Reading:
    """Read the same logs into a model and into a sorter of samples, in turns."""
    logs = folder / "logs"
    logs.mkdir()
    write_logs(logs, values)
    source = Source([str(logs)])
    model_s, backfill_s = [], []
    for _ in range(ROUNDS):
        begun_s = time.process_time()
        reader = LogSource(source, Model())
        while reader.poll():
            pass
        reader.close()
        model_s.append(time.process_time() - begun_s)
        begun_s = time.process_time()
        with SampleSorter() as sorter:
            SampleReader(source, sorter).run(find_logs(source))
        backfill_s.append(time.process_time() - begun_s)
    return Reading(statistics.median(model_s), statistics.median(backfill_s))


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        took = run(Path(folder))
    print(
        f"Reading logs of {VALUES:,} values into a model: {took.model_s:.1f} s, "
        f"{took.model_s / took.backfill_s:.2f} of the reader of a backfill (target: at most "
        f"{TARGET:g})."
    )


if __name__ == "__main__":
    main()

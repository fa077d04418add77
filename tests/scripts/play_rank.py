"""One rank of a run whose ranks step together, and which a test interferes with from outside.

It starts training once the file ``begin_<run>_<attempt>`` exists, and takes the time of that
file as the start of its first step. All ranks of a run therefore have the same step times, as
ranks have that wait for each other. One that was late or stopped catches up at once. It trains
until SIGTERM, or until the file ``end_<run>`` exists. Its loss is NaN while there is a file
``nan_<run>_<rank>``.

usage: play_rank.py '{"folder": "...", "step_s": 0.2, ...}'

Options: ``first`` is the iteration to begin with, ``values`` what is logged with each, ``metadata``
that of any metric; the loss is lowest in iteration ``best_at``. With ``logs`` false, only
parameters are logged.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import otel_dllogger as dllogger

if TYPE_CHECKING:
    from collections.abc import Callable

BEST_LOSS = 1.0
RUN, RANK = os.environ["TORCHELASTIC_RUN_ID"], os.environ["RANK"]


def train(options: dict[str, Any], start_s: float, is_over: Callable[[], object]) -> None:
    """Log an iteration each ``step_s``."""
    first = options.get("first", 0)
    nan = Path(options["folder"], f"nan_{RUN}_{RANK}")
    for iteration in itertools.count(first):
        end_s = start_s + (iteration - first + 1) * options["step_s"]
        time.sleep(max(end_s - time.time(), 0))
        if is_over():
            return
        loss = BEST_LOSS if iteration == options.get("best_at") else 2 + 10 / (1 + iteration)
        if options.get("logs", True):
            values = {"loss": math.nan if nan.exists() else loss, **options.get("values", {})}
            dllogger.log((0, iteration), values)


def main() -> None:
    options = json.loads(sys.argv[1])
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    folder = Path(options["folder"])
    print(json.dumps(["ready", time.time()]), flush=True)
    begin = folder / f"begin_{RUN}_{attempt}"
    while not begin.exists():
        time.sleep(0.02)
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: told.append(number))
    log = folder / f"log_{RUN}_{RANK}_{attempt}.json"
    dllogger.init([dllogger.JSONStreamBackend(1, log), dllogger.PrometheusBackend(1)])
    for name, metadata in {"loss": {"GOAL": "MINIMIZE"}, **options.get("metadata", {})}.items():
        dllogger.metadata(name, metadata)
    dllogger.log("PARAMETER", {"batch_size": 32})
    end = folder / f"end_{RUN}"
    train(options, begin.stat().st_mtime, lambda: told or end.exists())
    dllogger.shutdown()


main()

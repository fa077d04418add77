"""A Prometheus with an hour of a run of many ranks, which go on being there.

The history is written into the database at once, with what the rules would have recorded of it;
after that the ranks are live, on the shipped configuration.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tests.support.paths import TESTS
from tests.support.prometheus import Prometheus, find_program, wait_for
from tests.support.recorded_past import record_past
from tests.support.training_run import shipped_configuration

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HISTORY_S = 3600.0

_SCRIPT = TESTS / "scripts" / "many_ranks.py"


@contextlib.contextmanager
def many_ranks(folder: Path, ranks: int) -> Iterator[Prometheus]:
    """Run Prometheus until the end of the block.

    Args:
        folder: Where everything is written.
        ranks: How many there are.
    """
    discovery = folder / "discovery"
    discovery.mkdir()
    configuration = shipped_configuration(folder / "prometheus", discovery=discovery)
    start_s = int(time.time() - HISTORY_S)
    text = folder / "history"
    with text.open("wb") as stream:
        command = [sys.executable, _SCRIPT, "history", str(ranks), str(start_s), str(time.time())]
        subprocess.run(command, check=True, stdout=stream)
    command = [find_program("promtool"), "tsdb", "create-blocks-from", "--quiet", "openmetrics"]
    subprocess.run([*command, text, configuration.parent / "data"], check=True, cwd=folder)
    text.unlink()
    record_past(configuration.parent, start_s, time.time())
    command = [sys.executable, _SCRIPT, "serve", str(ranks), str(start_s), str(discovery)]
    server = subprocess.Popen(command)
    try:
        wait_for((discovery / "ranks.json").exists, bool)
        with Prometheus(
            configuration.parent, discovery=discovery, configuration=configuration
        ) as running:
            # Every rank was scraped often enough for a rate, and the rules ran on that.
            for expression in (
                "count(rate(dllogger_steps_total[1m]))",
                "count(rank:dllogger_step_seconds:mean5m)",
            ):
                wait_for(
                    lambda expression=expression: running.query(expression),
                    lambda found: found and found[0][1] == ranks,
                    within_s=180,
                )
            yield running
    finally:
        server.terminate()
        server.wait()

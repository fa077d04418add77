"""One life of a rank: ``python -m tests.soak.rank SETTINGS``, with all backends at once."""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import otel_dllogger as dllogger
from otel_dllogger import diagnostics
from tests.soak import values
from tests.soak.attacks import Attacks, Handler, Interrupted
from tests.soak.calls import Calls
from tests.soak.files import LogFile
from tests.soak.progress import Progress

WORKERS = 2
PAUSE_S = 0.004
MAX_SERIES = 400
QUEUE_BYTES = 2 << 20

ANYWHERE = {
    "plain": 40,
    "value": 25,
    "step": 5,
    "metadata": 5,
    "info": 3,
    "flush": 3,
    "warn": 3,
    "destroy": 3,
    "interrupt": 2,
    "signals": 2,
    "long_text": 0.1,
}
LONG_NAMES = {"long_name": 0.1}
FORKS = {"fork": 1.5}
SAFE_FILE = {"rename": 0.4, "close_descriptor": 0.4, "steal_descriptor": 0.4}
FILE = {"delete": 0.4, "remove_folder": 0.2, "move_folder": 0.2, "limit": 0.6}
"""How often each attack comes, relative to the others. Those of ``FILE`` lose lines, which only a
process that lives can count, or leave lines waiting for a place, which a killed one takes along."""

ATTACKS_OF_KIND = {
    "steady": ANYWHERE | FORKS | SAFE_FILE | FILE,
    "brief": ANYWHERE | LONG_NAMES | FORKS | SAFE_FILE | FILE,
    "mortal": ANYWHERE | FORKS | SAFE_FILE,
    "full": ANYWHERE | FORKS,
    "fifo": ANYWHERE,  # a FIFO keeps long lines of two processes no more apart than a pipe
}


class Rank:
    """Live, be attacked, and come to an end when asked.

    Args:
        settings: ``folder``, ``life``, ``kind``, ``seed``, ``collector``, ``discovery``,
            ``without``, ``end``.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._home = Path(settings["folder"], "lives", str(settings["life"]))
        self._progress = Progress(self._home / "progress")
        self._dice = random.Random(
            f"{settings['seed']} {settings['folder'][-1]} {settings['life']}"
        )
        self._calls = Calls(self._progress, settings["life"])
        self._file = LogFile(Path(settings["folder"]), self._calls, self._dice)
        self._without = set(settings["without"])
        self._stacks = (self._home / "stacks").open("wb", buffering=0)
        self._attacks = Attacks(
            self._calls, self._file, self._dice, self._without, self._stacks.fileno()
        )
        self._workers: list[threading.Thread] = []

    def live(self) -> None:
        """Set everything up, be attacked until the parent says stop, and end."""
        faulthandler.enable(self._stacks)
        faulthandler.register(signal.SIGUSR2, self._stacks, all_threads=True)
        sys.unraisablehook = self._unraisable
        if self._dice.random() < 0.5:
            diagnostics.WARNING_INTERVAL_S = 0.05  # as if each minute had passed
        hostile = "handler" not in self._without
        logging.getLogger().addHandler(
            Handler(self._calls, self._home / "warnings", hostile=hostile)
        )
        reader = self._open_backends()
        for number in (signal.SIGALRM, signal.SIGUSR1):
            signal.signal(number, self._attacks.handle)
        for worker in range(1, WORKERS + 1):
            thread = threading.Thread(target=self._work, args=(worker,), daemon=True)
            thread.start()
            self._workers.append(thread)
        self._be_attacked()
        self._end(reader)

    def _open_backends(self) -> Any:
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415
        from opentelemetry.sdk.metrics.export import (  # noqa: PLC0415
            InMemoryMetricReader,
            PeriodicExportingMetricReader,
        )

        from tests.soak.readers import Discarding  # noqa: PLC0415

        reader = InMemoryMetricReader()
        periodic = PeriodicExportingMetricReader(Discarding(), export_interval_millis=700)
        provider = MeterProvider(metric_readers=[reader, periodic], shutdown_on_exit=False)
        dllogger.init(
            [
                dllogger.JSONStreamBackend(1, self._file.path, append=True),
                dllogger.StdOutBackend(1),
                dllogger.OTelBackend(1, meter_provider=provider, max_series=MAX_SERIES),
                dllogger.PrometheusBackend(
                    1,
                    port=0,
                    discovery_dir=self._settings["discovery"],
                    max_series=MAX_SERIES,
                ),
                dllogger.OTLPBackend(
                    1,
                    endpoint=self._settings["collector"],
                    interval_s=0.5,
                    timeout_s=2.0,
                    max_queue_bytes=QUEUE_BYTES,
                    max_series=MAX_SERIES,
                ),
            ]
        )
        if "observe" not in self._without:
            provider.get_meter("user").create_observable_gauge("user", [self._observe])
        return reader

    def _observe(self, _options: object) -> list[Any]:
        """Log and flush where the SDK collects."""
        if not self._progress.stop:
            self._calls.log_simple()
            self._calls.flush()
        return []

    def _be_attacked(self) -> None:
        weights = {
            name: weight
            for name, weight in ATTACKS_OF_KIND[self._settings["kind"]].items()
            if name not in self._without
        }
        alone = {*SAFE_FILE, *FILE}
        attacks = {}
        for name in weights:
            if name in alone:
                attacks[name] = self._attacks.alone(getattr(self._file, name))
            else:
                attacks[name] = getattr(self._attacks, name)
        parent = os.getppid()
        while not self._progress.stop and os.getppid() == parent:
            (name,) = self._dice.choices(list(weights), list(weights.values()))
            self._progress.now = name
            try:
                attacks[name]()
            except Interrupted:  # a moment after its call had returned
                self._progress.count("interrupts")
            except RecursionError as error:
                if not self._attacks.is_of_handler(error):
                    raise
            self._calls.at_rest()
            self._progress.beat(0)
            self._file.tend()
            self._file.settle()
            time.sleep(self._dice.expovariate(1 / PAUSE_S))

    def _work(self, worker: int) -> None:
        """Log from another thread."""
        dice = random.Random(f"{self._settings['seed']} {self._settings['life']} {worker}")
        shapes = [one for name, one in sorted(values.SHAPES.items()) if name not in self._without]
        while not self._progress.stop:
            if dice.random() < 0.8:
                self._calls.log_simple()
            else:
                self._calls.log(dice.choice(shapes)(dice, self._calls))
            if dice.random() < 0.05:
                self._calls.flush()
            if dice.random() < 0.02:
                self._attacks.warn()
            self._progress.beat(worker)
            time.sleep(dice.expovariate(1 / PAUSE_S) * 2)

    def _end(self, reader: Any) -> None:
        self._progress.now = "end"
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        for worker, thread in enumerate(self._workers, 1):
            thread.join()
            self._progress.retire(worker)
        self._attacks.reap(wait_s=60)
        self._file.tend(end=True)
        gc.collect()
        with self._calls.quiet():  # a callback of the SDK may still have been within a call
            pass
        for _second in range(2):  # the package looks after its file at the first line of each
            time.sleep(1.05)
            self._calls.log_simple()
            self._progress.beat(0)
        if self._settings["end"] == "exit":
            dllogger.flush()
        else:
            dllogger.shutdown()
        self._file.settle(end=True)
        final = {"dropped": _dropped(reader), "end": self._settings["end"]}
        (self._home / "final.tmp").write_text(json.dumps(final))
        (self._home / "final.tmp").rename(self._home / "final.json")
        self._progress.beat(0)

    def _unraisable(self, unraisable: Any) -> None:
        """Take what cannot be raised: a signal came while an object was destroyed."""
        if unraisable.exc_type not in (Interrupted, RecursionError):
            sys.__unraisablehook__(unraisable)


def _dropped(reader: Any) -> dict[str, int]:
    """Read ``dllogger_dropped_total`` by reason, as OpenTelemetry has it."""
    data = reader.get_metrics_data()
    return {
        point.attributes["reason"]: point.value
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("dllogger.dropped")
        for point in metric.data.data_points
    }


if __name__ == "__main__":
    Rank(json.loads(sys.argv[1])).live()

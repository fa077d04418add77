"""A thousand ranks in one process: their pages, live, and what they would have shown before.

One page is made by the package itself. The others are the same with other ranks and hosts,
and all values move with time: the same moment gives the same page, live or in the history.

usage: many_ranks.py history RANKS START_S END_S   OpenMetrics on stdout, a sample every 15 s
       many_ranks.py serve RANKS START_S FOLDER    pages on a free port, announced in FOLDER,
                                                   and /metrics with all ranks, as of a bridge
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

import otel_dllogger as dllogger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RANKS_PER_HOST = 8
RUN = "llama-1024"
INTERVAL_S = 15
STEP_S = 0.5
SLOW_RANKS = {100, 517, 900}
SLOWNESS = 1.3
STEPS_PER_EPOCH = 1000
PHASE_SHARES = {"communication": 0.1, "checkpoint": 0.05, "train": 0.8}

_NOISE = random.Random(1).choices([number / 500 - 1 for number in range(1001)], k=4093)


def make_samples() -> list[tuple[str, dict[str, str], float]]:
    """Return name, labels and value of each series of a page as the package makes it."""
    page = dllogger.PrometheusBackend(dllogger.Verbosity.VERBOSE, port=0, run=RUN, rank=0)
    dllogger.init([page])
    for name, stage in (("train.loss", "TRAIN"), ("val.loss", "VAL")):
        dllogger.metadata(name, {"GOAL": "MINIMIZE", "STAGE": stage})
    dllogger.metadata("val.top1", {"unit": "%", "GOAL": "MAXIMIZE", "STAGE": "VAL"})
    for name in ("train.tokens", "train.ips"):
        unit = "tokens/s" if name == "train.tokens" else "imgs/s"
        dllogger.metadata(name, {"unit": unit, "GOAL": "MAXIMIZE", "STAGE": "TRAIN"})
    for name in ("train.data_time", "train.compute_time"):
        dllogger.metadata(name, {"unit": "s", "GOAL": "MINIMIZE", "STAGE": "TRAIN"})
    speed = {"train.ips": 64.0, "train.tokens": 131072.0}
    parts = {"train.data_time": 0.05, "train.compute_time": 0.45}
    dllogger.log((0, 1), {"train.loss": 2.0, **speed, **parts, "lr": 1e-4, "grad_norm": 1.0})
    dllogger.log((0, 1, 1), {"val.loss": 2.2, "val.top1": 50.0})
    dllogger.log((0,), {"train.loss": 2.0, "val.loss": 2.2, "val.top1": 50.0})
    for name in PHASE_SHARES:
        with dllogger.phase(name):
            pass
    dllogger.log("PARAMETER", {"batch_size": 32, "lr": 1e-4, "seed": 1, "layers": 80})
    with urllib.request.urlopen(page.url) as answer:
        families = [*text_string_to_metric_families(answer.read().decode())]
    samples = [
        (sample.name, dict(sample.labels), sample.value)
        for family in families
        for sample in family.samples
        if sample.name != "target_info"
    ]
    dllogger.shutdown()
    return samples


class Series:
    """Give one series of one rank its labels and, for each moment, its value.

    Args:
        name: Its name.
        labels: Its labels on the page that the package made.
        value: Its value there.
        rank: Whose it is.
        start_s: When the run started.
    """

    def __init__(
        self, name: str, labels: dict[str, str], value: float, *, rank: int, start_s: float
    ) -> None:
        self.name = name
        self.value = value
        own = {"rank": str(rank)}
        if name == "dllogger_rank_info":
            own |= {"host": host(rank), "local_rank": str(rank % RANKS_PER_HOST)}
            own |= {"pid": str(4000 + rank % RANKS_PER_HOST), "world_size": "1024"}
        self.labels = ",".join(f'{key}="{text}"' for key, text in {**labels, **own}.items())
        self.value_at = _course(name, labels, value, rank, start_s)


def host(rank: int) -> str:
    """Return the host that a rank runs on."""
    return f"node{rank // RANKS_PER_HOST:03}"


def instance(rank: int) -> str:
    """Return the address that Prometheus knows a rank by."""
    return f"{host(rank)}:{9464 + rank % RANKS_PER_HOST}"


def _course(
    name: str, labels: dict[str, str], value: float, rank: int, start_s: float
) -> Callable[[float], float] | None:
    # None is a value that stays, which the history writes without a call per sample.
    step_s = STEP_S * (SLOWNESS if rank in SLOW_RANKS else 1)
    counters = {
        "dllogger_steps_total": lambda now_s: (now_s - start_s) // step_s,
        "dllogger_step_seconds_total": lambda now_s: now_s - start_s,
        "dllogger_log_seconds_total": lambda now_s: (now_s - start_s) * 2e-5,
        "dllogger_last_log_timestamp_seconds": lambda now_s: now_s - now_s % step_s,
        "dllogger_iteration": lambda now_s: (now_s - start_s) // step_s % STEPS_PER_EPOCH,
        "dllogger_epoch": lambda now_s: (now_s - start_s) // step_s // STEPS_PER_EPOCH,
    }
    if name in counters:
        return counters[name]
    if name == "dllogger_phase_seconds_total" and labels["phase"] in PHASE_SHARES:
        share = PHASE_SHARES[labels["phase"]]
        if rank in SLOW_RANKS and labels["phase"] == "communication":
            share /= 2  # the others wait for it
        return lambda now_s: share * (now_s - start_s)
    if name == "dllogger_records_total" and labels["type"] == "log":
        return counters["dllogger_steps_total"]
    if not name.startswith("dl_") or labels["metric"] == "lr":
        return None
    slowness = 1.0
    if rank in SLOW_RANKS and name in ("dl_data_time_seconds", "dl_compute_time_seconds"):
        slowness = SLOWNESS
    falls = name == "dl_loss"
    phase = rank * 31 + sum(labels["metric"].encode())

    def wander(now_s: float) -> float:
        noise = 1 + 0.02 * _NOISE[(int(now_s / step_s) * 7 + phase) % len(_NOISE)]
        trend = 0.3 + 0.7 * math.exp((start_s - now_s) / 3600) if falls else 1
        return value * slowness * noise * trend

    return wander


def make_ranks(ranks: int, start_s: float) -> list[list[Series]]:
    """Return the series of each rank."""
    known = {"dllogger_run_start_timestamp_seconds": start_s, "dllogger_world_size": ranks}
    samples = [(name, labels, known.get(name, value)) for name, labels, value in make_samples()]
    return [
        [Series(name, labels, value, rank=rank, start_s=start_s) for name, labels, value in samples]
        for rank in range(ranks)
    ]


def history(ranks: int, start_s: float, end_s: float) -> Iterator[str]:
    """Give the samples of each series since the start, as ``promtool`` reads them."""
    times_s = range(int(start_s) + INTERVAL_S, int(end_s) + 1, INTERVAL_S)
    stamps = [f" {time_s}\n" for time_s in times_s]
    for rank, series in enumerate(make_ranks(ranks, start_s)):
        of_target = f'job="dllogger",instance="{instance(rank)}"'
        yield "".join(f"up{{{of_target}}} 1{stamp}" for stamp in stamps)
        for one in series:
            head = f"{one.name}{{{one.labels},{of_target}}} "
            if one.value_at is None:
                fixed = f"{head}{one.value:.15g}"
                yield "".join([fixed + stamp for stamp in stamps])
            else:
                yield "".join(
                    [
                        f"{head}{one.value_at(time_s):.15g}{stamp}"
                        for time_s, stamp in zip(times_s, stamps, strict=True)
                    ]
                )
    yield "# EOF\n"


def page(series: list[Series], now_s: float) -> bytes:
    """Return the page of a rank at a moment."""
    return "".join(
        f"{one.name}{{{one.labels}}} "
        f"{one.value if one.value_at is None else one.value_at(now_s):.15g}\n"
        for one in series
    ).encode()


def serve(ranks: int, start_s: float, folder: Path) -> None:
    """Serve the page of each rank on a path of its own, until the process is ended."""
    of_ranks = make_ranks(ranks, start_s)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            number, now_s = self.path.rpartition("/")[2], time.time()
            chosen = of_ranks if number == "metrics" else [of_ranks[int(number)]]
            body = b"".join(page(series, now_s) for series in chosen)
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 1024
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    target = f"127.0.0.1:{server.server_port}"
    groups = [
        {
            "targets": [target],
            "labels": {"__metrics_path__": f"/rank/{rank}", "instance": instance(rank)},
        }
        for rank in range(ranks)
    ]
    (folder / "ranks.json").write_text(json.dumps(groups))
    server.serve_forever()


def main() -> None:
    mode, ranks, start_s, last = sys.argv[1:5]
    if mode == "history":
        sys.stdout.writelines(history(int(ranks), float(start_s), float(last)))
    else:
        serve(int(ranks), float(start_s), Path(last))


if __name__ == "__main__":
    main()

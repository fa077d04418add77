"""Benchmark of the live page: a run of many ranks that many pages show while it goes on."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

import numpy as np

if TYPE_CHECKING:
    from otel_dllogger.view.model import Model

RANKS = 64
METRICS = 20
STEPS = 1_000_000
PAGES = 50
CHARTS = 6
MEASURE_S = 15.0

CPU_TARGET = 1.0
LAG_TARGET_S = 2.0
MEMORY_TARGET_MIB = 400
OPEN_TARGET_S = 2.0

_STEPS_A_SECOND = 10
_PER_BUCKET = 256  # values, after a million steps


class LivePage(NamedTuple):
    """What it costs to show a run.

    Attributes:
        open_s: Seconds until a page has all that it shows first.
        lag_s: The longest time from a change of the model to the event of a page, in seconds.
        cpu: Seconds of processor time of the server per second, with what changes the model.
        memory_mib: The most resident memory of the server.
        event_kib: The median size of an event.
    """

    open_s: float
    lag_s: float
    cpu: float
    memory_mib: float
    event_kib: float


def run(pages: int = PAGES) -> LivePage:
    """Serve a run in a process of its own, and open pages of it."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.live_page"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        return asyncio.run(_measure(server.pid, port, pages))
    finally:
        server.terminate()
        server.wait()


async def _measure(pid: int, port: int, pages: int) -> LivePage:
    query = urlencode([("metric", _selector(number)) for number in range(CHARTS)])
    begun_s = time.monotonic()
    first = await _open(port, query)
    await _event(first[0])
    open_s = time.monotonic() - begun_s
    readers = [first, *[await _open(port, query) for _ in range(pages - 1)]]
    for reader, _writer in readers[1:]:
        await _event(reader)
    lags_s: list[float] = []
    sizes: list[int] = []
    end_s = time.monotonic() + MEASURE_S

    async def listen(reader: asyncio.StreamReader) -> None:
        while time.monotonic() < end_s:
            event = await _event(reader)
            message = json.loads(event)
            sizes.append(len(event))
            now_s = time.time()
            shown = message.get("shown", ())
            lags_s.extend(now_s - each["last_log_s"] for each in shown if "last_log_s" in each)

    # One page looks at each event; the others only read, as if they were on other machines.
    async def drain(reader: asyncio.StreamReader) -> None:
        while time.monotonic() < end_s:
            await _event(reader)

    before_s = _cpu_s(pid)
    tasks = [listen(readers[0][0]), *(drain(reader) for reader, _ in readers[1:])]
    await asyncio.gather(*tasks)
    cpu = (_cpu_s(pid) - before_s) / MEASURE_S
    for _reader, writer in readers:
        writer.close()
    return LivePage(open_s, max(lags_s), cpu, _peak_mib(pid), sorted(sizes)[len(sizes) // 2] / 1024)


async def _open(port: int, query: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=64 << 20)
    writer.write(f"GET /events?{query} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return reader, writer


async def _event(reader: asyncio.StreamReader) -> bytes:
    while True:
        line = await reader.readline()
        if not line:
            raise ConnectionError("the server closed a page's connection")
        if line.startswith(b"data: "):
            return line[6:]


def _selector(number: int) -> str:
    return f'dl_metric_{number}{{granularity="iteration",metric="metric_{number}"}}'


def _cpu_s(pid: int) -> float:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _peak_mib(pid: int) -> float:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:  # noqa: PTH123
        (line,) = (line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def serve() -> None:
    """Serve a model that goes on; print the port."""
    from otel_dllogger.http.listener import open_listener  # noqa: PLC0415
    from otel_dllogger.view.model import Model  # noqa: PLC0415
    from otel_dllogger.view.server.access import Access, Hosts  # noqa: PLC0415
    from otel_dllogger.view.server.app import make_app  # noqa: PLC0415
    from otel_dllogger.view.server.board import Board, Reading  # noqa: PLC0415
    from otel_dllogger.view.server.serve import PageServer  # noqa: PLC0415
    from otel_dllogger.view.server.streams import Streams  # noqa: PLC0415

    model = Model()
    fill(model)
    streams = Streams(Board(model, "the benchmark", Reading))
    listener = open_listener("127.0.0.1", 0, tries=1)
    server = PageServer(Access(make_app(streams), Hosts("127.0.0.1"), None), streams.end)
    threading.Thread(target=_go_on, args=(model,), daemon=True).start()
    print(listener.getsockname()[1], flush=True)
    server.serve_on(listener)


def fill(model: Model) -> None:
    """Put a run into a model as if a million steps of it had been read."""
    buckets = np.arange(STEPS // _PER_BUCKET)
    x = (buckets + 1) * _PER_BUCKET - 1.0
    start_s = time.time() - STEPS / _STEPS_A_SECOND
    noise = np.random.default_rng(0)
    for number in range(RANKS):
        rank = model.rank("bench", number)
        rank.start(start_s, 1)
        rank.host, rank.world_size = f"node{number // 8}", RANKS
        for metric in range(METRICS):
            history = _series(model, rank, metric)
            history._per_bucket = _PER_BUCKET  # noqa: SLF001
            mean = 1 / (1 + buckets) + number / 100 + noise.random(len(buckets)) / 10
            # Buckets as they are after the many values that each of them stands for.
            fields = (x, start_s + x / _STEPS_A_SECOND, mean - 0.1, mean + 0.1, mean, mean)
            counts = (_PER_BUCKET, 0, rank.axis.segment)
            for column, field in zip(history._columns, fields + counts, strict=True):  # noqa: SLF001
                filled = np.broadcast_to(field, len(buckets)).astype(column.typecode)
                column.frombytes(filled.tobytes())
        rank.iteration, rank.steps, rank.records = float(STEPS), float(STEPS), STEPS
        rank.step_s = STEPS / _STEPS_A_SECOND
        rank.last_log_s = time.time()


def _go_on(model: Model) -> None:
    step = STEPS
    while True:
        begun_s = time.monotonic()
        with model.lock:
            for rank in model.runs["bench"]:
                rank.axis.move(None, float(step))
                place = (float(step), time.time(), rank.axis.segment)
                for metric in range(METRICS):
                    _series(model, rank, metric).append(0.5 + rank.number / 100, place)
                rank.iteration = rank.steps = float(step)
                rank.step_s = step / _STEPS_A_SECOND
                rank.last_log_s = time.time()
                rank.leave_trail(time.time())
            model.revision += 1
        step += 1
        time.sleep(max(0.0, begun_s + 1 / _STEPS_A_SECOND - time.monotonic()))


def _series(model: Model, rank: Any, number: int) -> Any:
    labels = {"metric": f"metric_{number}", "granularity": "iteration"}
    if number == 0:
        labels |= {"kind": "loss", "goal": "minimize"}
    return model.series(rank, f"dl_metric_{number}", labels).history


if __name__ == "__main__":
    serve()

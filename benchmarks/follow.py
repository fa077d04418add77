"""Benchmark of following many files while they grow: the delay of lines, and the cost."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import orjson

from otel_dllogger.bridge.otlp_forwarder import OTLPForwarder
from otel_dllogger.logs.source import Source
from otel_dllogger.logs.tail.file_state import LineBatch
from otel_dllogger.logs.tail.tailer import Tailer
from otel_dllogger.otlp.encoder import Encoder
from otel_dllogger.otlp.patient_exporter import PatientExporter
from otel_dllogger.otlp.transport import Answer, Outcome

FILES = 1_000
LINES_A_SECOND = 10
"""Lines that each file gets per second."""
GROW_S = 20.0
POLL_INTERVAL_S = 0.5
COMMIT_INTERVAL_S = 1.0
LAG_TARGET_S = 2.0
CPU_TARGET = 1.0
DESCRIPTORS_TARGET = 512

DISCOVERED_FILES = 10_000
DISCOVERIES = 15
DISCOVERY_TARGET_MS = 200.0

DELIVERED_FILES = 400
DELIVERED_METRICS = 20
DELIVERED_STEPS = 20
DELIVERED_LINES_A_SECOND = 5
DELIVER_S = 15.0

READ_BYTES = 64 << 20
READ_ROUNDS = 5

# In a separate process, so that its processor time is not counted as the tailer's. Each line
# says when it was written, by the clock that all processes of a machine share.
_WRITER = """
import os, sys, time
folder, files, rate, seconds = sys.argv[1], *map(float, sys.argv[2:])
files = int(files)
flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
rest = b' {"step": [1, 2], "data": {"train.loss": 0.123456, "train.ips": 1234.5}}\\n'
fds = []
for i in range(files):
    path = f"{folder}/rank{i}.log"
    fds.append(os.open(path, flags))
step_s = 1 / (files * rate)
start_s = time.monotonic()
for n in range(int(files * rate * seconds)):
    late_s = time.monotonic() - start_s - n * step_s
    if late_s < -0.002:
        time.sleep(-late_s)
    os.write(fds[n % files], b"%d" % time.monotonic_ns() + rest)
"""


class Growth(NamedTuple):
    """The cost of following growing files.

    Attributes:
        lines: Lines that were delivered.
        lag_p50_s: The median time from the write of a line to its delivery, in seconds.
        lag_p99_s: The 99th percentile of that time.
        cpu: Seconds of processor time per second.
        descriptors: The most descriptors that the process had open at once.
        poll_ms: The median time of a poll, in milliseconds.
    """

    lines: int
    lag_p50_s: float
    lag_p99_s: float
    cpu: float
    descriptors: int
    poll_ms: float


def growth(
    folder: Path,
    *,
    files: int = FILES,
    rate: float = LINES_A_SECOND,
    grow_s: float = GROW_S,
) -> Growth:
    """Follow files while they grow, with a checkpoint each second.

    Args:
        folder: An empty folder to write in.
        files: How many files.
        rate: Lines per second in each file.
        grow_s: For how many seconds they grow.

    Raises:
        RuntimeError: If lines were lost.
    """
    logs = folder / "logs"
    logs.mkdir()
    expected = int(files * rate * grow_s)
    lags_ns: list[int] = []
    polls_s: list[float] = []
    descriptors = 0
    with Tailer([logs], checkpoint=folder / "checkpoint") as tailer:
        arguments = [str(logs), str(files), str(rate), str(grow_s)]
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, *arguments])
        start_s, start_cpu_s = time.monotonic(), _cpu_s()
        commit_s = start_s
        while len(lags_ns) < expected and time.monotonic() < start_s + 3 * grow_s:
            poll_s = time.monotonic()
            items = tailer.poll()
            now_ns = time.monotonic_ns()
            polls_s.append(now_ns / 1e9 - poll_s)
            for item in items:
                if isinstance(item, LineBatch):
                    lags_ns.extend(now_ns - int(line.partition(b" ")[0]) for line in item.lines)
            if now_ns / 1e9 - commit_s >= COMMIT_INTERVAL_S:
                tailer.commit()
                commit_s = time.monotonic()
            descriptors = max(descriptors, len(os.listdir("/proc/self/fd")))  # noqa: PTH208
            if not tailer.behind:
                time.sleep(max(0.0, poll_s + POLL_INTERVAL_S - time.monotonic()))
        took_s, cpu_s = time.monotonic() - start_s, _cpu_s() - start_cpu_s
        writer.kill()
        writer.wait()
    if len(lags_ns) != expected:
        raise RuntimeError(f"{len(lags_ns)} of {expected} lines came; the others are lost or late")
    lags_ns.sort()
    return Growth(
        lines=expected,
        lag_p50_s=lags_ns[expected // 2] / 1e9,
        lag_p99_s=lags_ns[expected * 99 // 100] / 1e9,
        cpu=cpu_s / took_s,
        descriptors=descriptors,
        poll_ms=statistics.median(polls_s) * 1000,
    )


def discovery_ms(
    folder: Path, *, files: int = DISCOVERED_FILES, polls: int = DISCOVERIES
) -> tuple[float, float]:
    """Return the median times of a poll of many idle files, and of one ``lstat`` for each.

    Args:
        folder: An empty folder to write in.
        files: How many files, in a hundred folders.
        polls: How many polls, each beside a round of ``lstat``.
    """
    paths = []
    for i in range(files):
        run = folder / f"run{i % 100}"
        run.mkdir(exist_ok=True)
        path = run / f"rank{i}.log"
        path.write_bytes(b"a line\n")
        paths.append(str(path))
    polls_s, stats_s = [], []
    with Tailer([folder]) as tailer:
        for _ in range(3):  # read everything, look again, become idle
            tailer.poll()
        for _ in range(polls):
            start_s = time.perf_counter()
            tailer.poll()
            middle_s = time.perf_counter()
            for name in paths:
                os.lstat(name)
            polls_s.append(middle_s - start_s)
            stats_s.append(time.perf_counter() - middle_s)
    return statistics.median(polls_s) * 1000, statistics.median(stats_s) * 1000


def reading_rate(folder: Path) -> tuple[float, float]:
    """Return the MB/s of following an existing file, and of Python's own loop over its lines.

    Args:
        folder: The folder to write in.
    """
    path = folder / "large.log"
    line = b'{"step": [1, 2], "data": {"train.loss": 0.123456, "train.ips": 1234.5}}\n'
    path.write_bytes(line * (READ_BYTES // len(line)))
    ours_s, plain_s = [], []
    for _ in range(READ_ROUNDS):
        start_s = time.perf_counter()
        with Tailer([path]) as tailer:
            tailer.poll()
            while tailer.behind:
                tailer.poll()
        middle_s = time.perf_counter()
        with path.open("rb") as file:
            for _line in file:
                pass
        ours_s.append(middle_s - start_s)
        plain_s.append(time.perf_counter() - middle_s)
    size_mb = path.stat().st_size / 1e6
    path.unlink()
    return size_mb / statistics.median(ours_s), size_mb / statistics.median(plain_s)


def written_kib_a_second(folder: Path) -> tuple[float, float]:
    """Return the KiB that ``bridge --otlp`` writes for its checkpoint, per second and per line.

    Many files get one line each in turn, like those of runs that log rarely.

    Args:
        folder: An empty folder to write in.
    """
    logs = folder / "logs"
    logs.mkdir()
    paths = [logs / f"run{number}_rank0.json" for number in range(DELIVERED_FILES)]
    for path in paths:
        path.write_bytes(_log_lines(0, DELIVERED_STEPS))
    stopping = threading.Event()
    exporter = PatientExporter(
        _Collector(), Encoder(), timeout_s=1.0, stopping=stopping, tell=print
    )
    forwarder = OTLPForwarder(Source([str(logs)]), exporter, checkpoint=str(folder / "checkpoint"))
    forwarder.run_to_end()
    ours_bytes, lines = 0, 0
    start_s, start_bytes = time.monotonic(), _written_bytes()
    while (took_s := time.monotonic() - start_s) < DELIVER_S:
        line = _log_lines(DELIVERED_STEPS + lines, DELIVERED_STEPS + lines + 1)
        with paths[lines % DELIVERED_FILES].open("ab") as file:
            ours_bytes += file.write(line)
        lines += 1
        forwarder.poll()
        time.sleep(1 / DELIVERED_LINES_A_SECOND)
    forwarder.close()
    written_kib = (_written_bytes() - start_bytes - ours_bytes) / 1024
    return written_kib / took_s, written_kib / lines


class _Collector:
    """A collector that accepts every request."""

    def send(self, _request: bytes, _timeout_s: float) -> Answer:
        return Answer(Outcome.TAKEN)

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


def _log_lines(first: int, last: int) -> bytes:
    data = {f"metric_{number}": 0.5 for number in range(DELIVERED_METRICS)}
    return b"".join(
        b"DLLL "
        + orjson.dumps(
            {
                "timestamp": f"{1_700_000_000 + step}.0",
                "elapsedtime": f"{step}.0",
                "type": "LOG",
                "step": [0, step],
                "data": data,
            }
        )
        + b"\n"
        for step in range(first, last)
    )


def _written_bytes() -> int:
    """Return what this process has given to ``write`` so far."""
    text = Path("/proc/self/io").read_text()
    return int(text.split("wchar:")[1].split()[0])


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

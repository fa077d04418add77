"""Train as one rank that takes its own time, to compare with what its log says.

Usage: stopwatch_rank.py FOLDER BARRIER STEPS

Logs to FOLDER/logs/log_rank<rank>.json, saves to FOLDER/checkpoint, and writes what each part took
by its own stop watch to FOLDER/watch_rank<rank>_<attempt>.json after each step. The ranks meet at
the Unix socket BARRIER. Rank 0 alone saves; rank 3 is slow at reading its data.
"""

import contextlib
import hashlib
import json
import os
import socket
import sys
import time
from collections import defaultdict
from pathlib import Path

import otel_dllogger as dllogger

folder, barrier, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rank, attempt = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
EVERY = 20
checkpoint = folder / "checkpoint"
watch = defaultdict(float)
saved = {}  # the stop watch at the last checkpoint
PARTS = ("restore", "data_wait", "communication", "blocked", "validation", "checkpoint")
dllogger.init(
    [
        dllogger.JSONStreamBackend(1, folder / "logs" / "log_rank{rank}.json", append=True),
        dllogger.PrometheusBackend(1, port=0, linger_s=0),
    ]
)
began_s, start_s = time.monotonic(), time.time()


@contextlib.contextmanager
def timed(name):
    """Take the time of a part by the stop watch, which knows nothing of phases."""
    begin_s = time.perf_counter()
    yield
    watch[name] += time.perf_counter() - begin_s


def compute(seconds):
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        hashlib.sha256(bytes(4096)).digest()


def meet(name):
    with timed(name), dllogger.phase("communication"):
        connection.sendall(b"x")
        connection.recv(1)


def save(step):
    """Write a checkpoint, which takes the others' time as well."""
    if rank == 0:
        with timed("checkpoint"), dllogger.phase("checkpoint", step=step):
            unfinished = checkpoint.with_suffix(".tmp")
            with unfinished.open("wb") as file:
                file.write(json.dumps({"step": step}).encode().ljust(4 << 20))
                os.fsync(file.fileno())
            time.sleep(0.4)
            unfinished.replace(checkpoint)
        dllogger.event("checkpoint_saved", {"step": step}, step=step)
    meet("blocked")


def note(step):
    file = folder / f"watch_rank{rank}_{attempt}.json"
    unfinished = file.with_suffix(".tmp")
    parts = {**watch, "start": start_s, "end": time.time(), "step": step, "saved": saved}
    unfinished.write_text(json.dumps(parts))
    unfinished.replace(file)


connection = socket.socket(socket.AF_UNIX)
connection.connect(barrier)
time.sleep(0.3)  # building the model
first = 0
if attempt:
    with timed("restore"), dllogger.phase("restore"):
        first = json.loads(checkpoint.read_bytes())["step"] + 1
        time.sleep(0.2)
connection.sendall(b"x")
connection.recv(1)
for step in range(first, steps):
    with timed("data_wait"), dllogger.phase("data_wait"):
        time.sleep(0.04 if rank == 3 else 0.01)
    compute(0.02)
    meet("communication")
    dllogger.log((0, step), {"train.loss": 1 / (1 + step)})
    # What was nothing else was startup, and training after the first record.
    rest_s = time.monotonic() - began_s - sum(watch[part] for part in PARTS)
    if step == first:
        watch["startup"] = rest_s
    watch["train"] = rest_s - watch["startup"]
    if step % EVERY == EVERY - 1:
        with timed("validation"), dllogger.phase("validation"):
            compute(0.25)
        save(step)
        saved.update(watch)
    note(step)
dllogger.log((), {"train.loss": 0.0})
dllogger.shutdown()

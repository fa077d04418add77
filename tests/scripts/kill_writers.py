"""Let writers of one log file be killed at random moments, one after the other.

Usage: kill_writers.py PATH KILLS SIZE SEED

Each writer is a process with a Logger and a JSON file of its own, as a training script
has. It says in shared memory how far it is, after each call has returned. Prints a JSON
list of the writers: lines acknowledged, whether it opened the file, whether it found and
counted a torn line, and whether there was one to be found.
"""

import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path

from otel_dllogger import JSONStreamBackend, Logger
from otel_dllogger.diagnostics import DIAGNOSTICS

OPENED, TORN, ACKNOWLEDGED, FAILED = range(4)


def write(path, writer, size, shared):
    """Log until the end comes from outside."""
    logger = Logger([JSONStreamBackend(1, path, append=True)])
    shared[TORN] = DIAGNOSTICS.dropped["torn_line"]
    shared[OPENED] = 1
    filler = "x" * size
    number = 0
    while True:
        logger.log((writer, number), {"loss": number, "text": filler})
        number += 1
        shared[ACKNOWLEDGED] = number


def ends_torn(path):
    """Tell whether a file ends in half a line."""
    with Path(path).open("ab+") as file:
        size = file.tell()
        return size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"


def main():
    """Start, kill, and start again."""
    path, kills, size, seed = sys.argv[1], *map(int, sys.argv[2:])
    dice = random.Random(seed)
    writers = []
    for writer in range(kills):
        memory = mmap.mmap(-1, 4096)
        shared = memoryview(memory).cast("q")
        torn_before = ends_torn(path)
        pid = os.fork()
        if not pid:
            try:
                write(path, writer, size, shared)
            finally:
                traceback.print_exc()
                shared[FAILED] = 1
                os._exit(1)
        # Mostly in the middle of writing, now and then while the file is opened.
        if dice.random() < 0.9:
            deadline_s = time.monotonic() + 30
            while not shared[ACKNOWLEDGED] and time.monotonic() < deadline_s:
                time.sleep(0.0005)
        time.sleep(dice.random() * 0.004)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        killed = os.WIFSIGNALED(status) and not shared[FAILED]
        assert killed, f"writer {writer} ended by itself: {status}"
        writers.append((shared[ACKNOWLEDGED], shared[OPENED], shared[TORN], torn_before))
    JSONStreamBackend(1, path, append=True).close()
    print(json.dumps(writers))


main()

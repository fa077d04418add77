"""Let 8 processes open one old file at one moment, each to empty it, and log.

Usage: open_at_once.py FOLDER ROUNDS LINES SIZE

Round k is about FOLDER/k, which holds what an earlier run left.
"""

import os
import sys
from pathlib import Path

from otel_dllogger import JSONStreamBackend, Logger

folder, rounds, lines, size = sys.argv[1], *map(int, sys.argv[2:])
for one in range(rounds):
    path = Path(folder, str(one))
    path.write_text('DLLL {"old": 1}\n' * 20 + 'DLLL {"to' * (one % 2))
    reading, writing = os.pipe()
    logged_reading, logged_writing = os.pipe()
    pids = []
    for process in range(8):
        pid = os.fork()
        if not pid:
            os.close(writing)
            os.read(reading, 1)  # the end of the pipe is the start of all
            logger = Logger([JSONStreamBackend(1, path)])
            for number in range(lines):
                logger.log((process, number), {"text": "x" * size})
            os.close(logged_writing)
            os.read(logged_reading, 1)  # a run is over when all are done, not before
            os._exit(0)
        pids.append(pid)
    for descriptor in (writing, reading, logged_writing, logged_reading):
        os.close(descriptor)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert not any(codes), codes

"""Log from every rank of a simulated run at once, each a process of its own.

Usage: log_ranks.py FOLDER RANKS LINES LEVEL together|apart all|first

together: one folder for all ranks, as on shared storage; apart: one per node of 8 ranks.
all: each rank has a file; first: distributed=False.

Every rank logs LINES lines of INFO and one of ERROR, all from the same moment on.
"""

import os
import sys
from pathlib import Path

from otel_dllogger.training.rank_logger import MMLogger

RANKS_PER_NODE = 8


def rank(number, ranks, lines, go, folder, level, whose):
    """Be one rank: make the logger as soon as the others are there, and log."""
    os.environ |= {
        "RANK": str(number),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": str(number % RANKS_PER_NODE),
    }
    os.read(go, 1)  # it ends where the parent closes it
    logger = MMLogger.get_instance(
        "run", log_file=folder / "run.log", log_level=level, distributed=whose == "all"
    )
    for line in range(lines):
        logger.info("rank %d line %d %s", number, line, "x" * 300)
    logger.error("rank %d failed", number)


def main():
    """Fork the ranks, let them go, and fail where one of them did."""
    folder, ranks, lines, level, storage, whose = sys.argv[1:]
    go, hold = os.pipe()
    children = []
    for number in range(int(ranks)):
        node = f"node{number // RANKS_PER_NODE}" if storage == "apart" else "shared"
        pid = os.fork()
        if not pid:
            os.close(hold)
            rank(number, int(ranks), int(lines), go, Path(folder, node, "logs"), level, whose)
            sys.exit(0)
        children.append(pid)
    os.close(hold)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    sys.exit(any(statuses))


main()

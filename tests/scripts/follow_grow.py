"""Write numbered lines to files, rotating them by rename, until the end comes from outside.

Usage: follow_grow.py FOLDER FILES

Lines are written in two halves, so that there is often half a line to be seen. Prints how
many lines each file has got, once a line comes on standard input.
"""

import json
import os
import select
import sys
import time
from pathlib import Path


def main():
    """Write, a line to each file in turn."""
    folder, files = Path(sys.argv[1]), int(sys.argv[2])
    counts = [0] * files
    fds = [None] * files
    while not select.select([sys.stdin], [], [], 0)[0]:
        for i in range(files):
            path = folder / f"rank{i}.log"
            if counts[i] % 50 == 0:
                if counts[i]:
                    os.close(fds[i])
                    path.rename(folder / f"rank{i}.{counts[i] // 50}.log")
                fds[i] = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            os.write(fds[i], b"rank %d " % i)
            os.write(fds[i], b"line %d\n" % counts[i])
            counts[i] += 1
        time.sleep(0.002)
    print(json.dumps(counts))


main()

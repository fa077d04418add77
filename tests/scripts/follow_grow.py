"""Write numbered lines to files, rotating them by rename, as many as are asked for.

Usage: follow_grow.py FOLDER FILES

Each line of the standard input is how many more lines each file is to get. Lines are written
in two halves, so that there is often half a line to be seen. Prints how many lines each file
has got, once the input ends.
"""

import json
import os
import sys
import time
from pathlib import Path


def main():
    """Write, a line to each file in turn."""
    folder, files = Path(sys.argv[1]), int(sys.argv[2])
    counts = [0] * files
    fds = [None] * files
    for _ in (number for asked in sys.stdin for number in range(int(asked))):
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

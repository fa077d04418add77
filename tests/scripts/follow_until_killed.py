"""Follow a folder and write down what was delivered, until the end comes from outside.

Usage: follow_until_killed.py FOLDER CHECKPOINT OUT

Each line goes to OUT, at once, as "device inode generation offset checksum line". A commit
follows every third round, and OUT says so.
"""

import os
import sys

from otel_dllogger.logs.tail.file_state import LineBatch
from otel_dllogger.logs.tail.tailer import Tailer


def main():
    """Poll for ever."""
    folder, checkpoint, out = sys.argv[1:]
    fd = os.open(out, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    tailer = Tailer([folder], checkpoint=checkpoint, file_bytes=2048)
    os.write(fd, b"started\n")
    rounds = 0
    while True:
        for item in tailer.poll():
            if isinstance(item, LineBatch):
                for line, position in zip(item.lines, item.positions(), strict=True):
                    os.write(fd, b"%d %d %d %d %d %b\n" % (*position, line))
        rounds += 1
        if rounds % 3 == 0 and tailer.commit():
            os.write(fd, b"committed\n")


main()

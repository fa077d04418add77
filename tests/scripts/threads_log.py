"""Log from 8 threads to the file that other processes log to as well.

Usage: threads_log.py PATH PROCESS APPEND LINES

Prints "ready", opens the file at a line of input, prints "open", logs at another line of input,
and ends by itself.
"""

import sys
import threading

from otel_dllogger import JSONStreamBackend, Logger

path, process, append, lines = sys.argv[1], *map(int, sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
logger = Logger([JSONStreamBackend(1, path, append=bool(append))])
print("open", flush=True)
sys.stdin.readline()
start = threading.Barrier(8)


def work(thread):
    """Log lines of many lengths."""
    start.wait()
    for number in range(lines):
        logger.log((process, thread), {"number": number, "text": "x" * (number * 977 % 20_000)})


threads = [threading.Thread(target=work, args=(one,)) for one in range(8)]
for one in threads:
    one.start()
for one in threads:
    one.join()

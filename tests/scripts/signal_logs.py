"""Log from the main thread, from two more, and from a handler of a frequent signal.

Usage: signal_logs.py PATH LINES SIZE

Prints how many lines the handler logged, how many calls the metrics count, the state of
the file, and how many lines were still kept when a call of the main thread returned.
"""

import itertools
import json
import signal
import sys
import threading

from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend
from otel_dllogger.backends.append_file import MAX_PENDING_BYTES

path, lines, size = sys.argv[1], *map(int, sys.argv[2:])
json_backend = JSONStreamBackend(1, path)
metrics = PrometheusBackend(1, port=0)
logger = Logger([json_backend, metrics])
handled = itertools.count()
text = "x" * size
kept = [0]
depth = [0]
working = [True]


def handle(_signal, _frame):
    """Log, whatever the main thread is in, the handler itself included, three deep."""
    depth[0] += 1
    if depth[0] < 3:
        arm()
    logger.log((9, next(handled)), {"signal": 1, "text": text})
    depth[0] -= 1
    arm()


def arm():
    """Let the signal come again soon, as long as there is work.

    On a slow disk handlers leave behind more than is written: what is beyond the bound would be
    dropped, and counted.
    """
    is_far = json_backend.file._pending_bytes < MAX_PENDING_BYTES // 2
    signal.setitimer(signal.ITIMER_REAL, 0.0003 if working[0] and is_far else 0)


def work(who):
    """Log, and let the file look after its path as at the end of a second."""
    for number in range(lines):
        logger.log((who, number), {"number": number, "text": text})
        if not who:  # what its own call or a handler has left behind is not in the kernel
            kept[0] += len(json_backend.file._pending)
            if not any(signal.getitimer(signal.ITIMER_REAL)):
                arm()
        if not number % 10:
            json_backend.file.check_path()


signal.signal(signal.SIGALRM, handle)
arm()
threads = [threading.Thread(target=work, args=(who,)) for who in (1, 2)]
for thread in threads:
    thread.start()
work(0)
for thread in threads:
    thread.join()
working[0] = False
arm()
state = json_backend.file._state
(rank,) = metrics._store.rank_states()
print(json.dumps([next(handled), rank.logs, state, kept[0]]))

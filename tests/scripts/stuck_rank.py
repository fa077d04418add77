"""Be a rank that logs one step, and then stands at a place until it is killed.

usage: stuck_rank.py DISCOVERY_DIR PLACE     (it prints a line once it stands there)
"""

import re
import sys
import threading

import otel_dllogger as dllogger

FOLDER, PLACE = sys.argv[1:]


def wait():
    """Say that it stands, and wait for ever."""
    print("ready", flush=True)
    threading.Event().wait()


def next_batch():
    """Stand in a loop of C that holds the GIL: the rank's page does not answer."""
    print("ready", flush=True)
    re.fullmatch(r"(a|a)+", "a" * 60 + "b")


def train_step():
    """Stand here, for an operation of all ranks."""
    wait()


page = dllogger.PrometheusBackend(1, port=0, discovery_dir=FOLDER)
dllogger.init([page])
dllogger.log((0, 1), {"loss": 1.0})
globals()[PLACE]()

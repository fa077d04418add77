"""Train for a moment, then hang, until a line comes in or for ever.

usage: hang.py LOG LIMIT_S HOW     (see the functions below; it prints the port of its page)
"""

import ctypes
import multiprocessing
import os
import re
import sys
import threading
import time

import otel_dllogger as dllogger

LOG, LIMIT_S, HOW = sys.argv[1], float(sys.argv[2]), sys.argv[3]


def asleep():
    """Wait without the GIL."""
    sys.stdin.readline()


def in_a_c_loop():
    """Match, in a loop of C that holds the GIL, for longer than anyone waits."""
    re.fullmatch(r"(a|a)+", "a" * 60 + "b")


def in_a_c_call():
    """Hold the GIL for three limits."""
    ctypes.PyDLL(None).usleep(int(3 * LIMIT_S * 1e6))


def in_a_checkpoint():
    """Be in a phase that explains the silence."""
    with dllogger.phase("checkpoint"):
        time.sleep(3 * LIMIT_S)


def in_a_checkpoint_in_c():
    """Be in a phase that explains the silence, and hold the GIL."""
    with dllogger.phase("checkpoint"):
        in_a_c_call()


def in_steps_in_c():
    """Hold the GIL in no phase, before one that explains nothing any more."""
    in_a_c_call()
    with dllogger.phase("checkpoint"):
        sys.stdin.readline()


def waiting_for_data():
    """Be in a phase that is a part of a step, and explains nothing."""
    with dllogger.phase("data_wait"):
        sys.stdin.readline()


def after_the_summary():
    """Be silent at the end of a run."""
    dllogger.log((), {"best": 1.0})
    time.sleep(3 * LIMIT_S)


def in_children():
    """Wait for a child that ends normally, which finalizes ``faulthandler``, and for a worker."""
    child = os.fork()
    if not child:
        sys.exit(7)
    worker = multiprocessing.get_context("fork").Process(target=os.getpid)
    worker.start()
    worker.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), worker.exitcode, flush=True)


def twice():
    """Hang, go on and hang again."""
    sys.stdin.readline()
    dllogger.log((0, 98), {"loss": 1.0})
    sys.stdin.readline()


page = dllogger.PrometheusBackend(1, port=0, discovery_dir="none")
dllogger.init([dllogger.JSONStreamBackend(1, LOG, hang_seconds=LIMIT_S), page])
dllogger.log("PARAMETER", {"seed": 1})
if HOW == "before_the_first_step":
    time.sleep(3 * LIMIT_S)
for iteration in range(5):
    dllogger.log((0, iteration), {"loss": 1.0})
    time.sleep(LIMIT_S / 5)  # some looks of the watch
print(page.endpoint.port, flush=True)
if HOW != "before_the_first_step":
    globals()[HOW]()
dllogger.log((0, 99), {"loss": 1.0})
print("done", *sorted(one.name for one in threading.enumerate()), flush=True)
sys.stdin.readline()
dllogger.shutdown()

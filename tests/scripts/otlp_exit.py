"""Log over OTLP and come to an end in some way; the last line is the time before the end.

Usage: otlp_exit.py ENDPOINT PROTOCOL HOW [COUNT]

HOW is close, exit, five, raise, fail, inflight, sigterm, fork or spawn.

close: close, then end. exit: leave it to atexit. five: the same with five backends.
raise: end by an exception. fail: sys.exit(1).
inflight: end while a request is under way, which the collector has begun to read.
sigterm: send SIGTERM to itself. fork, spawn: end with children that have come and gone.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time

import otel_dllogger as dllogger
from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.diagnostics import DIAGNOSTICS


def child_main():
    """Do what a child does that knows nothing of its parent's backend."""
    print("spawned", threading.active_count(), flush=True)


def fork(backend):
    """Log in a forked child, with the parent's locks held by another thread."""
    held, release = threading.Event(), threading.Event()

    def hold():
        with backend._sender._lock, DIAGNOSTICS._counting:
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        dllogger.log((0, 100), {"child": 1})
        dllogger.metadata("child", {"unit": "s"})
        dllogger.flush()
        dllogger.shutdown()
        print("threads", threading.active_count(), flush=True)
        sys.exit(7)
    _, status = os.waitpid(pid, 0)
    print("child", os.waitstatus_to_exitcode(status), flush=True)
    print("child ended", time.time(), flush=True)
    release.set()
    thread.join()


def main():
    """Set up, log, and end."""
    endpoint, protocol, how, *rest = sys.argv[1:]
    backend = OTLPBackend(1, endpoint=endpoint, protocol=protocol, interval_s=0.05, run="r")
    more = range(4 if how == "five" else 0)
    others = [OTLPBackend(1, endpoint=endpoint, protocol=protocol) for _ in more]
    dllogger.init([backend, *others])
    for step in range(int(rest[0]) if rest else 10):
        dllogger.log((0, step), {"loss": step})
    if how in ("inflight", "sigterm"):
        while backend._sender._sending is None:  # as long as the collector lets it wait
            time.sleep(0.001)
    if how == "fork":
        fork(backend)
    if how == "spawn":
        process = multiprocessing.get_context("spawn").Process(target=child_main)
        process.start()
        process.join()
    print("end", time.time(), flush=True)
    if how == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "raise":
        raise RuntimeError("training failed")
    if how == "fail":
        sys.exit(1)
    if how == "close":
        dllogger.shutdown()
        dllogger.shutdown()


if __name__ == "__main__":
    main()

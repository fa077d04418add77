"""Fork one child under hard conditions, and report on it in FOLDER/report.json.

Usage: fork_once.py locks|pending|orphan FOLDER

locks: another thread holds every lock of the package at the moment of the fork.
pending: the parent has lines that its limit on file sizes refused.
orphan: the child lives until its standard input ends; the parent waits to be killed.
"""

import json
import os
import resource
import signal
import sys
import threading
from pathlib import Path

import otel_dllogger as dllogger
from otel_dllogger.backends import open_files
from otel_dllogger.diagnostics import DIAGNOSTICS


def report(folder, **what):
    """Write the report in one piece."""
    Path(folder, "report.tmp").write_text(json.dumps(what))
    Path(folder, "report.tmp").rename(Path(folder, "report.json"))


def locks(folder, json_backend, metrics):
    """Fork while a thread holds all locks; the child logs, and must not wait for them."""
    held, release = threading.Event(), threading.Event()

    def hold():
        with (
            json_backend.file._lock,
            metrics._store._lock,
            metrics._instruments._lock,
            DIAGNOSTICS._counting,
            open_files._open_files.lock,
        ):
            held.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    pid = os.fork()
    if not pid:
        signal.alarm(20)
        dllogger.metadata("loss", {"unit": "s"})
        dllogger.log((0, 1), {"loss": 1})
        DIAGNOSTICS.count("scrape", "counted in the child")
        dllogger.JSONStreamBackend(1, f"{folder}/other").close()
        dllogger.flush()
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    release.set()
    thread.join()
    report(folder, code=os.waitstatus_to_exitcode(status))


def pending(folder, _json_backend, _metrics):
    """Fork with refused lines kept; the child has room for its own line."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    dllogger.log((0, 0), {"loss": 0})
    resource.setrlimit(resource.RLIMIT_FSIZE, (Path(folder, "log").stat().st_size, hard))
    dllogger.log((0, 1), {"loss": 1})
    dllogger.log((0, 2), {"loss": 2})
    pid = os.fork()
    if not pid:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        dllogger.log((0, 3), {"loss": 3})
        sys.exit(0)
    _, status = os.waitpid(pid, 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    dllogger.flush()
    report(folder, code=os.waitstatus_to_exitcode(status))


def orphan(folder, _json_backend, metrics):
    """Leave a child behind that does not know of its parent's end."""
    dllogger.log((0, 0), {"loss": 0})
    begun, begin = os.pipe()
    pid = os.fork()
    if pid:
        os.read(begun, 1)  # on a busy machine the child may not have come to anything before
        report(folder, url=metrics.url, parent=os.getpid(), child=pid)
        signal.pause()
    os.write(begin, b"x")
    sys.stdin.read()
    sys.exit(0)


def main():
    """Set the backends up, and go."""
    how, folder = sys.argv[1:]
    json_backend = dllogger.JSONStreamBackend(1, f"{folder}/log")
    metrics = dllogger.PrometheusBackend(1, port=0, discovery_dir=f"{folder}/discovery")
    dllogger.init([json_backend, metrics])
    {"locks": locks, "pending": pending, "orphan": orphan}[how](folder, json_backend, metrics)


main()

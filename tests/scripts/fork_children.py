"""Start children while threads log and somebody scrapes.

Usage: fork_children.py FOLDER METHOD COUNT

METHOD is fork (``os.fork``, and the child leaves by ``sys.exit``), or one of
multiprocessing's: mp-fork, spawn, forkserver. Every child logs one line to the same
file, and writes what it saw of itself into FOLDER/children. The parent writes into
FOLDER/parent.json how many lines each thread logged, and ends when its input does.
"""

import json
import multiprocessing
import os
import stat
import sys
import threading
import time
from pathlib import Path

import otel_dllogger as dllogger

CHILD_S = 30


def listening_sockets():
    """List the descriptors of this process that listen."""
    table = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    listening = {row[9] for row in table if row[3] == "0A"}
    found = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            status = link.stat()
        except OSError:
            continue
        if stat.S_ISSOCK(status.st_mode) and str(status.st_ino) in listening:
            found.append(link.name)
    return found


def child(folder, number, *, inherited):
    """Do what a worker does: log a line, and leave."""
    if not inherited:
        dllogger.init([dllogger.JSONStreamBackend(1, f"{folder}/log", append=True)])
    dllogger.log((1, number), {"child": number})
    dllogger.flush()
    names = [thread.name for thread in threading.enumerate() if thread.name.startswith("otel")]
    report = {"sockets": listening_sockets(), "threads": names}
    Path(folder, "children", str(number)).write_text(json.dumps(report))


def start(method, folder, number):
    """Start a child and return a function that waits for its exit status, None if it hangs."""
    if method == "fork":
        pid = os.fork()
        if not pid:
            child(folder, number, inherited=True)
            sys.exit(0)

        def wait():
            deadline_s = time.monotonic() + CHILD_S
            while time.monotonic() < deadline_s:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                time.sleep(0.001)
            os.kill(pid, 9)
            return None

        return wait
    inherited = method == "mp-fork"
    context = multiprocessing.get_context(method.removeprefix("mp-"))
    process = context.Process(target=child, args=(folder, number), kwargs={"inherited": inherited})
    process.start()

    def wait():
        process.join(CHILD_S)
        code = process.exitcode
        process.kill()
        return code

    return wait


def main():
    """Log from threads, and start children meanwhile."""
    folder, method, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    dllogger.init(
        [
            dllogger.JSONStreamBackend(1, f"{folder}/log"),
            dllogger.StdOutBackend(1),
            dllogger.PrometheusBackend(1, port=0, discovery_dir=f"{folder}/discovery", run="fork"),
        ]
    )
    counts = [0] * 4
    ended = threading.Event()

    def work(thread):
        while not ended.is_set():
            dllogger.log((0, counts[thread]), {f"thread{thread}": counts[thread]})
            counts[thread] += 1
            if not counts[thread] % 50:
                time.sleep(0.001)  # leave something of the machine to the others

    threads = [threading.Thread(target=work, args=(one,)) for one in range(len(counts))]
    for thread in threads:
        thread.start()
    codes = []
    try:
        for first in range(0, count, 4):
            numbers = range(first, min(first + 4, count))
            codes += [wait() for wait in [start(method, folder, number) for number in numbers]]
    finally:
        ended.set()
    for thread in threads:
        thread.join()
    Path(folder, "parent.tmp").write_text(json.dumps({"counts": counts, "codes": codes}))
    Path(folder, "parent.tmp").rename(Path(folder, "parent.json"))
    sys.stdin.read()


if __name__ == "__main__":
    main()

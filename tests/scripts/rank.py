"""One rank of a training run, driven over its standard input.

Each line in is a JSON list: the name of a function of ``otel_dllogger`` and its arguments, where
``phase`` begins and ends one. Each line out says that it returned, so that the test knows where
the rank is. The first line out is the address of its page.

usage: rank.py '{"keyword": argument of PrometheusBackend}'
"""

from __future__ import annotations

import json
import sys
import threading

import otel_dllogger as dllogger


def pass_through(name: str) -> None:
    """Be in a phase for a moment, and in one that overlaps it."""

    @dllogger.phase(name)
    def work() -> None:
        """Do nothing."""

    work()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def main() -> None:
    backend = dllogger.PrometheusBackend(dllogger.Verbosity.VERBOSE, **json.loads(sys.argv[1]))
    dllogger.init([backend])
    print(json.dumps(backend.url), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if name == "log" and isinstance(arguments[0], list):
            arguments[0] = tuple(arguments[0])
        if name == "phase":
            pass_through(*arguments)
        else:
            getattr(dllogger, name)(*arguments)
        print(json.dumps(name), flush=True)


main()

"""One rank of a training run, driven over its standard input.

Each line in is a JSON list: the name of a function of ``otel_dllogger`` and its
arguments. Each line out says that it returned, so that the test knows where the rank is.
The first line out is the address of its page.

usage: rank.py '{"keyword": argument of PrometheusBackend}'
"""

from __future__ import annotations

import json
import sys

import otel_dllogger as dllogger


def main() -> None:
    backend = dllogger.PrometheusBackend(dllogger.Verbosity.VERBOSE, **json.loads(sys.argv[1]))
    dllogger.init([backend])
    print(json.dumps(backend.url), flush=True)
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        if name == "log" and isinstance(arguments[0], list):
            arguments[0] = tuple(arguments[0])
        getattr(dllogger, name)(*arguments)
        print(json.dumps(name), flush=True)


main()

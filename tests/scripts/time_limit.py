"""Log under a time limit whose signal handler raises, as many times as asked.

Usage: time_limit.py PATH TRIES KIND

KIND names the exception's class: TimeoutError, which is an OSError, ValueError, or Limit.

Prints how many limits there were, how many exceptions arrived, and the lines that were
acknowledged: those whose log() returned.
"""

import json
import signal
import sys

import otel_dllogger as dllogger
from otel_dllogger.diagnostics import DIAGNOSTICS


class Limit(Exception):  # noqa: N818 - as in scripts
    """A class of the script's own."""


path, tries, name = sys.argv[1], int(sys.argv[2]), sys.argv[3]
kind = {"TimeoutError": TimeoutError, "ValueError": ValueError, "Limit": Limit}[name]
raised = 0


class Slow:
    """A value that takes a while to be shown, in which a signal comes more often."""

    def __str__(self):
        return "slow" * 100

    __repr__ = __str__


class Handler:
    """A handler that is a method of something and passes on what it is given."""

    def handle(self, *arguments):
        """Raise, as for a time limit."""
        self.fail(*arguments)

    def fail(self, signum, frame):
        """Count, and raise."""
        global raised  # noqa: PLW0603 - a script
        raised += 1
        raise kind(f"signal {signum} in {frame.f_code.co_name}")


signal.signal(signal.SIGALRM, Handler().handle)
dllogger.init(
    [
        dllogger.JSONStreamBackend(1, path),
        dllogger.StdOutBackend(1, line_format=lambda *_: "."),
        dllogger.PrometheusBackend(1, port=0),
        dllogger.OTLPBackend(1, endpoint="http://127.0.0.1:1"),
    ]
)
sys.stdout = open("/dev/null", "w")  # noqa: PTH123, SIM115 - as long as the process
arrived, acknowledged, number = 0, [], 0
for attempt in range(tries):
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-5 + attempt % 40 * 1e-5)
        while True:
            dllogger.log((1, number), {"number": number, "slow": Slow(), f"m{number % 50}": 1.0})
            acknowledged.append(number)
            number += 1
    except kind:
        arrived += 1
        number += 1
signal.signal(signal.SIGALRM, signal.SIG_IGN)
dllogger.log((1, number), {"number": number})
dllogger.shutdown()
print(
    json.dumps(
        [raised, arrived, acknowledged, {k: v for k, v in DIAGNOSTICS.dropped.items() if v}]
    ),
    file=sys.__stdout__,
)

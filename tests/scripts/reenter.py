"""Call every public function from where foreign code runs, while the main thread is in them all.

Usage: reenter.py signal|logging|del|value FOLDER ROUNDS

signal: a handler of a frequent signal calls them.
logging: a handler of the root logger does, on whatever thread warns.
del: the finalizer of an object does, when the garbage collector comes by.
value: a logged value does, when it is asked for its number, text or hash.

Prints how many lines were logged and how often foreign code ran.
"""

import faulthandler
import gc
import itertools
import json
import logging
import signal
import sys
import threading
import urllib.request

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import otel_dllogger as dllogger
from otel_dllogger.diagnostics import DIAGNOSTICS

how, folder, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
faulthandler.dump_traceback_later(100, exit=True)
reader = InMemoryMetricReader()
page = dllogger.PrometheusBackend(1, port=0)
dllogger.init(
    [
        dllogger.JSONStreamBackend(1, f"{folder}/log"),
        dllogger.StdOutBackend(1, line_format=lambda *_: "."),
        page,
        dllogger.OTelBackend(1, meter_provider=MeterProvider([reader])),
        dllogger.OTLPBackend(1, endpoint="http://127.0.0.1:1"),
    ]
)
sys.stdout = open(f"{folder}/out", "w")  # noqa: PTH123, SIM115 - as long as the process
logged, foreign = itertools.count(), itertools.count()
depth = threading.local()
working = True


def call_all():
    """Log a new name, say late what it is, flush, and open, use and close another Logger."""
    number = next(logged)
    dllogger.log((1, number), {f"name{number}": number, "number": number})
    dllogger.metadata(f"name{number}", {"unit": "s", "GOAL": "MINIMIZE"})
    dllogger.info({"lr": number})
    dllogger.flush()
    with dllogger.Logger([dllogger.JSONStreamBackend(1, f"{folder}/other", append=True)]) as other:
        other.log((1, number), {"number": number})


def enter(*_):
    """Call them from foreign code, two deep at most, and not for ever."""
    level = getattr(depth, "level", 0)
    if working and level < 2 and next(foreign) < 100:
        depth.level = level + 1
        call_all()
        depth.level = level


class Handler(logging.Handler):
    """Call them for every warning; the next one may come at once."""

    def emit(self, _record):
        enter()
        DIAGNOSTICS._warned_at.clear()


class Finalized:
    """Call them from the garbage collector."""

    def __init__(self):
        self.itself = self

    def __del__(self):
        enter()


class Value:
    """Call them when asked for anything."""

    def __float__(self):
        enter()
        return 0.5

    def __str__(self):
        enter()
        return "value"

    def __hash__(self):
        enter()
        return 1

    def __eq__(self, _other):
        enter()
        return True


def scrape():
    """Collect from both providers, as long as there is work."""
    while working:
        urllib.request.urlopen(page.url, timeout=50).read()
        reader.get_metrics_data()


def arm(*_):
    """Let the signal come again soon."""
    signal.setitimer(signal.ITIMER_REAL, 0.002 if working else 0)


def handle(*_):
    """Handle the signal."""
    enter()
    arm()


scraping = threading.Thread(target=scrape)
scraping.start()
if how == "signal":
    signal.signal(signal.SIGALRM, handle)
    arm()
elif how == "logging":
    logging.getLogger().addHandler(Handler())
for turn in range(rounds):
    call_all()
    if how == "logging":
        DIAGNOSTICS.warn(f"turn {turn}", "something is odd")
    elif how == "del":
        Finalized()
        if not turn % 5:  # else the collector comes when it pleases, in the middle of anything
            gc.collect()
    elif how == "value":
        number = next(logged)
        dllogger.log((1, number), {"number": number, "value": Value(), Value(): 1})
        dllogger.metadata(Value(), {"unit": Value(), Value(): "s"})
        dllogger.info({"value": Value()})
working = False
scraping.join()
if how == "signal":  # one handler after the other ends all, while the main thread does
    signal.signal(signal.SIGALRM, lambda *_: dllogger.shutdown())
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-3)
    dllogger.shutdown()
    signal.setitimer(signal.ITIMER_REAL, 0)
DIAGNOSTICS.drain(50)
dllogger.shutdown()
print(json.dumps([next(logged), next(foreign)]), file=sys.__stdout__)

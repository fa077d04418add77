"""A backend that keeps what a loop logs, and the state of the loop."""

from __future__ import annotations

import time

from otel_dllogger import Verbosity
from otel_dllogger.logger import Backend
from otel_dllogger.training import log_results, track


class Keeper(Backend):
    """A user's backend that keeps what it is given."""

    def __init__(self, verbosity=Verbosity.VERBOSE):
        super().__init__(verbosity)
        self.logged = []

    def log(self, timestamp, elapsedtime, step, data):
        self.logged.append((step, dict(data), data.line))

    def metadata(self, timestamp, elapsedtime, metric, metadata):
        """Ignore the metadata."""

    @property
    def steps(self):
        return [step for step, _, _ in self.logged]


def finish(loop):
    """Run a loop to its end, and return its batches."""
    return list(loop)


def infos(hub):
    """Return the progress of the training according to a hub."""
    return hub.get_info("epoch"), hub.get_info("iter")


def wait_s(seconds):
    """Keep the processor busy for a while."""
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pass


def validate(hub, options, losses, **results):
    """Validate with one batch per loss, and return the line of the results."""
    for loss in track(losses, mode="val", log_every=len(losses), **options):
        hub.update_scalar("val/loss", loss)
    return log_results(results, **options)

"""Ask and update histories, hubs and records while a signal handler does the same.

``training_signals.py SECONDS``: prints what was counted of what, and the stacks on a hang.
"""

from __future__ import annotations

import faulthandler
import logging
import signal
import sys
import time

from otel_dllogger import Logger
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.training import (
    HistoryBuffer,
    LogProcessor,
    LoopState,
    MessageHub,
)

faulthandler.dump_traceback_later(30, exit=True)
logging.getLogger("otel_dllogger").disabled = True


class Cut(Exception):  # noqa: N818 - as a user's time-out, not an error
    """Leave whatever the main thread is in, as a user's time-out does."""


@HistoryBuffer.register_statistics
def spread(self: HistoryBuffer) -> float:
    """Read values and counts, which belong together."""
    values, counts = self._log_history, self._count_history
    assert len(values) == len(counts)
    return float(values.max() - values.min())


cfg = [{"data_src": "loss", "log_name": "spread", "method_name": "spread"}]
hub, logger, processor = MessageHub("signals"), Logger([]), LogProcessor(custom_cfg=cfg)
state = LoopState(hub, batch_idx=0)
updates = handled = cuts = 0
cutting = False


def step(value: float) -> None:
    """Do what a loop does, in any order."""
    global updates  # noqa: PLW0603
    updates += 1  # counted first, since a value that is not there is looked for
    hub.update_scalar("train/loss", value, 1 if value % 2 else 3)
    history = hub.get_scalar("train/loss")
    history.update(value)
    history.current()
    history.mean(10)
    history.max()
    history.since("never")
    history.statistics("spread")
    MessageHub.get_instance(f"one of {int(value) % 5}").update_scalar("val/x", value)
    MessageHub.get_current_instance()
    hub.log_to(logger, state, processor)


def handle(*_: object) -> None:
    """Do the same in the middle of it, but for every other time."""
    global handled, cuts  # noqa: PLW0603
    handled += 1
    if handled % 2:
        step(float(handled))
    if cutting:
        cuts += 1
        raise Cut


signal.signal(signal.SIGALRM, handle)
step(1.0)
signal.setitimer(signal.ITIMER_REAL, 0.0007, 0.0007)
end_s = time.monotonic() + float(sys.argv[1])
number = 0
while time.monotonic() < end_s:
    number += 1
    step(float(number))
signal.setitimer(signal.ITIMER_REAL, 0)
values, counts = hub.get_scalar("train/loss").data
print("lost", 2 * updates - len(values), len(values) - len(counts), len(values) > 100)
print("since", hub.get_scalar("train/loss").since() - len(values))
print("twice", handled > 10, {k: n for k, n in DIAGNOSTICS.dropped.items() if n})

# A handler that raises: what was given before stays, nothing is there twice.
buffer, cutting, given = HistoryBuffer(), True, 0
end_s = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end_s:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0003)
        while True:
            given += 1
            buffer.update(float(given))
            if given % 3 == 0:
                buffer.mean(10)
    except Cut:
        signal.setitimer(signal.ITIMER_REAL, 0)
values = buffer.data[0].tolist()
missing = set(range(1, given + 1)) - {int(value) for value in values}
print("cut", cuts > 10, len(missing) <= cuts, values == sorted(set(values)))

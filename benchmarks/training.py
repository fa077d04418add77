"""The cost of smoothed statistics: ``python -m benchmarks.training``.

It is compared with that of MMEngine's buffer: two arrays that ``np.append`` copies at each update.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from benchmarks.measure import median_us
from otel_dllogger.training import HistoryBuffer, LogProcessor, LoopState, MessageHub

if TYPE_CHECKING:
    from collections.abc import Callable

SHORT, LONG = 1_000, 1_000_000
WINDOWS = (10, 1_000, 100_000)
SCALARS = 20
UPDATES_BETWEEN_LOGS = 10

FLATNESS_TARGET = 1.5
APPEND_TARGETS = {SHORT: 10, LONG: 500}
MEAN_TARGET_US = 2.0
UPDATE_SCALAR_TARGET_US = 1.0
LOG_TARGET_US = 60.0


class AppendBuffer:
    """A buffer that keeps a history as MMEngine does.

    Args:
        length: How many values it has at the beginning.
    """

    def __init__(self, length: int) -> None:
        self._values = np.ones(length)
        self._counts = np.ones(length)

    def update(self, value: float, count: int = 1) -> None:
        """Add a value to the end of the arrays."""
        self._values = np.append(self._values, value)
        self._counts = np.append(self._counts, count)


class Figures(NamedTuple):
    """The measured times, in microseconds per call.

    Attributes:
        updates: Our buffer's ``update``, by length.
        appends: The ``update`` of ``AppendBuffer``, by length.
        means: The mean over a window of 1,000,000 values, by window; None is all.
        short_mean: The mean of the last ten of 1,000 values.
        update_scalar: ``MessageHub.update_scalar``.
        log: ``get_log_after_iter`` over 20 scalars, each with ten new values.
        log_alone: The same without new values.
    """

    updates: dict[int, float]
    appends: dict[int, float]
    means: dict[int | None, float]
    short_mean: float
    update_scalar: float
    log: float
    log_alone: float


def run() -> Figures:
    """Measure everything in turn."""
    updates, appends = {}, {}
    for length, rounds, calls in ((SHORT, 15, 200), (LONG, 5, 20)):
        # Few calls per round, so that a buffer keeps about its nominal length.
        us = median_us(
            {"ours": _update(_filled(length)), "append": _update(AppendBuffer(length))},
            rounds=rounds,
            calls=calls,
        )
        appends[length] = us["append"]
        updates[length] = us["ours"]
    # For ours, enough calls to include the work that is done only now and then.
    buffers = {length: _filled(length) for length in (SHORT, LONG)}
    us = median_us({str(n): _update(buffer) for n, buffer in buffers.items()}, calls=10_000)
    updates = {length: us[str(length)] for length in buffers}

    long, short = _filled(LONG), _filled(SHORT)
    windows: tuple[int | None, ...] = (*WINDOWS, None)
    us = median_us(
        {
            **{str(w): (lambda _i, w=w: long.mean(w)) for w in windows},
            "short": lambda _i: short.mean(10),
        }
    )
    means = {w: us[str(w)] for w in windows}
    short_mean = us["short"]

    hub = MessageHub("benchmark")
    names = [f"train/loss_{i}" for i in range(SCALARS - 3)]
    names += ["train/lr", "train/time", "train/data_time"]
    state = LoopState(hub, max_epochs=10, dataloader_len=1_000)
    processor = LogProcessor()

    def fill(_i: int) -> None:
        for name in names:
            for value in range(UPDATES_BETWEEN_LOGS):
                hub.update_scalar(name, value * 0.1)

    def fill_and_log(i: int) -> None:
        fill(i)
        processor.get_log_after_iter(state, 9, "train")

    fill_and_log(0)
    hub.update_info("eta", 1.0)
    us = median_us(
        {
            "update_scalar": lambda _i: hub.update_scalar("train/x", 0.5),
            "log": lambda _i: processor.get_log_after_iter(state, 9, "train"),
        }
    )
    filled = median_us({"fill": fill, "fill_and_log": fill_and_log}, calls=200)
    return Figures(
        updates,
        appends,
        means,
        short_mean,
        us["update_scalar"],
        filled["fill_and_log"] - filled["fill"],
        us["log"],
    )


def _filled(length: int) -> HistoryBuffer:
    ones = np.ones(length)
    return HistoryBuffer(ones, ones, max_length=100 * LONG)


def _update(buffer: HistoryBuffer | AppendBuffer) -> Callable[[int], None]:
    update = buffer.update
    return lambda _i: update(0.5)


def main() -> None:
    """Measure and print Markdown."""
    figures = run()
    flatness = figures.updates[LONG] / figures.updates[SHORT]
    print("| smoothed statistics | us | target |")
    print("|---|---:|---:|")
    for length, us in figures.updates.items():
        print(f"| `HistoryBuffer.update`, {length:,} values | {us:.2f} | |")
    for window, us in figures.means.items():
        name = "all" if window is None else f"the last {window:,}"
        print(f"| mean of {name} of {LONG:,} | {us:.2f} | {MEAN_TARGET_US:g} |")
    print(f"| mean of the last 10 of {SHORT:,} | {figures.short_mean:.2f} | {MEAN_TARGET_US:g} |")
    print(f"| `hub.update_scalar` | {figures.update_scalar:.2f} | {UPDATE_SCALAR_TARGET_US:g} |")
    print(
        f"| `get_log_after_iter`, {SCALARS} scalars | {figures.log_alone:.1f} | {LOG_TARGET_US:g} |"
    )
    print(f"| the same after {UPDATES_BETWEEN_LOGS} updates of each | {figures.log:.1f} | |")
    print(f"\nAn update at {LONG:,} takes {flatness:.2f} of one at {SHORT:,} ", end="")
    print(f"(target: within {FLATNESS_TARGET:g}).")
    for length, target in APPEND_TARGETS.items():
        ratio = figures.appends[length] / figures.updates[length]
        print(f"`np.append` at {length:,}: {ratio:,.0f} times as long (target: {target}).")


if __name__ == "__main__":
    main()

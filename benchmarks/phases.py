"""The time of one phase, and what phases add to the time of a ``log`` call."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.log_call import NAMES
from benchmarks.measure import median_us
from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BESIDE = "a phase of another Logger, then `log`"
_AFTER = "a phase, then `log`"
PHASE_TARGET_US = 5.0
ADDED_TARGET_US = 0.2


def run(folder: Path) -> tuple[dict[str, float], float]:
    """Measure all cases in one interleaved run.

    Args:
        folder: An empty folder for the log files.

    Returns:
        Microseconds a call by case, and those that ``log`` takes longer after a phase of its
        Logger than after one of another, which has emptied the processor's caches as much.
    """
    data = dict.fromkeys(NAMES, 1.5)
    json = Logger([JSONStreamBackend(1, folder / "json")])
    page = Logger([_page("bench-page")])
    both = Logger([JSONStreamBackend(1, folder / "both"), _page("bench-both")])
    apart = Logger([JSONStreamBackend(1, folder / "apart"), _page("bench-apart")])

    def phase_and_log(of: Logger, step: Iterator[int]) -> Callable[[int], object]:
        def call(_i: int) -> None:
            with of.phase("data_wait"):
                pass
            both.log((1, next(step)), data)

        return call

    step = itertools.count()

    cases: dict[str, Callable[[int], object]] = {
        "a phase, JSON": _phase(json),
        "a phase, Prometheus": _phase(page),
        "a phase, JSON + Prometheus": _phase(apart),
        "`log` of ten values": lambda _i: apart.log((1, next(step)), data),
        _BESIDE: phase_and_log(apart, step),
        _AFTER: phase_and_log(both, step),
        "an event": lambda _i: apart.event("happened"),
    }
    times_us = median_us(cases)
    for logger in (json, page, both, apart):
        logger.close()
    return times_us, times_us[_AFTER] - times_us[_BESIDE]


def _page(run: str) -> PrometheusBackend:
    return PrometheusBackend(1, port=0, run=run)


def _phase(logger: Logger) -> Callable[[int], object]:
    def phase(_i: int) -> None:
        with logger.phase("data_wait"):
            pass

    return phase


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        times_us, added_us = run(Path(folder))
    log_us = times_us["`log` of ten values"]
    print("| phases and events | us a call | of a `log` |")
    print("|---|---:|---:|")
    for name, us in times_us.items():
        print(f"| {name} | {us:.2f} | {us / log_us:.2f} |")
    print(
        f"\nA phase is to take less than {PHASE_TARGET_US:g} us. After one, `log` takes "
        f"{added_us:+.2f} us (target: at most {ADDED_TARGET_US:+g})."
    )

"""Interleaved rounds and medians: the machines are shared and noisy, but ratios are stable."""

from __future__ import annotations

import gc
import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROUNDS = 31
CALLS_A_ROUND = 2_000


def median_us(
    cases: Mapping[str, Callable[[int], object]],
    *,
    rounds: int = ROUNDS,
    calls: int = CALLS_A_ROUND,
) -> dict[str, float]:
    """Measure cases in turn, round by round.

    Args:
        cases: The functions to call, by name; each gets a counter.
        rounds: How many rounds; the first is discarded.
        calls: How many calls of each case in a round.

    Returns:
        The median over the rounds, in microseconds per call, by name.
    """
    times_us: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, call in cases.items():
            gc.collect()
            start_ns = time.perf_counter_ns()
            for i in range(calls):
                call(i)
            times_us[name].append((time.perf_counter_ns() - start_ns) / calls / 1000)
    return {name: statistics.median(times[1:]) for name, times in times_us.items()}

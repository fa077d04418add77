"""How long to wait before a request is repeated: ever longer, and not all ranks at one moment."""

from __future__ import annotations

import random

FIRST_WAIT_S = 0.5
"""Seconds before the first repetition of a request; doubled each time, with jitter."""

LONGEST_WAIT_S = 30.0

MAX_RETRY_AFTER_S = 300.0
"""The longest wait that a collector is granted; more is as likely a mistake."""

_MAX_DOUBLINGS = 30


def backoff_s(failures: int, retry_after_s: float | None) -> float:
    """Return the seconds until the next attempt.

    Args:
        failures: How many attempts failed before the last one.
        retry_after_s: What the collector asked for, None if it did not.
    """
    wait_s: float = min(FIRST_WAIT_S * 2 ** min(failures, _MAX_DOUBLINGS), LONGEST_WAIT_S)
    wait_s *= random.uniform(0.5, 1.0)  # noqa: S311 - no secret
    if retry_after_s is None:
        return wait_s
    return min(max(retry_after_s, wait_s), MAX_RETRY_AFTER_S)

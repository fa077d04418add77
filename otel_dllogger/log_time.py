"""The time that the training loop spent in ``log``: the price of logging, as a metric."""

from __future__ import annotations


class LogTime:
    """Add up nanoseconds spent in ``log``.

    Additions of two threads at one moment may lose one of the two: a lock would cost
    more than what it counts.
    """

    __slots__ = ("nanoseconds",)

    def __init__(self) -> None:
        self.nanoseconds = 0


LOG_TIME = LogTime()
"""The sum over all Loggers of this process."""

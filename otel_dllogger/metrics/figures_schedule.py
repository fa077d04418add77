"""When the package's own figures are observed: every quarter minute, as if they were scraped."""

from __future__ import annotations

FIGURES_INTERVAL_US = 15_000_000


class FiguresSchedule:
    """Have figures observed at the end of each quarter minute in which something happened.

    Times are microseconds of one clock, whichever it is: a process' own, or that of the
    records of a log.

    Attributes:
        due_us: The end of the quarter minute; None where nothing happened since the last
            observation.
    """

    __slots__ = ("due_us",)

    def __init__(self) -> None:
        self.due_us: int | None = None

    def note(self, time_us: int) -> None:
        """Take note that something happened, which may be earlier than what did before."""
        if self.due_us is None:
            self.due_us = (time_us // FIGURES_INTERVAL_US + 1) * FIGURES_INTERVAL_US

    def is_due(self, now_us: int) -> bool:
        """Return whether the quarter minute is over; its end still belongs to it."""
        return self.due_us is not None and now_us > self.due_us

    def take(self) -> int | None:
        """Return ``due_us`` as it was; the figures are being observed."""
        due_us, self.due_us = self.due_us, None
        return due_us

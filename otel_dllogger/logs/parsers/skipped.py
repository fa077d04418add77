"""Limits of what is read of a line, and how its reading ends."""

from __future__ import annotations

MAX_LINE_BYTES = 2**20
"""Bytes of a line that are read; what a record takes in memory is up to a hundred times that."""

MAX_NESTING = 100
"""Levels of a record; the package itself writes up to ``values.MAX_DEPTH`` and a few more."""

MAX_DIGITS = 4_300
"""Digits of a number: what Python reads by default, since its time grows with the square."""


class SkippedError(ValueError):
    """Say why something cannot be read, within this package alone.

    Args:
        reason: One of the reasons of lines, as ``diagnostics`` has them.
        detail: What it was, for people, where the reason alone leaves a question.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail

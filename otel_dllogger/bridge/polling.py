"""Looks at logs and checkpoints, again and again: for processes that run for weeks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp.exporter import backoff_s

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT_INTERVAL_S = 5.0
"""Seconds between two checkpoints, at least; after a kill, what came since is read again."""

COMMIT_SHARE = 0.05
"""The part of all time that checkpoints may take."""


class CheckpointWriter:
    """Write a checkpoint now and then: each holds all files, whichever of them grew.

    Args:
        write: Writes it, and returns whether that worked.
    """

    def __init__(self, write: Callable[[], bool]) -> None:
        self._write = write
        self._due_s = 0.0

    def hasten(self) -> None:
        """Have the next one written at once."""
        self._due_s = 0.0

    def write_if_due(self) -> None:
        """Write it if enough time has passed since the last one, given how long that took."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self.write()
            took_s = time.monotonic() - now_s
            self._due_s = now_s + max(COMMIT_INTERVAL_S, took_s / COMMIT_SHARE)

    def write(self) -> None:
        """Write it now; a failure is reported, and what follows goes on."""
        try:
            is_written = self._write()
        except Exception as error:
            DIAGNOSTICS.caught("backend_failed", "the checkpoint of a bridge", error)
        else:
            if not is_written:
                DIAGNOSTICS.warn(
                    "checkpoint_failed", "the checkpoint cannot be written: it stays as it was"
                )


class RetryingPoll:
    """Poll again and again, whatever a poll raises.

    Args:
        what: What it is, for the warning.
        poll: Polls once, and returns whether there is more to read at once.
        interval_s: Seconds to wait where there is not.
    """

    def __init__(self, what: str, poll: Callable[[], bool], interval_s: float) -> None:
        self._what = what
        self._poll = poll
        self._interval_s = interval_s
        self._failures = 0

    def poll(self) -> float:
        """Poll once; a fault is counted and reported.

        Returns:
            Seconds to wait before the next time: longer with each fault in a row.
        """
        try:
            more = self._poll()
        except Exception as error:
            DIAGNOSTICS.caught("backend_failed", self._what, error)
            self._failures += 1
            return backoff_s(self._failures - 1, None)
        self._failures = 0
        return 0.0 if more else self._interval_s

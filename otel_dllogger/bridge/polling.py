"""Repeated polls and checkpoints, for processes that run for weeks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp.exporter import backoff_s

if TYPE_CHECKING:
    from collections.abc import Callable

COMMIT_INTERVAL_S = 5.0
"""Least seconds between two checkpoints; after a kill, what came since is read again."""

COMMIT_SHARE = 0.05
"""The share of time that checkpoints may take."""


class CheckpointWriter:
    """A writer that limits how often a checkpoint is written, since each holds all files.

    Args:
        write: Writes it, and returns whether that worked.
    """

    def __init__(self, write: Callable[[], bool]) -> None:
        self._write = write
        self._due_s = 0.0

    def hasten(self) -> None:
        """Make the next checkpoint due at once."""
        self._due_s = 0.0

    def write_if_due(self) -> None:
        """Write it if enough time has passed since the last one, given how long that took."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self.write()
            took_s = time.monotonic() - now_s
            self._due_s = now_s + max(COMMIT_INTERVAL_S, took_s / COMMIT_SHARE)

    def write(self) -> None:
        """Write it now; a failure is reported, not raised."""
        try:
            is_written = self._write()
        except Exception as error:
            DIAGNOSTICS.caught("backend_failed", "bridge, writing the checkpoint", error)
        else:
            if not is_written:
                DIAGNOSTICS.warn(
                    "checkpoint_failed", "the checkpoint cannot be written: it stays as it was"
                )


class RetryingPoll:
    """A poll that is repeated, whatever it raises.

    Args:
        what: What it is called in a warning.
        poll: Polls once, and returns whether there is more to read at once.
        interval_s: Seconds to wait if there is not.
    """

    def __init__(self, what: str, poll: Callable[[], bool], interval_s: float) -> None:
        self._what = what
        self._poll = poll
        self._interval_s = interval_s
        self._failures = 0

    def poll(self) -> float:
        """Poll once; a fault is counted and reported.

        Returns:
            Seconds to wait before the next poll; longer with each fault in a row.
        """
        try:
            more = self._poll()
        except Exception as error:
            DIAGNOSTICS.caught("backend_failed", self._what, error)
            self._failures += 1
            return backoff_s(self._failures - 1, None)
        self._failures = 0
        return 0.0 if more else self._interval_s

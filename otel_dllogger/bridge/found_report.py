"""Tell the user of a bridge what it found at its start, and what makes it doubtful."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import FILE, PATH_MISSING, REASONS
from otel_dllogger.errors import count_of
from otel_dllogger.logs.findings import Announcements, merge_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.ingest import LogIngest
    from otel_dllogger.logs.ranks import Ranks
    from otel_dllogger.logs.tail.tailer import Tailer

INTERVAL_S = 10.0
"""Seconds between two looks for what makes records doubtful."""

_MAX_SHOWN = 5


class BridgeReport:
    """What is said of the logs that a bridge follows, each finding once.

    Args:
        tailer: Follows the files.
        ingest: Reads them, and is watched.
        ranks: What it read.
        tell: Takes a line for the user.
        expire_s: How long ago a file must have grown to be read.
    """

    def __init__(
        self,
        tailer: Tailer,
        ingest: LogIngest,
        ranks: Ranks,
        tell: Callable[[str], object],
        *,
        expire_s: float,
    ) -> None:
        self._tailer = tailer
        self._ingest = ingest
        self._ranks = ranks
        self._tell = tell
        self._expire_s = expire_s
        self._announcements = Announcements(tell)
        self._has_begun = False
        self._is_current = False
        self._due_s = 0.0

    def tell_if_due(self, now_s: float) -> None:
        """Say what is new; call it after each poll.

        Args:
            now_s: Seconds of a monotonic clock.
        """
        if not self._has_begun:
            self._has_begun = True
            self._tell_files()
        if self._tailer.behind or now_s < self._due_s:
            return
        self._due_s = now_s + INTERVAL_S
        found = self._ingest.new_findings()
        if not self._is_current and self._ingest.lines:
            self._is_current = True
            self._tell_runs()
            for warning in merge_warnings(found):
                self._tell(warning)
        self._announcements.announce(
            (path, [*log.found(is_over=False).all(), *log.damage()]) for path, log in found
        )

    def _tell_files(self) -> None:
        """Say which files were found, and which of them are not read."""
        files, idle = self._tailer.files, sorted(self._tailer.idle)
        self._tell(f"{count_of(len(files), 'log')} found")
        if idle:
            are = "is" if len(idle) == 1 else "are"
            self._tell(
                f"{count_of(len(idle), 'log')} {are} not read, since nothing was added within "
                f"--expire {self._expire_s / 60:g}m: {_listed(idle)}; otel-dllogger backfill reads "
                "logs of any age"
            )
        for reason, count in self._tailer.counts.items():
            if count and reason != PATH_MISSING:
                self._tell(f"{count:,} {reason}: {REASONS[FILE][reason].words}")

    def _tell_runs(self) -> None:
        """Say which runs and ranks were read, once that is known."""
        runs: dict[str, list[int]] = {}
        for rank in self._ranks:
            runs.setdefault(rank.run, []).append(rank.rank)
        if runs:
            ranks = count_of(sum(map(len, runs.values())), "rank")
            self._tell(
                f"{ranks} of {count_of(len(runs), 'run')}: "
                + _listed(f"{run} ({count_of(len(runs[run]), 'rank')})" for run in sorted(runs))
            )


def _listed(words: Iterable[str]) -> str:
    words = list(words)
    shown = ", ".join(itertools.islice(words, _MAX_SHOWN))
    more = len(words) - _MAX_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown

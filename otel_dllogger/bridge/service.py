"""The bridge, which follows growing logs for weeks and serves a page of all their ranks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from otel_dllogger.bridge.found_report import BridgeReport
from otel_dllogger.bridge.polling import CheckpointWriter, RetryingPoll
from otel_dllogger.diagnostics import DIAGNOSTICS, LINE, REASONS
from otel_dllogger.http.endpoint import MetricsEndpoint
from otel_dllogger.logs.ingest import LogIngest
from otel_dllogger.logs.ranks import DROPPED, LoggedRank, Ranks
from otel_dllogger.logs.tail.file_state import RESTARTED, FileEvent
from otel_dllogger.logs.tail.tailer import Tailer
from otel_dllogger.metrics.exposition import StorePage
from otel_dllogger.metrics.internal import RANK_METRICS, InternalMetric
from otel_dllogger.metrics.step_durations import ClassicDurations
from otel_dllogger.runtime.wakers import Waker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.logs.source import Source

POLL_INTERVAL_S = 0.5
"""Seconds between two polls while no file grows."""

RETIRE_S = 120.0
"""Seconds that a finished rank stays on the page, so that several scrapes see it finished."""

ROUND_BYTES = 1 << 20
"""Bytes that are read between two checks for a signal: a tenth of a second."""

_EXPIRE_INTERVAL_S = 1.0


class RankFeed(Protocol):
    """What shows more of the ranks than their last values.

    Attributes:
        lock: Held while items are taken.
    """

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Return what is to be held while items are taken."""
        ...

    def take(self, logged: LoggedRank, item: RankEntry) -> None:
        """Take one item of a log, in place of ``LoggedRank.take``."""
        ...

    def sync(self) -> None:
        """Show what was taken."""
        ...

    def forget(self, logged: LoggedRank) -> None:
        """Stop showing a rank."""
        ...


class Bridge:
    """A service that follows logs and shows the last values of all ranks on one page.

    Args:
        source: What to follow.
        host: The address to listen on.
        port: The port, 0 for any free one.
        port_tries: How many ports to try while they are in use, counting up.
        checkpoint: The file that stores how far everything was read, and what was read.
        expire_s: Seconds without a new line after which a rank leaves the page.
        tell: Takes lines about what was found, and what makes it doubtful; None to find nothing.
        feed: Takes all that is read, to show it elsewhere.
        live_page: The address where ``feed`` is shown.

    Raises:
        ConfigurationError: If a path or a pattern is invalid.
        EndpointError: If the page cannot be served.
    """

    def __init__(
        self,
        source: Source,
        *,
        host: str,
        port: int,
        checkpoint: str | None,
        expire_s: float,
        tell: Callable[[str], object] | None = None,
        feed: RankFeed | None = None,
        live_page: str = "",
        port_tries: int = 1,
    ) -> None:
        self._expire_s = expire_s
        durations = ClassicDurations if source.step_histogram else None
        self._ranks = Ranks(max_series=source.max_series, durations=durations)
        self._tailer = Tailer(
            source.paths, checkpoint=checkpoint, round_bytes=ROUND_BYTES, idle_s=expire_s
        )
        self._feed = feed
        self._ingest = LogIngest(
            source,
            self._ranks,
            self._tailer,
            LoggedRank.take if feed is None else feed.take,
            is_watched=tell is not None,
        )
        self._report = (
            None
            if tell is None
            else BridgeReport(self._tailer, self._ingest, self._ranks, tell, expire_s=expire_s)
        )
        self._page = StorePage((*RANK_METRICS, DROPPED), self._own_metrics())
        self._behind = False
        self._stopped = False
        self._waker = Waker()
        self._last_line_s: float | None = None
        self._checkpoint = CheckpointWriter(self._ingest.commit)
        self._expire_at_s = 0.0
        self.endpoint = MetricsEndpoint(
            self._render,
            host=host,
            port=port,
            health=self._health,
            port_tries=port_tries,
            live_page=live_page,
        )

    def run(self) -> None:
        """Follow logs until ``stop`` is called, then save how far they were read."""
        polling = RetryingPoll("bridge, reading logs", self.poll, POLL_INTERVAL_S)
        try:
            while not self._stopped:
                wait_s = polling.poll()
                if wait_s:
                    self._waker.wait(wait_s)
        finally:
            self.close()

    def close(self) -> None:
        """Save how far logs were read, and free the port and the files."""
        try:
            self._checkpoint.write()
        finally:
            self.endpoint.close()
            self._tailer.close()

    def stop(self) -> None:
        """Make ``run`` return; may be called in a signal handler."""
        self._stopped = True
        self._waker.wake()

    def poll(self) -> bool:
        """Read what has been added, and do what is due.

        Returns:
            Whether there is more to read at once.
        """
        lines = self._ingest.lines
        returned = self._tailer.poll()
        if self._feed is None:
            self._ingest.handle(returned)
        else:
            with self._feed.lock:
                self._ingest.handle(returned)
                self._feed.sync()
        if any(isinstance(event, FileEvent) and event.kind == RESTARTED for event in returned):
            # At this point the checkpoint holds nothing of the file's ranks.
            self._checkpoint.hasten()
        self._behind = self._tailer.behind  # a copy, since the tailer's changes during a poll
        now_s = time.monotonic()
        if self._ingest.lines > lines:
            self._last_line_s = now_s
        self._checkpoint.write_if_due()
        if self._report is not None:
            self._report.tell_if_due(now_s)
        if now_s >= self._expire_at_s:
            self._expire_at_s = now_s + _EXPIRE_INTERVAL_S
            self._forget_expired()
        return self._behind

    def _is_shown(self, rank: LoggedRank, now_s: float) -> bool:
        silent_s = now_s - rank.heartbeat_s
        return silent_s <= (RETIRE_S if rank.state.finished else self._expire_s)

    def _forget_expired(self) -> None:
        """Free ranks that are off the page and that no file can bring back."""
        now_s = time.time()
        hidden = (rank for rank in self._ranks if not self._is_shown(rank, now_s))
        for rank in self._ingest.unfed(hidden):
            self._ranks.forget(rank)
            if self._feed is not None:
                with self._feed.lock:
                    self._feed.forget(rank)

    def _render(self, accept: str) -> tuple[str, bytes]:
        now_s = time.time()
        shown = [rank for rank in self._ranks if self._is_shown(rank, now_s)]
        return self._page.render(shown, accept)

    def _health(self) -> dict[str, object]:
        now_s = time.time()
        since_s = None if self._last_line_s is None else time.monotonic() - self._last_line_s
        return {
            "files": len(self._tailer.files),
            "ranks": sum(self._is_shown(rank, now_s) for rank in self._ranks),
            "behind": self._behind,
            "seconds_since_last_line": since_s if since_s is None else round(since_s, 3),
        }

    def _own_metrics(self) -> tuple[InternalMetric, ...]:
        """Return the bridge's metrics about itself; their names begin with dllogger_bridge."""
        tailer, ingest = self._tailer, self._ingest
        no_skips = dict.fromkeys(REASONS[LINE], 0)

        def by_reason(counts: Mapping[str, int]) -> list[tuple[dict[str, str], float]]:
            return [({"reason": reason}, count) for reason, count in counts.items()]

        return (
            InternalMetric(
                "dllogger.bridge_files",
                "Files that are followed",
                lambda: (({}, len(tailer.files)),),
            ),
            InternalMetric(
                "dllogger.bridge_behind",
                "1 while there is more to read right away",
                lambda: (({}, self._behind),),
            ),
            InternalMetric(
                "dllogger.bridge_lines",
                "Lines that were read",
                lambda: (({}, ingest.lines),),
                is_counter=True,
            ),
            InternalMetric(
                "dllogger.bridge_skipped",
                "What lines contained other than records, by reason",
                lambda: by_reason(no_skips | ingest.skipped),
                is_counter=True,
            ),
            InternalMetric(
                "dllogger.bridge_unusual",
                "What was unusual about files, by reason",
                lambda: by_reason(tailer.counts),
                is_counter=True,
            ),
            InternalMetric(
                "dllogger.bridge_faults",
                "What the bridge itself could not do, by reason",
                lambda: by_reason(DIAGNOSTICS.dropped.copy()),
                is_counter=True,
            ),
        )

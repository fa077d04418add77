"""Every step of logs, over OTLP: read, sent, and only then remembered as read."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from typing import TYPE_CHECKING

from otel_dllogger.bridge.journal import Journal
from otel_dllogger.bridge.outbox import Stopped
from otel_dllogger.bridge.pace import Commits, Turns
from otel_dllogger.logs.ingest import open_feed
from otel_dllogger.logs.ranks import Ranks
from otel_dllogger.logs.tail.file_state import GONE, RESTARTED, LineBatch
from otel_dllogger.logs.tail.tailer import Tailer

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator

    from otel_dllogger.bridge.journal import Moment
    from otel_dllogger.bridge.outbox import Outbox
    from otel_dllogger.logs.ranks import Point, Rank
    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.logs.source import Source
    from otel_dllogger.logs.tail.fingerprint import FilePosition

POLL_INTERVAL_S = 1.0
"""Seconds between two looks at files that do not grow."""

ROUND_BYTES = 1 << 18
"""Bytes that are read before they are sent."""

_OBSERVE_AFTER_US = 15_000_000


class Delivery:
    """Send every step of logs that are followed.

    Args:
        source: What to follow.
        outbox: Where points go.
        ranks: Where ranks are kept; they may be known from other files.
        checkpoint: A file that keeps how far everything was sent.
        idle_s: As ``Tailer`` takes it; a rank whose files are gone is forgotten after it.
        since_us: Points before are not sent; microseconds since the Unix epoch.
        until_us: Points from here on are not sent.

    Raises:
        ConfigurationError: If a path or a pattern cannot mean anything.
    """

    def __init__(
        self,
        source: Source,
        outbox: Outbox,
        *,
        ranks: Ranks | None = None,
        checkpoint: str | None,
        idle_s: float = math.inf,
        since_us: int | None = None,
        until_us: int | None = None,
    ) -> None:
        self._outbox = outbox
        self._ranks = Ranks(max_series=source.max_series) if ranks is None else ranks
        self._tailer = Tailer(
            source.paths, checkpoint=checkpoint, round_bytes=ROUND_BYTES, idle_s=idle_s
        )
        self._idle_s = idle_s
        self._feed = open_feed(
            source, self._ranks, self._tailer, self._take, shares_ranks=ranks is not None
        )
        self._commits = Commits(self._commit)
        self._journal = Journal(None if checkpoint is None else f"{checkpoint}.sent")
        self._batch: LineBatch | None = None
        self._batch_lines = 0  # that the feed had read before it
        self._is_sent = False  # whether its lines were sent before a kill
        # How far each content was read since the last answer: device, inode, generation.
        self._ends: dict[tuple[int, int, int], int] = {}
        self._figures: dict[tuple[str, int], Moment] = {}  # that were added since then
        self._is_sent_whole = True  # whether what ranks have taken is sent
        self._has_begun = False
        outbox.on_answer = self._note
        self._since_us = -math.inf if since_us is None else since_us
        self._until_us = math.inf if until_us is None else until_us

    @property
    def lines(self) -> int:
        """Return how many lines were read."""
        return self._feed.lines

    def run(self, stopping: threading.Event) -> None:
        """Send what is added until the process is to end, whatever a look at logs raises."""
        turns = Turns("a look of bridge --otlp at its logs", self._turn, POLL_INTERVAL_S)
        try:
            while not stopping.is_set():
                wait_s = turns.take()
                if wait_s:
                    stopping.wait(wait_s)
        except Stopped:
            pass  # what was not taken is read again by the next start
        finally:
            self.close()

    def _turn(self) -> bool:
        more = self.poll()
        self._observe(time.time_ns() // 1000 - _OBSERVE_AFTER_US)
        self._forget_expired(time.time() - self._idle_s)
        return more

    def run_to_end(self) -> None:
        """Send what there is by now.

        Raises:
            Stopped: If the process is to end, or the collector does not take it.
        """
        while self.poll():
            pass
        self._observe(None)  # the checkpoint knows whose figures were sent before
        self._commits.write()

    def close(self) -> None:
        """Save how far everything was sent, and close the files."""
        try:
            if self._is_sent_whole:  # or a checkpoint would say more than was sent
                self._commits.write()
        finally:
            self._tailer.close()
            self._journal.close()

    def poll(self) -> bool:
        """Read some and send it; note that, and save it if that is due.

        Returns:
            Whether there was anything.

        Raises:
            Stopped: If the process is to end, or the collector does not take it.
        """
        lines = self._feed.lines
        returned = self._tailer.poll()
        if not self._has_begun:
            self._has_begun = True
            self._feed.expect(file.path for file in self._tailer.files)
        self._is_sent_whole = False
        kinds = set()
        for event in returned:
            if isinstance(event, LineBatch):
                for part in self._parts(event):
                    self._feed.handle((part,))
            else:
                kinds.add(event.kind)
                self._feed.handle((event,))
                if event.kind == GONE:
                    self._journal.forget_content((*event.file.key, event.generation))
        self._batch = None
        self._outbox.flush()
        self._ends.clear()  # what is left had no points
        self._is_sent_whole = True
        if GONE in kinds:
            # The next checkpoint knows nothing of a rank that no file is of.
            fed = self._feed.fed()
            self._send_figures(
                [rank for rank in self._ranks if (rank.run, rank.rank) not in fed], at_end=True
            )
        if RESTARTED in kinds:
            self._commits.hasten()  # the checkpoint has nothing of the file's ranks at the moment
        self._commits.write_if_due()
        return self._tailer.behind or self._feed.lines > lines

    def _commit(self) -> bool:
        self._send_figures([rank for rank in self._ranks if self._has_sent_figures(rank)])
        self._feed.save_states()
        is_saved = self._tailer.commit()
        if is_saved:
            self._journal.clear(
                {(*file.key, file.generation): file.position.offset for file in self._tailer.files}
            )
        return is_saved

    def _parts(self, batch: LineBatch) -> Iterator[LineBatch]:
        """Split lines into those that were sent before a kill, and others."""
        lines, at = batch.lines, batch.start.offset
        sent_until = self._journal.sent_until(batch.start)
        number = 0
        while number < len(lines) and at < sent_until:
            at += len(lines[number]) + 1
            number += 1
        for self._is_sent, part in ((True, lines[:number]), (False, lines[number:])):
            if part:
                self._batch = dataclasses.replace(batch, lines=part)
                self._batch_lines = self._feed.lines
                yield self._batch
        self._end_at(batch.end, batch.end.offset)

    def _end_at(self, position: FilePosition, offset: int) -> None:
        self._ends[position.device, position.inode, position.generation] = offset

    def _note(self) -> None:
        """Note how far files were sent: all that was read but the line at hand."""
        batch = self._batch
        if batch is not None:
            left = batch.lines[self._feed.lines - self._batch_lines :]
            self._end_at(batch.end, batch.end.offset - sum(len(line) + 1 for line in left))
        if self._ends or self._figures:
            self._journal.note(self._ends, self._figures)
            self._ends.clear()
            self._figures.clear()

    def _take(self, rank: Rank, item: RankEntry) -> None:
        if not self._is_sent and self._has_sent_figures(rank):
            deque(rank.observed(), maxlen=0)
        points = self._within(rank.points(item))
        if self._is_sent:
            deque(points, maxlen=0)
        else:
            self._outbox.add(rank, points)

    def _within(self, points: Iterator[Point]) -> Iterator[Point]:
        return (point for point in points if self._since_us <= point[1] < self._until_us)

    def _observe(self, before_us: int | None) -> None:
        """Send the figures of ranks that have logged nothing since, as a scrape would find them."""
        self._send_figures(
            [rank for rank in self._ranks if rank.is_due(before_us)], at_end=before_us is None
        )

    def _send_figures(self, ranks: Iterable[Rank], *, at_end: bool = False) -> None:
        """Send the figures of ranks that are due, but for those that were sent before a kill."""
        due = {rank: moment for rank in ranks if (moment := rank.observable) is not None}
        if not due:
            return
        self._is_sent_whole = False
        for rank, moment in due.items():
            if self._has_sent_figures(rank):
                deque(rank.observed(), maxlen=0)
                continue
            self._outbox.add(rank, self._within(rank.observed(at_end=at_end)))
            self._figures[rank.run, rank.rank] = moment
        self._outbox.flush()
        self._is_sent_whole = True
        for file in self._feed.touch(due.keys()):
            self._tailer.touch(file)

    def _has_sent_figures(self, rank: Rank) -> bool:
        """Tell whether a rank's figures were sent, as they are now, before a kill."""
        moment = rank.observable
        return moment is not None and self._journal.has_sent_figures(rank.run, rank.rank, moment)

    def _forget_expired(self, before_s: float) -> None:
        """Free ranks that have logged nothing since a moment and that no file can bring back."""
        silent = [rank for rank in self._ranks if rank.heartbeat_s < before_s]
        fed = self._feed.fed() if silent else set()
        for rank in silent:
            if (rank.run, rank.rank) not in fed:
                self._ranks.forget(rank)
                self._outbox.forget(rank)
                self._journal.forget_rank(rank.run, rank.rank)

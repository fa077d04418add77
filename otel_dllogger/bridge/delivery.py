"""Every step of logs, over OTLP: read, sent, and only then remembered as read."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from typing import TYPE_CHECKING

from otel_dllogger.bridge.feed import open_feed
from otel_dllogger.bridge.journal import Journal
from otel_dllogger.bridge.outbox import Stopped
from otel_dllogger.bridge.ranks import Ranks
from otel_dllogger.faults import FAULTS
from otel_dllogger.logfiles.follow import Follower
from otel_dllogger.logfiles.followed import Batch

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

    from otel_dllogger.bridge.outbox import Outbox
    from otel_dllogger.bridge.ranks import Point, Rank
    from otel_dllogger.bridge.source import Source
    from otel_dllogger.logfiles.followed import FollowedFile
    from otel_dllogger.logfiles.reader import Item

POLL_INTERVAL_S = 1.0
"""Seconds between two looks at files that do not grow."""

ROUND_BYTES = 1 << 18
"""Bytes that are read, sent and remembered together."""

_OBSERVE_AFTER_US = 15_000_000


class Delivery:
    """Send every step of logs that are followed.

    Args:
        source: What to follow.
        outbox: Where points go.
        ranks: Where ranks are kept; they may be known from other files.
        checkpoint: A file that keeps how far everything was sent.
        idle_s: As ``Follower`` takes it.
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
        self._follower = Follower(
            source.paths, checkpoint=checkpoint, round_bytes=ROUND_BYTES, idle_s=idle_s
        )
        self._feed = open_feed(source, self._ranks, self._follower, self._take)
        self._journal = Journal(None if checkpoint is None else f"{checkpoint}.sent")
        self._batch: Batch | None = None
        self._batch_lines = 0  # that the feed had read before it
        self._is_sent = False  # whether its lines were sent before a kill
        self._ends: dict[FollowedFile, int] = {}  # of what was read since the last answer
        self._has_begun = False
        outbox.on_answer = self._note
        self._since_us = -math.inf if since_us is None else since_us
        self._until_us = math.inf if until_us is None else until_us

    @property
    def lines(self) -> int:
        """Return how many lines were read."""
        return self._feed.lines

    def run(self, stopping: threading.Event) -> None:
        """Send what is added until the process is to end."""
        try:
            while not stopping.is_set():
                more = self.poll()
                self._observe(time.time_ns() // 1000 - _OBSERVE_AFTER_US)
                if not more:
                    stopping.wait(POLL_INTERVAL_S)
        except Stopped:
            pass  # what was not taken is read again by the next start
        except Exception as error:
            FAULTS.caught("backend_failed", "bridge --otlp ends", error)
        finally:
            self.close()

    def run_to_end(self) -> None:
        """Send what there is by now.

        Raises:
            Stopped: If the process is to end, or the collector does not take it.
        """
        while self.poll():
            pass
        self._observe(None)  # the checkpoint knows whose figures were sent before

    def close(self) -> None:
        """Close the files."""
        self._follower.close()
        self._journal.close()

    def poll(self) -> bool:
        """Read some, send it, and remember that.

        Returns:
            Whether there was anything.

        Raises:
            Stopped: If the process is to end, or the collector does not take it.
        """
        lines = self._feed.lines
        returned = self._follower.poll()
        if not self._has_begun:
            self._has_begun = True
            self._feed.expect(file.path for file in self._follower.files)
        for event in returned:
            for part in self._parts(event) if isinstance(event, Batch) else (event,):
                self._feed.handle((part,))
        self._batch = None
        self._outbox.flush()
        self._commit()
        return self._follower.behind or self._feed.lines > lines

    def _commit(self) -> None:
        self._feed.save_states()
        if self._follower.commit():
            self._journal.clear()
        self._ends.clear()

    def _parts(self, batch: Batch) -> Iterator[Batch]:
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
        self._ends[batch.file] = batch.end.offset

    def _note(self) -> None:
        """Note how far files were sent: all that was read but the line at hand."""
        batch = self._batch
        if batch is not None:
            left = batch.lines[self._feed.lines - self._batch_lines :]
            self._ends[batch.file] = batch.end.offset - sum(len(line) + 1 for line in left)
        if self._ends:
            self._journal.note(
                (*file.key, file.generation, end) for file, end in self._ends.items()
            )
            self._ends.clear()

    def _take(self, rank: Rank, item: Item) -> None:
        points = self._within(rank.points(item))
        if self._is_sent:
            deque(points, maxlen=0)
        else:
            self._outbox.add(rank, points)

    def _within(self, points: Iterator[Point]) -> Iterator[Point]:
        return (point for point in points if self._since_us <= point[1] < self._until_us)

    def _observe(self, before_us: int | None) -> None:
        """Send the figures of ranks that have logged nothing since, as a scrape would find them."""
        due = {rank for rank in self._ranks if rank.is_due(before_us)}
        for rank in due:
            self._outbox.add(rank, self._within(rank.observed(at_end=before_us is None)))
        self._outbox.flush()
        if due:
            for file in self._feed.touch(due):
                self._follower.touch(file)
            self._commit()

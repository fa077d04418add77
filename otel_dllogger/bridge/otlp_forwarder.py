"""Send every step of logs over OTLP, and note it as read only once it is sent.

The forwarder reads logs on its own, separately from the reader for the bridge's page. Points
depend on what their rank had logged before, so they are made while a line is read, at the
pace of a collector: a rank that is behind and the same rank up to date are two states. To
read each line only once, points would have to wait on disk for as long as an outage lasts, as
a second copy of what the logs keep already. That would save little: a line of 20 values takes
the page 10 microseconds and the forwarder 70, of which 7 are the parser's.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from typing import TYPE_CHECKING

from otel_dllogger.bridge.polling import CheckpointWriter, RetryingPoll
from otel_dllogger.bridge.sent_offsets import SentOffsets
from otel_dllogger.logs.ingest import LogIngest
from otel_dllogger.logs.ranks import Ranks
from otel_dllogger.logs.tail.file_state import GONE, RESTARTED, LineBatch
from otel_dllogger.logs.tail.tailer import Tailer
from otel_dllogger.metrics.internal import OBSERVATION_INTERVAL_US
from otel_dllogger.metrics.step_durations import ExponentialDurations
from otel_dllogger.otlp.patience import Stopped
from otel_dllogger.record import Event, Info, Record

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterable, Iterator

    from otel_dllogger.logs.findings import LogFindings
    from otel_dllogger.logs.ranks import LoggedRank, Observation, Point
    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.logs.source import Source
    from otel_dllogger.logs.tail.fingerprint import FilePosition
    from otel_dllogger.otlp.patient_exporter import PatientExporter

POLL_INTERVAL_S = 1.0
"""Seconds between two polls while no file grows."""

ROUND_BYTES = 1 << 18
"""Bytes that are read before they are sent."""


def sent_ranks(source: Source) -> Ranks:
    """Return ranks whose points go to a collector.

    Args:
        source: What is read, and how.
    """
    durations = ExponentialDurations if source.step_histogram else None
    return Ranks(max_series=source.max_series, durations=durations)


class OTLPForwarder:
    """A forwarder that sends every step of followed logs to a collector.

    Args:
        source: What to follow.
        exporter: Sends points.
        ranks: Where ranks are kept; they may be known from other files.
        checkpoint: The file that stores how far everything was sent.
        idle_s: As ``Tailer`` takes it; a rank whose files are gone is forgotten after that time.
        since_us: Earlier points are not sent; microseconds since the Unix epoch.
        until_us: Points from this time on are not sent.
        is_watched: Whether to find what makes records doubtful, for ``new_findings``.

    Raises:
        ConfigurationError: If a path or a pattern is invalid.
    """

    def __init__(
        self,
        source: Source,
        exporter: PatientExporter,
        *,
        ranks: Ranks | None = None,
        checkpoint: str | None,
        idle_s: float = math.inf,
        since_us: int | None = None,
        until_us: int | None = None,
        is_watched: bool = False,
    ) -> None:
        self._exporter = exporter
        self._ranks = sent_ranks(source) if ranks is None else ranks
        self._tailer = Tailer(
            source.paths, checkpoint=checkpoint, round_bytes=ROUND_BYTES, idle_s=idle_s
        )
        self._idle_s = idle_s
        self._ingest = LogIngest(
            source,
            self._ranks,
            self._tailer,
            self._take,
            shares_ranks=ranks is not None,
            is_watched=is_watched,
        )
        self._checkpoint = CheckpointWriter(self._commit)
        self._sent_offsets = SentOffsets(None if checkpoint is None else f"{checkpoint}.sent")
        self._batch: LineBatch | None = None
        self._batch_lines = 0  # lines that the ingest had read before it
        self._is_sent = False  # whether its lines were sent before a kill
        # How far each content was read since the last answer, by device, inode and generation.
        self._ends: dict[tuple[int, int, int], int] = {}
        self._figures: dict[tuple[str, int], Observation] = {}  # observations since then
        self._is_sent_whole = True  # whether everything that ranks took was sent
        self._has_begun = False
        exporter.on_answer = self._note
        self._since_us = -math.inf if since_us is None else since_us
        self._until_us = math.inf if until_us is None else until_us
        self.left_out = 0
        """Points that were not sent since they are outside of the time range."""

    @property
    def lines(self) -> int:
        """Return how many lines were read."""
        return self._ingest.lines

    def new_findings(self) -> list[tuple[str, LogFindings]]:
        """Return what was found since the last call, as ``LogIngest.new_findings`` does."""
        return self._ingest.new_findings()

    def run(self, stopping: threading.Event) -> None:
        """Send what is added to logs until the process is to end, whatever a poll raises."""
        polling = RetryingPoll("bridge --otlp, reading logs", self._turn, POLL_INTERVAL_S)
        try:
            while not stopping.is_set():
                wait_s = polling.poll()
                if wait_s:
                    stopping.wait(wait_s)
        except Stopped:
            pass  # what was not accepted is read again after the next start
        finally:
            self.close()

    def _turn(self) -> bool:
        more = self.poll()
        # As a scrape would find them, for ranks that have logged nothing since.
        before_us = time.time_ns() // 1000 - OBSERVATION_INTERVAL_US
        self._send_figures([rank for rank in self._ranks if rank.schedule.is_due(before_us)])
        self._forget_expired(time.time() - self._idle_s)
        return more

    def run_to_end(self) -> None:
        """Send everything that is there now.

        Raises:
            Stopped: If the process is to end, or the collector does not accept the points.
        """
        while self.poll():
            pass
        # The checkpoint knows which ranks' internal metrics were sent before.
        self._send_figures(self._ranks, at_end=True)
        self._checkpoint.write()

    def close(self) -> None:
        """Save how far everything was sent, and close the files."""
        try:
            if self._is_sent_whole:  # otherwise the checkpoint would say more than was sent
                self._checkpoint.write()
        finally:
            self._tailer.close()
            self._sent_offsets.close()

    def poll(self) -> bool:
        """Read some lines and send them; note that, and save a checkpoint if one is due.

        Returns:
            Whether there was anything.

        Raises:
            Stopped: If the process is to end, or the collector does not accept the points.
        """
        lines = self._ingest.lines
        returned = self._tailer.poll()
        if not self._has_begun:
            self._has_begun = True
            self._ingest.expect(file.path for file in self._tailer.files)
        self._is_sent_whole = False
        kinds = set()
        for event in returned:
            if isinstance(event, LineBatch):
                for part in self._parts(event):
                    self._ingest.handle((part,))
            else:
                kinds.add(event.kind)
                self._ingest.handle((event,))
                if event.kind == GONE:
                    self._sent_offsets.forget_content((*event.file.key, event.generation))
        self._batch = None
        self._exporter.flush()
        self._ends.clear()  # what is left had no points
        self._is_sent_whole = True
        if GONE in kinds:
            # The next checkpoint will know nothing of a rank that has no file.
            self._send_figures(self._ingest.unfed(self._ranks), at_end=True)
        if RESTARTED in kinds:
            # At this point the checkpoint holds nothing of the file's ranks.
            self._checkpoint.hasten()
        self._checkpoint.write_if_due()
        return self._tailer.behind or self._ingest.lines > lines

    def _commit(self) -> bool:
        self._send_figures([rank for rank in self._ranks if self._has_sent_figures(rank)])
        is_saved = self._ingest.commit()
        if is_saved:
            self._sent_offsets.clear(
                {(*file.key, file.generation): file.position.offset for file in self._tailer.files}
            )
        return is_saved

    def _parts(self, batch: LineBatch) -> Iterator[LineBatch]:
        """Split lines into those that were sent before a kill, and the others."""
        lines, at = batch.lines, batch.start.offset
        sent_until = self._sent_offsets.sent_until(batch.start)
        number = 0
        while number < len(lines) and at < sent_until:
            at += len(lines[number]) + len(batch.separator)
            number += 1
        for self._is_sent, part in ((True, lines[:number]), (False, lines[number:])):
            if part:
                self._batch = dataclasses.replace(batch, lines=part)
                self._batch_lines = self._ingest.lines
                yield self._batch
        self._end_at(batch.end, batch.end.offset)

    def _end_at(self, position: FilePosition, offset: int) -> None:
        self._ends[position.device, position.inode, position.generation] = offset

    def _note(self) -> None:
        """Note how far files were sent: everything that was read except the current line."""
        batch = self._batch
        if batch is not None:
            left = batch.lines[self._ingest.lines - self._batch_lines :]
            left_bytes = sum(map(len, left)) + len(batch.separator) * len(left)
            self._end_at(batch.end, batch.end.offset - left_bytes)
        if self._ends or self._figures:
            self._sent_offsets.note(self._ends, self._figures)
            self._ends.clear()
            self._figures.clear()

    def _take(self, rank: LoggedRank, item: RankEntry) -> None:
        if not self._is_sent and self._has_sent_figures(rank):
            deque(rank.observed(), maxlen=0)
        points = self._within(rank.points(item))
        if self._is_sent:
            deque(points, maxlen=0)
        else:
            self._exporter.add(rank.key, points)
            if isinstance(item, (Event, Info, Record)) and self._is_within(item.time_us):
                self._exporter.add_entry(rank.key, item)

    def _within(self, points: Iterator[Point]) -> Iterator[Point]:
        for point in points:
            if self._is_within(point[1]):
                yield point
            else:
                self.left_out += 1

    def _is_within(self, time_us: int) -> bool:
        return self._since_us <= time_us < self._until_us

    def _send_figures(self, ranks: Iterable[LoggedRank], *, at_end: bool = False) -> None:
        """Send the due internal metrics of ranks, except those that were sent before a kill."""
        due = {rank: one for rank in ranks if (one := rank.next_observation) is not None}
        if not due:
            return
        self._is_sent_whole = False
        for rank, observation in due.items():
            if self._has_sent_figures(rank):
                deque(rank.observed(), maxlen=0)
                continue
            self._exporter.add(rank.key, self._within(rank.observed(at_end=at_end)))
            self._figures[rank.key] = observation
        self._exporter.flush()
        self._is_sent_whole = True
        self._ingest.touch(due)

    def _has_sent_figures(self, rank: LoggedRank) -> bool:
        """Return whether a rank's internal metrics, as they are now, were sent before a kill."""
        due = rank.next_observation
        return due is not None and self._sent_offsets.has_sent_figures(rank.key, due)

    def _forget_expired(self, before_s: float) -> None:
        """Free ranks that have logged nothing since a time and that no file can bring back."""
        silent = (rank for rank in self._ranks if rank.heartbeat_s < before_s)
        for rank in self._ingest.unfed(silent):
            self._ranks.forget(rank)
            self._exporter.forget(rank.key)
            self._sent_offsets.forget_rank(rank.key)

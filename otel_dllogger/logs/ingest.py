"""Pass the lines that a tailer returns to the ranks that they belong to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS, FILE, HARMLESS, REASONS, REPEATED
from otel_dllogger.logs.findings import LogFindings
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.ranks import FAILED, LoggedRank
from otel_dllogger.logs.reader import ProcessStart
from otel_dllogger.logs.run_start import FOLLOWED_BYTES
from otel_dllogger.logs.source import LogFiles
from otel_dllogger.logs.tail.file_state import GONE, FileEvent, LineBatch, TailedFile
from otel_dllogger.record import SeriesMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.ranks import Ranks
    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.logs.source import LogFile, Source
    from otel_dllogger.logs.tail.tailer import Tailer


class _IngestedFile:
    """One file that is followed, and the ranks whose lines it held."""

    __slots__ = (
        "begun",
        "findings",
        "identity",
        "is_left_out",
        "is_repeated",
        "is_restarted",
        "log",
        "numbers",
        "reader",
    )

    def __init__(self, log: LogFile, *, is_watched: bool) -> None:
        self.log = log
        self.findings = LogFindings(log.reader) if is_watched else None
        self.identity = log.identity
        self.reader = log.reader
        self.numbers: set[int] = set()  # of the ranks
        self.begun: set[int] = set()  # ranks whose first time in this content was seen
        self.is_restarted = False
        self.is_repeated = False
        self.is_left_out = False


class LogIngest:
    """The ingest of followed files, which passes every line to the rank that it belongs to.

    Args:
        source: What is followed, and how to read it.
        ranks: Where ranks are kept.
        tailer: Follows the source; its checkpoint says where to begin.
        take: Takes an item of a rank; by default the rank itself does.
        shares_ranks: Whether files other than the tailer's may belong to the same ranks.
        is_watched: Whether to find what makes records doubtful, for ``new_findings``.

    Raises:
        ConfigurationError: If a pattern or the zone is invalid.
    """

    def __init__(
        self,
        source: Source,
        ranks: Ranks,
        tailer: Tailer,
        take: Callable[[LoggedRank, RankEntry], object] = LoggedRank.take,
        *,
        shares_ranks: bool = False,
        is_watched: bool = False,
    ) -> None:
        self._logs = LogFiles(source, tailer.covers, timing_bytes=FOLLOWED_BYTES)
        self._ranks = ranks
        self._tailer = tailer
        self._take = take
        self._shares_ranks = shares_ranks
        self._is_watched = is_watched
        self._read_since: dict[TailedFile, LogFindings] = {}
        self._files: dict[TailedFile, _IngestedFile] = {}
        self._touched: dict[TailedFile, _IngestedFile] = {}
        self.lines = 0
        self.skipped: dict[str, int] = {}
        if not self._restore(tailer.files):
            tailer.start_over()
        for reason, count in tailer.counts.items():
            if count and reason.startswith("checkpoint_"):
                DIAGNOSTICS.warn(reason, f"{tailer.checkpoint_path}: {REASONS[FILE][reason].words}")

    def _restore(self, files: Iterable[TailedFile]) -> bool:
        """Continue with the files of a checkpoint from their saved states.

        Returns:
            Whether all states could be read. If not, none of them is used: a rank may have several
            files, whose lines must not count twice.
        """
        ranks: dict[tuple[str, int], LoggedRank] = {}
        sources: dict[TailedFile, _IngestedFile] = {}
        try:
            for file in files:
                if file.state:
                    sources[file] = self._restored(file, ranks)
        except Exception:  # damaged, or from a version that knew less, or more
            return False
        for file in sources:
            file.is_known = True
        for rank in ranks.values():
            self._ranks.put(rank)
        self._files.update(sources)
        return True

    def _restored(
        self, file: TailedFile, ranks: dict[tuple[str, int], LoggedRank]
    ) -> _IngestedFile:
        state = json.loads(file.state["reader"])
        if type(state) is not dict:
            raise TypeError(f"{state!r} is not a reader's state")
        source = _IngestedFile(self._logs.open(file.path, state), is_watched=self._is_watched)
        identity = source.identity
        for number_text, text in file.state["ranks"].items():
            number = int(number_text)
            source.numbers.add(number)
            source.begun.add(number)
            rank = self._ranks.make(identity, number)
            rank.load_text(text)
            known = ranks.get((identity.run, number)) or self._ranks.find(identity.run, number)
            if known is None or rank.saves > known.saves:
                ranks[identity.run, number] = rank
        return source

    def expect(self, paths: Iterable[str]) -> None:
        """Create the ranks of files before any file is read, so that their number is known."""
        for path in paths:
            identity = self._logs.identities.of(path)
            self._ranks.of(identity, identity.rank)

    def handle(self, returned: Iterable[LineBatch | FileEvent]) -> None:
        """Process what a poll returned."""
        for event in returned:
            try:
                if isinstance(event, FileEvent):
                    self._change(event)
                else:
                    self._read(event)
            except Exception as error:  # the other files go on
                DIAGNOSTICS.caught(FAILED, f"bridge, {event.path}", error)

    def touch(self, ranks: Iterable[LoggedRank]) -> None:
        """Mark the files of these ranks to be saved, although nothing was read from them."""
        keys = {rank.key for rank in ranks}
        for file, source in self._files.items():
            if any((source.identity.run, number) in keys for number in source.numbers):
                self._touched[file] = source
                self._tailer.touch(file)

    def commit(self) -> bool:
        """Save how far each file was read, and what is known of it.

        Returns:
            Whether it is saved.
        """
        texts: dict[LoggedRank, str] = {}
        for file, source in self._touched.items():
            saved = {}
            for number in source.numbers:
                rank = self._rank(source, number)
                if rank not in texts:
                    texts[rank] = rank.to_text()
                saved[str(number)] = texts[rank]
            reader = json.dumps(source.reader.state, separators=(",", ":"))
            file.state = {"reader": reader, "ranks": saved}
        self._touched.clear()
        return self._tailer.commit()

    def new_findings(self) -> list[tuple[str, LogFindings]]:
        """Return the paths of the files that were read since the last call, and their findings.

        What a checkpoint says was read earlier is not looked at again.
        """
        found = [(file.path, findings) for file, findings in self._read_since.items()]
        self._read_since.clear()
        return found

    def unfed(self, ranks: Iterable[LoggedRank]) -> list[LoggedRank]:
        """Return those of the given ranks that no followed file can add lines to."""
        ranks = list(ranks)
        if not ranks:
            return []
        files = self._files.values()
        fed = {(source.identity.run, number) for source in files for number in source.numbers}
        return [rank for rank in ranks if rank.key not in fed]

    def _change(self, change: FileEvent) -> None:
        file = change.file
        before = self._files.pop(file, None)
        self._touched.pop(file, None)
        if change.kind == GONE:
            self._read_since.pop(file, None)
            return
        source = self._files[file] = _IngestedFile(
            self._logs.open(change.path), is_watched=self._is_watched
        )
        if before is not None:  # its ranks continue, although the file begins again
            source.numbers = before.numbers
            source.is_restarted = True
            source.reader.context.follow(before.reader.context)
            self._touched[file] = source

    def _rank(self, source: _IngestedFile, number: int) -> LoggedRank:
        source.numbers.add(number)
        return self._ranks.of(source.identity, number)

    def _begin(
        self,
        batch: LineBatch,
        source: _IngestedFile,
        number: int,
        items: list[tuple[int, RankEntry]],
    ) -> LoggedRank:
        """Return the rank whose items are next; one that begins at 0 if they were counted before.

        If a job begins its log again, time has gone on, and the counters of its rank continue.
        Content that begins before the rank's last record is an older copy of the log.
        """
        rank = self._rank(source, number)
        if number in source.begun:
            return rank
        times_us = (_time_us(item) for of, item in items if of == number)
        first_us = next(filter(None, times_us), None)
        if first_us is None:
            return rank
        source.begun.add(number)
        last_us = rank.state.last_log_us
        if last_us is None or first_us > last_us:
            return rank
        is_fed = self._shares_ranks or any(
            number in other.numbers and other.identity.run == rank.run and not file.missing
            for file, other in self._files.items()
            if other is not source
        )
        if is_fed and not source.is_restarted:
            return rank  # two logs of one rank
        if not source.is_repeated:
            source.is_repeated = True
            self._tailer.count(REPEATED)
            what = "now count twice" if is_fed else "count once, and its ranks start again from 0"
            DIAGNOSTICS.warn(
                REPEATED,
                f"{batch.path} has lines that are older than the last one read from it, as in an "
                f"older copy: they {what}",
            )
        return rank if is_fed else self._ranks.begin_anew(rank)

    def _read(self, batch: LineBatch) -> None:
        source = self._files.get(batch.file)
        if source is None:  # left out by the bridge that wrote the checkpoint
            return
        if not source.is_left_out and not source.reader.entries:  # nothing was read from it yet
            source.is_left_out = self._repeats(source.log, batch)
        if source.is_left_out:
            return
        self._touched[batch.file] = source
        reader = source.reader
        heartbeat_s = 0.0
        if batch.file.stamp is not None:
            heartbeat_s = batch.file.stamp[1] / 1e9
            source.log.observe(batch.file.stamp)
        skipped = reader.skipped
        found: dict[int, LoggedRank] = {}
        take, findings = self._take, source.findings
        if findings is not None:
            self._read_since[batch.file] = findings
        for line in batch.lines:
            try:
                items = reader.read(line)
                if not items and findings is not None:
                    findings.look(line)
                for number, item in items:
                    rank = found.get(number)
                    if rank is None:
                        rank = found[number] = self._begin(batch, source, number, items)
                    take(rank, item)
                    if findings is not None:
                        findings.take(rank, item)
            except Exception as error:  # the other lines go on
                DIAGNOSTICS.caught(FAILED, f"bridge, a line of {batch.path}", error)
                dropped = self._rank(source, source.identity.rank).dropped
                dropped[FAILED] = dropped.get(FAILED, 0) + 1
            self.lines += 1
        for rank in found.values():
            rank.heartbeat_s = max(rank.heartbeat_s, heartbeat_s)
        self._count(source, skipped)

    def _repeats(self, log: LogFile, batch: LineBatch) -> bool:
        """Return whether another log, which is read instead, holds the same."""
        return log.repeats_other(batch.lines) or self._logs.repeats_twin(
            batch.path, self._formats_of
        )

    def _formats_of(self, path: str) -> set[str]:
        """Return the formats of what was read of a file so far."""
        sources = (source for file, source in self._files.items() if file.path == path)
        return {log_format for source in sources for log_format in source.reader.entries}

    def _count(self, source: _IngestedFile, before: dict[str, int]) -> None:
        for reason, count in source.reader.skipped.items():
            more = count - before.get(reason, 0)
            if more:
                self.skipped[reason] = self.skipped.get(reason, 0) + more
                if reason not in HARMLESS:
                    dropped = self._rank(source, source.identity.rank).dropped
                    dropped[reason] = dropped.get(reason, 0) + more


def _time_us(item: RankEntry) -> int | None:
    """Return when an item was logged, None if that could only be guessed."""
    if isinstance(item, (SeriesMetadata, ProcessStart)) or (
        isinstance(item, FileRecord) and item.interpolated
    ):
        return None
    return item.time_us

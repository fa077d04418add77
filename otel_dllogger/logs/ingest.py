"""From what a tailer returns to the ranks that the lines are of."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DIAGNOSTICS, FILE, HARMLESS, REASONS, REPEATED
from otel_dllogger.logs.duplicates import has_json_twin, is_text
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.parsers.times import parse_zone
from otel_dllogger.logs.ranks import FAILED
from otel_dllogger.logs.reader import ProcessStart, SeriesMetadata
from otel_dllogger.logs.run_identity import is_copy
from otel_dllogger.logs.source import open_reader
from otel_dllogger.logs.tail.file_state import GONE, FileEvent, LineBatch, TailedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.logs.ranks import Rank, Ranks
    from otel_dllogger.logs.reader import FileReader, RankEntry
    from otel_dllogger.logs.run_identity import RunIdentity
    from otel_dllogger.logs.source import Source
    from otel_dllogger.logs.tail.tailer import Tailer


class _File:
    """One file: who reads it, and whose lines it held."""

    __slots__ = (
        "begun",
        "identity",
        "is_left_out",
        "is_repeated",
        "is_restarted",
        "numbers",
        "reader",
    )

    def __init__(self, identity: RunIdentity, reader: FileReader) -> None:
        self.identity = identity
        self.reader = reader
        self.numbers: set[int] = set()  # of the ranks
        self.begun: set[int] = set()  # those of which this content has shown its first time
        self.is_restarted = False
        self.is_repeated = False
        self.is_left_out = False


class LogFeed:
    """Hand every line of files that are followed to the rank that it is of.

    Args:
        source: What is followed, and how to read it.
        ranks: Where ranks are kept.
        tailer: Follows it.
        take: Takes an item of a rank; by default the rank itself does.
        shares_ranks: Whether other files than those of the tailer may be of the ranks.

    Raises:
        ConfigurationError: If a pattern or the zone cannot mean anything.
    """

    def __init__(
        self,
        source: Source,
        ranks: Ranks,
        tailer: Tailer,
        take: Callable[[Rank, RankEntry], None] | None = None,
        *,
        shares_ranks: bool = False,
    ) -> None:
        parse_zone(source.zone)
        self._source = source
        self._identities = source.identities()
        self._ranks = ranks
        self._tailer = tailer
        self._covers = tailer.covers
        self._take = take or _take
        self._shares_ranks = shares_ranks
        self._sources: dict[TailedFile, _File] = {}
        self._touched: dict[TailedFile, _File] = {}
        self.lines = 0
        self.skipped: dict[str, int] = {}

    def restore(self, files: Iterable[TailedFile]) -> bool:
        """Go on with the files of a checkpoint as their states say; before the first poll.

        Returns:
            Whether all could be understood; if not, nothing is known of any: ranks may be of
            several files, whose lines must not count twice.
        """
        ranks: dict[tuple[str, int], Rank] = {}
        sources: dict[TailedFile, _File] = {}
        try:
            for file in files:
                if file.state and not is_copy(file.path, self._covers):
                    sources[file] = self._restored(file, ranks)
        except Exception:  # damage, or of a version that knew less, or more
            return False
        for file in sources:
            file.is_known = True
        for rank in ranks.values():
            self._ranks.put(rank)
        self._sources.update(sources)
        return True

    def _restored(self, file: TailedFile, ranks: dict[tuple[str, int], Rank]) -> _File:
        identity = self._identities.of(file.path)
        state = json.loads(file.state["reader"])
        if type(state) is not dict:
            raise TypeError(f"{state!r} is not a reader's state")
        source = _File(identity, open_reader(self._source, identity, file.path, state))
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
        """Know of the ranks of files before one of them is read, and so how many there are."""
        for path in paths:
            identity = self._identities.of(path)
            self._ranks.of(identity, identity.rank)

    def handle(self, returned: Iterable[LineBatch | FileEvent]) -> None:
        """Take what a poll returned."""
        for event in returned:
            try:
                if isinstance(event, FileEvent):
                    self._change(event)
                else:
                    self._read(event)
            except Exception as error:  # the other files go on
                DIAGNOSTICS.caught(FAILED, f"bridge, {event.path}", error)

    def touch(self, ranks: Iterable[Rank]) -> list[TailedFile]:
        """Have the states of files saved that hold one of these ranks, and return the files."""
        keys = {(rank.run, rank.rank) for rank in ranks}
        files = {
            file: source
            for file, source in self._sources.items()
            if any((source.identity.run, number) in keys for number in source.numbers)
        }
        self._touched.update(files)
        return list(files)

    def save_states(self) -> None:
        """Put what is known of each file that was read into its state, for the next commit."""
        texts: dict[Rank, str] = {}
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

    def fed(self) -> set[tuple[str, int]]:
        """Return run and rank of all whose files are followed."""
        return {
            (source.identity.run, number)
            for source in self._sources.values()
            for number in source.numbers
        }

    def _change(self, change: FileEvent) -> None:
        file = change.file
        before = self._sources.pop(file, None)
        self._touched.pop(file, None)
        if change.kind == GONE or is_copy(change.path, self._covers):
            return
        identity = self._identities.of(change.path)
        source = _File(identity, open_reader(self._source, identity, change.path))
        self._sources[file] = source
        if before is not None:  # its ranks go on, though the file begins anew
            source.numbers = before.numbers
            source.is_restarted = True
            self._touched[file] = source

    def _rank(self, source: _File, number: int) -> Rank:
        source.numbers.add(number)
        return self._ranks.of(source.identity, number)

    def _begin(
        self, batch: LineBatch, source: _File, number: int, items: list[tuple[int, RankEntry]]
    ) -> Rank:
        """Return a rank whose items are next; one that begins at 0 where they were counted before.

        A job that begins its log anew goes on in time, and so do its rank's counters. A
        content that begins before the rank's last record is an older copy of the log.
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
            for file, other in self._sources.items()
            if other is not source
        )
        if is_fed and not source.is_restarted:
            return rank  # two logs of one rank
        if not source.is_repeated:
            source.is_repeated = True
            self._tailer.count(REPEATED)
            what = "now count twice" if is_fed else "count once: its ranks begin at 0"
            DIAGNOSTICS.warn(
                REPEATED,
                f"{batch.path} has lines from before the last one that was read of it, as an "
                f"older copy: they {what}",
            )
        return rank if is_fed else self._ranks.begin_anew(rank)

    def _read(self, batch: LineBatch) -> None:
        source = self._sources.get(batch.file)
        if source is None:  # a copy of another file
            return
        if not source.is_left_out and not source.reader.entries:  # nothing was read of it yet
            source.is_left_out = any(map(is_text, batch.lines)) and has_json_twin(
                batch.path, self._identities, self._covers
            )
        if source.is_left_out:
            return
        self._touched[batch.file] = source
        reader = source.reader
        heartbeat_s = 0.0
        if batch.file.stamp is not None:
            size_bytes, modified_ns = batch.file.stamp
            heartbeat_s = modified_ns / 1e9
            reader.observe(size_bytes=size_bytes, modified_us=modified_ns // 1000)
        skipped = reader.skipped
        found: dict[int, Rank] = {}
        take = self._take
        for line in batch.lines:
            try:
                items = reader.read(line)
                for number, item in items:
                    rank = found.get(number)
                    if rank is None:
                        rank = found[number] = self._begin(batch, source, number, items)
                    take(rank, item)
            except Exception as error:  # the other lines go on
                DIAGNOSTICS.caught(FAILED, f"bridge, a line of {batch.path}", error)
                dropped = self._rank(source, source.identity.rank).dropped
                dropped[FAILED] = dropped.get(FAILED, 0) + 1
            self.lines += 1
        for rank in found.values():
            rank.heartbeat_s = max(rank.heartbeat_s, heartbeat_s)
        self._count(source, skipped)

    def _count(self, source: _File, before: dict[str, int]) -> None:
        for reason, count in source.reader.skipped.items():
            more = count - before.get(reason, 0)
            if more:
                self.skipped[reason] = self.skipped.get(reason, 0) + more
                if reason not in HARMLESS:
                    dropped = self._rank(source, source.identity.rank).dropped
                    dropped[reason] = dropped.get(reason, 0) + more


def _time_us(item: RankEntry) -> int | None:
    """Return when an item was logged, None where nothing but a guess says it."""
    if isinstance(item, (SeriesMetadata, ProcessStart)) or (
        isinstance(item, FileRecord) and item.interpolated
    ):
        return None
    return item.time_us


def _take(rank: Rank, item: RankEntry) -> None:
    rank.take(item)


def open_feed(
    source: Source,
    ranks: Ranks,
    tailer: Tailer,
    take: Callable[[Rank, RankEntry], None] | None = None,
    *,
    shares_ranks: bool = False,
) -> LogFeed:
    """Return what hands lines to ranks, with all that the tailer's checkpoint knows of them.

    Args:
        source: What is followed, and how to read it.
        ranks: Where ranks are kept.
        tailer: Follows its paths.
        take: As ``LogFeed`` takes it.
        shares_ranks: As ``LogFeed`` takes it.

    Raises:
        ConfigurationError: If a pattern or the zone cannot mean anything.
    """
    feed = LogFeed(source, ranks, tailer, take, shares_ranks=shares_ranks)
    if not feed.restore(tailer.files):
        tailer.start_over()
    for reason, count in tailer.counts.items():
        if count and reason.startswith("checkpoint_"):
            DIAGNOSTICS.warn(reason, f"{tailer.checkpoint_path}: {REASONS[FILE][reason].words}")
    return feed

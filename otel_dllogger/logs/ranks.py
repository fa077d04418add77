"""Ranks of many runs in one process, each as its own log tells of it."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DAMAGE
from otel_dllogger.identity import Topology, host_name
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.reader import ProcessStart, SeriesMetadata
from otel_dllogger.metrics.data_points import FIGURES_INTERVAL_S, Points, Series
from otel_dllogger.metrics.decided_names import Names
from otel_dllogger.metrics.internal import DROPPED_TEXT, Figure, View
from otel_dllogger.metrics.store import DEFAULT_MAX_SERIES, SeriesStore
from otel_dllogger.record import Info, Metadata, Record, is_parameter_step, step_position

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.logs.run_identity import RunIdentity
    from otel_dllogger.metrics.rank_state import RankState

_INTERVAL_US = int(FIGURES_INTERVAL_S * 1e6)
_LAST_TIME_US = 2**63 // 1000 - 1  # nanoseconds of 64 bits: the year 2262

Point = tuple[Series, int, float]
"""A series, microseconds since the Unix epoch, and a value."""


class Rank(View):
    """Hold one rank of one run: what it logged, and who it is.

    Args:
        run: The run's name.
        rank: The rank.
        host: Where it runs.
        max_series: Series that it has at most.

    Attributes:
        heartbeat_s: When a file of it last grew, seconds since the Unix epoch.
        dropped: Lines that gave no record though they should have, by reason.
        moves: How often metadata that came late has moved series to other names.
        saves: How often it was saved: of two texts the one of more saves is newer.
    """

    __slots__ = (
        "_last_us",
        "_moved_us",
        "_observe_at_us",
        "_points",
        "dropped",
        "heartbeat_s",
        "moves",
        "rank",
        "run",
        "saves",
    )

    def __init__(
        self, run: str, rank: int, host: str, *, max_series: int = DEFAULT_MAX_SERIES
    ) -> None:
        store = SeriesStore(run=run, rank=rank, start_us=0, max_series=max_series)
        topology = Topology(run, rank, -1, rank + 1, 1, host, -1)
        super().__init__(store, Names(store), topology)
        self.run = run
        self.rank = rank
        self.heartbeat_s = 0.0
        self.dropped: dict[str, int] = {}
        self.moves = 0
        self.saves = 0
        self._points = Points(self, start_us=0, of_process=False)
        self._observe_at_us: int | None = None
        self._moved_us = -1
        self._last_us = -1  # the latest time so far, whatever came after it

    @property
    def state(self) -> RankState:
        """Return what the rank logged last."""
        return self.store.ranks[self.rank]

    def take(self, item: RankEntry) -> None:
        """Take one item of a log."""
        if isinstance(item, SeriesMetadata):
            self.store.describe(item.key, item.metadata, name=item.name)
            return
        if isinstance(item, ProcessStart):
            self._start(item)
            return
        self._begin(item)
        if isinstance(item, Record):
            if isinstance(item, FileRecord) and item.interpolated:
                item.elapsed_us = 0  # such a time says nothing of how long a step took
            self.store.record(item)
        elif isinstance(item, Metadata):
            self.store.write_metadata(item)
        else:
            self.store.write_info(item)

    def points(self, item: RankEntry) -> Iterator[Point]:
        """Take one item of a log, and yield the points that it makes.

        Each value has the record's time. The figures have one point at the first quarter
        minute after a record, as if they were scraped then.
        """
        time_us = None
        if not isinstance(item, (SeriesMetadata, ProcessStart)):
            time_us = min(max(item.time_us, 0), _LAST_TIME_US)
            self._last_us = max(self._last_us, time_us)
        due_us = self._observe_at_us
        if time_us is not None and due_us is not None and time_us > due_us:
            yield from self.observed()
        self.take(item)
        if self.store.changed_metadata and self.names.take_changes():
            self.moves += 1
        if time_us is not None and self._observe_at_us is None:
            self._observe_at_us = (time_us // _INTERVAL_US + 1) * _INTERVAL_US
        if time_us is None or not isinstance(item, Record) or is_parameter_step(item.step):
            return
        state = self.state
        granularity = step_position(item.step).granularity
        for series, value in self._points.logged(item, state, granularity):
            yield series, time_us, value
        for series, value in self._points.moved(state):
            self._moved_us = time_us
            yield series, time_us, value

    @property
    def observable(self) -> tuple[int, int] | None:
        """Return the moment that the figures are due of, None if they were observed since.

        That is the time that they will have, and how many items were taken by now.
        """
        if self._observe_at_us is None:
            return None
        return self._observe_at_us, self.state.logs + sum(self.state.calls.values())

    def is_due(self, before_us: int | None) -> bool:
        """Tell whether figures were not observed since the last record, and it is time to.

        Args:
            before_us: Only if the time to was before that; None: whenever it is.
        """
        due_us = self._observe_at_us
        return due_us is not None and (before_us is None or due_us < before_us)

    def observed(self, *, at_end: bool = False) -> Iterator[Point]:
        """Yield the figures as they are, unless they were observed since the last record.

        Args:
            at_end: They have the time of the latest item, since nobody knows of a later one;
                otherwise that of the quarter minute after it.
        """
        time_us, self._observe_at_us = self._observe_at_us, None
        if time_us is not None:
            if at_end and self._last_us >= 0:
                time_us = self._last_us
            # Where epoch and iteration have a point of this time, a second one says nothing.
            with_place = time_us // 1000 != self._moved_us // 1000
            for series, value in self._points.observed(with_place=with_place):
                yield series, time_us, value

    def _begin(self, item: Record | Metadata | Info) -> None:
        """Take note of when the rank started, with its first item that has a time."""
        state = self.state
        if not state.start_us:
            state.start_us = self._points.start_us = item.time_us - item.elapsed_us

    def _start(self, started: ProcessStart) -> None:
        """Take note of another process; of the first of a file only if it came after the last."""
        state, attempts = self.state, started.attempts
        if not attempts and state.last_log_us is not None:
            attempts = int(started.start_us >= state.last_log_us)
        if attempts:
            attempt = max(self.topology.attempt + attempts, 1)
            self.topology = dataclasses.replace(self.topology, attempt=attempt)
            state.start_us = started.start_us

    def to_text(self) -> str:
        """Return all that is known, for a checkpoint."""
        self.saves += 1
        # Python's own JSON: NaN, numbers of any length and half surrogates go through.
        return json.dumps(
            {
                "attempt": self.topology.attempt,
                "host": self.topology.host,
                "heartbeat_s": self.heartbeat_s,
                "saves": self.saves,
                "observe_at_us": self._observe_at_us,
                "dropped": self.dropped,
                "store": self.store.to_plain(),
            },
            separators=(",", ":"),
        )

    def load_text(self, text: str) -> None:
        """Take what ``to_text`` gave, into a rank that is new.

        Raises:
            LookupError, TypeError, ValueError: If it is not that.
        """
        plain = json.loads(text)
        self.store.load_plain(plain["store"])
        self.topology = dataclasses.replace(
            self.topology, attempt=int(plain["attempt"]), host=str(plain["host"])
        )
        self.heartbeat_s = float(plain["heartbeat_s"])
        self.saves = int(plain["saves"])
        due_us = plain["observe_at_us"]
        self._observe_at_us = None if due_us is None else int(due_us)
        self._points.start_us = self.state.start_us
        self.dropped = {reason: int(count) for reason, count in plain["dropped"].items()}


FAILED = "backend_failed"

DROPPED_REASONS = (FAILED, *DAMAGE)
"""Why a line gave no record though it should have: each exists at 0 from the start."""


def _dropped(view: View) -> Iterator[tuple[dict[str, str], float]]:
    if isinstance(view, Rank):
        for reason in DROPPED_REASONS:
            yield {**view.of_process(), "reason": reason}, float(view.dropped.get(reason, 0))


DROPPED = Figure("dllogger.dropped", "", True, DROPPED_TEXT, _dropped)
"""The lines of a rank's log that gave no record though they should have."""


class Ranks:
    """Keep the ranks of many runs.

    Args:
        max_series: Series that one rank has at most.
    """

    def __init__(self, *, max_series: int = DEFAULT_MAX_SERIES) -> None:
        self._max_series = max_series
        self._host = host_name()
        self._runs: dict[str, dict[int, Rank]] = {}

    def __iter__(self) -> Iterator[Rank]:
        """Iterate over the ranks of all runs."""
        return (rank for ranks in list(self._runs.values()) for rank in list(ranks.values()))

    def of(self, identity: RunIdentity, number: int) -> Rank:
        """Return a rank, a new one where it is not yet known.

        Args:
            identity: Whose lines the file holds that speaks of it.
            number: The rank, which need not be the file's.
        """
        found = self.find(identity.run, number)
        if found is None:
            found = self.make(identity, number)
            self.put(found)
        return found

    def find(self, run: str, rank: int) -> Rank | None:
        """Return a rank, None where it is not yet known."""
        return self._runs.get(run, {}).get(rank)

    def make(self, identity: RunIdentity, number: int) -> Rank:
        """Return a rank that is not yet kept; where no host is named it is of this one."""
        host = identity.host or self._host
        return Rank(identity.run, number, host, max_series=self._max_series)

    def put(self, rank: Rank) -> None:
        """Keep a rank, in the place of another one of its number."""
        ranks = self._runs.setdefault(rank.run, {})
        ranks[rank.rank] = rank
        # A log does not say how many ranks there are.
        size = max(ranks) + 1
        for each in ranks.values():
            if each.topology.world_size != size:
                each.topology = dataclasses.replace(each.topology, world_size=size)

    def begin_anew(self, rank: Rank) -> Rank:
        """Put another one in the place of a rank, with figures that begin at 0."""
        host = rank.topology.host
        fresh = Rank(rank.run, rank.rank, host, max_series=self._max_series)
        fresh.saves = rank.saves
        self.put(fresh)
        return fresh

    def forget(self, rank: Rank) -> None:
        """Keep a rank no longer."""
        ranks = self._runs.get(rank.run, {})
        if ranks.pop(rank.rank, None) is not None and not ranks:
            del self._runs[rank.run]

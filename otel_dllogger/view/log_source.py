"""The model of runs, filled from their logs: all that they hold, then what is added to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_dllogger.logs.ingest import LogIngest
from otel_dllogger.logs.ranks import DROPPED, Ranks
from otel_dllogger.logs.reader import ProcessStart
from otel_dllogger.logs.tail.tailer import Tailer
from otel_dllogger.metrics.internal import RANK_METRICS
from otel_dllogger.metrics.naming import label_text
from otel_dllogger.record import EPOCH, HANG, ITERATION, Event, Record
from otel_dllogger.view.facts import note
from otel_dllogger.view.hangs import Hang
from otel_dllogger.view.model import TRAIL_S

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from otel_dllogger.logs.ranks import LoggedRank
    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.logs.source import Source
    from otel_dllogger.metrics.rank_state import RankState
    from otel_dllogger.view.model import Model, Rank, Series

_ROUND_BYTES = 1 << 20  # a tenth of a second, for which views wait
_METRICS = (*RANK_METRICS, DROPPED)


class LogFeed:
    """A feed of a model from what the readers of logs return.

    Args:
        model: The model.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._ranks: dict[LoggedRank, _FedRank] = {}
        self._touched: dict[_FedRank, None] = {}

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Return what is to be held while items are taken."""
        return self._model.lock

    def take(self, logged: LoggedRank, item: RankEntry) -> None:
        """Take one item of a log, in place of ``LoggedRank.take``."""
        fed = self._ranks.get(logged)
        if fed is None:
            fed = self._ranks[logged] = _FedRank(logged, self._model)
        self._touched[fed] = None
        fed.take(item)

    def sync(self) -> None:
        """Bring what is known of the ranks to what was taken; call it before views look."""
        if self._touched:
            for fed in self._touched:
                fed.sync()
            self._touched.clear()
            self._model.revision += 1

    def forget(self, logged: LoggedRank) -> None:
        """Stop feeding a rank, and take it out of the model."""
        fed = self._ranks.pop(logged, None)
        if fed is not None:
            self._touched.pop(fed, None)
            self._model.forget(fed.rank)


class _FedRank:
    """A rank of logs, and its counterpart in the model."""

    def __init__(self, logged: LoggedRank, model: Model) -> None:
        self._logged = logged
        self._model = model
        self._series: dict[str, dict[str, Series]] = {}
        self._trail_due_s = 0.0
        self.rank: Rank = model.rank(logged.run, logged.rank)
        if not self.rank.is_logged:  # what its page said of its past is in the log as well
            model.clear(self.rank)
        self.rank.is_logged = True

    def take(self, item: RankEntry) -> None:
        logged = self._logged
        state = logged.take(item)
        if logged.store.changed_metadata:
            self._rename(logged.apply_late_metadata())
        if state is not None and isinstance(item, Record):
            self._add(item, state)
        elif isinstance(item, ProcessStart):
            self.sync()
        elif isinstance(item, Event) and item.name == HANG:
            self.rank.hang = Hang.of(item)

    def _add(self, record: Record, state: RankState) -> None:
        rank, axis = self.rank, self.rank.axis
        time_s = record.time_us / 1e6
        if time_s >= self._trail_due_s or rank.start_s is None:
            self.sync()
            rank.leave_trail(time_s)
            self._trail_due_s = time_s + TRAIL_S
        granularity = record.granularity
        if granularity is ITERATION:
            axis.move(state.epoch, state.iteration)
        elif record.position.place:
            epoch, iteration = record.position.place
            axis.move(epoch, None if granularity is EPOCH or axis.has_iterations else iteration)
        known = self._series.get(granularity)
        if known is None:
            known = self._series[granularity] = {}
        place = (axis.x, time_s, axis.segment)
        for key, number in record.numbers.items():
            series = known.get(key)
            if series is None:
                if key not in state.cells[granularity]:  # beyond the limit, or the rank label
                    continue
                series = known[key] = self._model.series(rank, *self._labels(key, granularity))
            series.history.append(number, place)

    def _labels(self, key: str, granularity: str) -> tuple[str, dict[str, str]]:
        logged = self._logged
        labels = logged.series_labels(key, str(logged.rank), granularity)
        return logged.mapped(key).prometheus_name, labels

    def _rename(self, keys: list[str]) -> None:
        for granularity, known in self._series.items():
            for key in keys:
                if key in known:
                    self._model.rename(self.rank, known[key], *self._labels(key, granularity))

    def sync(self) -> None:
        rank, logged = self.rank, self._logged
        rank.nonfinite.clear()
        rank.best.clear()
        for metric in _METRICS:
            name = metric.prometheus_name
            for labels, value in metric.observe(logged):
                if value or not name.startswith("dllogger_run_start"):  # 0: not known yet
                    note(rank, name, labels, value)
        for name, text in logged.state.texts.items():
            rank.parameters[label_text(name)] = text


class LogSource:
    """A source that reads logs from their beginnings, and follows them.

    Args:
        source: The logs, and how to read them.
        model: The model to fill.

    Raises:
        ConfigurationError: If a path or a pattern is invalid.
    """

    def __init__(self, source: Source, model: Model) -> None:
        self._model = model
        self._tailer = Tailer(source.paths, round_bytes=_ROUND_BYTES, in_sequence=True)
        self._feed = LogFeed(model)
        self._ingest = LogIngest(
            source, Ranks(max_series=source.max_series), self._tailer, self._feed.take
        )

    @property
    def files(self) -> int:
        """Return how many logs are followed."""
        return len(self._tailer.files)

    @property
    def progress(self) -> tuple[int, int]:
        """Return how many bytes were read, and how many the logs have."""
        files = self._tailer.files
        sizes = [0 if file.stamp is None else file.stamp[0] for file in files]
        read = (file.fingerprint.offset for file in files)
        return sum(map(min, read, sizes)), sum(sizes)

    def poll(self) -> bool:
        """Read what there is, for a tenth of a second; return whether there is more."""
        returned = self._tailer.poll()
        with self._model.lock:
            self._ingest.handle(returned)
            self._feed.sync()
        return self._tailer.behind

    def close(self) -> None:
        """Close the files."""
        self._tailer.close()

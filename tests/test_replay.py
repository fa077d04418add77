"""From the queue of what was logged to points in the backlog, without a thread or a collector."""

from __future__ import annotations

from otel_dllogger.faults import FAULTS
from otel_dllogger.metrics.figures import View
from otel_dllogger.metrics.names import Names
from otel_dllogger.metrics.points import FIGURES_INTERVAL_S, Points
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.otlp.batches import Backlog
from otel_dllogger.otlp.queue import EntryQueue
from otel_dllogger.otlp.replay import Replay
from otel_dllogger.topology import detect_topology

START_US = 1_700_000_000_000_000
ROOM_BYTES = 1 << 20


class Pipeline:
    """A queue, its replay and the backlog behind it, on a clock that the test moves."""

    def __init__(self, *, max_series=1000, max_queue_bytes=ROOM_BYTES, backlog_bytes=ROOM_BYTES):
        topology = detect_topology(run="r", rank=0)
        self.now_s = 0.0
        self.store = SeriesStore(run="r", rank=0, start_us=START_US, max_series=max_series)
        points = Points(
            View(self.store, Names(self.store), topology), start_us=START_US, of_process=True
        )
        self.queue = EntryQueue(max_queue_bytes, lambda: None)
        self.backlog = Backlog(backlog_bytes)
        self.replay = Replay(
            self.queue,
            self.backlog,
            points,
            max_queue_bytes=max_queue_bytes,
            clock=lambda: self.now_s,
        )

    def log(self, step, **numbers):
        self.queue.put((START_US + step * 1000, step, (0, step), numbers), len(numbers))

    def take(self, *, observe=False):
        """Let the replay take what was logged, and return the new points: (name, value)."""
        self.replay.take(observe=observe)
        found = []
        while len(self.backlog):
            for series, column in self.backlog.take_oldest().columns.items():
                found += [(series.describe().name, value) for value in column.values]
        return found


def logged(points):
    """Leave out what the package knows itself."""
    return {name: value for name, value in points if name.startswith("dl.")}


def observed(points):
    """Tell whether the figures were observed: a point that only an observation makes."""
    return "dllogger.rank_info" in {name for name, _ in points}


def test_an_entry_that_fails_costs_only_itself():
    """The entries around it arrive, it is counted, and what is left to take is right throughout."""
    pipeline, left = Pipeline(), []
    pipeline.store.on_new_series = lambda: left.append(pipeline.replay.left)
    pipeline.log(1, a=1.0, b=2.0)
    pipeline.log(2, broken="text where only numbers are")
    pipeline.log(3, c=3.0, d=4.0, e=5.0)
    points = logged(pipeline.take())
    assert {"dl.a": 1.0, "dl.b": 2.0, "dl.c": 3.0, "dl.d": 4.0, "dl.e": 5.0} == points
    assert [6, 4, 3] == left
    assert 0 == pipeline.replay.left
    assert 1 == FAULTS.dropped["backend_failed"] == sum(FAULTS.dropped.values())


def test_figures_are_observed_at_the_interval_of_a_scrape():
    """With the first entry, again once the interval is over, and whenever it is asked for."""
    pipeline = Pipeline()
    assert not observed(pipeline.take())
    pipeline.log(1, loss=1.0)
    assert observed(pipeline.take())
    for _ in range(2):
        pipeline.now_s += FIGURES_INTERVAL_S - 0.1
        pipeline.log(2, loss=1.0)
        assert not observed(pipeline.take())
        pipeline.now_s += 0.1
        assert observed(pipeline.take())
    assert observed(pipeline.take(observe=True))


def test_values_beyond_the_limit_of_series_are_warned_of(caplog):
    """The warning names the limit and what to do; the counter says how many there were."""
    pipeline = Pipeline(max_series=len(FAULTS.dropped) + 20)
    for step in range(100):
        pipeline.log(step, **{f"name_{step}": 1.0})
    points = pipeline.take()
    assert 100 == len(logged(points)) + FAULTS.dropped["series_limit"]
    (message,) = caplog.messages
    assert f"more than {pipeline.store.max_series} series" in message
    assert "max_series=" in message

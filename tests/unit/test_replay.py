"""From the queue of what was logged to points in the backlog, without a thread or a collector."""

from __future__ import annotations

import time

import pytest

from otel_dllogger.diagnostics import DIAGNOSTICS, OTLP
from otel_dllogger.identity import detect_topology
from otel_dllogger.metrics.data_points import DataPoints, Series
from otel_dllogger.metrics.exported_store import ExportedStore
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.otlp.batches import MAX_POINTS, MAX_SPAN_US, Backlog, Batch
from otel_dllogger.otlp.queue import (
    ENTRY_BYTES,
    NUMBER_BYTES,
    QUEUE_SHARE,
    EntryQueue,
    Finish,
    count_values,
)
from otel_dllogger.otlp.replay import Replay
from otel_dllogger.record import Info, Metadata, Record
from tests.support.command import assert_forked_child_answers
from tests.support.ids import repr_without_address

START_US = 1_700_000_000_000_000
RESOURCE = ("r", 0)
ROOM_BYTES = 1 << 20
INTERNAL_METRICS_INTERVAL_S = 15.0  # as the documentation of OTLPBackend says
SPARE_SHARE = 16  # of its limit, which a queue frees at once when it is full


class Pipeline:
    """A queue, its replay and the backlog behind it, on a clock that the test moves."""

    def __init__(self, *, max_series=1000, max_queue_bytes=ROOM_BYTES, backlog_bytes=ROOM_BYTES):
        topology = detect_topology(run="r", rank=0)
        self.now_s = 0.0
        self.store = SeriesStore(run="r", rank=0, start_us=START_US, max_series=max_series)
        self.points = DataPoints(
            ExportedStore(self.store, topology), start_us=START_US, of_process=True
        )
        DIAGNOSTICS.count_from_zero(OTLP)
        self.queue = EntryQueue(max_queue_bytes, lambda: None)
        self.backlog = Backlog(backlog_bytes, Batch)
        self.replay = Replay(
            self.queue,
            self.backlog,
            self.points,
            max_queue_bytes=max_queue_bytes,
            clock=lambda: self.now_s,
        )

    def log(self, step, **numbers):
        self.queue.put((START_US + step * 1000, step, (0, step), numbers))

    def take(self, **options):
        """Let the replay take what was logged, and return the new points: (name, value)."""
        self.replay.take(**options)
        return [
            (series.describe().name, value)
            for batch in self.batches()
            for columns in batch.columns.values()
            for series, column in columns.items()
            for value in column.values
        ]

    def batches(self):
        """Take all batches out of the backlog."""
        return [self.backlog.take_oldest() for _ in range(len(self.backlog))]


def logged(points):
    """Leave out what the package knows itself."""
    return {name: value for name, value in points if name.startswith("dl.")}


def observed(points):
    """Tell whether the figures were observed: a point that only an observation makes."""
    return "dllogger.rank_info" in {name for name, _ in points}


def test_an_entry_that_fails_costs_only_itself():
    """The entries around it arrive, it is counted, and nothing is left to take."""
    pipeline = Pipeline()
    pipeline.log(1, a=1.0, b=2.0)
    pipeline.log(2, broken="text where only numbers are")
    pipeline.log(3, c=3.0, d=4.0, e=5.0)
    points = logged(pipeline.take())
    assert {"dl.a": 1.0, "dl.b": 2.0, "dl.c": 3.0, "dl.d": 4.0, "dl.e": 5.0} == points
    assert 0 == pipeline.replay.close()
    assert 1 == DIAGNOSTICS.dropped["backend_failed"] == sum(DIAGNOSTICS.dropped.values())


def test_figures_are_observed_at_the_interval_of_a_scrape():
    """With the first entry, again once a quarter minute is over, and whenever it is asked for."""
    pipeline = Pipeline()
    assert not observed(pipeline.take())
    pipeline.log(1, loss=1.0)
    assert observed(pipeline.take())
    for number in (1, 2):
        pipeline.now_s = number * INTERNAL_METRICS_INTERVAL_S
        pipeline.log(2, loss=1.0)
        assert not observed(pipeline.take())
        pipeline.now_s += 0.1
        assert observed(pipeline.take())  # though nothing was logged
    assert observed(pipeline.take(observe=True))


def test_values_beyond_the_limit_of_series_are_warned_of(caplog):
    """The warning names the limit and what to do; the counter says how many there were."""
    pipeline = Pipeline(max_series=len(DIAGNOSTICS.dropped) + 20)
    for step in range(100):
        pipeline.log(step, **{f"name_{step}": 1.0})
    points = pipeline.take()
    assert 100 == len(logged(points)) + DIAGNOSTICS.dropped["series_limit"]
    (message,) = caplog.messages
    assert f"more than {pipeline.store.max_series} series" in message
    assert "raise max_series" in message


def test_a_point_says_what_it_is():
    """A value that was logged is described by its name, without the prefix."""
    pipeline = Pipeline()
    pipeline.log(7, **{"val.loss": 1.0})
    pipeline.replay.take()
    (columns,) = pipeline.backlog.take_oldest().columns.values()
    described = [series.describe() for series in columns]
    assert {"dl.loss": "Last value logged as loss"}.items() <= {
        one.name: one.text for one in described
    }.items()


def test_where_a_rank_is_can_be_left_out():
    """Who has made its points already observes the other figures alone."""
    pipeline = Pipeline()
    pipeline.log(7, loss=1.0)
    pipeline.replay.take()
    names, others = (
        {series.describe().name for series, _ in pipeline.points.observed(with_place=with_place)}
        for with_place in (True, False)
    )
    assert names - others == {"dllogger.epoch", "dllogger.iteration"}
    assert others < names


def test_every_kind_of_entry_counts():
    """Metadata, parameters, a summary of another granularity, and the end."""
    pipeline = Pipeline()
    for one in (
        Metadata(0, 0, "loss", {"unit": "s", "GOAL": "MINIMIZE"}),
        Info(START_US, 0, {"batch": 32}),
        Record(START_US, 0, "PARAMETER", {"lr": 0.5}),
        Record(START_US, 0, (2, 3, 1), {"loss": 1.5}),
    ):
        pipeline.queue.put(one)
    points = pipeline.take()
    assert {"dl.loss": 1.5} == logged(points)
    assert "dl_loss_seconds" == pipeline.points.exported.mapped("loss").prometheus_name
    assert {"validation": {"loss": 1.5}} == {
        kind: cell for kind, cell in pipeline.store.ranks[0].cells.items() if cell
    }
    assert {("dllogger.epoch", 2.0), ("dllogger.iteration", 3.0), ("dllogger.best", 1.5)} <= set(
        points
    )
    assert [32.0, 0.5] == [value for name, value in points if name == "dllogger.parameter"]
    assert ("dllogger.run_finished", 0.0) in points
    pipeline.queue.put(Finish())
    assert ("dllogger.run_finished", 1.0) in pipeline.take(observe=True)
    assert 0 == sum(DIAGNOSTICS.dropped.values())


def test_figures_have_the_time_at_which_they_were_observed():
    """They have none of their own."""
    pipeline = Pipeline()
    before_us = time.time_ns() // 1000
    pipeline.replay.take(observe=True)
    (batch,) = pipeline.batches()
    columns = batch.columns[RESOURCE]
    times_us = {time_us for column in columns.values() for time_us in column.times_us}
    assert before_us <= min(times_us) <= max(times_us) <= time.time_ns() // 1000
    assert 0 == batch.logged


def test_a_batch_is_filled_to_its_bound():
    """An entry's place in the training is part of its size: here two values and two places."""
    pipeline = Pipeline()
    for number in range(MAX_POINTS // 2):
        time_us = START_US + number * 1000
        pipeline.queue.put((time_us, 0, (number, number), {"a": 1.0, "b": 1.0}))
    pipeline.replay.take()
    first, second, _figures = pipeline.batches()
    assert [(MAX_POINTS, MAX_POINTS // 2)] * 2 == [
        (batch.points, batch.logged) for batch in (first, second)
    ]


def test_what_queue_and_backlog_drop_is_counted_together(caplog):
    """One warning for both, and none where everything fits."""
    pipeline = Pipeline(max_queue_bytes=8 * (ENTRY_BYTES + NUMBER_BYTES), backlog_bytes=1)
    pipeline.log(0, loss=1.0)
    pipeline.replay.take(observe=True)  # what came last is kept, however little room there is
    assert (1, 1) == (len(pipeline.backlog), DIAGNOSTICS.dropped["otlp_queue"])
    for step in range(10):
        pipeline.log(step * 100_000, loss=1.0)  # more than a batch spans apart
    pipeline.replay.take(observe=True)
    assert 11 == DIAGNOSTICS.dropped["otlp_queue"] == sum(DIAGNOSTICS.dropped.values())
    (message,) = caplog.messages
    assert "the queue is full" in message


def test_nothing_is_said_while_there_is_room(caplog):
    """A take that drops nothing neither counts nor warns."""
    pipeline = Pipeline()
    pipeline.log(1, loss=1.0)
    pipeline.replay.take()
    assert ([], 0) == (caplog.messages, sum(DIAGNOSTICS.dropped.values()))


@pytest.mark.parametrize(("backlog", "expected"), [(0, 100), (60, 40), (90, 25), (200, 25)])
def test_the_queue_has_the_room_that_the_backlog_leaves(backlog, expected):
    """All of it, and a quarter at least; here in entries."""
    pipeline = Pipeline(max_queue_bytes=100 * ENTRY_BYTES)
    batch, series = Batch(START_US), Series()
    while batch.size_bytes + 18 <= backlog * ENTRY_BYTES:
        batch.add(RESOURCE, START_US, [(series, 1.0)])
    if backlog:
        pipeline.backlog.put_back(batch)
    pipeline.replay.take()
    for _ in range(expected):
        pipeline.queue.put(Finish())
    assert expected == len(taken(pipeline.queue)[0])
    for _ in range(expected + 1):
        pipeline.queue.put(Finish())
    assert expected - expected // SPARE_SHARE - 1 == len(taken(pipeline.queue)[0])


# The queue

ROOM = 2 * SPARE_SHARE  # entries
MEGABYTE = 1 << 20


def entry(**numbers):
    """Make a log call as it nearly always is."""
    return START_US, 0, (0, 1), numbers


def taken(queue):
    """Take everything out, as the replay does, and return it with what was dropped."""
    count, dropped = queue.begin_take()
    entries = [queue.pop() for _ in range(count)]
    assert queue.pop() is None
    return entries, dropped


@pytest.mark.parametrize(
    ("logged", "dropped"),
    [(0, 0), (ROOM, 0), (ROOM + 1, 3), (ROOM + 3, 3), (ROOM + 4, 6), (ROOM + 6, 6)],
)
def test_a_full_queue_keeps_the_newest_entries(logged, dropped):
    """The oldest go once the limit is passed, not before, and their values are counted.

    A sixteenth of the room is then free, here that of two entries, and nothing goes before
    that is full again.
    """
    size = ENTRY_BYTES + 2 * NUMBER_BYTES + len("loss") + len("rank")
    queue = EntryQueue(ROOM * size, lambda: None)
    entries = [entry(loss=float(number), rank=1) for number in range(logged)]
    for _ in range(2):  # what was taken has no part in it
        for one in entries:
            queue.put(one)
        assert (entries[dropped:], dropped) == taken(queue)
        assert ([], 0) == taken(queue)


def test_a_queue_that_is_a_byte_too_small_is_full():
    """All numbers and the characters of all names count, be they a rank's."""
    size = ENTRY_BYTES + 2 * NUMBER_BYTES + len("loss") + len("rank")
    queue = EntryQueue(ROOM * size - 1, lambda: None)
    entries = [entry(loss=float(number), rank=1) for number in range(ROOM)]
    for one in entries:
        queue.put(one)
    assert (entries[2:], 2) == taken(queue)


def test_what_is_just_being_taken_counts_where_the_queue_is_full():
    """Its bytes count no more, but before anything is dropped all that is there is counted."""
    queue = EntryQueue(ROOM * (ENTRY_BYTES + NUMBER_BYTES + len("a")), lambda: None)
    entries = [entry(a=float(number)) for number in range(2 * ROOM + 4)]
    for one in entries[:ROOM]:
        queue.put(one)
    assert (ROOM, 0) == queue.begin_take()
    for one in entries[ROOM : 2 * ROOM + 1]:
        queue.put(one)
    oldest = ROOM + 3  # with the last one it was too much, and two places are free
    assert entries[oldest] is queue.pop()
    for one in entries[2 * ROOM + 1 :]:  # so now there are three
        queue.put(one)
    assert (entries[oldest + 1 :], oldest) == taken(queue)


@pytest.mark.parametrize("kind", [tuple, Record])
def test_long_names_are_bounded_by_bytes(kind):
    """Four fill a queue that has room for thousands with short names."""
    size = ENTRY_BYTES + NUMBER_BYTES + MEGABYTE
    queue = EntryQueue(4 * size, lambda: None)
    for number in range(20):
        numbers = {f"{number:0{MEGABYTE}}": float(number)}
        one = entry(**numbers)
        if kind is Record:
            one = Record(START_US, 0, 5, numbers).detach()
        queue.put(one)
    entries, dropped = taken(queue)
    numbers = [one.numbers if kind is Record else one[3] for one in entries]
    # The fifth is too much and leaves three; the sixth is the fourth again, and so on.
    assert ([16.0, 17.0, 18.0, 19.0], 16) == ([x for one in numbers for x in one.values()], dropped)


def test_an_entry_larger_than_the_queue_is_kept():
    """It takes the place of all others, since the newest is always there."""
    queue = EntryQueue(1000, lambda: None)
    large = entry(**{f"m{number}": 1.0 for number in range(100)})
    queue.put(entry(loss=1.0))
    queue.put(large)
    assert ([large], 1) == taken(queue)


def test_room_is_given_and_taken_away():
    """The limit that holds is the one at the time of an entry."""
    queue = EntryQueue(10 * ROOM * ENTRY_BYTES, lambda: None)
    for _ in range(9 * ROOM):
        queue.put(Finish())
    queue.make_room(ROOM * ENTRY_BYTES)
    queue.put(Finish())
    assert ROOM - ROOM // SPARE_SHARE == len(taken(queue)[0])
    queue.make_room(2 * ROOM * ENTRY_BYTES)
    for _ in range(2 * ROOM):
        queue.put(Finish())
    assert 2 * ROOM == len(taken(queue)[0])
    for _ in range(2 * ROOM + 1):
        queue.put(Finish())
    assert 2 * ROOM - 2 * ROOM // SPARE_SHARE == len(taken(queue)[0])


def test_pressure_is_told_once_for_each_time_the_queue_fills():
    """At more than half of the share that is always the queue's, and again once it was taken."""
    told = []
    queue = EntryQueue(2 * QUEUE_SHARE * 3 * ENTRY_BYTES, lambda: told.append(1))
    for round_ in range(1, 3):
        for _ in range(3):
            queue.put(Finish())
        assert round_ - 1 == len(told)
        for _ in range(3):
            queue.put(Finish())
        assert round_ == len(told)
        taken(queue)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        (entry(a=1.0, b=2.0), 2),
        (entry(a=1.0, rank=3.0), 1),
        (entry(), 0),
        (Record(0, 0, (0, 1), {"a": 1}), 1),
        (Record(0, 0, 5, {"a": 1, "rank": 2, "text": "x"}), 1),
        (Record(0, 0, "PARAMETER", {"lr": 1}), 0),
        (Metadata(0, 0, "a", {}), 0),
        (Info(0, 0, {"lr": 1}), 0),
        (Finish(), 0),
    ],
    ids=repr_without_address,
)
def test_values_of_an_entry(one, expected):
    """Numbers of metrics are values; a rank is a label, and parameters are no metrics."""
    assert expected == count_values(one.detach() if isinstance(one, Record) else one)


def test_a_closed_queue_counts_what_it_refuses(counted):
    """What was left is told by the close, what comes later is counted by its values."""
    queue = EntryQueue(ENTRY_BYTES, lambda: None)
    for _ in range(3):
        queue.put(entry(a=1.0, b=1.0))
    assert 6 == queue.close()
    DIAGNOSTICS.dropped["otlp_exit"] = 0
    queue.put(Finish())
    queue.put(entry(a=1.0, b=1.0, rank=0))
    assert ([], 0) == taken(queue)
    assert {"otlp_exit": 2} == counted()


def test_a_silenced_queue_takes_and_counts_nothing(counted):
    """Where nothing is to be sent, nothing is lost either."""
    queue = EntryQueue(ENTRY_BYTES, lambda: None)
    queue.silence()
    queue.put(entry(a=1.0))
    assert (([], 0), {}) == (taken(queue), counted())


def test_a_forked_child_has_an_empty_queue():
    """What was logged before the fork is the parent's to send, and a thread may be in a put."""
    assert_forked_child_answers("""
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp.queue import ENTRY_BYTES, QUEUE_SHARE, EntryQueue

def put(step):
    queue.put((0, 0, (0, step), {"loss": 1.0}))

queue = EntryQueue(2 * QUEUE_SHARE * 2 * ENTRY_BYTES, hold)
put(1)
assert not started.is_set()  # two of them are more than two entries without a number

def beside():
    put(2)

def answers():
    assert started.is_set()
    for step in range(3, 100):
        put(step)
    taken = queue.begin_take(), queue.pop(), queue.close()
    return taken == ((0, 0), None, 0) and not sum(DIAGNOSTICS.dropped.values())
""")


# Batches


def filled(points, *, start_us=START_US, logged=0):
    """Make a batch with points of one series at one time."""
    batch, series = Batch(start_us), Series()
    for _ in range(points):
        batch.add(RESOURCE, start_us, [(series, 1.0)])
    batch.logged = logged
    return batch


@pytest.mark.parametrize("direction", [1, -1])
def test_a_batch_spans_a_bounded_time(direction):
    """Forwards as well as backwards, where a clock was set."""
    batch = Batch(START_US)
    assert batch.has_room(START_US + direction * MAX_SPAN_US, 1)
    assert not batch.has_room(START_US + direction * (MAX_SPAN_US + 1), 1)


def test_a_batch_has_a_bounded_number_of_points():
    """Those of its last millisecond may pass the bound once, and then no more come."""
    batch = filled(MAX_POINTS - 2)
    assert batch.has_room(START_US + 1000, 2)
    assert not batch.has_room(START_US + 1000, 3)
    assert batch.has_room(START_US + 999, 3)
    full = filled(MAX_POINTS)
    assert full.has_room(START_US, 1)
    assert not filled(MAX_POINTS + 1).has_room(START_US, 1)


def test_the_millisecond_of_a_batch_is_that_of_its_last_entry():
    """The time of its first entry has no part in it."""
    backlog = Backlog(ROOM_BYTES, Batch)
    batch = backlog.batch_at(START_US, MAX_POINTS)
    series = Series()
    assert batch is backlog.batch_at(START_US + 5000, 0)
    assert MAX_POINTS == batch.add(RESOURCE, START_US + 5000, [(series, 1.0)] * MAX_POINTS)
    assert batch is backlog.batch_at(START_US + 5000, 1)
    other = backlog.batch_at(START_US, 1)
    assert (True, 2) == (batch is not other, len(backlog))


def test_what_is_no_number_leaves_a_column_whole():
    """There is no time without a value, and no point is counted."""
    batch, series = Batch(START_US), Series()
    batch.add(RESOURCE, START_US, [(series, 1.0)])
    with pytest.raises(TypeError):
        batch.add(RESOURCE, START_US, [(series, "text")])
    batch.add(RESOURCE, START_US + 1, [(series, 2.0)])
    column = batch.columns[RESOURCE][series]
    assert ([START_US, START_US + 1], [1.0, 2.0]) == (
        column.times_us.tolist(),
        column.values.tolist(),
    )
    assert 2 == batch.points


def test_a_batch_that_was_taken_gets_no_more_points():
    """The next entry opens another one, and what is put back is the oldest again."""
    backlog = Backlog(ROOM_BYTES, Batch)
    first = backlog.batch_at(START_US, 1)
    assert first is backlog.batch_at(START_US, 1)
    assert first is backlog.take_oldest()
    second = backlog.batch_at(START_US, 1)
    third = backlog.batch_at(START_US + MAX_SPAN_US + 1, 1)
    assert 3 == len({id(first), id(second), id(third)})
    assert second is backlog.take_oldest()
    assert third is backlog.batch_at(START_US + MAX_SPAN_US + 1, 1)  # that one was not taken
    backlog.put_back(second)
    backlog.put_back(first)
    assert [first, second, third] == [backlog.take_oldest() for _ in range(3)]
    assert 0 == len(backlog)


def test_the_oldest_batches_are_dropped_where_there_is_no_room():
    """As many as it takes, but the last; the logged values of those are counted."""
    batches = [filled(100, logged=10**number) for number in range(4)]
    backlog = Backlog(2 * batches[0].size_bytes, Batch)
    for batch in reversed(batches):
        backlog.put_back(batch)
    assert (1111, 4 * batches[0].size_bytes) == (backlog.logged, backlog.size_bytes)
    assert 11 == backlog.shrink()
    assert (1100, 0) == (backlog.logged, backlog.shrink())
    assert batches[2:] == [backlog.take_oldest() for _ in range(2)]
    small = Backlog(1, Batch)
    small.put_back(batches[0])
    assert (0, 1) == (small.shrink(), len(small))


@pytest.mark.parametrize("kind", ["info", "metadata", "parameter"])
def test_large_entries_without_numbers_are_bounded_by_bytes(kind):
    """Settings of a megabyte count as that, not as a mere entry."""
    queue = EntryQueue(1 << 20, lambda: None)
    large = {f"name{number}": "x" * 1000 for number in range(500)}
    parameter = Record(0, 0, "PARAMETER", large).detach()
    entries = {"info": Info(0, 0, large), "metadata": Metadata(0, 0, "a", large)}
    for _ in range(10):
        queue.put(entries.get(kind, parameter))
    assert 1 <= len(taken(queue)) <= 2

"""The history of a scalar as data: views, copies, pickles, threads, forks and memory."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest

from otel_dllogger.training import HistoryBuffer, MisuseError
from tests.scripts.history_statistics import spread
from tests.support.command import assert_forked_child_answers, environment
from tests.support.paths import TESTS

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("own_statistics")]

SCRIPTS = TESTS / "scripts"

THREADS = 8
UPDATES = 20_000


# Views


@pytest.mark.parametrize("counts", [[1, 1, 1], [1, 2, 3]])
def test_arrays_taken_neither_change_nor_can_be_changed(counts):
    """What ``data`` returned stays as it was, and refuses to be written to."""
    buffer = HistoryBuffer([1.0, 2.0, 3.0], counts, max_length=5)
    values, of_each = buffer.data
    for number in range(20_000):
        buffer.update(float(number), 4)
        if number % 50 == 0:
            buffer.mean()
    assert ([1, 2, 3], counts) == (values.tolist(), of_each.tolist())
    for array in (*buffer.data, values, of_each):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9


def test_the_given_array_is_copied():
    """The caller's array may change, and the buffer's history does not."""
    values = np.array([1.0, 2.0])
    buffer = HistoryBuffer(values, np.array([1, 1]))
    buffer.update(3.0)
    values[:] = 9
    values[0] = 8
    assert [1, 2, 3] == buffer.data[0].tolist()


# Pickles


def filled(length=3000, max_length=2500):
    """Return a buffer with more updates than it keeps, some of them not yet in its arrays."""
    buffer = HistoryBuffer(max_length=max_length)
    for number in range(length):
        buffer.update(number / 7, number % 3 + 1)
    return buffer


def answers(buffer):
    """Return what one can ask, of windows short and long."""
    return [
        getattr(buffer, method)(window)
        for method in ("mean", "min", "max")
        for window in (None, 1, 10, 1024, 2000)
    ] + [buffer.current()]


@pytest.mark.parametrize(
    "duplicate",
    [copy.deepcopy, copy.copy, *(lambda b, p=p: pickle.loads(pickle.dumps(b, p)) for p in (2, 5))],
)
def test_a_copy_goes_on_by_itself(duplicate):
    """A copy has the same history and settings, and neither feels the other's updates."""
    buffer = filled()
    other = duplicate(buffer)
    assert answers(buffer) == answers(other)
    assert 2500 == other.max_length
    before = answers(buffer)
    other.update(-5.0)
    other.mark("now")
    assert (-5, before) == (other.current(), answers(buffer))
    assert other.since("now") == 0 < buffer.since("now")
    buffer.update(-5.0)
    assert answers(buffer) == answers(other)


def test_the_pickle_of_a_plain_history_keeps_its_types():
    """Ints stay ints, and counts of 1 stay ints as well."""
    buffer = pickle.loads(pickle.dumps(HistoryBuffer([1, 2], [1, 1])))
    buffer.update(3)
    assert [np.int64, np.int64] == [array.dtype for array in buffer.data]


def test_a_registered_statistic_comes_with_the_pickle():
    """A process that has not registered a module's function has it with the history."""
    HistoryBuffer.register_statistics(spread)
    data = pickle.dumps(HistoryBuffer([1, 5, 2, 4], [1] * 4, max_length=77))
    done = subprocess.run(
        [sys.executable, SCRIPTS / "resume_history.py"],
        input=data,
        capture_output=True,
        timeout=60,
        check=False,
        env=environment(PYTHONPATH=str(SCRIPTS.parents[1])),
    )
    assert (b"3 3.0 77", b"", 0) == (done.stdout.strip(), done.stderr, done.returncode)


def test_a_statistic_that_is_there_stays():
    """A pickle's statistic does not take the place of the one that the process has."""
    HistoryBuffer.register_statistics(spread)
    data = pickle.dumps(HistoryBuffer([1, 5], [1, 1]))

    def mine(self):
        return -1

    HistoryBuffer._statistics_methods["spread"] = mine
    assert -1 == pickle.loads(data).statistics("spread")


def test_what_cannot_be_pickled_does_not_cost_the_checkpoint(caplog):
    """A lambda among the statistics is left out with a warning, here it still works."""
    HistoryBuffer.register_statistics(lambda self: len(self._log_history))
    HistoryBuffer.register_statistics(spread)
    data = pickle.dumps(HistoryBuffer([1, 5], [1, 1]))
    assert "<lambda>" in caplog.text
    assert "spread" not in caplog.text
    del HistoryBuffer._statistics_methods["<lambda>"]
    restored = pickle.loads(data)
    assert 4 == restored.statistics("spread", 2)
    with pytest.raises(KeyError):
        restored.statistics("<lambda>")


# Threads


def test_no_update_is_lost_between_threads():
    """Eight threads update, one asks: all values are there, each thread's in its order."""
    buffer = HistoryBuffer()
    begin, wrong = threading.Barrier(THREADS + 1), []
    working = True

    def update(number):
        begin.wait()
        for value in range(UPDATES):
            buffer.update(float(value * THREADS + number), 1 if value % 2 else 3)

    def ask():
        begin.wait()
        buffer.update(0.0)
        while working:
            values, counts = buffer.data
            if not 0 <= buffer.mean(100) <= buffer.max() or len(values) != len(counts):
                wrong.append((values, counts))
            buffer.current()

    threads = [threading.Thread(target=update, args=(number,)) for number in range(THREADS)]
    asking = threading.Thread(target=ask)
    for thread in (*threads, asking):
        thread.start()
    for thread in threads:
        thread.join()
    working = False
    asking.join()
    values, counts = buffer.data
    assert [] == wrong
    assert THREADS * UPDATES + 1 == len(values) == len(counts)
    assert THREADS * UPDATES * 2 + 1 == counts.sum()
    values, counts = values.astype(int), counts.astype(int)
    for number in range(THREADS):
        own = values % THREADS == number
        first = int(number == 0 and np.count_nonzero(own) > UPDATES)
        expected = list(range(number, THREADS * UPDATES, THREADS))
        assert expected == (values[own].tolist() if not first else sorted(values[own].tolist())[1:])
        odd = own & (values // THREADS % 2 == 1)
        assert {1} == set(counts[odd].tolist())


# Memory


@pytest.mark.slow
@pytest.mark.parametrize(("count", "most_bytes"), [(1, 18_000_000), (8, 28_000_000)])
def test_updates_that_nobody_asks_for_stay_compact(count, most_bytes):
    """A million updates take little more than their numbers."""
    tracemalloc.start()
    try:
        buffer = HistoryBuffer()
        for number in range(1_000_000):
            buffer.update(number * 0.5, count)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < most_bytes
    assert 999_999 * 0.5 == buffer.current()


@pytest.mark.slow
def test_a_short_history_stays_short():
    """With a small max_length, many updates take no more room than few."""
    tracemalloc.start()
    try:
        buffer = HistoryBuffer(max_length=1000)
        for number in range(100_000):
            buffer.update(float(number))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 1_000_000
    assert 1000 == len(buffer.data[0])


@pytest.mark.slow
def test_all_updates_since_a_moment_are_counted():
    """Those that are in no array yet, and those that are no longer kept."""
    buffer = HistoryBuffer([1, 2, 3], [1, 1, 1], max_length=1000)
    assert 3 == buffer.since("never") == buffer.since()
    buffer.mark("now")
    for number in range(10_000):
        buffer.update(number)
        if number in {3000, 9000}:  # and in between as many as are taken without being asked for
            buffer.mean()
        assert (number + 1, number + 4) == (buffer.since("now"), buffer.since("never"))
    assert 1000 == len(buffer.data[0])
    buffer.mark("now")
    other = pickle.loads(pickle.dumps(buffer))
    buffer.update(1.0)
    other.mark("then")
    other.update(1.0)
    other.update(1.0)
    assert (1, 10_004) == (buffer.since("now"), buffer.since("then"))
    assert (2, 2, 10_005) == tuple(other.since(moment) for moment in ("now", "then", "never"))
    state = other.__getstate__()
    for name in ("updates", "marks"):  # which there were not at first
        del state[name]
    other.__setstate__(state)
    assert (1000, 1000) == (other.since("now"), other.since("never"))


def test_counting_waits_for_nobody(own_statistics):
    """A loop that begins does not wait for a statistic that another thread is about."""
    held, release = threading.Event(), threading.Event()

    @HistoryBuffer.register_statistics
    def slow(self):
        held.set()
        return release.wait(60)

    buffer = HistoryBuffer([1.0], [1])
    thread = threading.Thread(target=buffer.statistics, args=("slow",))
    thread.start()
    assert held.wait(60)
    marking = threading.Thread(target=buffer.mark, args=("now",))
    marking.start()
    marking.join(30)
    is_marked = not marking.is_alive()
    release.set()
    thread.join()
    assert is_marked


def test_a_full_history_is_not_moved_with_every_update():
    """Of a history that is full, values are dropped by the thousand and not one by one."""
    buffer = HistoryBuffer([0.0] * 5000, [1] * 5000, max_length=5000)
    arrays = {}
    for number in range(3000):
        buffer.update(float(number))
        assert number == buffer.max(5)
        array = buffer._kept.values._array
        arrays[id(array)] = array
    assert len(arrays) <= 2


def test_an_empty_buffer_takes_nothing():
    """The room for a long history is not taken before there is one."""
    tracemalloc.start()
    try:
        buffer = HistoryBuffer(max_length=10**9)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 20_000
    assert 10**9 == buffer.max_length


@pytest.mark.parametrize("max_length", [0, -1, 3.0, None])
def test_a_length_is_a_number_of_values(max_length):
    """Another one is refused where it is given."""
    with pytest.raises(MisuseError, match=r"max_length=.* is not a whole number from 1 up"):
        HistoryBuffer(max_length=max_length)


def test_a_forked_child_can_ask():
    """Also where another thread of its parent was asking at that moment."""
    assert_forked_child_answers("""
from otel_dllogger.training import HistoryBuffer

@HistoryBuffer.register_statistics
def slow(self):
    hold()

buffer = HistoryBuffer([1.0, 3.0], [1, 1])

def beside():
    buffer.statistics("slow")

def answers():
    buffer.update(5.0)
    return buffer.mean() == 3.0
""")


def test_a_statistic_reads_one_history():
    """What comes while it is computed counts from the next one on, in values and counts alike."""

    @HistoryBuffer.register_statistics
    def lengths(self):
        values = len(self._log_history)
        self.update(9.0, 2)
        return values, len(self._log_history), len(self._count_history)

    buffer = HistoryBuffer([1.0], [1])
    assert (1, 1, 1) == buffer.statistics("lengths")
    assert ([1.0, 9.0], [1, 2]) == tuple(array.tolist() for array in buffer.data)


def test_another_thread_can_ask_after_many_updates():
    """Who put thousands of updates into the arrays by itself keeps nobody out afterwards."""
    buffer, answers = HistoryBuffer(), []
    for number in range(10_000):
        buffer.update(float(number))
    asking = threading.Thread(target=lambda: answers.append(buffer.current()), daemon=True)
    asking.start()
    asking.join(30)
    assert [9999.0] == answers


def test_a_statistic_that_updates_by_the_thousand_reads_one_history():
    """Updates that would be put into the arrays by themselves wait for its end as well."""

    @HistoryBuffer.register_statistics
    def lengths_amid_updates(self):
        values = len(self._log_history)
        for _ in range(10_000):
            self.update(9.0, 2)
        return values, len(self._log_history), len(self._count_history)

    buffer = HistoryBuffer([1.0], [1])
    assert (1, 1, 1) == buffer.statistics("lengths_amid_updates")
    assert (10_001, 20_001) == (len(buffer.data[0]), buffer.data[1].sum())


def test_a_forked_child_can_count_and_update():
    """Also where another thread of its parent was about to, on a device or not."""
    assert_forked_child_answers("""
import numpy as np
from otel_dllogger.training import HistoryBuffer

class Tensor(np.ndarray):
    device = "cuda"

    def detach(self):
        return self

    def new_empty(self, size):
        return np.empty(size).view(Tensor)

buffer = HistoryBuffer([1.0, 3.0], [1, 1])

class Slow(Tensor):
    def detach(self):
        hold()
        return self

def beside():
    buffer.update_on_device(np.full(1, 7.0).view(Slow))

def answers():
    buffer.mark("fork")
    buffer.update_on_device(np.full(1, 5.0).view(Tensor))
    return buffer.since("fork") == 1 and buffer.mean() == 3.0
""")

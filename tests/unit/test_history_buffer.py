"""The history of a scalar: MMEngine's documented results, a model, pickles, threads, memory."""

from __future__ import annotations

import copy
import math
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
from itertools import cycle, islice

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_dllogger import ConfigurationError
from otel_dllogger.training import HistoryBuffer, MisuseError
from tests.scripts.history_statistics import spread
from tests.support.command import assert_forked_child_answers, environment
from tests.support.paths import TESTS

EXAMPLES = settings(deadline=None, derandomize="CI" in os.environ, max_examples=150)
SCRIPTS = TESTS / "scripts"
pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("own_statistics")]

THREADS = 8
UPDATES = 20_000
EXACT = 1024
"""Windows up to which a mean has numpy's own rounding."""


def same(expected, actual):
    """Tell whether two numbers are of one type and equal, as NaN is to itself."""
    return type(expected) is type(actual) and (
        expected == actual or (expected != expected and actual != actual)
    )


# The documented examples


def test_an_empty_buffer_has_no_values():
    """A new buffer is empty, of floats."""
    values, counts = HistoryBuffer().data
    assert ([], [], np.float64) == (values.tolist(), counts.tolist(), values.dtype)


def test_a_buffer_of_ints_keeps_their_type():
    """Given ints stay ints."""
    values, counts = HistoryBuffer([1, 2, 3], [1, 2, 3]).data
    assert ([1, 2, 3], [1, 2, 3]) == (values.tolist(), counts.tolist())
    assert (np.int64, np.int64) == (values.dtype, counts.dtype)


def test_of_more_than_the_most_the_last_are_kept_with_a_warning():
    """What exceeds max_length is warned of, at the caller's line, and left out."""
    message = (
        r"^The length of history buffer\(3\) exceeds the max_length\(2\), the first few "
        r"elements will be ignored\.$"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        buffer = HistoryBuffer([1, 2, 3], [4, 5, 6], max_length=2)
    assert [__file__] == [warning.filename for warning in caught]
    assert ([2, 3], [5, 6]) == tuple(array.tolist() for array in buffer.data)


def test_updates_have_counts_of_1_unless_told():
    """Each update adds a value and its count."""
    buffer = HistoryBuffer([1, 2, 3], [1, 1, 1])
    buffer.update(4)
    buffer.update(5, 2)
    assert ([1, 2, 3, 4, 5], [1, 1, 1, 1, 2]) == tuple(array.tolist() for array in buffer.data)


@pytest.mark.parametrize(
    ("method", "arguments", "expected"),
    [
        ("min", (2,), np.int64(2)),
        ("min", (), np.int64(1)),
        ("max", (2,), np.int64(3)),
        ("max", (), np.int64(3)),
        ("mean", (2,), np.float64(2.5)),
        ("mean", (), np.float64(2)),
        ("current", (), np.int64(3)),
    ],
)
def test_the_documented_statistics(method, arguments, expected):
    """Statistics of 1, 2, 3 are the documented ones, by method and by name."""
    buffer = HistoryBuffer([1, 2, 3], [1, 1, 1])
    assert same(expected, getattr(buffer, method)(*arguments))
    assert same(expected, buffer.statistics(method, *arguments))
    if arguments:
        assert same(expected, buffer.statistics(method, window_size=arguments[0]))


def test_a_mean_is_divided_by_the_counts():
    """The mean of 1, 2, 3 with counts of 2 is 1."""
    assert np.float64(1) == HistoryBuffer([1, 2, 3], [2, 2, 2]).mean()


def test_a_registered_statistic_is_called_by_name():
    """A function reads the last values and counts; it is returned as it was."""

    def weighted_mean(self, window_size, weight):
        values = self._log_history[-window_size:] * np.array(weight)
        return values.sum() / self._count_history[-window_size:]

    assert HistoryBuffer.find_statistics("weighted_mean") is None
    assert weighted_mean is HistoryBuffer.register_statistics(weighted_mean)
    assert weighted_mean is HistoryBuffer.find_statistics("weighted_mean")
    buffer = HistoryBuffer([1, 2], [1, 1])
    assert [4, 4] == buffer.statistics("weighted_mean", 2, [2, 1]).tolist()
    assert [4, 4] == buffer.statistics("weighted_mean", 2, weight=[2, 1]).tolist()


def test_a_statistic_takes_what_it_takes():
    """One argument too many is an error as of any call."""
    buffer = HistoryBuffer([1, 2, 3], [1, 1, 1])
    with pytest.raises(TypeError, match="positional argument"):
        buffer.statistics("mean", 2, 3)


@pytest.mark.parametrize("name", ["data", "update", "", "mode"])
def test_what_is_no_statistic_is_named_with_those_that_are(name):
    """A name that is none raises KeyError, and says which there are."""
    with pytest.raises(KeyError, match=f"'{name}' is not a statistic.*min, max, current, mean"):
        HistoryBuffer([1], [1]).statistics(name)


def test_the_documented_use():
    """A learning rate and a loss of a loop have the printed statistics."""
    buffers = {"lr": HistoryBuffer(), "loss": HistoryBuffer()}
    printed = []
    for number in range(1, 11):
        buffers["lr"].update(number / 10 * 0.1, 1)
        buffers["loss"].update(1 / number, 1)
        if number % 5 == 0:
            printed.append(str(buffers["lr"].statistics("current")))
            printed.append(str(buffers["loss"].statistics("mean", 5)))
    assert ["0.05", "0.45666666666666667", "0.1", "0.12912698412698415"] == printed


# The model: MMEngine's own arithmetic


class Reference:
    """Append to plain arrays, and calculate with their last elements."""

    def __init__(self, values, counts, max_length):
        self.values, self.counts, self.max_length = np.array(values), np.array(counts), max_length

    def update(self, values, counts):
        """Append several at once, which gives what one by one would."""
        values = [float(str(value)) if abs(value) >= 2**63 else value for value in values]
        self.values = np.append(self.values, values)[-self.max_length :]
        self.counts = np.append(self.counts, counts)[-self.max_length :]

    def ask(self, method, window):
        values, counts = self.values, self.counts
        if window is not None:
            values, counts = values[-window:], counts[-window:]
        if method == "mean":
            return values.sum() / counts.sum()
        if method == "current":
            return self.values[-1]
        return getattr(values, method)()

    def is_long(self, window):
        values = self.values if window is None else self.values[-window:]
        return len(values) > EXACT


NUMBERS = st.one_of(
    st.integers(-100, 100),
    st.floats(-1e6, 1e6),
    st.booleans(),
    st.sampled_from([math.nan, math.inf, -math.inf, 2**50, 2**63, -(2**70), 2**1100, 1e-300, 0.0]),
)
COUNTS = st.sampled_from([[1], [1], [1], [8], [2.5], [1, 8, 2.5], [True]])
LENGTHS = st.sampled_from([1, 1, 1, 2, 9, 700, 1024, 1025, 3000, 4096, 5000])
WINDOWS = st.one_of(
    st.none(), st.integers(-3, 12), st.sampled_from([-2000, 1000, 1024, 1025, 2048, 3000, 10**9])
)
METHODS = st.sampled_from(["mean", "min", "max", "current"])
UPDATE = st.tuples(st.lists(NUMBERS, min_size=1, max_size=5), COUNTS, LENGTHS)
ASK = st.tuples(METHODS, WINDOWS)
FIRST = st.one_of(
    st.lists(NUMBERS.filter(lambda number: abs(number) < 2**63 or number != number), max_size=5),
    st.just(list(range(3000))),
)
MAX_LENGTHS = st.sampled_from([1, 2, 5, 100, 1023, 1024, 1025, 2500, 4095, 4096, 4097, 10**6])


@EXAMPLES
@given(FIRST, COUNTS, MAX_LENGTHS, st.lists(st.one_of(UPDATE, ASK, ASK), max_size=25))
@example([True], [1], 10**6, [([True, False], [1], 3000), ("mean", 2000), ("max", None)])
@example([1], [1], 4096, [([2, 3], [1], 5000)] * 4 + [("mean", 3000), ("min", None)])
@example([], [1], 1, [([0.5], [1], 5000), ([math.nan], [2.5], 1), ("max", None)])
def test_statistics_are_those_of_arrays_that_are_appended_to(first, counts, max_length, calls):
    """Any updates and questions give numpy's results on the plain arrays, of the same type."""
    first_counts = [count + 0 for count in islice(cycle(counts), len(first))]
    if len(first) > max_length:
        first, first_counts = first[-max_length:], first_counts[-max_length:]
    buffer = HistoryBuffer(first, first_counts, max_length)
    reference = Reference(first, first_counts, max_length)
    with np.errstate(all="ignore"):
        for call in calls:
            if len(call) == 3:
                values = list(islice(cycle(call[0]), call[2]))
                of_each = list(islice(cycle(call[1]), call[2]))
                reference.update(values, of_each)
                for value, count in zip(values, of_each, strict=True):
                    buffer.update(value, count)
                continue
            assert_same_answer(reference, buffer, *call)
        for window in (None, 3, 1024, 2048):
            for method in ("mean", "min", "max", "current"):
                assert_same_answer(reference, buffer, method, window)
    for expected, actual in zip((reference.values, reference.counts), buffer.data, strict=True):
        np.testing.assert_array_equal(expected, actual)
    assert reference.values.dtype == buffer.data[0].dtype


def assert_same_answer(reference, buffer, method, window):
    arguments = () if method == "current" else (window,)
    try:
        expected = reference.ask(method, window)
    except (IndexError, ValueError):
        with pytest.raises(ValueError, match=r"empty array|zero-size"):
            buffer.statistics(method, *arguments)
        return
    actual = buffer.statistics(method, *arguments)
    if method == "mean" and reference.is_long(window):
        last = reference.values if window is None else reference.values[-window:]
        counts = reference.counts if window is None else reference.counts[-window:]
        size = np.abs(last.astype(float)).sum() / counts.sum()
        tolerance = 1e-12 * size if np.isfinite(size) else 0
        assert expected == pytest.approx(actual, rel=1e-12, abs=tolerance, nan_ok=True)
        assert type(expected) is type(actual)
    else:
        assert same(expected, actual), (method, window, expected, actual)


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.int32, np.uint64])
def test_arrays_of_any_type_have_numpys_statistics(dtype):
    """A history of small ints is summed as MMEngine sums it."""
    values, counts = np.array([0, 1, 1, 0, 1]).astype(dtype) * dtype(1), np.ones(5, np.int64)
    buffer = HistoryBuffer(values, counts)
    for window in (1, 3, 5):
        last = values[-window:]
        assert same(last.sum() / counts[-window:].sum(), buffer.mean(window))
        assert same(last.max(), buffer.max(window))
        assert same(last.min(), buffer.min(window))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_short_floats_are_summed_without_their_rounding(dtype):
    """A history of short floats has the same values, and a mean no less exact than numpy's."""
    values = np.array([0.1, 0.2, 0.4] * 500).astype(dtype)
    buffer = HistoryBuffer(values, np.ones(1500, np.int64))
    assert values.astype(float).mean() == pytest.approx(buffer.mean(1500), rel=1e-12)
    assert isinstance(buffer.mean(), np.float64)
    assert (values.max(), values.min()) == (buffer.max(), buffer.min())
    assert values.tolist() == buffer.data[0].tolist()


def test_a_sum_of_ints_that_overflowed_is_right_once_there_is_a_float():
    """A float makes floats of all values, whose mean no longer wraps."""
    values = [2**62] * 2048
    buffer = HistoryBuffer(values, [1] * 2048)
    buffer.update(0.5)
    expected = np.append(np.array(values), 0.5).sum() / 2049
    assert expected == pytest.approx(buffer.mean(), rel=1e-12)


def test_numpys_error_handling_leaves_a_buffer_whole():
    """Where numpy raises for an infinite sum, no update raises, and nothing is mixed up."""
    buffer = HistoryBuffer()
    with np.errstate(all="raise"):
        for number in range(5000):
            buffer.update(math.inf if number % 2 else -math.inf, 2)
    with np.errstate(all="ignore"):
        assert (5000, 5000) == tuple(map(len, buffer.data))
        assert (-math.inf, math.inf) == (buffer.min(), buffer.max(2000))


# What is wrong


def test_counts_and_values_are_as_many():
    """One count too few raises what is both a configuration's error and an assertion's."""
    with pytest.raises(MisuseError, match="2 values, count_history 1") as caught:
        HistoryBuffer([1, 2], [1])
    assert isinstance(caught.value, AssertionError)
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize(
    "value",
    [None, "1", [1], {}, 1j, np.complex64(1), np.array([1]), np.array(1), np.timedelta64(5, "s")],
    ids=repr,
)
def test_what_is_no_number_is_refused_and_changes_nothing(value):
    """A value or a count that is no number raises TypeError, and the history stays as it was."""
    buffer = HistoryBuffer([1.0], [1])
    with pytest.raises(TypeError, match=r"log_val=.* is not a number"):
        buffer.update(value)
    with pytest.raises(TypeError, match=r"count=.* is not a number"):
        buffer.update(1.0, value)
    buffer.update(3.0)
    assert ([1, 3], [1, 1]) == tuple(array.tolist() for array in buffer.data)


@pytest.mark.parametrize(
    "value",
    [kind(3) for kind in (np.int8, np.uint16, np.int64, np.uint64, np.float16, np.float32)],
    ids=repr,
)
def test_numpys_numbers_are_numbers(value):
    """A numpy scalar counts as Python's number."""
    buffer = HistoryBuffer([1], [1])
    buffer.update(value, value)
    assert ([1, 3], [1, 3]) == tuple(array.tolist() for array in buffer.data)


@pytest.mark.parametrize("method", ["mean", "min", "max"])
@pytest.mark.parametrize("window", ["epoch", 2.0, np.int64(2), [2]], ids=repr)
def test_a_window_is_an_int(method, window):
    """A window of another type raises, and is named."""
    with pytest.raises(MisuseError, match=r"window_size=.* is not an int"):
        getattr(HistoryBuffer([1], [1]), method)(window)


def test_an_empty_buffer_has_no_current_value():
    """Without a value there is neither a last one nor an extreme."""
    buffer = HistoryBuffer()
    with pytest.raises(ValueError, match="is an empty array! please call update first"):
        buffer.current()
    for method in (buffer.min, buffer.max):
        with pytest.raises(ValueError, match="zero-size"):
            method()


@pytest.mark.parametrize("name", ["mean", "min", "max", "current", "own"])
def test_a_statistic_is_registered_once(name):
    """A second statistic of a name raises, and the first one stays."""

    def own(self):
        return len(self._log_history)

    HistoryBuffer.register_statistics(own)
    second = type(own)(own.__code__, {"len": lambda _: -1}, name)
    with pytest.raises(MisuseError, match=f"'{name}' cannot be registered twice"):
        HistoryBuffer.register_statistics(second)
    assert 3 == HistoryBuffer([4, 5, 6], [1, 1, 1]).statistics("own")


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


class Named(HistoryBuffer):
    """Have a name besides."""


def test_a_derived_class_keeps_what_it_has():
    """Attributes of a class of one's own are in its copies."""
    buffer = Named([1.0], [1])
    buffer.unit = "s"
    for duplicate in (copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))):
        assert (Named, "s", 1.0) == (type(duplicate), duplicate.unit, duplicate.current())


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63)])
def test_whole_numbers_stay_whole(value):
    """Every int of 64 bits is kept to its last digit."""
    buffer = HistoryBuffer([0], [1])
    buffer.update(value)
    assert (value, np.int64) == (buffer.current(), type(buffer.current()))


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


def test_a_float_makes_floats_of_a_history_that_it_has_left():
    """The type is that of all values there were, however many of them are kept."""
    buffer = HistoryBuffer([0], [1], max_length=1)
    for _ in range(4096):
        buffer.update(0.0)
        buffer.update(0)
    assert np.float64 is type(buffer.min())


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

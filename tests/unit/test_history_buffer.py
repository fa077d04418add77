"""The history of a scalar: MMEngine's documented results, and a model of its arithmetic."""

from __future__ import annotations

import copy
import math
import os
import pickle
from itertools import cycle, islice

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_dllogger import ConfigurationError
from otel_dllogger.training import HistoryBuffer, MisuseError

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("own_statistics")]

EXAMPLES = settings(deadline=None, derandomize="CI" in os.environ, max_examples=150)
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


@pytest.mark.slow
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


def test_a_float_makes_floats_of_a_history_that_it_has_left():
    """The type is that of all values there were, however many of them are kept."""
    buffer = HistoryBuffer([0], [1], max_length=1)
    for _ in range(4096):
        buffer.update(0.0)
        buffer.update(0)
    assert np.float64 is type(buffer.min())

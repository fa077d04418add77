"""Numbers at whose end more come: a model, and the edges of the blocks."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger.training.number_series import BLOCK, NumberSeries

pytestmark = pytest.mark.newest_only

EXAMPLES = settings(deadline=None, derandomize="CI" in os.environ, max_examples=100)
FUNCTIONS = (np.add, np.minimum, np.maximum)
EDGES = [0, 1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 1, 5 * BLOCK]


def assert_totals(numbers, series, windows):
    """Check every total against numpy's of the plain array."""
    for window in windows:
        for function in FUNCTIONS:
            expected = function.reduce(numbers[len(numbers) - window :])
            actual = series.total(function, window)
            assert expected == actual, (function, window)


@pytest.mark.slow
@EXAMPLES
@given(
    st.integers(0, 3 * BLOCK),
    st.lists(
        st.tuples(st.sampled_from((1, 1, 2, 7, *EDGES)), st.sampled_from((1, 1, 0.5))), max_size=8
    ),
    st.randoms(use_true_random=False),
)
def test_any_extensions_make_the_same_numbers_and_totals(first, extensions, random):
    """Numbers that come in pieces of any length are as those of one array."""
    numbers = np.array([random.randrange(1000) for _ in range(first)], np.int64)
    series = NumberSeries(numbers.copy(), *FUNCTIONS)
    for length, factor in extensions:
        new = [random.randrange(1000) * factor for _ in range(length)]
        if length:
            numbers = np.append(numbers, new)
            series = series.extended(new)
        assert len(numbers) == series.length
        if len(numbers):
            windows = {1, len(numbers), random.randint(1, len(numbers))}
            windows |= {edge for edge in EDGES[1:] if edge <= len(numbers)}
            assert_totals(numbers, series, windows)
    np.testing.assert_array_equal(numbers, series.last(series.length), strict=True)


@pytest.mark.parametrize("length", [*EDGES[1:], 3 * BLOCK + 5])
def test_every_total_near_the_edges_of_blocks(length):
    """The windows around each edge of a block have numpy's totals."""
    numbers = np.arange(length) * 7919 % 10007
    series = NumberSeries(numbers, *FUNCTIONS)
    near = {edge + less for edge in (*EDGES, length, length - BLOCK) for less in (-2, -1, 0, 1)}
    assert_totals(numbers, series, {window for window in near if 0 < window <= length})


@pytest.mark.parametrize("function", [np.minimum, np.maximum])
@pytest.mark.parametrize("place", [0, 5, BLOCK - 1, BLOCK, 2 * BLOCK, 3 * BLOCK - 1, 3 * BLOCK + 9])
def test_an_extreme_is_found_wherever_it_is(function, place):
    """One outlier counts in the windows that hold it, and in no other."""
    numbers = np.zeros(3 * BLOCK + 10)
    numbers[place] = -1 if function is np.minimum else 1
    series = NumberSeries(numbers, function)
    age = len(numbers) - place
    assert numbers[place] == series.total(function, age)
    assert 0 == series.total(function, age - 1) if age > 1 else True
    assert numbers[place] == series.total(function, len(numbers))


def test_nothing_has_a_sum_and_no_extreme():
    """The sum of no numbers is 0; there is no least one."""
    series = NumberSeries(np.empty(0), *FUNCTIONS)
    assert 0 == series.total(np.add, 0)
    with pytest.raises(ValueError, match="zero-size"):
        series.total(np.minimum, 0)


@pytest.mark.parametrize(
    ("first", "new", "expected"),
    [
        (np.int64, [1], np.int64),
        (np.int64, [True], np.int64),
        (np.int64, [0.5], np.float64),
        (np.bool_, [True], np.bool_),
        (np.bool_, [2], np.int64),
        (np.float64, [2], np.float64),
        (np.float32, [0.5], np.float64),
        (np.int64, [2**70, 1], np.float64),
        (np.float64, [2**70], np.float64),
    ],
)
def test_the_type_is_what_holds_all_numbers(first, new, expected):
    """The numbers are of numpy's common type; ints of any size are floats."""
    series = NumberSeries(np.ones(3, first), np.add)
    series = series.extended(new)
    assert (expected, 3 + len(new)) == (series.last(0).dtype, series.length)
    assert [1, 1, 1, *map(float, new)] == series.last(series.length).tolist()


def test_numbers_taken_stay_what_they_are():
    """An array that was taken keeps its numbers while thousands come."""
    series = NumberSeries(np.arange(3), np.add)
    taken = series.last(2)
    for number in range(5000):
        series = series.extended([number])
    series = series.extended([0.5])
    assert [1, 2] == taken.tolist()
    assert [4999, 0.5] == series.last(2).tolist()


def test_the_array_grows_seldom():
    """A hundred thousand numbers one by one are moved a few dozen times, not each time."""
    series = NumberSeries(np.empty(0), np.add)
    arrays = {}
    for number in range(100_000):
        series = series.extended([float(number)])
        arrays[id(series._array)] = series._array
    assert len(arrays) < 20
    assert 4 * 100_000 > len(series._array)


@pytest.mark.parametrize("blocks", [2, 5])
def test_a_sum_of_ints_that_overflowed_is_right_once_there_is_a_float(blocks):
    """Sums of large ints wrap as numpy's do; those of floats that they became do not."""
    numbers = np.full(blocks * BLOCK, 2**62)
    series = NumberSeries(numbers.copy(), np.add)
    series = series.extended([0.5])
    expected = np.append(numbers, 0.5).sum()
    assert expected == pytest.approx(series.total(np.add, series.length), rel=1e-12)


def test_a_sum_within_a_block_has_numpys_own_rounding():
    """Up to a block's length, wherever the window lies among the edges of blocks."""
    numbers = np.sqrt(np.arange(3.0 * BLOCK)) / 7
    for length in range(BLOCK, 3 * BLOCK, 100):
        series = NumberSeries(numbers[:length], np.add)
        for window in (BLOCK - 1, BLOCK):
            expected = np.add.reduce(numbers[length - window : length])
            assert expected == series.total(np.add, window)

"""A growing series of numbers in a numpy array, with cached totals of long stretches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

BLOCK = 1024
"""Numbers in a block whose total is cached, so that a long window takes few additions."""

_LEAST_CAPACITY = 16


class NumberSeries:
    """An immutable series of numbers, which is extended by making a longer one.

    The longer one shares the array if there is room, so that adding a number takes the same
    time at any length. All numbers have one numpy type: they are ints until a float comes.

    Args:
        numbers: The first ones, in one dimension.
        functions: The functions to cache totals for: ``np.add``, ``np.minimum``, ``np.maximum``.

    Attributes:
        length: How many numbers there are.
    """

    __slots__ = ("_array", "_functions", "_is_float", "_totals", "_wholes", "length")

    def __init__(self, numbers: NDArray[Any], *functions: np.ufunc) -> None:
        self._array = _fit(np.asarray(numbers))
        self._is_float = self._array.dtype == np.float64
        self.length = len(numbers)
        self._functions = functions
        # By function: the totals of the full blocks, and the total of those.
        self._totals: Mapping[np.ufunc, NumberSeries] = {}
        self._wholes: Mapping[np.ufunc, Any] = {}
        self._add_totals(0)

    def last(self, count: int) -> NDArray[Any]:
        """Return the last numbers; they do not change when more come.

        Args:
            count: How many; at most as many as there are.
        """
        return self._array[self.length - count : self.length]

    def extended(self, numbers: Sequence[Any] | NDArray[Any]) -> NumberSeries:
        """Return a series with more numbers appended.

        Args:
            numbers: Numbers of any type; the series takes a type that holds both. Several
                threads may extend one series at once, if the numbers of each begin with those
                of the others: they write the same numbers to the same places.

        Raises:
            TypeError: If one of them is not a number.
            ValueError: If one of them is a sequence.
        """
        array, before, length = self._array, self.length, self.length + len(numbers)
        longer = object.__new__(NumberSeries)
        longer.length, longer._functions = length, self._functions
        longer._is_float = self._is_float
        longer._totals, longer._wholes = self._totals, self._wholes
        if not self._is_float:  # floats take any number
            numbers = np.asarray(numbers)
            if numbers.ndim != 1:
                raise ValueError(f"{numbers!r} are not numbers in one dimension")
            numbers = _fit(numbers)
            dtype = np.result_type(array.dtype, numbers.dtype)
            if dtype != array.dtype:
                array = self._moved(length, dtype)
                longer._is_float = dtype == np.float64
                # The sums change: those of ints may have overflowed.
                longer._totals, longer._wholes, before = {}, {}, 0
        if length > len(array):
            array = self._moved(2 * length, array.dtype)
        array[self.length : length] = numbers
        longer._array = array
        if before // BLOCK != length // BLOCK:
            longer._add_totals(before)
        return longer

    def _moved(self, capacity: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the numbers in a new array, with room for more."""
        array = np.empty(max(capacity, _LEAST_CAPACITY), dtype)
        array[: self.length] = self._array[: self.length]
        return array

    def total(self, function: np.ufunc, window: int) -> Any:
        """Return a function's total over the last numbers.

        Args:
            function: One of those that the series was made with.
            window: How many numbers; at most as many as there are.

        Raises:
            ValueError: If there are none, and the function has no value for an empty window.
        """
        length = self.length
        if window <= BLOCK:
            return function.reduce(self._array[length - window : length])
        start = length - window
        first, last = -(-start // BLOCK), length // BLOCK  # the blocks that lie fully inside
        parts = []
        if start == 0:
            parts.append(self._wholes[function])
        else:
            if first < last:
                parts.append(function.reduce(self._totals[function].last(last - first)))
            if start < first * BLOCK:
                parts.append(function.reduce(self._array[start : first * BLOCK]))
        if last * BLOCK < length:
            parts.append(function.reduce(self._array[last * BLOCK : length]))
        if function is np.add:
            return sum(parts)  # of scalars, which is much faster than a function of arrays
        return function.reduce(parts)

    def _add_totals(self, before: int) -> None:
        """Add the totals of the blocks that have become full since an earlier length."""
        start, stop = before // BLOCK * BLOCK, self.length // BLOCK * BLOCK
        if start == stop:
            return
        blocks = self._array[start:stop].reshape(-1, BLOCK)
        all_totals, wholes = dict(self._totals), dict(self._wholes)  # shorter series use the old
        with np.errstate(all="ignore"):  # a caller of total gets the warning
            for function in self._functions:
                totals = function.reduce(blocks, axis=1)
                whole = function.reduce(totals)
                if function in all_totals:
                    all_totals[function] = all_totals[function].extended(totals)
                    whole = function(wholes[function], whole)
                else:
                    all_totals[function] = NumberSeries(totals)
                wholes[function] = whole
        self._totals, self._wholes = all_totals, wholes


def _fit(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return numbers as ints, or as float64; ints too large for numpy become floats."""
    return numbers if numbers.dtype.kind in "biu" else numbers.astype(np.float64)

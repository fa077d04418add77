"""Numbers at whose end more come, in a numpy array, with totals of long stretches at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

BLOCK = 1024
"""Numbers whose total is kept, so that that of a long window takes few additions."""

_LEAST_CAPACITY = 16


class NumberSeries:
    """Keep numbers in the order they come; a series never changes, a longer one takes its place.

    The longer one shares the array where there is room, so that adding a number takes the same
    time at any length. The type of the numbers is numpy's for all of them: ints until a float
    comes.

    Args:
        numbers: The first ones, in one dimension.
        functions: What totals are made by: ``np.add``, ``np.minimum``, ``np.maximum``.

    Attributes:
        length: How many numbers there are.
    """

    __slots__ = ("_array", "_functions", "_is_float", "_totals", "_wholes", "length")

    def __init__(self, numbers: NDArray[Any], *functions: np.ufunc) -> None:
        self._array = _fit(np.asarray(numbers))
        self._is_float = self._array.dtype == np.float64
        self.length = len(numbers)
        self._functions = functions
        # By function: the totals of the blocks that are full, and the total of those.
        self._totals: Mapping[np.ufunc, NumberSeries] = {}
        self._wholes: Mapping[np.ufunc, Any] = {}
        self._add_totals(0)

    def last(self, count: int) -> NDArray[Any]:
        """Return the last numbers; they stay what they are when others come.

        Args:
            count: How many, no more than there are.
        """
        return self._array[self.length - count : self.length]

    def extended(self, numbers: Sequence[Any] | NDArray[Any]) -> NumberSeries:
        """Return a series with more numbers at the end.

        Args:
            numbers: Of any type; that of the series becomes what holds both. Several threads
                may extend one series at a time, by the same numbers or more of them: they
                write the same to the same places.

        Raises:
            TypeError: If one of them is not a number.
            ValueError: If one of them is a sequence.
        """
        array, before, length = self._array, self.length, self.length + len(numbers)
        longer = object.__new__(NumberSeries)
        longer.length, longer._functions = length, self._functions
        longer._is_float = self._is_float
        longer._totals, longer._wholes = self._totals, self._wholes
        if not self._is_float:  # else every number fits in
            numbers = np.asarray(numbers)
            if numbers.ndim != 1:
                raise ValueError(f"{numbers!r} are not numbers in one dimension")
            numbers = _fit(numbers)
            dtype = np.result_type(array.dtype, numbers.dtype)
            if dtype != array.dtype:
                array = self._moved(length, dtype)
                longer._is_float = dtype == np.float64
                # Sums are others: those of ints may have been beyond their range.
                longer._totals, longer._wholes, before = {}, {}, 0
        if length > len(array):
            array = self._moved(2 * length, array.dtype)
        array[self.length : length] = numbers
        longer._array = array
        if before // BLOCK != length // BLOCK:
            longer._add_totals(before)
        return longer

    def _moved(self, capacity: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return the numbers in another array, with room for more."""
        array = np.empty(max(capacity, _LEAST_CAPACITY), dtype)
        array[: self.length] = self._array[: self.length]
        return array

    def total(self, function: np.ufunc, window: int) -> Any:
        """Return what a function makes of the last numbers.

        Args:
            function: One of those that the series was made with.
            window: How many numbers, no more than there are.

        Raises:
            ValueError: If there are none, and the function has no value for that.
        """
        length = self.length
        if window <= BLOCK:
            return function.reduce(self._array[length - window : length])
        start = length - window
        first, last = -(-start // BLOCK), length // BLOCK  # the blocks that are all in it
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
            return sum(parts)  # of scalars: much faster than a function of arrays
        return function.reduce(parts)

    def _add_totals(self, before: int) -> None:
        """Add up the blocks that are full and were not yet at a length before."""
        start, stop = before // BLOCK * BLOCK, self.length // BLOCK * BLOCK
        if start == stop:
            return
        blocks = self._array[start:stop].reshape(-1, BLOCK)
        all_totals, wholes = dict(self._totals), dict(self._wholes)  # a shorter series has them
        with np.errstate(all="ignore"):  # whoever asks for a total is told
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
    """Return numbers as ints or as floats, of which there is one type; a very large int is one."""
    return numbers if numbers.dtype.kind in "biu" else numbers.astype(np.float64)

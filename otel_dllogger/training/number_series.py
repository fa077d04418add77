"""Numbers at whose end more come, in a numpy array, with totals of long stretches at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

BLOCK = 1024
"""Numbers whose total is kept, so that that of a long window takes few additions."""

_LEAST_CAPACITY = 16


class NumberSeries:
    """Keep numbers in the order they come; adding one takes the same time at any length.

    The type of the numbers is numpy's for all of them: ints until a float comes.

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
        self._totals: dict[np.ufunc, NumberSeries] = {}
        self._wholes: dict[np.ufunc, Any] = {}
        self._add_totals(0)

    def last(self, count: int) -> NDArray[Any]:
        """Return the last numbers; they stay what they are when others come.

        Args:
            count: How many, no more than there are.
        """
        return self._array[self.length - count : self.length]

    def extend(self, numbers: Sequence[Any] | NDArray[Any]) -> None:
        """Add numbers.

        Args:
            numbers: Of any type; that of the series becomes what holds both.

        Raises:
            TypeError: If one of them is no number; then none is added.
            ValueError: If one of them is a sequence; then none is added.
        """
        if not self._is_float:  # else every number fits in
            numbers = np.asarray(numbers)
            if numbers.ndim != 1:
                raise ValueError(f"{numbers!r} are no numbers in one dimension")
            numbers = _fit(numbers)
            dtype = np.result_type(self._array.dtype, numbers.dtype)
            if dtype != self._array.dtype:
                self._move(self.length + len(numbers), dtype)
        before = self.length
        length = before + len(numbers)
        if length > len(self._array):
            self._move(2 * length, self._array.dtype)
        self._array[before:length] = numbers
        self.length = length
        if before // BLOCK != length // BLOCK:
            self._add_totals(before)

    def _move(self, capacity: int, dtype: np.dtype[Any]) -> None:
        """Go on in another array; the views of this one stay as they are."""
        array = np.empty(max(capacity, _LEAST_CAPACITY), dtype)
        array[: self.length] = self._array[: self.length]
        is_other = dtype != self._array.dtype
        self._array = array
        self._is_float = dtype == np.float64
        if is_other:  # and sums are: those of ints may have been beyond their range
            self._totals.clear()
            self._wholes.clear()
            self._add_totals(0)

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
        with np.errstate(all="ignore"):  # whoever asks for a total is told
            for function in self._functions:
                totals = function.reduce(blocks, axis=1)
                whole = function.reduce(totals)
                if function in self._totals:
                    self._totals[function].extend(totals)
                    whole = function(self._wholes[function], whole)
                else:
                    self._totals[function] = NumberSeries(totals)
                self._wholes[function] = whole


def _fit(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return numbers as ints or as floats, of which there is one type; a very large int is one."""
    return numbers if numbers.dtype.kind in "biu" else numbers.astype(np.float64)

"""Values that stay on an accelerator until somebody wants to know them."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

SIZE = 1024
"""Values of a block: some kilobytes on the device, where a tensor of its own takes 512 bytes."""


class DeviceBlock:
    """Copy values to a place on their own device, in the order of the device's work.

    The copy is what keeps them: training may write to its tensors again at once, and
    whatever led to them is not kept alive. Nothing waits until ``read``, and then once for
    all values. Any thread may put and read, a signal handler in the middle of either as well.

    Args:
        like: A tensor of the type and the device of the values. It is known by what it can
            do, ``new_empty`` and ``detach`` as PyTorch's have them.
    """

    __slots__ = ("_key", "_known", "_places", "_there", "_values")

    def __init__(self, like: Any) -> None:
        self._key = (like.dtype, like.device)
        self._values = like.detach().new_empty(SIZE)
        self._places = itertools.count()
        self._there: dict[int, None] = {}  # the places that have a value
        self._known: dict[int, float] = {}

    def put(self, value: Any) -> int | None:
        """Copy a value.

        Args:
            value: A tensor with one element.

        Returns:
            Its place, for ``read``; None if it does not fit in, and needs another block.
        """
        if (value.dtype, value.device) != self._key:
            return None
        place = next(self._places)
        if place >= SIZE:
            return None
        try:
            self._values[place] = value.detach().reshape(())
        except RuntimeError:  # made in torch.inference_mode, which is over
            return None
        self._there[place] = None
        return place

    def read(self, place: int) -> float:
        """Return a value; waits for the device if it has to be fetched."""
        known = self._known
        if place not in known:
            there = list(self._there)
            values = self._values[: max(there) + 1].tolist()
            self._known = known = {one: values[one] for one in there}
        return known[place]


class DeviceValue(NamedTuple):
    """Stand in for a value that is on a device.

    Attributes:
        block: Where it is.
        place: Where in it.
    """

    block: DeviceBlock
    place: int

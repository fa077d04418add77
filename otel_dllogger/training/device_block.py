"""Values that stay on an accelerator until somebody wants to know them."""

from __future__ import annotations

from typing import Any, NamedTuple

SIZE = 1024
"""Values of a block: some kilobytes on the device, where a tensor of its own takes 512 bytes."""


class DeviceBlock:
    """Copy values to a place on their own device, in the order of the device's work.

    The copy is what keeps them: training may write to its tensors again at once, and
    whatever led to them is not kept alive. Nothing waits until ``read``, and then once for
    all values.

    Args:
        like: A tensor of the type and the device of the values. It is known by what it can
            do, ``new_empty`` and ``detach`` as PyTorch's have them.
    """

    __slots__ = ("_key", "_known", "_used", "_values")

    def __init__(self, like: Any) -> None:
        self._key = (like.dtype, like.device)
        self._values = like.detach().new_empty(SIZE)
        self._used = 0
        self._known: list[float] = []

    def put(self, value: Any) -> int | None:
        """Copy a value.

        Args:
            value: A tensor with one element.

        Returns:
            Its place, for ``read``; None if it does not fit in, and needs another block.
        """
        if self._used >= SIZE or (value.dtype, value.device) != self._key:
            return None
        try:
            self._values[self._used] = value.detach().reshape(())
        except RuntimeError:  # made in torch.inference_mode, which is over
            return None
        self._used += 1
        return self._used - 1

    def read(self, place: int) -> float:
        """Return a value; waits for the device if it has to be fetched."""
        if place >= len(self._known):
            self._known = self._values[: self._used].tolist()
        return self._known[place]


class DeviceValue(NamedTuple):
    """Stand in for a value that is on a device.

    Attributes:
        block: Where it is.
        place: Where in it.
    """

    block: DeviceBlock
    place: int

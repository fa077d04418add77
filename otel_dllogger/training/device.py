"""Values that stay on an accelerator until they are needed, and its peak memory use."""

from __future__ import annotations

import itertools
import sys
from typing import Any, NamedTuple

from otel_dllogger.diagnostics import DIAGNOSTICS

SIZE = 1024
"""Values in a block: a few kilobytes on the device; a tensor for each would take 512 bytes."""


class DeviceBlock:
    """A block of memory on a device to which values are copied, in the order of its work.

    Because the values are copied, training may overwrite its tensors at once, and the graph
    that led to them is not kept alive. Nothing waits until ``read``, which waits once for all
    values. Any thread may put and read values, and so may a signal handler that interrupts
    either.

    Args:
        like: A tensor with the type and the device of the values. Any object will do that has
            ``new_empty`` and ``detach`` as PyTorch's tensors do.
    """

    __slots__ = ("_key", "_known", "_places", "_there", "_values")

    def __init__(self, like: Any) -> None:
        self._key = (like.dtype, like.device)
        self._values = like.detach().new_empty(SIZE)
        self._places = itertools.count()
        self._there: dict[int, None] = {}  # the places that hold a value
        self._known: dict[int, float] = {}

    def put(self, value: Any) -> int | None:
        """Copy a value.

        Args:
            value: A tensor with one element.

        Returns:
            Its place, for ``read``; None if it does not fit and needs another block.
        """
        if (value.dtype, value.device) != self._key:
            return None
        place = next(self._places)
        if place >= SIZE:
            return None
        try:
            self._values[place] = value.detach().reshape(())
        except RuntimeError:  # the block was made in torch.inference_mode, which has ended
            return None
        self._there[place] = None
        return place

    def read(self, place: int) -> float:
        """Return a value, and wait for the device if it has to be fetched."""
        known = self._known
        if place not in known:
            there = list(self._there)
            values = self._values[: max(there) + 1].tolist()
            self._known = known = {one: values[one] for one in there}
        return known[place]


class DeviceValue(NamedTuple):
    """A placeholder for a value that is on a device.

    Attributes:
        block: The block that holds it.
        place: Its place in the block.
    """

    block: DeviceBlock
    place: int


_BYTES_PER_MIB = 1024 * 1024


def take_peak_memory_mib(device: Any = None) -> int | None:
    """Return the peak memory use since the last call, and reset it.

    Source: ``get_max_cuda_memory`` and ``get_max_musa_memory`` of MMEngine 0.10.7.

    Args:
        device: Which device; None is the current one.

    Returns:
        Whole MiB; None if no accelerator answers, or if PyTorch is not loaded. It is not
        imported here.
    """
    torch = sys.modules.get("torch")
    for name in ("musa", "cuda"):
        accelerator = getattr(torch, name, None)
        try:
            if accelerator is not None and accelerator.is_available():
                peak_bytes = int(accelerator.max_memory_allocated(device=device))
                accelerator.reset_peak_memory_stats()
                return peak_bytes // _BYTES_PER_MIB
        except Exception as error:  # an accelerator that failed, or one used in a forked child
            DIAGNOSTICS.caught("statistic_failed", "the peak memory", error)
            return None
    return None

"""Values that stay on an accelerator until somebody wants them, and the memory that they take."""

from __future__ import annotations

import itertools
import sys
from typing import Any, NamedTuple

from otel_dllogger.diagnostics import DIAGNOSTICS

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


_BYTES_PER_MIB = 1024 * 1024


def take_peak_memory_mib(device: Any = None) -> int | None:
    """Return the most memory since the last call, and begin anew.

    Source: ``get_max_cuda_memory`` and ``get_max_musa_memory`` of MMEngine 0.10.7.

    Args:
        device: Of which device; None is the current one.

    Returns:
        Whole MiB; None without an accelerator that answers, or without PyTorch, which is not
        imported.
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

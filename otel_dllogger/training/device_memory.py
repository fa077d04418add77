"""The most memory that tensors took on an accelerator, asked of a PyTorch that is there."""

from __future__ import annotations

import sys
from typing import Any

from otel_dllogger.diagnostics import DIAGNOSTICS

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

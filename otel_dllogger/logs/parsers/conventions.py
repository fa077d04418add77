"""What metrics' names say where a file says nothing: a table, and a pure function."""

from __future__ import annotations

import re

from otel_dllogger.logs.parsers.file_record import MMENGINE_SCALARS, MMENGINE_TEXT

MMENGINE = frozenset((MMENGINE_TEXT, MMENGINE_SCALARS))

# Whole words: "clips" are no rate, a "loss_scale" is no loss, nor is "lossless" anything.
_RATE = re.compile(r"(?<![a-z])ips(?![a-z])|throughput", re.IGNORECASE)
_LOSS = re.compile(r"loss(?:es)?(?![a-z])(?!_?scal|_?weight)", re.IGNORECASE)

_MMENGINE_UNITS = {"time": "s", "data_time": "s", "eta": "s", "memory": "MiB"}
"""IterTimerHook's seconds; ``get_max_cuda_memory`` gives bytes over 1024 squared."""


def conventional_metadata(name: str, dialect: str, stage: str | None = None) -> dict[str, str]:
    """Return what a metric's name says of it, in the form of DLLogger's metadata.

    A caller puts the file's own over it, ``{**conventional_metadata(...), **found}``, so
    that an explicit ``"GOAL": "NONE"`` or ``"unit": null`` holds, and passes the result to
    ``metrics.mapping.parse_metadata`` or, as a ``Metadata``, to a store.

    Args:
        name: The name as the file has it.
        dialect: The record's dialect.
        stage: The record's stage. It counts for MMEngine alone, which takes the stage out
            of its names and writes it into the line's header (``LogProcessor``); in the
            others the stage is in metadata or in the name, as when logged live.

    Returns:
        ``unit``, ``GOAL`` and ``STAGE``, those that are known.
    """
    metadata = {}
    if _RATE.search(name):
        metadata = {"unit": "items/s", "GOAL": "MAXIMIZE"}
    elif _LOSS.search(name):
        metadata = {"GOAL": "MINIMIZE"}
    if dialect in MMENGINE:
        unit = _MMENGINE_UNITS.get(name.rpartition("/")[2])
        if unit is not None:
            metadata["unit"] = unit
        if stage is not None:
            metadata["STAGE"] = stage.upper()
    return metadata

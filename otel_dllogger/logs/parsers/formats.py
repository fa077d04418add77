"""The formats of logs: their names, a record of them, and what their metrics' names imply."""

from __future__ import annotations

import re

from otel_dllogger.record import ITERATION, VALIDATION, Record, parse_rank, step_position

DLLOGGER_JSON = "DLLogger JSON lines"
DLLOGGER_TEXT = "DLLogger text, as its StdOutBackend prints it"
TCAP_JSON = "TCAP DLLogger JSON lines"
TCAP_TEXT = "TCAP DLLogger text, as its StdOutBackend prints it"
MMENGINE_TEXT = "MMEngine text log"
MMENGINE_SCALARS = "MMEngine scalars.json"

MMENGINE = frozenset((MMENGINE_TEXT, MMENGINE_SCALARS))

# Whole words: "clips" is not a rate, and neither "loss_scale" nor "lossless" is a loss.
_RATE = re.compile(r"(?<![a-z])ips(?![a-z])|throughput", re.IGNORECASE)
_LOSS = re.compile(r"loss(?:es)?(?![a-z])(?!_?scal|_?weight)", re.IGNORECASE)

_MMENGINE_UNITS = {"time": "s", "data_time": "s", "eta": "s", "memory": "MiB"}
"""IterTimerHook's seconds; ``get_max_cuda_memory`` gives bytes over 1024 squared."""

_STAGE_OF_GRANULARITY = {ITERATION: "train", VALIDATION: "val"}


class FileRecord(Record):
    """A record of a log file.

    Attributes:
        log_format: The name of the line's format.
        file_rank: The rank of the file, for records that do not name theirs.
        header_stage: The stage that stands in the line's header, None where there is none.
        interpolated: Whether the time was worked out from the record's place in the file.
    """

    # Of the class where they are what they nearly always are, as in Record.
    log_format = DLLOGGER_JSON
    file_rank = 0
    header_stage: str | None = None
    interpolated = False

    @property
    def rank(self) -> int:
        """Return the rank: the one in the data, else the file's."""
        data = self.data
        rank = parse_rank(data["rank"]) if isinstance(data, dict) and "rank" in data else None
        return self.file_rank if rank is None else rank

    @property
    def stage(self) -> str | None:
        """Return the stage of the record as a whole; a metric's metadata or name may differ.

        It is the header's; else by the step, as DLLogger's documentation defines it,
        train for a training iteration and val for one of validation. A summary of an
        epoch or of the run holds metrics of several stages: None, the names say it.
        """
        if self.header_stage is not None:
            return self.header_stage
        return _STAGE_OF_GRANULARITY.get(step_position(self.step).granularity)


def conventional_metadata(name: str, log_format: str, stage: str | None = None) -> dict[str, str]:
    """Return what a metric's name says of it, in the form of DLLogger's metadata.

    A caller puts the file's own over it, ``{**conventional_metadata(...), **found}``, so
    that an explicit ``"GOAL": "NONE"`` or ``"unit": null`` holds, and passes the result to
    ``metrics.mapping.parse_metadata`` or, as a ``Metadata``, to a store.

    Args:
        name: The name as the file has it.
        log_format: The record's format.
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
    if log_format in MMENGINE:
        unit = _MMENGINE_UNITS.get(name.rpartition("/")[2])
        if unit is not None:
            metadata["unit"] = unit
        if stage is not None:
            metadata["STAGE"] = stage.upper()
    return metadata

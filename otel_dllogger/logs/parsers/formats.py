"""The names of log formats, a record read from a log, and what metrics' names imply."""

from __future__ import annotations

from otel_dllogger.metrics.kinds import LOSS, THROUGHPUT, guess_kind
from otel_dllogger.record import ITERATION, VALIDATION, Record, parse_rank

DLLOGGER_JSON = "DLLogger JSON lines"
DLLOGGER_TEXT = "DLLogger text, as its StdOutBackend prints it"
TCAP_JSON = "TCAP DLLogger JSON lines"
TCAP_TEXT = "TCAP DLLogger text, as its StdOutBackend prints it"
MMENGINE_TEXT = "MMEngine text log"
MMENGINE_SCALARS = "MMEngine scalars.json"
OPENMMLAB_TEXT = "OpenMMLab 1.x text log"
MEGATRON = "Megatron-LM console"
TORCHTITAN = "torchtitan console"
DEEPSPEED = "DeepSpeed console"
NEMO = "NeMo console"
DETECTRON2_TEXT = "Detectron2 console"
PADDLE = "PaddleDetection console"
FAIRSEQ = "fairseq console"
TIMM = "timm console"
PYTORCH_EXAMPLES = "PyTorch examples' console"
NANOGPT = "nanoGPT console"
OPENMMLAB_JSON = "OpenMMLab 1.x .log.json"
DETECTRON2 = "Detectron2 metrics.json"
TORCHTITAN_JSON = "torchtitan JSON lines"
LLAMA_FACTORY = "LLaMA-Factory trainer_log.jsonl"
TRAINER_STATE = "Transformers trainer_state.json"
LIGHTNING = "Lightning metrics.csv"
ULTRALYTICS = "Ultralytics results.csv"
TENSORBOARD = "TensorBoard event file"
JSON_ROWS = "JSON rows of a tool that is not known"
CSV_ROWS = "CSV rows of a tool that is not known"

MMENGINE = frozenset((MMENGINE_TEXT, MMENGINE_SCALARS, OPENMMLAB_TEXT, OPENMMLAB_JSON))
"""Formats of OpenMMLab, which has units of its own for what its hooks measure."""

REPEATING = frozenset((TRAINER_STATE,))
"""Formats of which each file of a run repeats the rows of those before it."""

_GOALS = {LOSS: "MINIMIZE", THROUGHPUT: "MAXIMIZE"}
_DETECTRON2 = frozenset((DETECTRON2, DETECTRON2_TEXT))
_TIMER_UNITS = {"time": "s", "data_time": "s", "eta": "s", "memory": "MiB"}
"""Seconds of MMEngine's and Detectron2's timers; ``get_max_cuda_memory`` gives bytes over 2**20."""

_STAGE_OF_GRANULARITY = {ITERATION: "train", VALIDATION: "val"}


class FileRecord(Record):
    """A record read from a log file.

    Attributes:
        log_format: The name of the line's format.
        file_rank: The rank of the file, for records that do not name theirs.
        header_stage: The stage in the line's header, None if there is none.
        interpolated: Whether the time was worked out from the record's place in the file.
    """

    # Class attributes hold the values that are nearly always right, as in Record.
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

        It is the header's, if there is one. Otherwise the step decides, as DLLogger's documentation
        defines it: train for a training iteration, val for a validation iteration. A summary of an
        epoch or of the run holds metrics of several stages, which their names tell: it has None.
        """
        if self.header_stage is not None:
            return self.header_stage
        return _STAGE_OF_GRANULARITY.get(self.granularity)


def conventional_metadata(name: str, log_format: str, stage: str | None = None) -> dict[str, str]:
    """Return what a metric's name says about it, in the form of DLLogger's metadata.

    A caller overrides it with the file's own, ``{**conventional_metadata(...), **found}``, so
    that an explicit ``"GOAL": "NONE"`` or ``"unit": null`` holds. It passes the result to
    ``metrics.naming.parse_metadata`` or, as a ``Metadata``, to a store.

    Args:
        name: The name as the file has it.
        log_format: The record's format.
        stage: The record's stage. It is used for MMEngine only, which removes the stage from
            its names and writes it into the line's header (``LogProcessor``). In the other
            formats the stage is in the metadata or the name, as when logged live.

    Returns:
        Those of ``unit``, ``GOAL`` and ``STAGE`` that are known.
    """
    metadata: dict[str, str] = {}
    goal = _GOALS.get(guess_kind(name).kind or "")
    if goal is not None:
        metadata["GOAL"] = goal
    if log_format in MMENGINE or log_format in _DETECTRON2:
        unit = _TIMER_UNITS.get(name.rpartition("/")[2])
        if unit is not None:
            metadata["unit"] = unit
    if log_format in MMENGINE and stage is not None:
        metadata["STAGE"] = stage.upper()
    return metadata

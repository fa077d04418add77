"""How other tools print what they log, as a table.

A tool is a row of ``TOOLS``: what its lines begin with, and what stands between their values. A
sample of each is in ``tests/data/formats``. Sources: mmcv 1.x ``TextLoggerHook``; Megatron-LM
``training_log`` and ``evaluate_and_print_results``, which Megatron-DeepSpeed and GPT-NeoX have
from it; torchtitan ``MetricsProcessor``; DeepSpeed ``engine.py`` and ``timer.py``; NeMo's progress
printer; Detectron2 ``CommonMetricPrinter``; PaddleDetection ``LogPrinter``; fairseq
``progress_bar``; timm ``train.py``; PyTorch's ImageNet example and torchvision's
``MetricLogger``; nanoGPT ``train.py``.
"""

from __future__ import annotations

import dataclasses
import re

from otel_dllogger.logs.parsers.formats import (
    DEEPSPEED,
    DETECTRON2_TEXT,
    FAIRSEQ,
    MEGATRON,
    NANOGPT,
    NEMO,
    OPENMMLAB_TEXT,
    PADDLE,
    PYTORCH_EXAMPLES,
    TIMM,
    TORCHTITAN,
)

_TIME = r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d{1,9})?)"
_DAY = r"(?P<day>\d\d/\d\d \d\d:\d\d:\d\d)"
_N = r"(?P<n>\d{1,18})"
_EPOCH = r"(?P<epoch>\d{1,18})"
_OF = r" ?/\s*\d{1,18}"

_BARS = re.compile(r"\|")
_COMMAS = re.compile(r", (?=[^\s,:]+(?: [^\s,:]+){0,3}: )|(?<=e[-+]\d\d) (?=[A-Za-z_][^\s,:]*: )")
_COMMAS_ANY = re.compile(r", (?=[A-Za-z])")
_BLANK = re.compile(r",?\s+(?=[A-Za-z_][^\s:]*: )")
# Numbers are padded, so that blanks may come before a NaN.
_BLANKS = re.compile(r"\t(?!\s*(?:nan|inf)\b)|\s{2,}(?!(?:nan|inf)\b)(?=[A-Za-z])")


@dataclasses.dataclass(frozen=True, slots=True)
class Tool:
    """How a tool prints its values.

    Attributes:
        name: The name of the format.
        head: What a line begins with. Groups: ``time``, or ``day`` for a time without a year,
            ``rank``, ``stage``, ``epoch``, ``n`` for the iteration, ``batches`` for a number that
            counts batches of a validation, ``subset`` for data that are validated, ``prefix`` for
            what belongs to all names; ``task``, ``names`` and ``results`` for names that come
            before their values; a second one of a kind ends in 2.
        separator: What stands between two values.
        stage: The stage of a line whose header has none, None if it says nothing.
        groups: The number of each group in the head, and its name without the 2.
        duration: Names of the value that is the duration of an iteration, in seconds unless a
            unit stands beside it; for lines without a time.
    """

    name: str
    head: re.Pattern[str]
    separator: re.Pattern[str]
    stage: str | None = None
    groups: tuple[tuple[int, str], ...] = ()
    duration: tuple[str, ...] = ()


def _tool(
    name: str,
    head: str,
    separator: re.Pattern[str],
    stage: str | None = None,
    duration: tuple[str, ...] = (),
) -> Tool:
    pattern = re.compile(head, re.ASCII)
    groups = tuple((number, key.rstrip("23")) for key, number in pattern.groupindex.items())
    return Tool(name, pattern, separator, stage, groups, duration)


TOOLS = (
    _tool(
        OPENMMLAB_TEXT,
        _TIME + r" - \S{1,100} - [A-Z]+ - (?:Epoch(?:\((?P<stage>train|val|test)\))? ?"
        rf"\[{_EPOCH}\]\[{_N}(?:/\d{{1,18}})?\]"
        r"|Iter ?\[(?P<n2>\d{1,18})/\d{1,18}\]"
        r"|Iter\((?P<stage2>train|val|test)\) ?\[(?P<batches>\d{1,18})(?:/\d{1,18})?\])\s+",
        _COMMAS,
        stage="train",
    ),
    _tool(
        MEGATRON,
        rf"\s*(?:\[{_TIME}\])?\s*(?:iteration\s+{_N}{_OF}\s*\|"
        rf"|(?=samples/sec: [^|]{{1,40}}\|\s*iteration\s+(?P<n2>\d{{1,18}}){_OF}\s*\|))",
        _BARS,
        duration=("elapsed time per iteration",),
    ),
    _tool(
        MEGATRON,
        rf"\s*(?:\[{_TIME}\])?\s*(?P<stage>validation|test) (?:loss|results) at "
        rf"(?:iteration {_N}|the end of training)"
        r"(?: (?:for|on) (?P<stage2>val|validation|test)\b)?[^|]{0,60}\|",
        _BARS,
    ),
    _tool(
        TORCHTITAN,
        rf"(?:\[titan\] )?{_TIME} - \S{{1,100}} - INFO - (?P<stage>validate )?step:\s+{_N}\s+",
        re.compile(r"\s+(?=[A-Za-z_][^\s:]*: )"),
    ),
    _tool(
        DEEPSPEED,
        rf"\[{_TIME}\] \[INFO\] \[\w+\.py:\d{{1,5}}:\w+\] (?:\[Rank (?P<rank>\d{{1,7}})\] )?"
        rf"(?:step={_N}, (?=skipped=)|(?:epoch=\d+/micro_step=\d+/global_step=(?P<n2>\d{{1,18}})"
        r"|\d+/(?P<n3>\d{1,18})), (?=RunningAvg))",
        _COMMAS_ANY,
    ),
    _tool(
        DEEPSPEED,
        rf"steps: {_N} (?=loss: )",
        re.compile(r" (?=iter time|samples/sec)"),
        duration=("iter time",),
    ),
    _tool(
        NEMO,
        rf"Training epoch {_EPOCH}, iteration {_N}{_OF} \|",
        _BARS,
        duration=("train_step_timing in s",),
    ),
    _tool(
        DETECTRON2_TEXT,
        rf"\[{_DAY} \S{{1,100}}\]:\s+(?=(?:eta: [\w ,:]{{1,40}}\s+)?iter: {_N}\s)",
        _BLANKS,
    ),
    _tool(
        DETECTRON2_TEXT,
        rf"\[{_DAY} \S{{1,100}}\]:\s+copypaste: (?:Task: (?P<task>\S{{1,60}})\s*$"
        r"|(?P<results>[-+\d.,enaif]+)$|(?=[A-Za-z][\w.,@%/ -]*$)(?P<names>.+))",
        _BARS,
        stage="val",
    ),
    _tool(
        PADDLE,
        rf"\[{_DAY}\] ppdet\.\S{{1,60}} INFO: Epoch: \[\s*{_EPOCH}\] \[\s*{_N}{_OF}\] ",
        _BLANK,
    ),
    _tool(
        FAIRSEQ,
        rf"{_TIME} \| INFO \| (?P<stage>train)_inner \| "
        rf"(?=.*\bnum_updates(?:=|\": \"?){_N})"
        rf"(?:\{{\"epoch\": {_EPOCH}, |epoch (?P<epoch2>\d{{1,18}}):\s+\d+{_OF} )",
        _COMMAS_ANY,
    ),
    _tool(
        FAIRSEQ,
        rf"{_TIME} \| INFO \| (?!train_inner )(?P<stage>[\w.,/-]{{1,60}}) \| "
        rf"(?:\{{\"epoch\": {_EPOCH}, |epoch (?P<epoch2>\d{{1,18}}) \|)"
        r"(?: valid on '(?P<subset>[^'|]{1,60})' subset \|)?",
        re.compile(r"\||, (?=[A-Za-z])"),
    ),
    _tool(
        TIMM,
        rf"Train: {_EPOCH} \[\s*{_N}{_OF} \(\s*\d{{1,3}}%\)\]\s+",
        _BLANKS,
        stage="train",
        duration=("Time",),
    ),
    _tool(
        PYTORCH_EXAMPLES,
        rf"Epoch: \[{_EPOCH}\]\s*\[\s*{_N}{_OF}\]:?\s+",
        _BLANKS,
        duration=("Time", "time"),  # the ImageNet example's, torchvision's
    ),
    _tool(
        PYTORCH_EXAMPLES,
        r"\s*(?:\*|Test:) +(?:(?P<prefix>[A-Za-z][\w.-]{0,40}) +)?"
        r"(?=(?i:acc|prec|top|err|error)@1 )",
        re.compile(r"\s(?!(?:nan|inf)\b)(?=[A-Za-z])"),
        stage="val",
    ),
    _tool(
        NANOGPT,
        rf"(?:iter {_N}: (?=loss )|step (?P<n2>\d{{1,18}}): (?=train loss ))",
        _COMMAS_ANY,
        duration=("time",),
    ),
)

HINT = re.compile(
    rb"[EI](?:poch|ter)(?:\(\w+\))?:? ?\[|iter(?:ation)?[:= ]+\d|steps?[:= ]+\d| at (?:iter|the e)"
    rb"|INFO \| \S{1,60} \| (?:epoch \d|\{\"epoch)|INFO \| train_inner|Train: \d"
    rb"|RunningAvg|(?i:acc|prec|top|err|error)@1 |copypaste: "
)
"""What each line of a tool contains, and hardly any other line."""

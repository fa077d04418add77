"""Read what other tools print while they train, by a table of their headers and separators.

A tool is a row of ``TOOLS``: what its lines begin with, and what stands between their values. A
sample of each is in ``tests/data/console``. Sources: mmcv 1.x ``TextLoggerHook``; Megatron-LM
``training_log`` and ``evaluate_and_print_results``, which Megatron-DeepSpeed has from it;
torchtitan ``MetricsProcessor``.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import NO_TIME
from otel_dllogger.logs.parsers.context import SkippedError
from otel_dllogger.logs.parsers.formats import (
    MEGATRON,
    OPENMMLAB_TEXT,
    TORCHTITAN,
    FileRecord,
)
from otel_dllogger.logs.parsers.literals import parse_seconds
from otel_dllogger.logs.parsers.text_lines import new_units

if TYPE_CHECKING:
    from otel_dllogger.logs.parsers.context import FileContext
    from otel_dllogger.record import Metadata

_TIME = r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d{1,9})?)"


@dataclasses.dataclass(frozen=True, slots=True)
class Tool:
    """How a tool prints its values.

    Attributes:
        name: The name of the format.
        head: What a line begins with. Groups: ``time``, ``stage``, ``epoch``, ``n`` for the
            iteration, ``batches`` for a number that counts batches of a validation.
        separator: What stands between two values.
        stage: The stage of a line whose header has none, None if it says nothing.
    """

    name: str
    head: re.Pattern[str]
    separator: re.Pattern[str]
    stage: str | None = None


TOOLS = (
    Tool(
        OPENMMLAB_TEXT,
        re.compile(
            _TIME + r" - \S{1,100} - [A-Z]+ - (?:Epoch(?:\((?P<stage>train|val|test)\))? ?"
            r"\[(?P<epoch>\d{1,18})\]\[(?P<n>\d{1,18})(?:/\d{1,18})?\]"
            r"|Iter ?\[(?P<n2>\d{1,18})/\d{1,18}\]"
            r"|Iter\((?P<stage2>train|val|test)\) ?\[(?P<batches>\d{1,18})(?:/\d{1,18})?\])\s+",
            re.ASCII,
        ),
        re.compile(r", (?=[^\s,:]+: )"),
        stage="train",
    ),
    Tool(
        MEGATRON,
        re.compile(
            rf"\s*(?:\[{_TIME}\])?\s*iteration\s+(?P<n>\d{{1,18}})/\s*\d{{1,18}}\s*\|", re.ASCII
        ),
        re.compile(r"\|"),
    ),
    Tool(
        MEGATRON,
        re.compile(
            r"\s*(?:validation|test) loss at "
            r"(?:iteration (?P<batches>\d{1,18})|the end of training)"
            r"(?: for [^|]{0,60})?(?: on (?P<stage>validation|test) set)?[^|]{0,60}\|",
            re.ASCII,
        ),
        re.compile(r"\|"),
        stage="val",
    ),
    Tool(
        TORCHTITAN,
        re.compile(
            rf"\[titan\] {_TIME} - \S{{1,100}} - INFO - (?P<stage>validate )?step:\s+"
            r"(?P<n>\d{1,18})\s+",
            re.ASCII,
        ),
        re.compile(r"\s+(?=[A-Za-z_][^\s:]*: )"),
    ),
)

_PAIR = re.compile(
    r"\s*(?P<name>[^\s:][^:]{0,200}?)(?: \((?P<unit>[^()]{1,40})\))?:\s*(?P<value>\S.*?)\s*"
)
_VALUE = re.compile(
    r"(?P<number>[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,18})?(?:\.\d{0,30})?(?:[eE][-+]?\d{1,3})?)"
    r"(?P<unit>%|[A-Za-z]{1,10})?(?:\(.*\))?",
    re.ASCII,
)
_STAGES = {"validate ": "val", "validation": "val"}


def read_console(text: str, context: FileContext) -> list[FileRecord | Metadata]:
    """Read a line that a known tool printed.

    Args:
        text: The line, without what is around it.
        context: The file.

    Returns:
        The record, preceded by metadata for units that were not seen before; nothing if no tool
        of the table prints such lines.

    Raises:
        SkippedError: If its time cannot be read.
    """
    for tool in TOOLS:
        head = tool.head.match(text)
        if head is not None:
            return _read(tool, head, text[head.end() :], context)
    return []


def _read(
    tool: Tool, head: re.Match[str], rest: str, context: FileContext
) -> list[FileRecord | Metadata]:
    data, units = _read_values(tool, rest)
    if not data:
        return []
    given = head.groupdict()
    time_us = _time_us(given.get("time"), context)
    stage = given.get("stage") or given.get("stage2")
    stage = _STAGES.get(stage or "", stage) or tool.stage
    step = _step(given, stage, context)
    elapsed_us = context.elapsed_us(time_us)
    record = FileRecord(time_us, elapsed_us, step, data)
    record.log_format = tool.name
    record.header_stage = stage
    record.file_rank = context.rank
    context.count(tool.name)
    return [*new_units(units, time_us, elapsed_us, context), record]


def _time_us(text: str | None, context: FileContext) -> int:
    """Return the line's time: its own, its container's, or that of the record before it."""
    if text is not None:
        time_us = context.read_datetime(text)
        if time_us is None:
            raise SkippedError(NO_TIME)
        return time_us
    return context.outer_us or context.last_us or context.row_us()


def _step(given: dict[str, str | None], stage: str | None, context: FileContext) -> Any:
    epoch, number = given.get("epoch"), given.get("n") or given.get("n2")
    iteration = None if number is None else int(number)
    if stage in (None, "train") and iteration is not None:
        context.iteration = iteration
        return iteration if epoch is None else (int(epoch), iteration)
    if epoch is not None:
        return (int(epoch),)
    return (None, context.iteration if iteration is None else iteration, None)


def _read_values(tool: Tool, text: str) -> tuple[dict[str, Any], dict[str, str]]:
    data: dict[str, Any] = {}
    units: dict[str, str] = {}
    for part in tool.separator.split(text):
        pair = _PAIR.fullmatch(part)
        if pair is None:
            continue
        name, unit = pair["name"], pair["unit"] or ""
        value = _VALUE.fullmatch(pair["value"])
        if name == "eta":
            data[name] = parse_seconds(pair["value"])
        elif value is not None and any(map(str.isdigit, value["number"])):
            data[name] = float(value["number"].replace(",", ""))
            unit = unit or value["unit"] or ""
        elif pair["value"].lower() in ("nan", "inf", "-inf"):
            data[name] = float(pair["value"])
        else:
            data[name] = pair["value"]
        if unit:
            units[name] = unit
    return data, units

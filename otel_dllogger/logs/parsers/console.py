"""Read what other tools print while they train, by the table in ``console_tools``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import NO_TIME, UNCLEAR_NAME
from otel_dllogger.logs.parsers.console_tools import TOOLS
from otel_dllogger.logs.parsers.context import SkippedError
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.parsers.literals import parse_seconds
from otel_dllogger.logs.parsers.mmengine import NAMES_COME_FIRST
from otel_dllogger.logs.parsers.text_lines import new_units

if TYPE_CHECKING:
    from otel_dllogger.logs.parsers.console_tools import Tool
    from otel_dllogger.logs.parsers.context import FileContext
    from otel_dllogger.record import Metadata

# No line has more than two blanks in a row when it is matched, so that the time for a pattern that
# tries each of them grows only linearly.
_RUN = re.compile(r"\s{3,}")
_PAIR = re.compile(
    r"(?P<name>[^\s:][^:]{0,200}?)(?: \((?P<unit>[^()]{1,40})\))?\s*:\s*(?P<value>\S.*)"
)
# Without a colon, as in "lm loss 1.0E+01", "lr=[0.1, 0.1]": only numbers are values.
_PLAIN = re.compile(
    r"(?P<name>[A-Za-z_][^\s:=]{0,100}(?: [A-Za-z_][^\s:=]{0,100}){0,5}?)(?:=|\s+)"
    r"(?P<value>[-+\[]?(?:[\d.]|nan|inf).*)"
)
# A rate or a mean in brackets may follow: "0.45s, 2275.5/s", "0.5 (0.6)", "0.45s,  170.0/s (0.5s".
_VALUE = re.compile(
    r"(?P<number>[-+]?(?:(?:\d{1,3}(?:,\d{3})+|\d{1,18})(?:\.\d{0,30})?|\.\d{1,30})"
    r"(?:[eE][-+]?\d{1,3})?|[-+]?(?:nan|inf)\b)"
    r"(?: ?(?P<unit>%|[A-Za-z]{1,10}(?:/[A-Za-z]{1,10}){0,3}))?"
    r"(?:, +(?P<rate>\d{1,18}(?:\.\d{0,30})?)/s\b)?(?:(?:\s*\(|, +\d).*)?",
    re.ASCII,
)
_THROUGHPUT = "throughput"
_NOT_A_NAME = re.compile(r"[-+]?(?:\d[\d.,]*|\.\d+)(?:[eE][-+]?\d+)?%?\s", re.ASCII)
_HOST = re.compile(r"[A-Za-z][\w.-]{0,100}: +(?=\[\d{4}-| ?iteration|samples/sec|steps: )")
"""pdsh, with which DeepSpeed starts the nodes, puts their names before each line."""

_UNITS_S = {"": 1.0, "s": 1.0, "ms": 1e-3}
_STAGES = {"validate ": "val", "validation": "val", "valid": "val"}
# The data of training, if they are validated as well, are not the training.
_SUBSETS = {"valid": "val", "train": "train subset"}
_QUOTES = str.maketrans("", "", '"{}')
_NOT_METRICS = frozenset(("iter", "iteration", "epoch", "global_step"))
_MAX_NAMES = 1_000


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
    text = _RUN.sub("  ", text)
    host = _HOST.match(text) if text[:1].isalpha() else None
    at = 0 if host is None else host.end()
    for tool in TOOLS:
        head = tool.head.match(text, at)
        if head is not None:
            return _read(tool, head, text[head.end() :], context)
    return []


def _read(
    tool: Tool, head: re.Match[str], rest: str, context: FileContext
) -> list[FileRecord | Metadata]:
    given = {key: text for number, key in tool.groups if (text := head[number]) is not None}
    if "names" in given or "task" in given:
        _note_names(given, context)
        return []
    units: dict[str, str] = {}
    unclear: list[str] = []
    if "results" in given:
        data = _by_names(given["results"], context)
    else:
        data, units, unclear = _read_values(tool, rest)
    if "prefix" in given:
        data = {f"{given['prefix']} {name}": value for name, value in data.items()}
        units = {f"{given['prefix']} {name}": unit for name, unit in units.items()}
    if not data:
        if unclear:
            raise SkippedError(UNCLEAR_NAME, unclear[0])
        return []
    stage = given.get("stage")
    stage = _STAGES.get(stage or "", stage) or tool.stage
    if "subset" in given:
        stage = _SUBSETS.get(given["subset"], given["subset"])
    stage = stage and stage.lower()
    step = _step(given, stage, context)
    time_us = _time_us(given, context)
    if time_us is None:
        time_us = context.row_us(_took_us(tool, given, stage, (data, units), context))
    if "rank" in given:
        context.note_rank(int(given["rank"]), f"the tag [Rank {given['rank']}]")
    elapsed_us = context.elapsed_us(time_us)
    record = FileRecord(time_us, elapsed_us, step, data)
    record.log_format = tool.name
    record.header_stage = stage
    record.file_rank = context.rank
    record.interpolated = context.is_untimed
    context.count(tool.name)
    for name in unclear:
        context.skip(UNCLEAR_NAME, name)
    return [*new_units(units, time_us, elapsed_us, context), record]


def _note_names(given: dict[str, str], context: FileContext) -> None:
    """Note the task, or the names of the results that the next line holds."""
    before = context.open_row
    task = before[1] if before is not None and before[0] == NAMES_COME_FIRST else ""
    names = given["names"].split(",") if "names" in given else []
    context.open_row = [NAMES_COME_FIRST, given.get("task", task), names[:_MAX_NAMES]]


def _by_names(said: str, context: FileContext) -> dict[str, Any]:
    """Return the results of a line, by the names in the line before it."""
    row, context.open_row = context.open_row, None
    values = [_float(value) for value in said.split(",")]
    if row is None or row[0] != NAMES_COME_FIRST or len(row[2]) != len(values):
        return {}
    task = f"{row[1]}/" if row[1] else ""
    names = [f"{task}{name.strip()}" for name in row[2]]
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _time_us(given: dict[str, str], context: FileContext) -> int | None:
    """Return the line's time: its own, its container's, or one after the record before it.

    Returns:
        None if no line of the file had a time.

    Raises:
        SkippedError: If its own cannot be read.
    """
    time_us = context.outer_us
    if "time" in given:
        time_us = context.read_datetime(given["time"])
    elif "day" in given:
        month, day, *clock = map(int, re.split(r"\D", given["day"]))
        time_us = context.find_year(month, day, clock)
    elif time_us is None and (context.is_untimed or context.last_us is None):
        context.is_untimed = True
        return None
    elif time_us is None:
        return context.after_last_us()
    if time_us is None:
        raise SkippedError(NO_TIME)
    context.is_untimed = False
    return time_us


def _took_us(
    tool: Tool,
    given: dict[str, str],
    stage: str | None,
    values: tuple[dict[str, Any], dict[str, str]],
    context: FileContext,
) -> int | None:
    """Return how long the iterations of a line took, microseconds; None if it does not say."""
    data, units = values
    name = next((name for name in tool.duration if name in data), "")
    scale = _UNITS_S.get(units.get(name, ""))
    if not name or scale is None or "n" not in given or stage not in (None, "train"):
        return None
    duration = data[name]
    return context.took_us(duration * scale, int(given["n"])) if type(duration) is float else None


def _step(given: dict[str, str], stage: str | None, context: FileContext) -> Any:
    epoch, number = given.get("epoch"), given.get("n")
    iteration = None if number is None else int(number)
    if stage in (None, "train") and iteration is not None:
        context.iteration = iteration
        context.epoch = None if epoch is None else int(epoch)
        return iteration if epoch is None else (int(epoch), iteration)
    if epoch is not None:
        return (int(epoch),)
    if iteration is None and context.epoch is not None:
        return (context.epoch,)
    return (None, context.iteration if iteration is None else iteration, None)


def _read_values(tool: Tool, text: str) -> tuple[dict[str, Any], dict[str, str], list[str]]:
    """Return the values and the units, by name, and what stands in the place of a name."""
    data: dict[str, Any] = {}
    units: dict[str, str] = {}
    unclear: list[str] = []
    text = text.translate(_QUOTES) if '"' in text else text
    for part in map(str.strip, tool.separator.split(text)):
        pair = _PAIR.fullmatch(part) or _PLAIN.fullmatch(part)
        if pair is None or pair["name"] in _NOT_METRICS or pair["name"].endswith("num_updates"):
            continue
        name, said = pair["name"], pair["value"]
        if _NOT_A_NAME.match(name):
            unclear.append(name[:80])
            continue
        unit = (pair["unit"] or "") if pair.re is _PAIR else ""
        if name == "eta":
            data[name] = parse_seconds(said)
        elif (number := _float(said)) is not None:
            data[name] = number
        elif value := _VALUE.fullmatch(said):
            data[name] = float(value["number"].replace(",", ""))
            if value["rate"] is not None:
                data[_THROUGHPUT] = float(value["rate"])
            unit = unit or value["unit"] or ""
        elif pair.re is _PAIR:
            data[name] = said
        else:
            data.update(_by_group(name, said))
        if unit:
            units[name] = unit
    return data, units, unclear


def _float(text: str) -> float | None:
    """Return a number without a unit, NaN and Inf included, as nearly all values are."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _by_group(name: str, said: str) -> dict[str, float]:
    """Return the numbers of groups of parameters: as one, if all are the same."""
    if said[-1] != "]":
        return {}
    values = [_float(part) for part in said[1:-1].split(",")]
    numbers = [value for value in values if value is not None]
    if len(numbers) != len(values):
        return {}
    if len(set(numbers)) == 1:
        return {name: numbers[0]}
    return {f"{name}/{number}": value for number, value in enumerate(numbers)}

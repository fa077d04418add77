"""Parse MMEngine's text log and its ``vis_data/scalars.json``.

MMEngine 0.10.7 defines what a line's numbers mean: ``runner/log_processor.py`` writes the
text, and ``hooks/logger_hook.py`` passes the same values on to ``LocalVisBackend``, which
writes the rows of ``scalars.json``. Steps are mapped as follows:

=====================================  ===================================================
line                                   step
=====================================  ===================================================
``Epoch(train) [2][10/25]``            ``(2, 35)``: MMEngine counts iterations through in rows
``Iter(train) [10/60]``                ``10``
row with ``epoch`` and ``iter``        ``(epoch, iter)``
row with ``iter``                      ``iter``
``Epoch(val) [2][10/25] eta: ...``     ``(2, last iteration, 10)``: progress of a validation
``Epoch(val) [2][25/25]  acc: ...``    ``(2,)``: the validation's results, by epoch
row with a learning rate or ``epoch``  ``(epoch, step)`` or ``step``: MMEngine before 0.7.4
other row, by epoch                    ``(step,)``: its ``step`` is the epoch
``Iter(val) [10/25] eta: ...``         ``(0, last iteration, 10)``
``Iter(val) [25/25]  acc: ...``        ``(0, last iteration, 25)``: there are no epochs
other row, by iteration                ``(0, last iteration, None)``; ``step`` is 0, or the
                                       iteration with ``log_metric_by_epoch=False``
``Epoch(test) [10/25] ...``            ``(None, None, 10)``
``Epoch(test) [25/25]  acc: ...``      ``()``: the run's result
``Epoch(train) [2][10/?]``             ``(2, 10)``: a loader's length may be unknown
=====================================  ===================================================

A run is by iteration if its last training row has no epoch; ``runner.epoch`` is then 0
throughout. A line of progress differs from a line of results by its ``eta``, or by a count
that is not complete. Tensors and arrays among the results are printed over several lines; what
follows them belongs to the same results, and they themselves are not read.

A console's lines have no year. It is that of the time at the end of ``Exp name:``, else of the
time that the file or its folder is named after, else the latest in which the line is not after the
last change of the file.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import NO_TIME, TORN, UNCLEAR_NAME
from otel_dllogger.logs.parsers.context import SkippedError
from otel_dllogger.logs.parsers.formats import MMENGINE_SCALARS, MMENGINE_TEXT, FileRecord
from otel_dllogger.logs.parsers.literals import parse_literal, parse_seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.parsers.context import FileContext

_LINE = re.compile(
    r"(?:(?P<year>\d{4})/)?(?P<month>\d\d)/(?P<day>\d\d) (?P<h>\d\d):(?P<m>\d\d):(?P<s>\d\d)"
    r" - \S{1,100} - [A-Z]+ - "
    r"(?P<by>Epoch|Iter)\((?P<stage>train|val|test)\)\s*(?P<place>\[.*)",
    re.ASCII | re.DOTALL,
)
_PLACE = re.compile(
    r"(?:\[\s*(?P<epoch>\d{1,18})\]\s*)?\[\s*(?P<n>\d{1,18}|\?)/\s*(?P<of>\d{1,18}|\?|None)\](?P<pairs>.*)",
    re.ASCII | re.DOTALL,
)
_EXPERIMENT = re.compile(r"Exp name: .{0,300}?(\d{4})(\d\d)(\d\d)_(\d\d)(\d\d)(\d\d)\s*$", re.ASCII)
# Releases of early 2023 forgot the blanks: "acc: 0.6875data_time: 1.25".
_GLUED = re.compile(r"([-+]?[\d.]+(?:e[-+]?\d+)?|nan|inf)([A-Za-z_][^\s:]*): (?=.)", re.ASCII)
_CONTINUED = re.compile(r"\s{2}\S[^:]{0,200}:(?:\s|$)")
_BRACKET = re.compile(r"[\[\](){}]")
_TENSOR = re.compile(r"\s*[\[({]|(?:tensor|array)\(")
_WITHIN_TENSOR = re.compile(
    r"\s*(?:[\[\](){}'\"]|\.\.\.|(?:device|dtype|grad_fn|size)="
    r"|(?:[-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf)|True|False|None)(?=[\s,\])}]|$))",
    re.ASCII,
)
_NUMBERS_BEGIN = frozenset("0123456789+-.")
NAMES_COME_FIRST = "names"
"""What ``FileContext.open_row`` begins with if it is not a row of MMEngine, but of ``console``."""

_FILES = re.compile(r"(?:.*/)?vis_data/(?:scalars|\d{8}_\d{6})\.json.*|(?:.*/)?scalars\.json.*")
_NUMBER_FIRST = re.compile(r"[-+]?(?:\d[\d,.]*|\.\d+)(?:[eE][-+]?\d+)?%?\s", re.ASCII)


def read_text(text: str, context: FileContext) -> list[FileRecord]:
    """Read a line of MMEngine's text log.

    Args:
        text: The line, from its time onwards.
        context: The file; its last training iteration is kept.

    Returns:
        The record, if the line holds metrics.

    Raises:
        SkippedError: If it is a damaged line of metrics.
    """
    line = _LINE.match(text)
    if line is None:
        return []
    place = _PLACE.match(line["place"])
    if place is None:
        raise SkippedError(TORN)
    time_us = _time_us(line, context)
    pairs = place["pairs"]
    data = _pairs(pairs, context)
    epoch = None if place["epoch"] is None else int(place["epoch"])
    by_epoch = line["by"] == "Epoch"
    iteration = None if place["n"] == "?" else int(place["n"])
    stage = line["stage"]
    step: Any
    if stage == "train":
        if epoch and iteration is not None and place["of"].isdigit():
            iteration += (epoch - 1) * int(place["of"])
        step = (epoch, iteration) if epoch is not None else iteration
        context.epoch, context.iteration = epoch, iteration
    elif stage == "test":
        is_progress = "eta" in data or place["n"] != place["of"]
        step = (None, None, iteration) if is_progress else ()
    elif by_epoch and "eta" not in data and place["n"] == place["of"]:
        step = (epoch,)
    else:
        step = (epoch if by_epoch else 0, context.iteration, iteration)
    context.open_row = _open_row(pairs, [step, stage, time_us])
    return [_record(context, time_us, step, data, stage=stage, log_format=MMENGINE_TEXT)]


def read_continuation(text: str, context: FileContext) -> FileRecord | None:
    """Read a line without a time, which may go on with a row that a tensor broke off.

    Returns:
        A record with what the line adds to the row; None if it adds nothing.
    """
    if context.open_row is None or context.open_row[0] == NAMES_COME_FIRST:
        return None
    step, stage, time_us, *more = context.open_row
    depth = more[0] if more else 0
    if depth or not _CONTINUED.match(text):
        pattern = _WITHIN_TENSOR if depth else _TENSOR
        if not pattern.match(text):
            context.open_row = None
            return None
        end, depth = _close(text, depth)
        context.open_row = [step, stage, time_us, depth]
        text = text[end:]
        if depth or not _CONTINUED.match(text):
            return None
    context.open_row = _open_row(text, [step, stage, time_us])
    data = _pairs(text, context)
    if not data:
        return None
    step = tuple(step) if isinstance(step, list) else step
    return _record(context, time_us, step, data, stage=stage, log_format=MMENGINE_TEXT)


def _open_row(pairs: str, row: list[Any]) -> list[Any] | None:
    """Return what ``FileContext.open_row`` keeps of a row, None if it ends with these pairs."""
    depth = 0
    if "[" in pairs or "(" in pairs or "{" in pairs:
        depth = sum(map(pairs.count, "[({")) - sum(map(pairs.count, "])}"))
    return [*row, max(depth, 0)] if depth > 0 or pairs.rstrip().endswith(":") else None


def _close(text: str, depth: int) -> tuple[int, int]:
    """Return where the brackets that are open are closed, and how many stay open at the end."""
    for bracket in _BRACKET.finditer(text):
        depth += 1 if bracket[0] in "[({" else -1
        if depth <= 0:
            return bracket.end(), 0
    return len(text), depth


def note_experiment(text: str, context: FileContext) -> None:
    """Note when the run started, from a line such as ``Exp name: resnet_20230604_171242``."""
    found = _EXPERIMENT.search(text)
    if found is not None:
        year, month, day, hour, minute, second = found.groups()
        said = f"{year}-{month}-{day} {hour}:{minute}:{second}"
        context.run_start_us = context.read_datetime(said) or context.run_start_us


def _time_us(line: re.Match[str], context: FileContext) -> int:
    month, day, hour, minute, second = map(int, line.group("month", "day", "h", "m", "s"))
    if line["year"] is not None:
        time_us = context.read_datetime(
            f"{line['year']}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
        )
    else:
        time_us = context.find_year(month, day, (hour, minute, second))
    if time_us is None:
        raise SkippedError(NO_TIME)
    return time_us


def _pairs(text: str, context: FileContext) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for part in re.split(r"\s{2,}", text.strip()):
        name, colon, value = part.partition(": ")
        if not colon or not value:
            continue
        if ": " in value:
            if name.endswith("lr") and not _GLUED.match(value):
                data.update(_rates(part))
                continue
            at = 0
            while (glued := _GLUED.match(value, at)) is not None:
                data[name] = parse_literal(glued[1])
                name, at = glued[2], glued.end()
            value = value[at:]
        if name[0] in _NUMBERS_BEGIN and _NUMBER_FIRST.match(name):
            context.skip(UNCLEAR_NAME, name[:80])
        elif name == "eta":
            data[name] = parse_seconds(value)
        elif value[0] != "[" or value[-1] == "]":  # else it goes on in the next line
            data[name] = parse_literal(value)
    return data


def _rates(part: str) -> Iterator[tuple[str, Any]]:
    """Yield learning rates, which are one blank apart, while everything else is two."""
    words = part.split()
    for name, value in itertools.pairwise(words):
        if name.endswith(":") and name != ":":
            yield name[:-1], parse_literal(value)


def is_row(fields: Any, context: FileContext) -> bool:
    """Return whether a JSON object without a prefix is a row of ``scalars.json``.

    Other tools write a ``step`` as well: it is MMEngine's by the file's name, by the fields that
    its hooks add to a row of training, or after another of its rows.
    """
    if type(fields) is not dict or type(fields.get("step")) is not int or "type" in fields:
        return False
    if is_scalars(context):
        return True
    return "data_time" in fields and "time" in fields and ("iter" in fields or "epoch" in fields)


def is_scalars(context: FileContext) -> bool:
    """Return whether a file is MMEngine's ``scalars.json``, by its name or by its rows so far."""
    return MMENGINE_SCALARS in context.entries or _FILES.fullmatch(context.name) is not None


def _is_rate(name: str) -> bool:
    return name == "lr" or name.endswith((".lr", "/lr", "_lr"))


def read_row(fields: dict[str, Any], context: FileContext) -> FileRecord:
    """Read a row of ``scalars.json``, which has no time.

    Its ``time`` is the mean duration of the iterations since the row before, in seconds.

    Args:
        fields: A row for which ``is_row`` is true; its step, epoch and iteration are removed.
        context: The file, with the run's start, the file's length and its last change.
    """
    step: Any = fields.pop("step")
    epoch, iteration = fields.pop("epoch", None), fields.pop("iter", None)
    took_us = None
    if iteration is None and (epoch is not None or any(map(_is_rate, fields))):
        iteration = step
    if iteration is not None:
        stage = "train"
        step = iteration if epoch is None else (epoch, iteration)
        took_us = context.took_us(fields.get("time"), iteration)
        context.epoch = epoch if type(epoch) is int else None
        context.iteration = iteration if type(iteration) is int else None
    else:
        stage = "val"
        by_iteration = context.iteration is not None and context.epoch is None
        step = (0, context.iteration, None) if by_iteration else (step,)
    time_us = context.row_us(took_us)
    record = _record(context, time_us, step, fields, stage=stage, log_format=MMENGINE_SCALARS)
    record.interpolated = True
    return record


def _record(
    context: FileContext, time_us: int, step: Any, data: Any, *, stage: str, log_format: str
) -> FileRecord:
    record = FileRecord(time_us, context.elapsed_us(time_us), step, data)
    record.log_format = log_format
    record.header_stage = stage
    record.file_rank = context.rank
    context.count(log_format)
    return record

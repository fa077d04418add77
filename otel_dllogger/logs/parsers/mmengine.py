"""Parse MMEngine's text log and its ``vis_data/scalars.json``.

MMEngine 0.10.7 defines what a line's numbers mean: ``runner/log_processor.py`` writes the
text, and ``hooks/logger_hook.py`` passes the same values on to ``LocalVisBackend``, which
writes the rows of ``scalars.json``. Steps are mapped as follows:

=====================================  ===================================================
line                                   step
=====================================  ===================================================
``Epoch(train) [2][10/25]``            ``(2, 10)``: epoch and iteration in it, from 1
``Iter(train) [10/60]``                ``10``
row with ``epoch`` and ``iter``        ``(epoch, iter)``; MMEngine counts ``iter`` through
row with ``iter``                      ``iter``
``Epoch(val) [2][10/25] eta: ...``     ``(2, last iteration, 10)``: progress of a validation
``Epoch(val) [2][25/25]  acc: ...``    ``(2,)``: the validation's results, by epoch
row without ``iter``, by epoch         ``(step,)``: its ``step`` is the epoch
``Iter(val) [10/25] eta: ...``         ``(0, last iteration, 10)``
``Iter(val) [25/25]  acc: ...``        ``(0, last iteration, 25)``: there are no epochs
row without ``iter``, by iteration     ``(0, last iteration, None)``; ``step`` is 0, or the
                                       iteration with ``log_metric_by_epoch=False``
``Epoch(test) [10/25] eta: ...``       ``(None, None, 10)``
``Epoch(test) [25/25]  acc: ...``      ``()``: the run's result
``Epoch(train) [2][10/?]``             as above: a loader's length may be unknown
=====================================  ===================================================

A run is by iteration if its last training row has no epoch; ``runner.epoch`` is then 0
throughout. A line of progress differs from a line of results by its ``eta``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import NO_TIME, TORN
from otel_dllogger.logs.parsers.context import SkippedError
from otel_dllogger.logs.parsers.formats import MMENGINE_SCALARS, MMENGINE_TEXT, FileRecord
from otel_dllogger.logs.parsers.literals import parse_literal
from otel_dllogger.logs.parsers.times import find_year

if TYPE_CHECKING:
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
# Learning rates are one blank apart, everything else two.
_RATES = re.compile(r"(\S+): (\S+)")
_ETA = re.compile(r"(?:(\d{1,9}) days?, )?(\d{1,9}):(\d\d):(\d\d)", re.ASCII)


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
    data = _pairs(place["pairs"])
    epoch = None if place["epoch"] is None else int(place["epoch"])
    by_epoch = line["by"] == "Epoch"
    iteration = None if place["n"] == "?" else int(place["n"])
    stage = line["stage"]
    step: Any
    if stage == "train":
        step = (epoch, iteration) if epoch is not None else iteration
        context.epoch, context.iteration = epoch, iteration
    elif stage == "test":
        step = (None, None, iteration) if "eta" in data else ()
    elif by_epoch and "eta" not in data and place["n"] == place["of"]:
        step = (epoch,)
    else:
        step = (epoch if by_epoch else 0, context.iteration, iteration)
    return [_record(context, time_us, step, data, stage=stage, log_format=MMENGINE_TEXT)]


def _time_us(line: re.Match[str], context: FileContext) -> int:
    month, day, hour, minute, second = map(int, line.group("month", "day", "h", "m", "s"))
    if line["year"] is not None:
        time_us = context.read_datetime(
            f"{line['year']}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"
        )
    else:
        time_us = find_year(
            month,
            day,
            (hour, minute, second),
            zone=context.zone,
            reference_us=context.modified_us,
            last_us=context.last_us,
        )
    if time_us is None:
        raise SkippedError(NO_TIME)
    return time_us


def _pairs(text: str) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for part in re.split(r"\s{2,}", text.strip()):
        name, colon, value = part.partition(": ")
        if not colon:
            continue
        if ": " in value and name.endswith("lr"):
            data.update((rate, parse_literal(text)) for rate, text in _RATES.findall(part))
        else:
            data[name] = _seconds(value) if name == "eta" else parse_literal(value)
    return data


def _seconds(text: str) -> Any:
    """Read what ``str(timedelta)`` returned."""
    found = _ETA.fullmatch(text)
    if found is None:
        return text
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def is_row(fields: Any) -> bool:
    """Return whether a JSON object without a prefix is a row of ``scalars.json``."""
    return type(fields) is dict and type(fields.get("step")) is int and "type" not in fields


def read_row(fields: dict[str, Any], context: FileContext) -> FileRecord:
    """Read a row of ``scalars.json``; its time is worked out from its place in the file.

    Args:
        fields: A row for which ``is_row`` is true; its step, epoch and iteration are removed.
        context: The file, with the run's start, the file's length and its last change.
    """
    step: Any = fields.pop("step")
    epoch, iteration = fields.pop("epoch", None), fields.pop("iter", None)
    if iteration is not None:
        stage = "train"
        step = iteration if epoch is None else (epoch, iteration)
        context.epoch = epoch if type(epoch) is int else None
        context.iteration = iteration if type(iteration) is int else None
    else:
        stage = "val"
        by_iteration = context.iteration is not None and context.epoch is None
        step = (0, context.iteration, None) if by_iteration else (step,)
    time_us = context.interpolated_us()
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

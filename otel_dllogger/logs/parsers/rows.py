"""Read rows of other tools, JSON objects and lines of CSV, by tables of the names of their fields.

A tool that is listed in ``KNOWN`` is told by fields that only its rows have, or by the file's name.
A row of any other tool is read as well if it says where in the training it belongs: that is a
guess, of which ``FileContext.guesses`` tells.

====================  ================================================================  ============
meaning               fields, in any case                                               read as
====================  ================================================================  ============
iteration             step, iter, iteration, global_step, num_updates, _step, ...       step
epoch                 epoch, current_epoch                                              step
time                  timestamp, wall_time, datetime, ...: Unix time or ISO 8601        time
rank                  rank, global_rank, else local_rank                                rank
stage                 mode, stage, split, phase, type                                   stage
name                  key, name, metric, tag, beside a ``value``                        its name
====================  ================================================================  ============

Objects within a row are joined, ``{"train": {"loss": 1}}`` is ``train/loss``; numbers as text are
numbers. A comma within a number is not read, since it may stand for a point or for thousands.
A row whose metrics are all of a validation or a test, by their names or by its stage, is a
validation at its iteration; a row without an iteration is the summary of its epoch.
"""

from __future__ import annotations

import csv
import dataclasses
import functools
import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import MALFORMED, NOT_A_RECORD
from otel_dllogger.errors import count_of
from otel_dllogger.logs.parsers.context import SkippedError
from otel_dllogger.logs.parsers.formats import (
    CSV_ROWS,
    DETECTRON2,
    JSON_ROWS,
    LIGHTNING,
    LLAMA_FACTORY,
    OPENMMLAB_JSON,
    TORCHTITAN_JSON,
    TRAINER_STATE,
    ULTRALYTICS,
    FileRecord,
)
from otel_dllogger.logs.parsers.json_lines import decode_json
from otel_dllogger.logs.parsers.literals import parse_literal, parse_seconds
from otel_dllogger.logs.parsers.times import MAX_TIME_US
from otel_dllogger.metrics.naming import MetricMetadata, is_stage, map_metric, parse_stage
from otel_dllogger.record import parse_rank
from otel_dllogger.values import to_number

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from otel_dllogger.logs.parsers.context import FileContext

_ITERATION = (
    *("step", "iter", "iteration", "global_step", "trainer/global_step", "train/global_step"),
    *("current_steps", "num_updates", "train_num_updates", "valid_num_updates", "train_step"),
    *("Step", "Iter", "Iteration", "_step"),
)
_EPOCH = ("epoch", "current_epoch", "Epoch")
_TIME = (
    *("timestamp", "_timestamp", "wall_time", "datetime", "@timestamp", "ts", "date", "time"),
    *("created_at", "Wall time", "Timestamp"),
)
_RANK = ("rank", "global_rank", "local_rank")
_STAGE = ("mode", "stage", "split", "phase")
_NAME = ("key", "name", "metric", "tag")
_NUMBER = (int, float)

_LEAST_UNIX_S, _MOST_UNIX_S = 10**8, 10**11  # 1973 and 5138
_UNITS_US = (10**6, 10**3, 1, 10**-3)  # of Unix time: seconds, milliseconds, ...
_MAX_COLUMNS = 2_000
_OF_BACKFILL = frozenset(("run", "rank", "metric", "value"))  # columns of ``backfill --to csv``
_MAX_DOCUMENT = 1 << 16  # characters of a row that is printed over many lines
_COLUMN = re.compile(r"[A-Za-z_@][^\"{}\n]{0,200}")
_DELIMITERS = ",;\t"
_PLACE = re.compile(r"[Ss]tep|[Ee]poch|[Ii]ter|num_updates")
_COMMA = re.compile(r"[-+]?\d{1,18},\d{1,18}(?:[eE][-+]?\d{1,3})?", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class RowFormat:
    """How a tool writes its rows.

    Attributes:
        name: The name of the format.
        fields: Fields that a row of the tool has, and hardly any other.
        file: Matches the names of its files.
        duration: The field with the mean duration of an iteration since the row before, seconds.
        elapsed: The field with the duration of the run so far: seconds, or ``0:00:10``.
        total: The field of the summary with the duration of the whole run, seconds.
        ignored: Fields that are not metrics.
        is_epoch: Whether a row of a validation belongs to its epoch, since its iteration counts
            something else.
    """

    name: str
    fields: frozenset[str] = frozenset()
    file: re.Pattern[str] = re.compile(r"(?!)")
    duration: str = ""
    elapsed: str = ""
    total: str = ""
    ignored: frozenset[str] = frozenset()
    is_epoch: bool = False


KNOWN = (
    RowFormat(
        OPENMMLAB_JSON,
        fields=frozenset(("mode", "epoch", "iter")),
        duration="time",
        is_epoch=True,
    ),
    RowFormat(TORCHTITAN_JSON, fields=frozenset(("key", "sum", "weight", "step"))),
    RowFormat(
        DETECTRON2,
        fields=frozenset(("iteration", "total_loss", "eta_seconds")),
        file=re.compile(r"(?:.*/)?metrics\.json(?:\.\d+)?"),
        duration="time",
    ),
    RowFormat(
        LLAMA_FACTORY,
        fields=frozenset(("current_steps", "total_steps", "percentage")),
        elapsed="elapsed_time",
        ignored=frozenset(("total_steps", "percentage")),
    ),
    RowFormat(LIGHTNING, file=re.compile(r"(?:.*/)?metrics\.csv")),
    RowFormat(ULTRALYTICS, file=re.compile(r"(?:.*/)?results\.csv"), elapsed="time"),
    RowFormat(
        TRAINER_STATE,
        file=re.compile(r"(?:.*/)?trainer_state\.json"),
        total="train_runtime",
        ignored=frozenset(("total_flos",)),
    ),
)
_GUESSED = {True: RowFormat(CSV_ROWS), False: RowFormat(JSON_ROWS)}


def read_json(fields: Any, context: FileContext) -> list[FileRecord]:
    """Read a JSON object that has no prefix.

    Args:
        fields: The object.
        context: The file.

    Raises:
        SkippedError: If it is not a row of a training.
    """
    if type(fields) is not dict:
        raise SkippedError(NOT_A_RECORD)
    history = fields.get("log_history")
    if type(history) is list and "global_step" in fields:
        return [
            record
            for row in history
            if type(row) is dict and (record := _read(row, context, is_csv=False)) is not None
        ]
    record = _read(fields, context, is_csv=False)
    if record is None:
        raise SkippedError(NOT_A_RECORD)
    return [record]


def read_document(line: str, context: FileContext) -> list[FileRecord] | None:
    """Read a line of a JSON document that Transformers prints over many lines.

    Its rows are the objects in ``log_history``. They are flat, so that each ends at the first line
    that is a closing brace.

    Returns:
        The rows that end on the line; None if the line is not within the history.
    """
    text = line.strip()
    if context.document is None:
        if text == '"log_history": [':
            context.document = ""
            return []
        return None
    if text in ("]", "],"):
        context.document = None
        return []
    if text == "{" or len(context.document) > _MAX_DOCUMENT:
        context.document = ""
    context.document += text
    if text not in ("}", "},"):
        return []
    row = decode_json(context.document.removesuffix(",").encode())
    context.document = ""
    record = _read(row, context, is_csv=False) if type(row) is dict else None
    return [] if record is None else [record]


def read_head(line: str, context: FileContext) -> bool:
    """Note the columns of a CSV file, and return whether a line names them.

    Args:
        line: The first line of a file, or a later one that may repeat it.
        context: The file.
    """
    delimiter = max(_DELIMITERS, key=line.count)
    if delimiter not in line or _PLACE.search(line) is None:
        return False
    names = _cells(line, delimiter)
    is_head = (
        2 <= len(names) <= _MAX_COLUMNS
        and len(set(names)) == len(names)
        and all(map(_COLUMN.fullmatch, names[not names[0] :]))  # pandas' index has no name
        and not {*names}.isdisjoint((*_ITERATION, *_EPOCH))
        and not {*names} >= _OF_BACKFILL
    )
    if is_head:
        context.columns = names
        context.delimiter = delimiter
    return is_head


def read_csv(line: str, context: FileContext) -> list[FileRecord]:
    """Read a line of a CSV file whose columns are known.

    Raises:
        SkippedError: If it has another number of cells.
    """
    cells = _cells(line, context.delimiter)
    if len(cells) != len(context.columns):
        raise SkippedError(
            MALFORMED,
            f"{count_of(len(cells), 'cell')} in {count_of(len(context.columns), 'column')}",
        )
    pairs = zip(context.columns, cells, strict=True)
    row = {name: parse_literal(cell) for name, cell in pairs if name and cell}
    for cell in filter(_COMMA.fullmatch, cells):
        context.guesses.setdefault(
            "comma",
            f"numbers such as {cell[:20]} are not read, since the comma may stand for a point or "
            "for thousands; write them with a point",
        )
    record = _read(row, context, is_csv=True)
    context.rows += 1
    return [] if record is None or (context.old_rows and context.is_read_again) else [record]


def _cells(line: str, delimiter: str) -> list[str]:
    """Split a line; return no cells if it is not a line of CSV, such as one with progress bars."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    except csv.Error:
        return []


def _read(row: dict[str, Any], context: FileContext, *, is_csv: bool) -> FileRecord | None:
    """Return the record of a row; None if it does not say where in the training it belongs."""
    if not is_csv and dict in map(type, row.values()):
        row = dict(_flatten(row))
    known = _format_of(row, context)
    iteration, epoch = _take_number(row, _ITERATION), _take_number(row, _EPOCH)
    if known is None:
        if iteration is None and epoch is None:
            return None
        known = _GUESSED[is_csv]
    time_us = _take_time(row, context)
    rank = _take_rank(row, context)
    stage = _take_stage(row)
    for key in known.ignored:
        row.pop(key, None)
    data = _one_metric(row) if known.name is TORCHTITAN_JSON else _named(row)
    said = data.get(known.elapsed)
    numbers = {name: value for name, value in data.items() if isinstance(value, _NUMBER)}
    if len(numbers) < len(data):
        numbers.update(_numbers_in_text(data))
    data = numbers
    if not data:
        return None
    if known in _GUESSED.values():
        context.guesses.setdefault("format", _guess_in_words(iteration, epoch, time_us))
    time_us = time_us or context.outer_us
    is_interpolated = time_us is None
    if time_us is None:
        time_us = context.row_us(_took_us(known, data, said, iteration, context))
    step = _step_of(known, epoch, iteration, stage, data)
    if stage in (None, "train") and iteration is not None:
        context.iteration = int(iteration)
    if parse_rank(rank) is not None:
        data["rank"] = rank
    record = FileRecord(time_us, context.elapsed_us(time_us), step, data)
    record.log_format = known.name
    record.header_stage = stage
    record.file_rank = context.rank
    record.interpolated = is_interpolated
    context.count(known.name)
    return record


def _took_us(
    known: RowFormat,
    data: Mapping[str, float],
    elapsed: Any,
    iteration: float | None,
    context: FileContext,
) -> int | None:
    """Return how long the steps of a row took, microseconds; None if it does not say."""
    if known.total and data.get(known.total, 0) > 0:
        context.total_us = round(min(data[known.total] * 1e6, MAX_TIME_US))
    if context.iteration_us is not None and iteration is not None:
        return round(max(iteration - (context.iteration or 0), 0) * context.iteration_us)
    if known.elapsed:
        return context.took_since_us(
            parse_seconds(elapsed) if isinstance(elapsed, str) else elapsed
        )
    return context.took_us(data.get(known.duration), iteration)


def _format_of(row: Mapping[str, Any], context: FileContext) -> RowFormat | None:
    keys = row.keys()
    for known in KNOWN:
        if (known.fields and known.fields <= keys) or known.file.fullmatch(context.name):
            return known
    return None


def _flatten(row: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the fields of a row and of the objects in it, by their names joined with slashes."""
    for name, value in row.items():
        if type(value) is dict:
            yield from _flatten(value, f"{above}{name}/")
        else:
            yield above + name, value


def _numbers_in_text(data: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in data.items():
        number = to_number(value) if type(value) is str else None
        if number is not None:
            yield name, number


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """Return the metric of a row that holds its name and its value, else the row itself."""
    if "value" in row and isinstance(row["value"], _NUMBER):
        for key in _NAME:
            if isinstance(row.get(key), str):
                return {row[key]: row["value"]}
    return row


def _take_rank(row: dict[str, Any], context: FileContext) -> Any:
    for key in _RANK:
        if key in row and (rank := row.pop(key)) is not None:
            if key == "local_rank":
                context.guesses.setdefault(
                    "rank", "the local_rank of rows is taken as the rank, which it is on one node"
                )
            return rank
    return None


def _take_number(row: dict[str, Any], keys: tuple[str, ...]) -> float | None:
    for key in keys:
        value = row.get(key)
        if value is None:
            continue
        if type(value) is str:
            value = to_number(value)
        if isinstance(value, _NUMBER) and type(value) is not bool and value - value == 0:
            del row[key]
            return value
    return None


def _take_time(row: dict[str, Any], context: FileContext) -> int | None:
    """Take the time out of a row: Unix time in any unit, or ISO 8601."""
    for key in _TIME:
        value = row.get(key)
        if value is None:
            continue
        time_us = None
        if isinstance(value, str):
            time_us = context.read_datetime(value)
            value = to_number(value)
        if isinstance(value, _NUMBER) and value > _LEAST_UNIX_S:
            unit = next(
                (u for u in _UNITS_US if _LEAST_UNIX_S * 1e6 < value * u < _MOST_UNIX_S * 1e6), None
            )
            time_us = None if unit is None else round(value * unit)
        if time_us is not None:
            del row[key]
            return time_us
    return None


def _take_stage(row: dict[str, Any]) -> str | None:
    for key in _STAGE:
        if isinstance(row.get(key), str):
            return parse_stage(row.pop(key))
    kind = row.get("type")  # which may also be that of an event
    return parse_stage(row.pop("type")) if isinstance(kind, str) and is_stage(kind) else None


def _one_metric(row: dict[str, Any]) -> dict[str, Any]:
    """Return the metric of a row that holds one: the mean is the sum over the weight."""
    name, total, weight = row.get("key"), row.get("sum"), row.get("weight")
    if isinstance(total, _NUMBER) and isinstance(weight, _NUMBER) and weight:
        return {str(name): total / weight}
    value = next((row[key] for key in ("value", "max", "min") if key in row), None)
    return {str(name): value}


def _step_of(
    known: RowFormat,
    epoch: float | None,
    iteration: float | None,
    stage: str | None,
    data: Mapping[str, Any],
) -> Any:
    if "train_runtime" in data and known.name is TRAINER_STATE:
        return ()  # the summary, whose train_loss is the mean over all steps
    is_training = stage == "train" if stage is not None else not is_validation(data)
    if iteration is None or (not is_training and known.is_epoch):
        return (epoch,)
    if not is_training:
        return (epoch, iteration, None)
    if epoch is not None and known.name is LIGHTNING and all(n.endswith("_epoch") for n in data):
        return (epoch,)
    return iteration if epoch is None else (epoch, iteration)


def is_validation(data: Mapping[str, Any]) -> bool:
    """Return whether all metrics are of a validation or a test, by their names."""
    return all(_stage_in(name) in ("val", "test") for name in data)


@functools.lru_cache(maxsize=4096)
def _stage_in(name: str) -> str | None:
    return map_metric(name, MetricMetadata()).stage


def _guess_in_words(iteration: float | None, epoch: float | None, time_us: int | None) -> str:
    known = [
        name
        for name, value in (("iteration", iteration), ("epoch", epoch), ("time", time_us))
        if value is not None
    ]
    return (
        "rows of a tool that is not known are read by the names of their fields: they have "
        f"{' and '.join(known)}"
    )

"""Parse the JSON lines of DLLogger and TCAP DLLogger: objects after a prefix.

Source: DLLogger's ``JSONStreamBackend``; TCAP DLLogger writes ``data`` as ``str(dict)``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from orjson import JSONDecodeError, loads

from otel_dllogger.diagnostics import (
    INVALID_UTF8,
    MALFORMED,
    MISSING_FIELDS,
    NESTED_TOO_DEEP,
    NO_TIME,
    NUL_BYTES,
    NUMBER_TOO_LONG,
    TORN,
    UNKNOWN_TYPE,
    UNREADABLE_DATA,
)
from otel_dllogger.logs.parsers.context import MAX_DIGITS, MAX_NESTING, SkippedError
from otel_dllogger.logs.parsers.formats import DLLOGGER_JSON, TCAP_JSON, FileRecord
from otel_dllogger.logs.parsers.literals import parse_literal, parse_repr
from otel_dllogger.logs.parsers.times import MAX_TIME_US
from otel_dllogger.record import (
    OK,
    OPEN,
    OUTCOMES,
    Event,
    Info,
    Metadata,
    Phase,
    Record,
)
from otel_dllogger.values import key_text, safe_repr

if TYPE_CHECKING:
    from otel_dllogger.logs.parsers.context import FileContext

Entry = Record | Metadata | Info | Phase | Event
"""What a line can hold."""

_INT64 = 2.0**63
_LONG_DIGITS = re.compile(rb"\d{19}")
_TOO_MANY_DIGITS = re.compile(rb"\d{%d}" % (MAX_DIGITS + 1))

# A string, or a quote that begins an unterminated one, or a bracket.
_TOKEN = re.compile(rb'"(?:[^"\\]*(?:\\.[^"\\]*)*")?|[\[\]{}]', re.DOTALL)
_OPENING = b"[{"
_QUOTE = 0x22


def decode_json(raw: bytes) -> Any:
    """Read one JSON value, with the fastest decoder that gives the right result.

    orjson refuses NaN, Infinity and lone surrogates, which Python writes, and reads ints
    of more than 64 bits as floats (``read_entry`` takes care of those).

    Args:
        raw: The value, with nothing but white space around it.

    Raises:
        SkippedError: If it is not a JSON value, or exceeds a limit.
    """
    if raw.count(b"[") + raw.count(b"{") > MAX_NESTING:
        find_end(raw, 0)
    try:
        return loads(raw)
    except JSONDecodeError:
        return _decode_standard(raw)


def _decode_standard(raw: bytes) -> Any:
    """Read one JSON value with Python's own decoder; its nesting is known to be bounded."""
    if b"\0" in raw:
        raise SkippedError(NUL_BYTES)
    # Python's own limit can be lifted, and reading a number takes quadratic time.
    if _TOO_MANY_DIGITS.search(raw):
        raise SkippedError(NUMBER_TOO_LONG)
    try:
        return json.loads(raw.decode())
    except UnicodeDecodeError:
        raise SkippedError(INVALID_UTF8) from None
    except json.JSONDecodeError:
        raise SkippedError(MALFORMED) from None
    except RecursionError:
        raise SkippedError(NESTED_TOO_DEEP) from None
    except ValueError:
        raise SkippedError(NUMBER_TOO_LONG) from None


def find_end(line: bytes, start: int) -> int:
    """Return where a JSON object or array ends; brackets within strings do not count.

    Args:
        line: The line.
        start: Where the object begins, or white space before it.

    Raises:
        SkippedError: If it does not end, or is nested too deeply.
    """
    depth = 0
    for found in _TOKEN.finditer(line, start):
        at = found.start()
        first = line[at]
        if first == _QUOTE:
            if found.end() - at == 1:
                break
        elif first in _OPENING:
            depth += 1
            if depth > MAX_NESTING:
                raise SkippedError(NESTED_TOO_DEEP)
        else:
            depth -= 1
            if depth <= 0:
                return found.end()
    raise SkippedError(TORN)


def read_entry(fields: dict[str, Any], raw: bytes, log_format: str, context: FileContext) -> Entry:
    """Make an entry from a line's fields; nothing is counted if this raises.

    A step that is a list becomes a tuple, which is what the script passed: JSON has no
    tuples, and steps that are tuples of two ints take the fast path.

    Args:
        fields: The JSON object.
        raw: The line, or the part of it that holds the object.
        log_format: ``DLLOGGER_JSON`` or ``TCAP_JSON``.
        context: The file.

    Raises:
        SkippedError: If the fields are not those of an entry.
    """
    kind = fields.get("type")
    if kind != "LOG" and _LONG_DIGITS.search(raw):
        fields = _exact(raw)
    try:
        if kind == "LOG":
            record = _log(fields["step"], fields["data"], raw, log_format)
            record.time_us, record.elapsed_us = _times(fields, context)
            if context.rank:
                record.file_rank = context.rank
            context.count(log_format)
            return record
        read = _READERS.get(kind) if type(kind) is str else None
        if read is None:
            raise SkippedError(UNKNOWN_TYPE, f"unknown type {safe_repr(kind)}"[:80])
        entry = read(fields)
    except KeyError as error:
        raise SkippedError(MISSING_FIELDS, f"a {kind} line without {error.args[0]}") from None
    times = _times(fields, context)
    context.count("" if kind == "INFO" else log_format)
    return entry(*times)


_Timeless = Callable[[int, int], Entry]
"""An entry that lacks its time and its elapsed time, both in microseconds."""


def _metadata(fields: dict[str, Any]) -> _Timeless:
    metric, metadata = fields["metric"], fields["metadata"]
    return lambda time_us, elapsed_us: Metadata(time_us, elapsed_us, metric, metadata)


def _info(fields: dict[str, Any]) -> _Timeless:
    data = fields["data"]
    return lambda time_us, elapsed_us: Info(time_us, elapsed_us, data)


def _event(fields: dict[str, Any]) -> _Timeless:
    name, data, step = key_text(fields["name"]), fields.get("data"), _step_of(fields)
    return lambda time_us, elapsed_us: Event(time_us, elapsed_us, name, data, step)


def _phase(fields: dict[str, Any]) -> _Timeless:
    name, seconds = key_text(fields["name"]), fields["seconds"]
    duration_us = _microseconds(seconds)
    self_us = min(_microseconds(fields.get("self_seconds", seconds)), duration_us)
    outcome = OPEN
    if fields["type"] == "PHASE":
        outcome = next((one for one in OUTCOMES if one == fields.get("outcome")), OK)
    return lambda time_us, elapsed_us: Phase(
        time_us,
        elapsed_us,
        name,
        duration_us,
        self_us,
        outcome,
        _step_of(fields),
        fields.get("overlapped") is True,
    )


def _microseconds(seconds: object) -> int:
    """Return a duration of a line in microseconds.

    Raises:
        SkippedError: If it is not a number of seconds.
    """
    if type(seconds) in (int, float) and 0 <= seconds * 1e6 < MAX_TIME_US:  # type: ignore[operator]
        return round(seconds * 1e6)  # type: ignore[operator]
    raise SkippedError(UNREADABLE_DATA, f"a phase of {safe_repr(seconds)} seconds"[:80])


def _step_of(fields: dict[str, Any]) -> Any:
    """Return the step of a line that need not have one."""
    step = fields.get("step")
    return tuple(step) if type(step) is list else _plain_step(step)


_READERS = {
    "METADATA": _metadata,
    "INFO": _info,
    "EVENT": _event,
    "PHASE": _phase,
    "PHASE_BEGIN": _phase,
}
"""What reads the lines of each type but LOG."""


def _plain_step(step: Any) -> Any:
    """Return a step; that of a script that passed ``str(step)`` as the tuple it was."""
    if type(step) is str and step.startswith(("(", "[")):
        step = parse_literal(step)
        return tuple(step) if type(step) is list else step
    return step


def _log(step: Any, data: Any, raw: bytes, log_format: str) -> FileRecord:
    """Make a record whose times are still to be filled in."""
    if log_format is TCAP_JSON and type(data) is str:
        data = parse_repr(data)
        if type(data) is not dict:
            raise SkippedError(UNREADABLE_DATA)
    record = FileRecord(0, 0, tuple(step) if type(step) is list else _plain_step(step), data)
    try:
        if -_INT64 < sum(data.values()) < _INT64:
            record.values = (data, data, True, True)  # what convert() would find out again
    except (AttributeError, TypeError):  # not a dict, or text, lists or None among the values
        pass
    except OverflowError:  # an int beyond the range of floats among them
        pass
    if log_format is not DLLOGGER_JSON:
        record.log_format = log_format
    elif (record.values is None or not record.is_pair) and _LONG_DIGITS.search(raw):
        fields = _exact(raw)
        step = fields["step"]
        return FileRecord(
            0, 0, tuple(step) if type(step) is list else _plain_step(step), fields["data"]
        )
    return record


def _exact(raw: bytes) -> Any:
    """Read an object again that may hold ints of more than 64 bits, which became floats."""
    return _decode_standard(raw[raw.index(b"{") : raw.rindex(b"}") + 1])


def _times(fields: dict[str, Any], context: FileContext) -> tuple[int, int]:
    """Return the time and the elapsed time, both in microseconds."""
    try:
        time_us = round(float(fields["timestamp"]) * 1e6)
    except (KeyError, TypeError, ValueError, OverflowError):
        time_us = 0
    if not 0 < time_us < MAX_TIME_US:
        text = fields.get("datetime")
        found = context.read_datetime(text) if type(text) is str else None
        if found is None:
            raise SkippedError(NO_TIME)
        time_us = found
    elapsed = fields.get("elapsedtime")  # older releases have none
    try:
        elapsed_us = None if elapsed is None else round(float(elapsed) * 1e6)
    except (TypeError, ValueError, OverflowError):
        elapsed_us = None
    if elapsed_us is None:
        return time_us, context.elapsed_us(time_us)
    context.last_us = time_us
    if context.first_us is None:
        context.first_us = time_us - elapsed_us
    return time_us, elapsed_us

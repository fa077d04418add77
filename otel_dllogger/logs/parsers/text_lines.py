"""Parse the lines that the StdOutBackend of DLLogger or TCAP DLLogger prints.

Source: DLLogger's default formats, ``DLL <datetime> - <step> <name> : <value> <unit> ...``,
where a missing unit leaves two blanks; the prefix was ``DLLL`` in older releases. Scripts
pass their own formats for steps (``Epoch: 0 Iteration: 1``), and some print the lines
themselves (``rank: 0 train.loss: 0.5 train.ips: 10 imgs/s``).

The text does not mark where a name with blanks begins, so this is assumed: a value is
followed by one word of unit and then the name, or by two blanks and the name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import NO_TIME, NOISE, TORN
from otel_dllogger.logs.parsers.context import MAX_UNITS, SkippedError
from otel_dllogger.logs.parsers.formats import DLLOGGER_TEXT, TCAP_TEXT, FileRecord
from otel_dllogger.logs.parsers.literals import NUMBER, parse_literal, parse_repr
from otel_dllogger.record import Info, Metadata, is_parameter_step

if TYPE_CHECKING:
    from otel_dllogger.logs.parsers.context import FileContext

_HEAD = re.compile(
    r"(?P<prefix>DLLL?|TCAPPDLL) (?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?:[+-]\d\d:?\d\d)?) -(?: |$)",
    re.ASCII,
)
_COLON = re.compile(r" : |(?<=\brank): (?=-?\d)", re.ASCII)
_COLON_BY_HAND = re.compile(r"\s?:\s+")
_NUMBER_BY_HAND = re.compile(r"\S: +[-+]?[\d.]")
_LEADING_RANK = re.compile(r"rank ?: (-?\d{1,9})\s+(?=\S)", re.ASCII)
_UNIT = re.compile(r"[^\s\[\]()|=:,;]{1,40}")
_WORD = re.compile(r"(?:None|True|False)(?= |$)")
_NO_UNITS = ("", "None")

# "Epoch: 0 Iteration: 3 Validation Iteration: 2", "Training Epoch: 0", "Step: 5/100".
_LABEL = re.compile(
    r"(?:(?P<of>[a-z][a-z-]{0,30}) )?(?P<what>epoch|iteration|iter|step):? +"
    r"(?P<number>-?\d{1,18})(?:/\d{1,18})?(?: |$)",
    re.ASCII | re.IGNORECASE,
)
_PAIR = re.compile(r"[(\[](-?\d{1,18}), (-?\d{1,18})[)\]](?: |$)", re.ASCII)
_TUPLE = re.compile(r"[(\[][^()\[\]]{0,200}[)\]](?= |$)")
_NUMBER = re.compile(r"-?\d{1,18}(?P<fraction>\.\d{1,30}(?:e[-+]\d{1,3})?)?(?: |$)", re.ASCII)
_SUMMARY = re.compile(r"summary:(?: |$)", re.ASCII | re.IGNORECASE)
_VALIDATION = ("validation", "valid", "val", "eval", "evaluation")


def read_text(text: str, context: FileContext) -> list[FileRecord | Metadata | Info]:
    """Read one printed line.

    Args:
        text: The line, from its prefix to its end or to the next record on it.
        context: The file; the units seen so far are kept in it.

    Returns:
        A record, preceded by metadata for units that were not seen before; or an info, if there
        are no metrics.

    Raises:
        SkippedError: If it breaks off before its metrics.
    """
    head = _HEAD.match(text)
    if head is None:
        raise SkippedError(TORN)
    time_us = context.read_datetime(head["time"])
    if time_us is None:
        raise SkippedError(NO_TIME)
    body = text[head.end() :].rstrip("\r\n")
    if not body.strip():
        raise SkippedError(TORN)
    log_format = TCAP_TEXT if head["prefix"] == "TCAPPDLL" else DLLOGGER_TEXT
    elapsed_us = context.elapsed_us(time_us)
    context.count(log_format)
    found = _read_body(body, context)
    if found is None:
        said = parse_literal(body) if body.startswith("{") else body
        return [Info(time_us, elapsed_us, said)]
    step, data, units = found
    record = FileRecord(time_us, elapsed_us, step, data)
    record.log_format = log_format
    record.file_rank = context.rank
    return [*_new_units(units, time_us, elapsed_us, context), record]


def _new_units(
    units: dict[str, str], time_us: int, elapsed_us: int, context: FileContext
) -> list[Metadata]:
    known = context.units
    metadata = []
    for name, unit in units.items():
        if known.get(name) != unit and (name in known or len(known) < MAX_UNITS):
            known[name] = unit
            metadata.append(Metadata(time_us, elapsed_us, name, {"unit": unit}))
    return metadata


def _read_body(
    body: str, context: FileContext
) -> tuple[Any, dict[str, Any], dict[str, str]] | None:
    """Read step, values and units; return None if there are no metrics."""
    data: dict[str, Any] = {}
    leading = _LEADING_RANK.match(body)
    if leading:
        data["rank"] = int(leading[1])
        body = body[leading.end() :]
    step, rest = _split_step(body)
    is_known = step is not None
    if not rest.strip():
        return (step, data, {}) if is_known else None
    colon = _COLON
    if _COLON.search(rest.replace("rank: ", "")) is None and _NUMBER_BY_HAND.search(rest):
        # Only a line that begins with a step or a rank is a record: much printed text has colons.
        if not is_known and not leading:
            return None
        colon = _COLON_BY_HAND
    first, *parts = colon.split(rest)
    if not parts:
        return None
    if not is_known:
        # DLLogger prints the step first, whatever it is.
        word, blank, name = first.partition(" ")
        step, first = (word, name) if blank else (None, first)
    units: dict[str, str] = {}
    name = first.strip()
    for part in parts[:-1]:
        value, unit, following = _split_value(part)
        _add(name, value, unit, data, units)
        name = following
    value, unit = _split_last(parts[-1], context)
    _add(name, value, unit, data, units)
    return step, data, units


def _split_step(body: str) -> tuple[Any, str]:
    """Split a printed line's step off.

    Labels are read as scripts format DLLogger's tuples: an epoch, an iteration and a
    validation iteration; an iteration alone is a number. ``Summary:``, or no text at all,
    is the run's step ``()``.

    Args:
        body: What follows the ``-`` and one blank.

    Returns:
        The step, None if it has none of these forms, and the rest of the line.
    """
    if body.startswith(" "):
        return (), body
    found: Any = _PAIR.match(body)  # nearly always
    if found:
        return (int(found[1]), int(found[2])), body[found.end() :]
    found = _TUPLE.match(body)
    if found:
        try:
            step = parse_repr(found[0])
        except SkippedError:
            return None, body
        # "(3)" is not a tuple, and "(loss)" is not a step.
        return (tuple(step), body[found.end() :]) if type(step) in (tuple, list) else (None, body)
    found = _NUMBER.match(body)
    if found:
        text = found[0].strip()
        return (float(text) if found["fraction"] else int(text)), body[found.end() :]
    found = _SUMMARY.match(body)
    if found:
        return (), body[found.end() :]
    word = body.split(" ", 1)[0]
    if is_parameter_step(word):
        return word, body[len(word) + 1 :]
    return _split_labels(body)


def _split_labels(body: str) -> tuple[Any, str]:
    epoch = iteration = validation = None
    at = 0
    while found := _LABEL.match(body, at):
        number = int(found["number"])
        if found["what"].lower() == "epoch":
            epoch = number
        elif (found["of"] or "").lower() in _VALIDATION:
            validation = number
        else:
            iteration = number
        at = found.end()
    rest = body[at:]
    if validation is not None:
        return (epoch, iteration, validation), rest
    if epoch is not None:
        return ((epoch,) if iteration is None else (epoch, iteration)), rest
    return iteration, rest


def _add(name: str, value: str, unit: str, data: dict[str, Any], units: dict[str, str]) -> None:
    data[name] = parse_literal(value)
    if unit not in _NO_UNITS:
        units[name] = unit


def _split_value(part: str) -> tuple[str, str, str]:
    """Split the text between two colons into a value, its unit and the next name."""
    end = _end_of_value(part)
    if end is None:
        value, blanks, name = part.partition("  ")
        if blanks:
            return value.strip(), "", name.strip()
        *words, name = part.split(" ")
        unit = words.pop() if len(words) > 1 else ""
        return " ".join(words), unit, name
    value, rest = part[:end], part[end:]
    if rest.startswith("  "):
        return value, "", rest.strip()
    unit, _, name = rest.strip().partition(" ")
    return (value, unit, name.strip()) if name.strip() else (value, "", unit)


def _split_last(part: str, context: FileContext) -> tuple[str, str]:
    """Split the text after the last colon into a value and its unit; the rest is noise."""
    end = _end_of_value(part)
    if end is None:
        return part.strip(), ""
    value, rest = part[:end], part[end:]
    if rest.startswith("  ") and rest.strip():
        context.skip(TORN)  # the name of a metric whose value is missing
        return value, ""
    rest = rest.removeprefix(" ")
    unit = _UNIT.match(rest)
    after = rest[unit.end() :] if unit else rest
    if after.strip():
        context.skip(NOISE)
    return value, unit[0] if unit else ""


def _end_of_value(part: str) -> int | None:
    """Return where a number, None, a bool or a bracketed value ends; return None for text."""
    found = NUMBER.match(part) or _WORD.match(part)
    if found:
        return found.end()
    if part[:1] in ("[", "(", "{"):
        end = max(part.rfind(bracket) for bracket in "])}") + 1
        return end or None
    return None

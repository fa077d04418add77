"""Parse the lines that the StdOutBackend of DLLogger or TCAP DLLogger prints.

Source: DLLogger's default formats, ``DLL <datetime> - <step> <name> : <value> <unit> ...``,
where a missing unit leaves two blanks; the prefix was ``DLLL`` in older releases. Scripts
pass their own formats for steps (``Epoch: 0 Iteration: 1``), and some print the lines
themselves: ``rank:0 train.loss: 0.5 train.ips : 10 imgs/s lr=0.1``, or with bars, as FastPitch
does: ``epoch 1 | iter 2/48 | loss 40.5 | 5730 frames/s | took 24.5 s``.

The text does not mark where a name with blanks begins, so this is assumed: a value is
followed by one word of unit and then the name, or by two blanks and the name. What cannot be told
is not guessed: a name that begins with a number and a blank, or holds ``: ``, is left out.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import NO_TIME, NOISE, TORN, UNCLEAR_NAME
from otel_dllogger.logs.parsers.context import MAX_UNITS, SkippedError
from otel_dllogger.logs.parsers.formats import DLLOGGER_TEXT, TCAP_TEXT, FileRecord
from otel_dllogger.logs.parsers.literals import NUMBER, parse_literal, parse_repr
from otel_dllogger.metrics.naming import is_unit
from otel_dllogger.record import Info, Metadata, is_parameter_step

if TYPE_CHECKING:
    from otel_dllogger.logs.parsers.context import FileContext

_HEAD = re.compile(
    r"(?P<prefix>DLLL?|TCAPPDLL) (?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?:[+-]\d\d:?\d\d)?) -(?: |$)",
    re.ASCII,
)
_UNIT_WORD = r"[^\s\d\[\]()|=:,;][^\s\[\]()|=:,;]{0,39}"
# "name : 0.5 unit ", as DLLogger prints it, with names of one word.
_PRINTED = re.compile(
    r"(([^\s\d.+-]\S*) : (-?\d{1,18}(?:\.\d{1,30})?(?:e[-+]\d{1,3})?)"
    rf"(?: {{2,}}(?=\S)| +$|$| ({_UNIT_WORD})(?: +$|$| )))",
    re.ASCII,
)
# "name: 0.5 unit ", "name=0.5 ", as people print it: as above, with all separators.
_NEXT_NAME = r"(?=[^\s\d:=.+-][^\s:=]*(?: : |: +|=| = )[-+.\d])"
_BY_HAND_PRINTED = re.compile(
    r"(([^\s\d:=.+-][^\s:=]*)(?: : |: +|=| = )(-?\d{1,18}(?:\.\d{1,30})?(?:e[-+]\d{1,3})?)"
    rf"(?: *$| +{_NEXT_NAME}| ({_UNIT_WORD})(?: *$| +{_NEXT_NAME})))",
    re.ASCII,
)
_COLON = " : "
# Those of people who print such lines themselves: "a: 1", "a = 1", and without " : " also "a:1".
_BEFORE_NUMBER = r"(?=[-+]?\.?\d|[-+]?(?:nan|inf|None|True|False)\b)"
_BY_HAND = rf"(?<=\S): +{_BEFORE_NUMBER}|(?<=[\w.\])])(?: = |=){_BEFORE_NUMBER}"
_NUMBER_BY_HAND = re.compile(_BY_HAND, re.ASCII)
_GLUED = re.compile(rf"(?<=[A-Za-z_)\]]):{_BEFORE_NUMBER}", re.ASCII)
_ANY_COLON = re.compile(rf" : |{_BY_HAND}", re.ASCII)
_ANY_OR_GLUED = re.compile(rf"{_BY_HAND}|{_GLUED.pattern}", re.ASCII)
_RANK = re.compile(r"(?:^rank ?[:=] ?|(?<=\s)rank(?:: ?|=))(-?\d{1,9})(?:\s+|$)", re.ASCII)
_NOT_A_NAME = re.compile(r"[-+.]?\d+(?![\dA-Za-z_])|.*: ", re.ASCII | re.DOTALL)
_FIELD = re.compile(
    r"(?:(?P<name>[^\d\s|:=][^|:=]*?)(?:\s*[:=]\s*|\s+))?(?P<value>[-+]?[\d.]\S*|nan|inf)"
    r"(?:\s+(?P<unit>\S+))?",
    re.ASCII,
)
_UNIT = re.compile(r"[^\s\[\]()|=:,;]{1,40}")
_WORD = re.compile(r"(?:None|True|False)(?= |$)")
_NO_UNITS = ("", "None")
_AFTER_NUMBER = ("", " ", "%", ",", ";", "\t")

# "Epoch: 0 Iteration: 3 Validation Iteration: 2", "Training Epoch: 0", "Step: 5/100".
_LABEL = re.compile(
    r"(?:(?P<of>[a-z][a-z-]{0,30}) )?(?P<what>epoch|iteration|iter|step)(?:[:=] *| +)"
    r"(?P<number>-?\d{1,18})(?:/\d{1,18})?(?: |$)",
    re.ASCII | re.IGNORECASE,
)
_USUAL_LABELS = re.compile(r"Epoch: (\d{1,18}) Iteration: (\d{1,18}) (?= )", re.ASCII)
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
    found = _read_body(body, context)
    if found is None:
        context.count(log_format)
        said = parse_literal(body) if body.startswith("{") else body
        return [Info(time_us, elapsed_us, said)]
    step, values = found
    if values.unclear and not values.data:
        raise SkippedError(UNCLEAR_NAME, values.unclear[0])
    for name in values.unclear:
        context.skip(UNCLEAR_NAME, name)
    context.count(log_format)
    record = FileRecord(time_us, elapsed_us, step, values.data)
    record.log_format = log_format
    record.file_rank = context.rank
    return [*new_units(values.units, time_us, elapsed_us, context), record]


def new_units(
    units: dict[str, str], time_us: int, elapsed_us: int, context: FileContext
) -> list[Metadata]:
    """Return metadata for units that a line shows for the first time, or that have changed."""
    known = context.units
    metadata = []
    for name, unit in units.items():
        if known.get(name) != unit and (name in known or len(known) < MAX_UNITS):
            known[name] = unit
            metadata.append(Metadata(time_us, elapsed_us, name, {"unit": unit}))
    return metadata


class _Values:
    """The values of one line.

    Attributes:
        data: By name.
        units: By name, where there is one.
        unclear: What stands in the place of a name, but cannot be one.
    """

    __slots__ = ("data", "unclear", "units")

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.units: dict[str, str] = {}
        self.unclear: list[str] = []

    def add(self, name: str, value: str, unit: str) -> None:
        if not name or _NOT_A_NAME.match(name):
            self.unclear.append(name[:80] or f"no name before {value[:60]}")
            return
        self.data[name] = parse_literal(value)
        if unit not in _NO_UNITS:
            self.units[name] = unit


def _read_body(body: str, context: FileContext) -> tuple[Any, _Values] | None:
    """Read step, values and units; return None if there are no metrics."""
    values = _Values()
    step, rest = _split_step(body)
    if _read_printed(_PRINTED, rest, values):
        return step, values
    found = _RANK.search(body) if "rank" in body else None
    if found is not None:
        values.data["rank"] = int(found[1])
        step, rest = _split_step(body[: found.start()] + body[found.end() :])
    is_known = step is not None
    if not rest.strip():
        return (step, values) if is_known else None
    if "|" in rest and is_known:
        step = _read_bars(step, rest, values, context)
        return (step, values) if values.data else None
    # Only a line that begins with a step or a rank is a record if it lacks " : ": much printed
    # text has colons.
    by_hand = (is_known or found is not None) and "{" not in rest
    if by_hand and is_known and _read_printed(_BY_HAND_PRINTED, rest, values):
        return step, values
    if _COLON in rest:
        by_hand = by_hand and _NUMBER_BY_HAND.search(rest) is not None
        first, *parts = _ANY_COLON.split(rest) if by_hand else rest.split(_COLON)
    elif by_hand:
        first, *parts = _ANY_OR_GLUED.split(rest)
    else:
        return None
    if not parts:
        return (step, values) if values.data and is_known else None
    if not is_known:
        # DLLogger prints the step first, whatever it is.
        word, blank, name = first.partition(" ")
        step, first = (word, name) if blank else (None, first)
    name = first.strip()
    for part in parts[:-1]:
        value, unit, following = _split_value(part)
        values.add(name, value, unit)
        name = following
    values.add(name, *_split_last(parts[-1], context))
    return step, values


def _read_printed(pattern: re.Pattern[str], rest: str, values: _Values) -> bool:
    """Read values that are all as a pattern has them, in a third of the time; return whether."""
    rest = rest.lstrip(" ")
    if pattern.match(rest) is None:
        return False
    found = pattern.findall(rest)
    if sum(len(whole) for whole, _name, _value, _unit in found) != len(rest):
        return False
    for _whole, name, value, unit in found:
        values.data[name] = float(value) if "." in value or "e" in value else int(value)
        if unit and unit != "None":
            values.units[name] = unit
    return True


def _read_bars(step: Any, rest: str, values: _Values, context: FileContext) -> Any:
    """Read values between bars; return the step, of which more may be in the first fields."""
    labels = list(step) if type(step) is tuple else [step]
    for field in filter(None, map(str.strip, rest.split("|"))):
        more, left = _split_labels(field)
        if more is not None and not left:
            labels += more if type(more) is tuple else [more]
            continue
        found = _FIELD.fullmatch(field)
        if found is None:
            context.skip(NOISE)
            continue
        unit = found["unit"] or ""
        values.add(found["name"] or unit, found["value"], unit)
    return tuple(labels) if type(step) is tuple or len(labels) > 1 else step


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
    step, rest = _split_labels(body)
    if step is not None:
        return step, rest
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
    return None, body


def _split_labels(body: str) -> tuple[Any, str]:
    if (usual := _USUAL_LABELS.match(body)) is not None:
        return (int(usual[1]), int(usual[2])), body[usual.end() :]
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
    if unit[:1].isdigit():
        return value, "", rest.strip()
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
        return value, unit[0] if unit and is_unit(unit[0]) else ""
    return value, unit[0] if unit else ""


def _end_of_value(part: str) -> int | None:
    """Return where a number, None, a bool or a bracketed value ends; return None for text."""
    found = NUMBER.match(part) or _WORD.match(part)
    if found:
        # "129/130" is text, and so is "12:30"; "50%" has a unit.
        return found.end() if part[found.end() : found.end() + 1] in _AFTER_NUMBER else None
    if part[:1] in ("[", "(", "{"):
        end = max(part.rfind(bracket) for bracket in "])}") + 1
        return end or None
    return None

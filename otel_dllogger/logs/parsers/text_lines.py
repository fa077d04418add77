"""Parse the lines that the StdOutBackend of DLLogger or TCAP DLLogger prints.

Source: DLLogger's default formats, ``DLL <datetime> - <step> <name> : <value> <unit> ...``,
where a missing unit leaves two blanks; the prefix was ``DLLL`` in older releases. Scripts
pass their own formats for steps (``Epoch: 0 Iteration: 1``), and some print the lines
themselves: ``rank:0 train.loss: 0.5 train.ips : 10 imgs/s lr=0.1``, or with bars, as FastPitch
does: ``epoch 1 | iter 2/48 | loss 40.5 | 5730 frames/s | took 24.5 s``.

The text does not mark where a name with blanks begins, so this is assumed: a value is
followed by one word of unit and then the name, or by two blanks and the name. What cannot be told
is not guessed: a name that begins with a number and a blank or with a step, or holds ``: ``, is
left out. A comma within a number is not read, since it may stand for a point or for thousands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import NO_TIME, NOISE, TORN, UNCLEAR_NAME
from otel_dllogger.logs.parsers.context import MAX_UNITS, SkippedError
from otel_dllogger.logs.parsers.formats import DLLOGGER_TEXT, TCAP_TEXT, FileRecord
from otel_dllogger.logs.parsers.literals import NUMBER, parse_literal
from otel_dllogger.logs.parsers.text_steps import (
    BEGINS_WITH_STEP,
    COMMA_IN_STEP,
    RANK,
    Labels,
    hides_iteration,
    hides_step,
    split_step,
)
from otel_dllogger.metrics.naming import is_unit
from otel_dllogger.record import Info, Metadata

if TYPE_CHECKING:
    from otel_dllogger.logs.parsers.context import FileContext

_HEAD = re.compile(
    r"(?P<prefix>DLLL?|TCAPPDLL) (?P<time>\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?:[+-]\d\d:?\d\d)?) -(?: |$)",
    re.ASCII,
)
_UNIT_WORD = r"[A-Za-z%][^\s\[\]()|=:,;]{0,39}"
# "name : 0.5 unit ", as DLLogger prints it, with names of one word.
_PRINTED = re.compile(
    r"(([^\s\d.+\-\[(]\S{0,63}) : (-?\d{1,18}(?:\.\d{1,30})?(?:e[-+]\d{1,3})?)"
    rf"(?: {{2,}}(?=\S)| +$|$| ({_UNIT_WORD})(?: +$|$| )))",
    re.ASCII,
)
# "name: 0.5 unit ", "name=0.5 ", as people print it: as above, with all separators.
_NEXT_NAME = r"(?=[^\s\d:=.+\-\[(][^\s:=]*(?: : |: +|=| = )[-+.\d])"
_BY_HAND_PRINTED = re.compile(
    r"(([^\s\d:=.+\-\[(][^\s:=]{0,63})(?: : |: +|=| = )"
    r"(-?\d{1,18}(?:\.\d{1,30})?(?:e[-+]\d{1,3})?)"
    rf"(?: *$| +{_NEXT_NAME}| ({_UNIT_WORD})(?: *$| +{_NEXT_NAME})))",
    re.ASCII,
)
_COLON = " : "
# Those of people who print such lines themselves: "a: 1", "a = 1", and without " : " also "a:1".
_BEFORE_NUMBER = r"(?=[-+]?\.?\d|[-+]?(?:[nN]a[nN]|[iI]nf|None|True|False)\b)"
_BY_HAND = rf"(?<=\S): +{_BEFORE_NUMBER}|(?<=[\w.\])])(?: = |=){_BEFORE_NUMBER}"
_NUMBER_BY_HAND = re.compile(_BY_HAND, re.ASCII)
_GLUED = re.compile(rf"(?<=[A-Za-z_)\]]):{_BEFORE_NUMBER}", re.ASCII)
_ANY_COLON = re.compile(rf" : |{_BY_HAND}", re.ASCII)
_ANY_OR_GLUED = re.compile(rf"{_BY_HAND}|{_GLUED.pattern}", re.ASCII)
# A number in front, or a colon; a first word without a letter.
_NOT_A_NAME = re.compile(r"[-+.]?\d+(?![\dA-Za-z_])|.*: ", re.ASCII | re.DOTALL)
_NO_WORD = re.compile(r"[^\w\s]+\s")
_NO_NAMES = (_NOT_A_NAME, _NO_WORD, BEGINS_WITH_STEP)
_NUMBER_WITHIN = re.compile(r"\s[-+]?\d+\.\d+\s", re.ASCII)
_FIRST_NUMBER = re.compile(
    r"(?<![^\s:=])(?:[-+]?\.?\d|[-+]?(?:nan|inf)\b)", re.ASCII | re.IGNORECASE
)
_UNIT = re.compile(r"[^\s\d\[\]()|=:,;][^\s\[\]()|=:,;]{0,39}", re.ASCII)
_WORD = re.compile(r"(?:None|True|False)(?= |$)")
_NAN = re.compile(r"[-+]?(?:nan|inf(?:inity)?)(?![\w.])", re.ASCII | re.IGNORECASE)
_COMMA = re.compile(r"[-+]?[\d.]{1,40}(?:,\d[\d.]{0,40}){1,20}(?:[eE][-+]?\d{1,3})?", re.ASCII)
_LABEL_WORD = re.compile(r"(?:.* )?(?:epoch|iteration|iter|step)", re.ASCII | re.IGNORECASE)
_NUMBER_AND_UNIT = re.compile(
    r"([-+]?[\d.]{1,40}(?:e[-+]?\d{1,3})?)([^\W\d_]\S{0,39}|%)", re.IGNORECASE
)
_MEAN = re.compile(
    r"\s?\([-+]?[\d.]{1,40}(?:e[-+]?\d{1,3})?\)(?=[\s,;|]|$)", re.ASCII | re.IGNORECASE
)
# "loss 4.0, acc 0.5 ": names of one word, which no sentence with a number in it is.
_PLAIN = re.compile(
    r"(?P<name>[A-Za-z_][^\s:=,|\[\](){}]{0,99}) +(?P<value>[-+]?(?:\d[^\s;]{0,40}?|nan|inf))"
    r"(?=,?(?:\s|$)|;)",
    re.ASCII | re.IGNORECASE,
)
_BETWEEN = re.compile(r"[,;]?\s*")
_WORD_BEHIND = re.compile(r"\s+([^\s\d,;]{1,40})(?:[,;]?\s+|[,;]?$)")
_NO_METRICS = frozenset(
    ("of", "in", "at", "to", "from", "for", "after", "with", "by", "is", "than")
)
_NO_UNITS = ("", "None")
_AFTER_NUMBER = ("", " ", "%", ",", ";", "\t")
_MARKS = (",", ";", "| ", "- ")
_BAR = re.compile(r"(?<!\S)\|(?!\S)")
_BRACKETS = ("(", "[")
_COMMA_GUESS = (
    "numbers such as {} are not read, since the comma may stand for a point or "
    "for thousands; write them with a point"
)


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
    step, stage, values = found
    if values.unclear and not values.data:
        raise SkippedError(UNCLEAR_NAME, values.unclear[0])
    for name in values.unclear:
        context.skip(UNCLEAR_NAME, name)
    context.count(log_format)
    record = FileRecord(time_us, elapsed_us, step, values.data)
    record.log_format = log_format
    if stage is not None:
        record.header_stage = stage
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
        comma: The first number with a comma in it, which is not read.
        may_be_glued: Whether a number and its unit may be one word, as people write them.
    """

    __slots__ = ("comma", "data", "may_be_glued", "unclear", "units")

    def __init__(self) -> None:
        self.data: dict[str, Any] = {}
        self.units: dict[str, str] = {}
        self.unclear: list[str] = []
        self.comma = ""
        self.may_be_glued = False

    def add(self, name: str, value: str, unit: str) -> None:
        if (comma := _COMMA.match(value)) is not None:
            self.comma = self.comma or comma[0]
            if _LABEL_WORD.fullmatch(name):
                raise SkippedError(UNCLEAR_NAME, f"{name} {value}"[:80])
            return
        if not name or any(pattern.match(name) for pattern in _NO_NAMES):
            self.unclear.append(name[:80] or f"no name before {value[:60]}")
            return
        if self.may_be_glued:
            value, unit = _unglue(value, unit)
        self.data[name] = float(value) if _NAN.fullmatch(value) else parse_literal(value)
        if unit not in _NO_UNITS:
            self.units[name] = unit


def _unglue(value: str, unit: str) -> tuple[str, str]:
    """Split ``24.5s`` if that is certainly a number and its unit."""
    found = _NUMBER_AND_UNIT.fullmatch(value)
    if found is None or unit or NUMBER.fullmatch(found[1]) is None or not is_unit(found[2]):
        return value, unit
    return found[1], found[2]


def _read_body(body: str, context: FileContext) -> tuple[Any, str | None, _Values] | None:
    """Read step, stage, values and units; return None if there are no metrics."""
    values = _Values()
    step, stage, rest = split_step(body)
    if _read_printed(_PRINTED, rest, values):
        return step, stage, values
    found = RANK.search(body) if "ank" in body or "RANK" in body else None
    if found is not None:
        values.data["rank"] = int(found[1])
        body = body[: found.start()] + body[found.end() :]
        step, stage, rest = split_step(body)
    is_known = step is not None
    if not rest.strip():
        return (step, stage, values) if is_known else None
    if "|" in rest and is_known and (body[:1] not in _BRACKETS or _BAR.search(rest)):
        step, stage = _read_bars(body, step, stage, values, context)
    else:
        # Only a line that begins with a step or a rank is a record if it lacks " : ": much printed
        # text has colons.
        by_hand = (is_known or found is not None) and "{" not in rest
        if by_hand and is_known and _read_printed(_BY_HAND_PRINTED, rest, values):
            return step, stage, values
        values.may_be_glued = by_hand
        parts = _split_parts(rest, by_hand=by_hand)
        if len(parts) > 1:
            is_labelled = body[:1] not in _BRACKETS
            step = _read_parts(step, parts, values, context, is_labelled=is_labelled)
        elif by_hand and is_known and not body[:1].isdigit():
            _read_plain(rest, values)
        if len(parts) < 2 and not (values.data and is_known):
            if (cut := COMMA_IN_STEP.match(body)) and _NUMBER_BY_HAND.search(body, cut.end()):
                raise SkippedError(UNCLEAR_NAME, cut[0])
            return None
    if values.comma:
        context.guesses.setdefault("comma", _COMMA_GUESS.format(values.comma[:20]))
    elif not values.data and not values.unclear:
        return None
    return step, stage, values


def _split_parts(rest: str, *, by_hand: bool) -> list[str]:
    """Split a line at what separates names from values."""
    if _COLON in rest:
        by_hand = by_hand and _NUMBER_BY_HAND.search(rest) is not None
        return _ANY_COLON.split(rest) if by_hand else rest.split(_COLON)
    return _ANY_OR_GLUED.split(rest) if by_hand else [rest]


def _read_parts(
    step: Any, parts: list[str], values: _Values, context: FileContext, *, is_labelled: bool
) -> Any:
    """Read a name, values and names in turn, and a value; return the step."""
    name = _without_mark(parts[0])
    if step is None:
        # DLLogger prints the step first, whatever it is.
        word, blank, following = parts[0].partition(" ")
        if blank:
            step, name = word, following.strip()
            if hides_step(word, name):
                raise SkippedError(UNCLEAR_NAME, parts[0][:80])
    elif (is_labelled and hides_iteration(step, name)) or (
        values.may_be_glued and _NUMBER_WITHIN.search(name)
    ):
        raise SkippedError(UNCLEAR_NAME, name[:80])
    for part in parts[1:-1]:
        value, unit, following = _split_value(part)
        values.add(name, value, unit)
        name = following
    values.add(name, *_split_last(parts[-1], context))
    return step


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


def _read_plain(rest: str, values: _Values) -> None:
    """Read ``loss 4.0 acc 0.5``, if the line is nothing else and has a number with a point."""
    rest = rest.strip()
    at, found = 0, []
    while (pair := _PLAIN.match(rest, at)) is not None:
        name, (value, unit) = pair["name"], _unglue(pair["value"], "")
        is_number = NUMBER.fullmatch(value) or _NAN.fullmatch(value) or _COMMA.fullmatch(value)
        if not is_number or name.lower() in _NO_METRICS:
            return
        mean = _MEAN.match(rest, pair.end())
        at = (mean or pair).end()
        word = _WORD_BEHIND.match(rest, at)
        if word is not None and not unit and is_unit(word[1]):
            unit, at = word[1], word.end()
        elif at < len(rest):
            at = _BETWEEN.match(rest, at).end()  # type: ignore[union-attr]
        found.append((name, value, unit))
    if at == len(rest) and any(not value.isdigit() for _name, value, _unit in found):
        for one in found:
            values.add(*one)


def _read_bars(
    body: str, step: Any, stage: str | None, values: _Values, context: FileContext
) -> tuple[Any, str | None]:
    """Read values between bars; return step and stage, of which more may be in the first fields."""
    labels = Labels()
    at = labels.read(body)
    rest = body[at:] if at else split_step(body)[2]
    # Other programs have bars as well, which may go on in the line of a record.
    is_of_bars = rest.lstrip().startswith("|")
    for field in filter(None, map(str.strip, rest.split("|"))):
        if at and labels.read_whole(field):
            continue
        number = _FIRST_NUMBER.search(field)
        if number is None:
            _leave_out(field, values, context, may_be_value=is_of_bars)
            continue
        name = field[: number.start()].rstrip()
        name = name[:-1].rstrip() if name.endswith((":", "=")) else name
        value, _, unit = field[number.start() :].partition(" ")
        unit = _MEAN.sub("", f" {unit.strip()}", count=1).strip()
        value, unit = _unglue(value.rstrip(",;"), unit)
        if unit and not _is_word_of_unit(unit):
            _leave_out(field, values, context, may_be_value=is_of_bars)
        else:
            values.add(name or unit, value, unit)
    return (labels.step, labels.stage) if at else (step, stage)


def _leave_out(field: str, values: _Values, context: FileContext, *, may_be_value: bool) -> None:
    if may_be_value and any(map(str.isdigit, field)):
        values.unclear.append(field[:80])
    else:
        context.skip(NOISE)


def _has_meaning(character: str) -> bool:
    return character in "%_" or character.isalpha()


def _is_word_of_unit(word: str) -> bool:
    return _UNIT.fullmatch(word) is not None and any(map(_has_meaning, word))


def _split_value(part: str) -> tuple[str, str, str]:
    """Split the text between two colons into a value, its unit and the next name."""
    end = _end_of_value(part)
    if end is None:
        value, blanks, name = part.partition("  ")
        if blanks:
            return value.strip(), "", name.strip()
        *words, name = part.split(" ")
        unit = words.pop() if len(words) > 1 and _is_word_of_unit(words[-1]) else ""
        return " ".join(words).removesuffix(","), unit, name
    value, rest = part[:end], part[end:]
    if (mean := _MEAN.match(rest)) is not None:
        rest = rest[mean.end() :]
    if rest.startswith("  ") or rest.lstrip().startswith(_MARKS):
        return value, "", _without_mark(rest)
    unit, _, name = rest.strip().partition(" ")
    word = unit.rstrip(",;|")
    if word[:1] in _BRACKETS and is_unit(word[1:-1]):
        word = word[1:-1]
    if not name.strip():
        return value, "", unit
    if not _is_word_of_unit(word):
        return value, "", rest.strip()
    return value, word, _without_mark(name)


def _without_mark(text: str) -> str:
    """Return a name without the comma or the bar that stands between it and a value."""
    text = text.strip()
    return text[1:].lstrip() if text[:1] in (",", ";") or text[:2] in _MARKS else text


def _split_last(part: str, context: FileContext) -> tuple[str, str]:
    """Split the text after the last colon into a value and its unit; the rest is noise."""
    end = _end_of_value(part)
    if end is None:
        return part.strip(), ""
    value, rest = part[:end], part[end:]
    if (mean := _MEAN.match(rest)) is not None:
        rest = rest[mean.end() :]
    if rest.startswith("  ") and rest.strip():
        context.skip(TORN)  # the name of a metric whose value is missing
        return value, ""
    rest = rest.strip().rstrip(",;|").rstrip()
    unit = _UNIT.match(rest)
    after = rest[unit.end() :] if unit else rest
    word = unit[0] if unit and _is_word_of_unit(unit[0]) else ""
    if after.strip():
        context.skip(NOISE)
        return value, word if is_unit(word) else ""
    return value, word


def _end_of_value(part: str) -> int | None:
    """Return where a number, None, a bool or a bracketed value ends; return None for text."""
    found = NUMBER.match(part) or _WORD.match(part) or _NAN.match(part)
    if found:
        if part.startswith(",", found.end()):
            found = _COMMA.match(part) or found
        # "129/130" is text, and so is "12:30"; "50%" has a unit.
        return found.end() if part[found.end() : found.end() + 1] in _AFTER_NUMBER else None
    if part[:1] in ("[", "(", "{"):
        end = max(part.rfind(bracket) for bracket in "])}") + 1
        return end or None
    return None

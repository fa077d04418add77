"""Read plain data back from what ``str`` or ``repr`` made of it, without evaluating the text.

TCAP DLLogger writes its data as ``str(dict)`` within a JSON string. The reader here accepts
what ``ast.literal_eval`` accepts, except complex numbers; it also reads ``nan`` and ``inf``,
which ``ast`` refuses. ``ast`` itself is not used, because the logs are other people's: a line
of 600 kB crashes Python 3.10 (``()()()...`` overflows the stack of its C code), one of 1 MiB
takes 500 MB, and an escape that Python does not know prints a warning.
"""

from __future__ import annotations

import re
from typing import Any

from orjson import JSONDecodeError, loads

from otel_dllogger.diagnostics import NESTED_TOO_DEEP, NUMBER_TOO_LONG, UNREADABLE_DATA
from otel_dllogger.logs.parsers.context import MAX_DIGITS, MAX_NESTING, SkippedError

_DIGITS = rf"\d{{1,{MAX_DIGITS}}}"
NUMBER = re.compile(
    rf"[-+]?(?:(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][-+]?\d{{1,9}})?|nan|inf)(?![\w.])",
    re.ASCII,
)
_INTEGER = re.compile(r"[-+]?\d{1,18}", re.ASCII)
_WORDS = {"None": None, "True": True, "False": False}

# What may be an int of more than 64 bits, which orjson reads as a float.
_LONG_DIGITS = re.compile(r"\d{19}", re.ASCII)

# Unrolled loops, so that the time for unterminated text grows only linearly with its length.
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>b?(?:'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"))
        |(?P<number>[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf)(?!\w))
        |(?P<word>None|True|False|set\(\))
        |(?P<mark>[\[\](){},:])
    )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_END_OF = {"[": "]", "(": ")", "{": "}"}
_ETA = re.compile(r"(?:(\d{1,9}) days?, )?(\d{1,9}):(\d\d):(\d\d)", re.ASCII)
_ESCAPE = re.compile(
    r"\\(?:(?P<known>x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|[abfnrtv\n\\'\"])"
    r"|(?P<octal>[0-7]{1,3})|.)",
    re.DOTALL,
)


def parse_seconds(text: str) -> Any:
    """Read the seconds of what ``str(timedelta)`` returned; return any other text unchanged."""
    found = _ETA.fullmatch(text)
    if found is None:
        return text
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def parse_literal(text: str) -> Any:
    """Read a number, None, a bool, a list or the like; return any other text unchanged.

    Args:
        text: What ``str`` returned for a value.
    """
    if _INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text)
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] in _END_OF:
        try:
            return parse_repr(text)
        except SkippedError:
            pass
    return text


def parse_repr(text: str) -> Any:
    """Read the ``repr`` of None, bools, numbers, text, bytes, lists, tuples, sets and dicts.

    Args:
        text: The text; in a log it is never longer than its line.

    Returns:
        The value.

    Raises:
        SkippedError: If it is anything else, nested too deeply, or has too long a number.
    """
    # Without " and \ in it, every ' begins or ends a string, which is JSON's but for the quotes.
    if (
        '"' not in text
        and "\\" not in text
        and text.count("[") + text.count("{") <= MAX_NESTING
        and _LONG_DIGITS.search(text) is None
    ):
        try:
            return loads(text.replace("'", '"'))
        except JSONDecodeError:  # None, True, tuples, keys that are not text, nan
            pass
    return _ReprReader(text).read()


class _ReprReader:
    """A reader of one value, token by token.

    Args:
        text: The text.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def read(self) -> Any:
        """Return the one value that the text is."""
        try:
            value = self._value(*self._next())
        except SkippedError:
            raise
        except RecursionError:
            raise SkippedError(NESTED_TOO_DEEP) from None
        except (TypeError, ValueError):  # a list as a key; \U00110000
            raise SkippedError(UNREADABLE_DATA) from None
        if self._text[self._at :].strip():
            raise SkippedError(UNREADABLE_DATA)
        return value

    def _next(self) -> tuple[str, str]:
        """Return the next token, as its kind and its text."""
        found = _TOKEN.match(self._text, self._at)
        if found is None or found.lastgroup is None:
            raise SkippedError(UNREADABLE_DATA)
        self._at = found.end()
        return found.lastgroup, found[found.lastgroup]

    def _value(self, kind: str, symbol: str) -> Any:
        """Read the value that begins with a token."""
        if kind == "text":
            return _unquote(symbol)
        if kind == "number":
            return _number(symbol)
        if kind == "word":
            return _WORDS.get(symbol, set())
        if symbol not in _END_OF:
            raise SkippedError(UNREADABLE_DATA)
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise SkippedError(NESTED_TOO_DEEP)
        keys, items, ends_in_comma = self._items(_END_OF[symbol])
        self._depth -= 1
        if keys or (symbol == "{" and not items):
            if symbol != "{" or len(keys) != len(items):
                raise SkippedError(UNREADABLE_DATA)
            return dict(zip(keys, items, strict=True))
        if symbol == "[":
            return items
        if symbol == "{":
            return set(items)
        return tuple(items) if ends_in_comma or len(items) != 1 else items[0]

    def _items(self, end: str) -> tuple[list[Any], list[Any], bool]:
        """Read up to a closing bracket.

        Returns:
            What stood before colons, the values, and whether the last of them had a comma.
        """
        keys: list[Any] = []
        items: list[Any] = []
        mark = ","
        while mark == ",":
            kind, symbol = self._next()
            if symbol == end:
                return keys, items, True
            items.append(self._value(kind, symbol))
            _, mark = self._next()
            if mark == ":":
                keys.append(items[-1])
                items[-1] = self._value(*self._next())
                _, mark = self._next()
        if mark != end:
            raise SkippedError(UNREADABLE_DATA)
        return keys, items, False


def _number(symbol: str) -> float:
    if symbol.lstrip("+-").isdigit():
        if len(symbol) > MAX_DIGITS:
            raise SkippedError(NUMBER_TOO_LONG)
        try:
            return int(symbol)
        except ValueError:  # if the limit of this process is lower
            raise SkippedError(NUMBER_TOO_LONG) from None
    return float(symbol)


def _unquote(symbol: str) -> str | bytes:
    is_bytes = symbol[0] == "b"
    text = symbol[2:-1] if is_bytes else symbol[1:-1]
    if "\\" in text:
        text = _ESCAPE.sub(_unescape, text)
    return text.encode("latin-1") if is_bytes else text


def _unescape(found: re.Match[str]) -> str:
    if found["known"]:
        return found[0].encode().decode("unicode_escape")
    if found["octal"]:
        return chr(int(found["octal"], 8))
    return found[0]  # Python also keeps an escape that it does not know

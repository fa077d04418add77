"""The ``repr`` of plain data, read back without evaluating anything.

TCAP DLLogger writes its data as ``str(dict)`` within a JSON string. What is read is what
``ast.literal_eval`` reads of such text, but for complex numbers; ``nan`` and ``inf``,
which it refuses, are numbers. The compiler is not asked: it takes three times as long,
warns of odd escapes, and can be made to overflow the stack.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orjson import JSONDecodeError, loads

from otel_dllogger.diagnostics import NESTED_TOO_DEEP, NUMBER_TOO_LONG, UNREADABLE_DATA
from otel_dllogger.logs.parsers.skipped import MAX_DIGITS, MAX_NESTING, SkippedError

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_DIGITS = re.compile(r"\d{19}", re.ASCII)
"""What may be an int of more than 64 bits, which orjson reads as a float."""

# Unrolled loops, so that text without an end costs no more than its length.
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<text>b?(?:'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"))
        |(?P<number>[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf)(?!\w))
        |(?P<word>None|True|False|set\(\))
        |(?P<mark>[\[\](){},:])
    )""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_ESCAPE = re.compile(
    r"\\(?:x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})|U(?P<U>[0-9a-fA-F]{8})"
    r"|(?P<octal>[0-7]{1,3})|(?P<one>.))",
    re.DOTALL,
)
_ESCAPED = {
    "n": "\n",
    "r": "\r",
    "t": "\t",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "\n": "",
    "\\": "\\",
    "'": "'",
    '"': '"',
}
_WORDS: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "True": lambda: True,
    "False": lambda: False,
    "set()": set,
}


def parse_repr(text: str) -> Any:
    """Read the ``repr`` of None, bools, numbers, text, bytes, lists, tuples, sets and dicts.

    Args:
        text: The text; within a JSON string it has no more bytes than its line.

    Returns:
        The value.

    Raises:
        SkippedError: If it is anything else, nested too deep, or a number too long.
    """
    # With neither in it, every ' begins or ends a string, and such a string is JSON's.
    if (
        '"' not in text
        and "\\" not in text
        and text.count("[") + text.count("{") <= MAX_NESTING
        and LONG_DIGITS.search(text) is None
    ):
        try:
            return loads(text.replace("'", '"'))
        except JSONDecodeError:  # None, True, tuples, keys that are no text, nan
            pass
    return _Reader(text).read()


class _Reader:
    """Read values, one token after the other.

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
        except RecursionError:
            raise SkippedError(NESTED_TOO_DEEP) from None
        except (TypeError, ValueError) as error:  # a list as a key; \U00110000
            raise (
                error if isinstance(error, SkippedError) else SkippedError(UNREADABLE_DATA)
            ) from None
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

    def _value(self, kind: str, piece: str) -> Any:
        if kind == "text":
            return _unquote(piece)
        if kind == "number":
            return _number(piece)
        if kind == "word":
            return _WORDS[piece]()
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise SkippedError(NESTED_TOO_DEEP)
        if piece == "{":
            value: Any = self._dict_or_set()
        elif piece == "[":
            value = self._items("]")[0]
        elif piece == "(":
            items, comma = self._items(")")
            value = tuple(items) if comma or not items else items[0]
        else:
            raise SkippedError(UNREADABLE_DATA)
        self._depth -= 1
        return value

    def _items(self, end: str) -> tuple[list[Any], bool]:
        """Read up to a closing bracket; tell whether there was a comma."""
        items: list[Any] = []
        comma = False
        kind, piece = self._next()
        while piece != end or kind != "mark":
            items.append(self._value(kind, piece))
            if self._separator(",", end):
                return items, comma
            comma = True
            kind, piece = self._next()
        return items, comma

    def _dict_or_set(self) -> dict[Any, Any] | set[Any]:
        kind, piece = self._next()
        if kind == "mark" and piece == "}":
            return {}
        first = self._value(kind, piece)
        if self._next_mark(",:}") != ":":
            self._at -= 1  # the mark again, for the items of a set
            return self._set_after(first)
        pairs = {first: self._value(*self._next())}
        while not self._separator(",", "}"):
            kind, piece = self._next()
            if kind == "mark" and piece == "}":
                break
            key = self._value(kind, piece)
            self._next_mark(":")
            pairs[key] = self._value(*self._next())
        return pairs

    def _set_after(self, first: Any) -> set[Any]:
        if self._separator(",", "}"):
            return {first}
        return {first, *self._items("}")[0]}

    def _separator(self, comma: str, end: str) -> bool:
        """Read a comma or the end; tell whether it was the end."""
        return self._next_mark(comma + end) == end

    def _next_mark(self, wanted: str) -> str:
        kind, piece = self._next()
        if kind != "mark" or piece not in wanted:
            raise SkippedError(UNREADABLE_DATA)
        return piece


def _number(piece: str) -> float:
    if piece.lstrip("+-").isdigit():
        if len(piece) > MAX_DIGITS:
            raise SkippedError(NUMBER_TOO_LONG)
        try:
            return int(piece)
        except ValueError:  # where the limit of the process is lower
            raise SkippedError(NUMBER_TOO_LONG) from None
    return float(piece)


def _unquote(piece: str) -> str | bytes:
    is_bytes = piece[0] == "b"
    text = piece[2:-1] if is_bytes else piece[1:-1]
    if "\\" in text:
        text = _ESCAPE.sub(_unescape, text)
    return text.encode("latin-1") if is_bytes else text


def _unescape(found: re.Match[str]) -> str:
    digits = found["x"] or found["u"] or found["U"]
    if digits:
        return chr(int(digits, 16))
    if found["octal"]:
        return chr(int(found["octal"], 8))
    # Python keeps an escape that it does not know as it is.
    return _ESCAPED.get(found["one"], found[0])

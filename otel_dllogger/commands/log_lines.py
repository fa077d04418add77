"""One line of a log, of DLLogger's or TCAP DLLogger's: what it is and what it holds."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import Any

NVIDIA_JSON = "DLLogger JSON lines"
TCAP_JSON = "TCAP DLLogger JSON lines"
NVIDIA_TEXT = "DLLogger text, as its StdOutBackend prints it"
TCAP_TEXT = "TCAP DLLogger text, as its StdOutBackend prints it"
BARE_JSON = "JSON lines without DLLogger's prefix"

_JSON_DIALECTS = {"DLLL": NVIDIA_JSON, "DLL": NVIDIA_JSON, "TCAPPDLL": TCAP_JSON, "INFO": ""}
_JSON_LINE = re.compile(r"(DLLL?|TCAPPDLL|INFO) ?(?=\{)")
_TEXT_LINE = re.compile(r"(DLLL?|TCAPPDLL) \d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d")
_TYPES = ("LOG", "METADATA", "INFO")
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Line:
    """Hold one record of a log.

    Attributes:
        kind: ``LOG``, ``METADATA``, ``INFO``, ``text`` (printed, not JSON), ``other`` (not
            of the logger's), ``corrupt``.
        dialect: Who wrote it, ``""`` where it does not say.
        fields: The JSON object; empty for what is none.
        problem: What is wrong with it, None if nothing is.
    """

    kind: str
    dialect: str
    fields: dict[str, Any]
    problem: str | None = None


def parse_line(text: str) -> list[Line]:
    """Read one line; there are several records in it where writers tore into each other.

    Args:
        text: The line without its end.
    """
    found = _JSON_LINE.match(text)
    if found:
        return _parse_json(text, found)
    return [_parse_other(text)]


def _parse_json(text: str, found: re.Match[str]) -> list[Line]:
    dialect = _JSON_DIALECTS[found[1]]
    try:
        fields, end = _DECODER.raw_decode(text, found.end())
    except (ValueError, RecursionError) as error:
        return _parse_torn(text, found, dialect, _why(error))
    rest = text[end:].strip()
    line = _check_fields(fields, dialect, alone=not rest)
    if not rest:
        return [line]
    following = _JSON_LINE.search(rest)
    if following and following.start() == 0:
        glued = Line("corrupt", dialect, {}, "two records on one line, by two writers of a file")
        return [line, glued, *parse_line(rest)]
    return [Line("corrupt", dialect, {}, f"{rest[:30]!r} stands after the record")]


def _parse_torn(text: str, found: re.Match[str], dialect: str, why: str) -> list[Line]:
    torn = Line("corrupt", dialect, {}, why)
    following = _JSON_LINE.search(text, found.end())
    # An inner "INFO {" is more likely somebody's text.
    if following and following[1] != "INFO" and text[following.start() - 1] != '"':
        torn = Line("corrupt", dialect, {}, "half a record, and another one on the same line")
        return [torn, *parse_line(text[following.start() :])]
    return [torn]


def _check_fields(fields: Any, dialect: str, *, alone: bool) -> Line:
    if not isinstance(fields, dict):
        return Line("corrupt", dialect, {}, "no JSON object")
    kind = fields.get("type")
    if kind not in _TYPES:
        return Line("corrupt", dialect, {}, f"unknown type {kind!r}"[:80])
    wanted = {"LOG": ("step", "data"), "METADATA": ("metric", "metadata"), "INFO": ("data",)}
    missing = [name for name in wanted[kind] if name not in fields]
    if missing:
        return Line("corrupt", dialect, {}, f"a {kind} line without {' and '.join(missing)}")
    if kind == "LOG" and isinstance(fields["data"], str):
        data = _parse_repr(fields["data"])
        if data is None and dialect == TCAP_JSON and alone:
            return Line("corrupt", dialect, {}, "its data is no dict, as TCAP writes them")
        fields["data"] = fields["data"] if data is None else data
    return Line(kind, dialect, fields)


def _parse_repr(text: str) -> dict[Any, Any] | None:
    """Read the ``repr`` of a dict, which is what TCAP DLLogger writes as data."""
    try:
        data = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _parse_other(text: str) -> Line:
    found = _TEXT_LINE.match(text)
    if found:
        dialect = TCAP_TEXT if found[1] == "TCAPPDLL" else NVIDIA_TEXT
        if _TEXT_LINE.search(text, found.end()):
            return Line("text", dialect, {}, "two records on one line, by two writers")
        return Line("text", dialect, {})
    if text.lstrip().startswith("{"):
        try:
            if isinstance(json.loads(text), dict):
                return Line("other", BARE_JSON, {})
        except (ValueError, RecursionError):
            pass
    return Line("other", "", {})


def _why(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"the record breaks off or is damaged at column {error.colno}"
    return "the record is nested too deep" if isinstance(error, RecursionError) else str(error)

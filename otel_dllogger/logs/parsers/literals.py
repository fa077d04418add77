"""A value that stands in plain text: a number where it is one, else what it is."""

from __future__ import annotations

import re
from typing import Any

from otel_dllogger.logs.parsers.python_repr import parse_repr
from otel_dllogger.logs.parsers.skipped import SkippedError

NUMBER = re.compile(
    r"[-+]?(?:(?:\d{1,4300}(?:\.\d{0,4300})?|\.\d{1,4300})(?:[eE][-+]?\d{1,9})?|nan|inf)(?![\w.])",
    re.ASCII,
)
_INTEGER = re.compile(r"[-+]?\d{1,18}", re.ASCII)
_WORDS = {"None": None, "True": True, "False": False}


def parse_literal(text: str) -> Any:
    """Return a number, None, a bool, a list or the like; text that is none of them as it is.

    Args:
        text: What ``str`` wrote of a value.
    """
    if _INTEGER.fullmatch(text):
        return int(text)
    if NUMBER.fullmatch(text):
        return float(text)
    if text in _WORDS:
        return _WORDS[text]
    if text[:1] in ("[", "(", "{"):
        try:
            return parse_repr(text)
        except SkippedError:
            pass
    return text

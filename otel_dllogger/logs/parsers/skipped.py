"""Why a line, or a part of one, gave no record: each reason is a counter's name."""

from __future__ import annotations

BLANK = "blank"
"""A line of nothing but white space."""

NOT_A_RECORD = "not_a_record"
"""A whole line that is nobody's record: other programs' text."""

NOISE = "noise"
"""Somebody else's text on the same line as a record, before or after it."""

TORN = "torn"
"""A record that breaks off: cut at the end of a file, or by another writer."""

MALFORMED = "malformed"
"""A record that is whole and yet no valid JSON object."""

MISSING_FIELDS = "missing_fields"
"""A JSON record without what its type must have."""

UNKNOWN_TYPE = "unknown_type"
"""A JSON record that is neither LOG nor METADATA nor INFO."""

UNREADABLE_DATA = "unreadable_data"
"""TCAP data that are no ``repr`` of a dict of literals."""

NO_TIME = "no_time"
"""A record that does not say when it was."""

NUL_BYTES = "nul_bytes"
"""NULs, which a file system leaves behind where a machine lost its power."""

INVALID_UTF8 = "invalid_utf8"
"""A record with bytes that are no text."""

LINE_TOO_LONG = "line_too_long"
"""A line of more than ``MAX_LINE_BYTES``."""

NESTED_TOO_DEEP = "nested_too_deep"
"""A record of more than ``MAX_NESTING`` levels."""

NUMBER_TOO_LONG = "number_too_long"
"""A number of more digits than ``MAX_DIGITS``, or than Python reads."""

REASONS = (
    BLANK,
    NOT_A_RECORD,
    NOISE,
    TORN,
    MALFORMED,
    MISSING_FIELDS,
    UNKNOWN_TYPE,
    UNREADABLE_DATA,
    NO_TIME,
    NUL_BYTES,
    INVALID_UTF8,
    LINE_TOO_LONG,
    NESTED_TOO_DEEP,
    NUMBER_TOO_LONG,
)

HARMLESS = frozenset((BLANK, NOT_A_RECORD, NOISE))
"""What is skipped without anything being lost."""

MAX_LINE_BYTES = 2**20
"""Bytes of a line that are read; what a record takes in memory is up to a hundred times that."""

MAX_NESTING = 100
"""Levels of a record; the package itself writes up to ``values.MAX_DEPTH`` and a few more."""

MAX_DIGITS = 4_300
"""Digits of a number: what Python reads by default, since its time grows with the square."""


class SkippedError(ValueError):
    """Say why something cannot be read, within this package alone.

    Args:
        reason: One of ``REASONS``.
        detail: What it was, for people, where the reason alone leaves a question.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail

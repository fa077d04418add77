"""Detect the format of one log line, and call the parser of that format.

The line alone determines the format, never its file: captured console output mixes formats. Only
the frames of TensorBoard's event files are told from lines by the first of them.
Nothing that a line holds makes this raise; what gives no record is counted by reason in the
file's ``FileContext``. The lines of a file must be passed in their order.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import (
    BLANK,
    INVALID_UTF8,
    LINE_TOO_LONG,
    NOISE,
    NOT_A_RECORD,
    NUL_BYTES,
    TORN,
)
from otel_dllogger.logs.parsers import console, console_tools, events, mmengine, rows, text_lines
from otel_dllogger.logs.parsers.context import MAX_LINE_BYTES, SkippedError
from otel_dllogger.logs.parsers.envelope import DOCKER, unwrap
from otel_dllogger.logs.parsers.formats import DLLOGGER_JSON, TCAP_JSON
from otel_dllogger.logs.parsers.json_lines import Entry, decode_json, find_end, read_entry
from otel_dllogger.logs.parsers.tfrecord import is_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_dllogger.logs.parsers.context import FileContext
    from otel_dllogger.logs.parsers.formats import FileRecord

_MAX_FAILURES = 16
"""Damaged records that are tried in one line: each can cost a scan of the whole rest."""

_MARKER = re.compile(
    rb"(?P<json>(?:DLLL?|TCAPPDLL) ?(?=\{)"
    rb"|INFO ?(?=\{ ?\"(?:timestamp|datetime|elapsedtime|local_rank|type|data)\"))"
    rb"|(?P<text>DLLL?|TCAPPDLL) (?=\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)"
    rb"|(?P<mmengine>(?:\d{4}/)?\d\d/\d\d \d\d:\d\d:\d\d - \S{1,100} - [A-Z]{4,8} - )"
)
_PREFIX = re.compile(rb"(?:DLLL?|TCAPPDLL)(?: ?$| \d)")
_MMENGINE = re.compile(
    rb"(?:\d{4}/)?\d\d/\d\d \d\d:\d\d:\d\d - \S{1,100} - [A-Z]{4,8} - (?:Epoch|Iter)\("
)
_CONSOLE = console_tools.HINT
_PRINTED = (b"DLL ", b"DLLL ", b"TCAPPDLL ")
_QUOTES = b"\"'`"
_BLANKS = b" \t\r\n\v\f"
_ROW = (b'{"', b"{}", b'{ "')


def parse_line(line: bytes, context: FileContext) -> list[Entry]:
    """Read one line of a log.

    Args:
        line: The line, with or without its newline.
        context: Its file, whose state changes as lines are read.

    Returns:
        Its records, metadata and infos: usually none if it is other programs' text, several if
        writers tore each other's lines. Records are ``FileRecord``.
    """
    context.offset_bytes += len(line) if line.endswith(b"\n") else len(line) + 1
    if line[:6] == b"DLLL {":
        log_format, start = DLLOGGER_JSON, 5
    elif line[:10] == b"TCAPPDLL {":
        log_format, start = TCAP_JSON, 9
    elif line.startswith(_PRINTED) and not _holds_more(line, 9):
        return _parse_printed(line, context, text_lines.read_text)
    elif (found := _MMENGINE.match(line)) and not _holds_more(line, found.end()):
        return _parse_printed(line, context, mmengine.read_text)
    elif line[:2] == b'{"' and not line.startswith(DOCKER) and not _may_go_on(context):
        return _parse_row(line, context)
    else:
        return _parse_mixed(line, context)
    if len(line) <= MAX_LINE_BYTES:
        try:
            return [read_entry(decode_json(line[start:]), line, log_format, context)]
        except SkippedError:  # found again and counted the long way
            pass
    return _parse_mixed(line, context)


def _holds_more(line: bytes, start: int) -> bool:
    """Return whether there may be more on a line than one printed record."""
    return (
        line.find(b"DLL", start) >= 0
        or line.find(b"INFO", start) >= 0
        or line.find(b"\r", start, -2) >= 0
        or b"%|" in line
        or b"\x1b" in line
        or b"\0" in line
    )


def _parse_printed(
    line: bytes, context: FileContext, read: Callable[[str, FileContext], Sequence[Entry]]
) -> list[Entry]:
    """Read a line that is one printed record and nothing else, as nearly all of a log are."""
    if len(line) <= MAX_LINE_BYTES:
        try:
            return list(read(line.decode(), context))
        except (SkippedError, UnicodeDecodeError):
            pass
    return _parse_mixed(line, context)


def _parse_row(line: bytes, context: FileContext) -> list[Entry]:
    """Read a line that is one JSON row without a prefix, as nearly all of some logs are."""
    if len(line) > MAX_LINE_BYTES or b"DLL" in line or b"INFO" in line:
        return _parse_mixed(line, context)
    try:
        fields = decode_json(line)
    except SkippedError:
        return _parse_mixed(line, context)
    return list(_read_fields(fields, context))


def _parse_mixed(line: bytes, context: FileContext) -> list[Entry]:
    """Read a line that is not one whole JSON record."""
    if context.is_events or (context.offset_bytes <= len(line) + 1 and is_frame(line)):
        return [*events.read_frame(line, context)]
    if len(line) > MAX_LINE_BYTES:
        context.skip(LINE_TOO_LONG)
        return []
    line = unwrap(line, context).strip(b"\r\n")
    if not line.strip(_BLANKS):
        context.skip(BLANK)
        return []
    entries: list[Entry] = []
    rest = _Rest(line)
    for found in rest.markers():
        try:
            entries += rest.read(found, context)
        except SkippedError as error:
            context.skip(error.reason, error.detail)
            rest.failed(found)
    context.glued += rest.found > 1
    if not rest.found:
        _parse_other(line, entries, context)
    elif rest.noise:
        context.skip(rest.noise)
    return entries


class _Rest:
    """The records of one line, one after the other.

    Args:
        line: The line.

    Attributes:
        found: How many records there were, whole or damaged.
        noise: What else there was: ``NOISE``, ``NUL_BYTES``, or ``""`` for nothing.
    """

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._at = 0
        self._failures = 0
        self.found = 0
        self.noise = ""

    def markers(self) -> Iterator[re.Match[bytes]]:
        """Yield the beginnings of records; ``read`` or ``failed`` moves on past each of them."""
        while self._failures < _MAX_FAILURES:
            found = self._next_marker(self._at)
            end = len(self._line) if found is None else found.start()
            self._pass(end)
            if found is None:
                return
            yield found

    def read(self, found: re.Match[bytes], context: FileContext) -> list[Entry]:
        """Read the record that begins at a marker."""
        if found["json"]:
            return [self._read_json(found, context)]
        following = self._next_marker(found.end())
        end = len(self._line) if following is None else following.start()
        overwritten = self._line.find(b"\r", found.end(), end)  # by a progress bar
        end = end if overwritten < 0 else overwritten
        fragment = self._line[found.start() : end]
        entries: list[Entry] = []
        if found["text"]:
            entries += text_lines.read_text(_decode(fragment), context)
        elif b"Exp name: " in fragment:
            mmengine.note_experiment(_decode(fragment), context)
        elif b"Epoch(" in fragment or b"Iter(" in fragment:
            entries += mmengine.read_text(_decode(fragment), context)
        if entries:
            self._at = end
            self.found += 1
        else:
            self._pass(end)
        return entries

    def failed(self, found: re.Match[bytes]) -> None:
        """Continue at the next marker after a damaged record."""
        self._failures += 1
        self.found += 1
        at = found.end()
        following = self._next_marker(at)
        quotes = 0
        while found["json"] and following is not None and not following["json"]:
            # JSON within a string has its quotes escaped and cannot be read; text could be.
            quotes += self._line.count(b'"', at, following.start())
            quotes -= self._line.count(b'\\"', at, following.start())
            if quotes % 2 == 0:
                break
            at = following.start()
            following = self._next_marker(following.end())
        self._at = len(self._line) if following is None else following.start()

    def _read_json(self, found: re.Match[bytes], context: FileContext) -> Entry:
        end = find_end(self._line, found.end())
        raw = self._line[found.end() : end]
        prefix = found["json"].rstrip()
        log_format = TCAP_JSON if prefix in (b"TCAPPDLL", b"INFO") else DLLOGGER_JSON
        entry = read_entry(decode_json(raw), raw, log_format, context)
        self._at = end
        self.found += 1
        return entry

    def _pass(self, end: int) -> None:
        """Continue at ``end``; what is skipped is not a record."""
        noise = self._line[self._at : end].strip(_BLANKS)
        if noise and self.noise != NUL_BYTES:
            self.noise = NUL_BYTES if b"\0" in noise else NOISE
        self._at = end

    def _next_marker(self, start: int) -> re.Match[bytes] | None:
        """Find the next marker; one that follows a quote is part of somebody's text."""
        line = self._line
        # Every record's marker holds one of these: searching for them takes a tenth of the time.
        if line.find(b"DLL", start) < 0 and line.find(b"INFO", start) < 0:
            return None
        found = _MARKER.search(line, start)
        while found is not None and found.start() and line[found.start() - 1] in _QUOTES:
            found = _MARKER.search(line, found.end())
        return found


def _decode(fragment: bytes) -> str:
    if b"\0" in fragment:
        raise SkippedError(NUL_BYTES)
    try:
        return fragment.decode()
    except UnicodeDecodeError:
        raise SkippedError(INVALID_UTF8) from None


def _parse_other(line: bytes, entries: list[Entry], context: FileContext) -> None:
    """Read a line without a prefix: a row of some tool, or any other text."""
    text = line.decode("utf-8", "replace") if _may_go_on(context) and b"\0" not in line else ""
    if context.open_row is not None and text:
        record = mmengine.read_continuation(text, context)
        if record is not None:
            entries.append(record)
            return
    line = line.strip(_BLANKS)
    try:
        if text and (found := _read_row(text, context)) is not None:
            entries += found
        elif line.startswith(_ROW):
            _read_objects(line, entries, context)
        elif _CONSOLE.search(line) and (printed := console.read_console(_decode(line), context)):
            entries += printed
        else:
            torn = _PREFIX.match(line) is not None
            context.skip(NUL_BYTES if b"\0" in line else TORN if torn else NOT_A_RECORD)
    except SkippedError as error:
        context.skip(error.reason, error.detail)


def _may_go_on(context: FileContext) -> bool:
    """Return whether a line means something only after those before it, or as the first."""
    return (
        context.open_row is not None
        or bool(context.columns)
        or context.document is not None
        or context.name.endswith("trainer_state.json")
        or not context.last_us
    )


def _read_row(text: str, context: FileContext) -> list[FileRecord] | None:
    """Read a line of a CSV file or of a JSON document; None if it is neither."""
    if context.document is not None or context.name.endswith("trainer_state.json"):
        found = rows.read_document(text, context)
        if found is not None:
            return found
    if rows.read_head(text, context):
        return []
    return rows.read_csv(text, context) if context.columns else None


def _read_objects(line: bytes, entries: list[Entry], context: FileContext) -> None:
    """Read JSON objects, of which writers that share a file may put several on a line."""
    at = 0
    while line.startswith(b"{", at):
        try:
            end = find_end(line, at)
            fields = decode_json(line[at:end])
        except SkippedError as error:
            is_row = mmengine.is_scalars(context)  # else another tool's, or a file of settings
            context.skip(error.reason if is_row else NOT_A_RECORD, error.detail)
            return
        at = end
        entries += _read_fields(fields, context)
    rest = line[at:].strip(_BLANKS)
    if rest:
        context.skip(NUL_BYTES if b"\0" in rest else NOISE)


def _read_fields(fields: Any, context: FileContext) -> Sequence[Entry]:
    """Read a JSON row, of MMEngine or of another tool."""
    if mmengine.is_row(fields, context):
        return [mmengine.read_row(fields, context)]
    try:
        return rows.read_json(fields, context)
    except SkippedError as error:
        context.skip(error.reason, error.detail)
        return []

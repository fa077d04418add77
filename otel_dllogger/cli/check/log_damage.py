"""The lines of a log that gave no record though they should have: why, and which they are."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING

from otel_dllogger.cli.check.report import printable
from otel_dllogger.diagnostics import HARMLESS, LINE, REASONS, TORN
from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.reader import FileReader

MAX_LINES_SHOWN = 5
"""Lines of a reason that are shown; the rest is counted."""

_NULS = re.compile(rb"\0+")
_BEGINNING, _END = 48, 24  # characters of a line that are shown


class Damage:
    """Follow a reader, and keep the first lines that it could not read.

    Args:
        reader: Reads the lines, each before it comes here.
    """

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self._skipped: dict[str, int] = {}
        self._shown: dict[str, list[str]] = {}
        self._left: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def look(self, number: int, line: bytes) -> None:
        """Take note of the line that was read last.

        Args:
            number: Its number, from 1.
            line: The line.
        """
        skipped = self._reader.skipped
        if skipped != self._skipped:
            before, self._skipped = self._skipped, skipped
            for reason, count in skipped.items():
                more = count - before.get(reason, 0)
                if more and reason not in HARMLESS:
                    self._add(reason, more, number, line)

    def is_in(self, number: int) -> bool:
        """Tell whether the line of this number, the last one read, is damaged."""
        return number in self._last.values()

    def findings(self) -> Iterator[str]:
        """Yield what is wrong, one of several lines for each reason."""
        for reason, shown in self._shown.items():
            lines = [f"{self._skipped[reason]:,} {reason}: {REASONS[LINE][reason].words}", *shown]
            if self._left[reason]:
                left, last = self._left[reason], self._last[reason]
                lines.append(f"and {left:,} more, the last in line {last:,}")
            yield "\n      ".join(lines)

    def _add(self, reason: str, count: int, number: int, line: bytes) -> None:
        self._last[reason] = number
        shown = self._shown.setdefault(reason, [])
        left = self._left.setdefault(reason, 0)
        if len(shown) == MAX_LINES_SHOWN:
            self._left[reason] = left + count
            return
        times = f", {count} times" if count > 1 else ""
        if reason == TORN and not line.endswith(b"\n"):
            shown.append(
                f"line {number:,}, the last{times}: the run was killed in its midst, or its logger "
                "holds back what is missing"
            )
            return
        details = ", ".join(dict.fromkeys(_details(reason, line)))
        shown.append(f"line {number:,}{times}: {printable(details) or _excerpt(line)}")


@dataclasses.dataclass(slots=True)
class _Skips(FileContext):
    """Keep everything that a line's reading leaves out, in its order."""

    found: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def skip(self, reason: str, detail: str = "") -> None:
        self.found.append((reason, detail))


def _details(reason: str, line: bytes) -> list[str]:
    """Return what a reason leaves open, as the formats say it; most reasons leave nothing."""
    context = _Skips()  # a line's damage does not depend on the lines before
    parse_line(line, context)
    return [detail for found, detail in context.found if found == reason and detail]


def _excerpt(line: bytes) -> str:
    """Return the beginning and the end of a line, which is where records break off."""
    line = _NULS.sub(lambda found: b"<%d NULs>" % len(found[0]), line)
    text = printable(line.decode("utf-8", "replace").rstrip("\r\n"))
    if len(text) <= _BEGINNING + _END:
        return text
    return f"{text[:_BEGINNING]} ... {text[-_END:]}"

"""Collect the lines of a log that gave no record although they should have, and why."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import HARMLESS, LINE, REASONS, TORN
from otel_dllogger.errors import count_of, printable
from otel_dllogger.logs.parsers.context import FileContext

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINES_SHOWN = 5
"""Lines of a reason that are shown; the rest is counted."""

_NULS = re.compile(rb"\0+")
_BEGINNING, _END = 32, 20  # characters of a line that are shown


@dataclasses.dataclass(slots=True)
class _Context(FileContext):
    """A ``FileContext`` that also keeps the reasons for what was left out of lines, in order."""

    left_out: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def skip(self, reason: str, detail: str = "") -> None:
        """Count something that gave no record, and keep why."""
        FileContext.skip(self, reason, detail)  # not super(): slots made another class of this one
        self.left_out.append((reason, detail))


class Damage:
    """The first lines of a log that could not be read, for each reason."""

    def __init__(self) -> None:
        self._left_out: list[tuple[str, str]] = []  # of the line that was read last
        self._counts: dict[str, int] = {}
        self._shown: dict[str, list[str]] = {}
        self._left: dict[str, int] = {}
        self._last: dict[str, int] = {}

    def context(self, **fields: Any) -> FileContext:
        """Return a context for the log's reader that tells what the reader leaves out.

        Args:
            fields: As ``FileContext`` takes them.
        """
        return _Context(**fields, left_out=self._left_out)

    def look(self, number: int, line: bytes) -> None:
        """Note the line that was read last.

        Args:
            number: Its number, from 1.
            line: The line.
        """
        left_out = self._left_out
        if left_out:
            for reason in dict.fromkeys(reason for reason, _detail in left_out):
                if reason not in HARMLESS:
                    details = [detail for one, detail in left_out if one == reason]
                    self._add(reason, details, number, line)
            left_out.clear()

    def is_in(self, number: int) -> bool:
        """Return whether the line with this number, the last one read, is damaged."""
        return number in self._last.values()

    def findings(self) -> Iterator[str]:
        """Yield a finding for each reason, as text of several lines."""
        for reason, shown in self._shown.items():
            lines = [f"{self._counts[reason]:,} {reason}: {REASONS[LINE][reason].words}", *shown]
            if self._left[reason]:
                left, last = self._left[reason], self._last[reason]
                lines.append(f"and {left:,} more, the last on line {last:,}")
            yield "\n      ".join(lines)

    def _add(self, reason: str, details: list[str], number: int, line: bytes) -> None:
        """Add a damaged line, with a detail for each time that the reason occurs in it."""
        count = len(details)
        self._counts[reason] = self._counts.get(reason, 0) + count
        self._last[reason] = number
        shown = self._shown.setdefault(reason, [])
        left = self._left.setdefault(reason, 0)
        if len(shown) == MAX_LINES_SHOWN:
            self._left[reason] = left + count
            return
        times = f", {count_of(count, 'time')}" if count > 1 else ""
        if reason == TORN and not line.endswith(b"\n"):
            shown.append(
                f"line {number:,}, the last{times}: the run was killed in the middle of it, or its "
                "logger has not written the rest yet"
            )
            return
        said = ", ".join(dict.fromkeys(filter(None, details)))
        shown.append(f"line {number:,}{times}: {printable(said) or _excerpt(line)}")


def _excerpt(line: bytes) -> str:
    """Return the beginning and the end of a line, which is where records break off."""
    line = _NULS.sub(lambda found: b"<%d NULs>" % len(found[0]), line)
    text = printable(line.decode("utf-8", "replace").rstrip("\r\n"))
    if len(text) <= _BEGINNING + _END:
        return text
    return f"{text[:_BEGINNING]} ... {text[-_END:]}"

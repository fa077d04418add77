"""The report of what a check found, and functions that format it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_dllogger.errors import count_of

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ROWS = 200
"""Rows of a table that are printed; the rest is counted."""

MAX_FINDINGS = 20
"""Findings of a kind that are printed; the rest is counted."""


@dataclass(slots=True)
class Report:
    """What a check found.

    Attributes:
        facts: Lines that say what is there.
        wrong: What is wrong: the value, why, and what to do.
        warnings: What may or may not be as it should be.
    """

    facts: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Return 1 if something is wrong, else 0."""
        return 1 if self.wrong else 0

    def format(self) -> str:
        """Return the report as text, the verdict last."""
        lines = list(self.facts)
        for title, findings in (("Warnings", self.warnings), ("Wrong", self.wrong)):
            if findings:
                lines += ["", f"{title}:"]
                lines += [f"  - {finding}" for finding in findings[:MAX_FINDINGS]]
                if len(findings) > MAX_FINDINGS:
                    lines.append(f"  - and {len(findings) - MAX_FINDINGS} more")
        return "\n".join([*lines, "", self._verdict()])

    def _verdict(self) -> str:
        warnings = count_of(len(self.warnings), "warning")
        if self.wrong:
            things = count_of(len(self.wrong), "thing")
            is_are = "is" if len(self.wrong) == 1 else "are"
            return f"{things} {is_are} wrong" + (f", {warnings}." if self.warnings else ".")
        return f"Nothing is wrong, {warnings}." if self.warnings else "All is well."


def format_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines of aligned columns.

    Args:
        titles: The titles of the columns; one without any value is left out.
        rows: The cells; more than ``MAX_ROWS`` are cut.
    """
    table = [list(titles), *(list(map(printable, row)) for row in rows[:MAX_ROWS])]
    columns = [column for column in zip(*table, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  "
        + "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in zip(*columns, strict=True)
    ]
    if len(rows) > MAX_ROWS:
        lines.append(f"  and {len(rows) - MAX_ROWS} more")
    return lines


def format_number(value: float) -> str:
    """Return a number in a short, readable form."""
    if value == int(value) if abs(value) < 1e15 else False:
        return str(int(value))
    return f"{value:.6g}"


def format_duration(seconds: float) -> str:
    """Return a duration in the units that people use for its length."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def printable(text: str) -> str:
    """Return text that cannot move the terminal's cursor, whatever a log holds."""
    return "".join(c if c.isprintable() else "?" for c in text)

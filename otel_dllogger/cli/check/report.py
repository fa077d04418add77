"""The report of what a check found, and functions that format it."""

from __future__ import annotations

import shutil
import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_dllogger.errors import count_of, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ROWS = 200
"""Rows of a table that are printed; the rest is counted."""

MAX_FINDINGS = 20
"""Findings of a kind that are printed; the rest is counted."""

LEAST_COLUMNS = 80
_WHOLE_WIDTH, _LEAST_WIDTH = 24, 12  # of a cell that is cut, with and without another way out


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
        lines = [wrapped(fact) for fact in self.facts]
        for title, findings in (("Warnings", self.warnings), ("Wrong", self.wrong)):
            if findings:
                lines += ["", f"{title}:"]
                lines += [wrapped(finding, first="  - ") for finding in findings[:MAX_FINDINGS]]
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


def format_table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    flexible: Sequence[str] = (),
    second: Sequence[str] = (),
) -> list[str]:
    """Return rows as lines of aligned columns that fit the terminal.

    Args:
        titles: The titles of the columns; one without any value is left out.
        rows: The cells; more than ``MAX_ROWS`` are cut.
        flexible: Columns whose cells may be cut in the middle, if there is too little room.
        second: Columns that move to a second line of each row, if that does not suffice.
    """
    table = [list(titles), *(list(map(printable, row)) for row in rows[:MAX_ROWS])]
    columns = {column[0]: column for column in zip(*table, strict=True) if any(column[1:])}
    widths = {title: max(map(len, column)) for title, column in columns.items()}
    widths = _fit(widths, flexible, least=_WHOLE_WIDTH if second else _LEAST_WIDTH)
    moved: list[str] = []
    if _total(widths) > terminal_width():
        moved = [title for title in columns if title in second]
        widths = {
            title: max(map(len, column)) for title, column in columns.items() if title not in moved
        }
        widths = _fit(widths, flexible, least=_LEAST_WIDTH)
    lines = []
    for number in range(len(table)):
        cells = (
            f"{cut(columns[title][number], width):<{width}}" for title, width in widths.items()
        )
        lines.append("  " + "  ".join(cells).rstrip())
        more = ", ".join(filter(None, (columns[title][number] for title in moved)))
        if more:
            lines.append(f"      {cut(more, terminal_width() - 6)}")
    if len(rows) > MAX_ROWS:
        lines.append(f"  and {len(rows) - MAX_ROWS} more")
    return lines


def _fit(widths: dict[str, int], flexible: Sequence[str], *, least: int) -> dict[str, int]:
    """Return widths that fit the terminal if cutting flexible columns makes that possible."""
    widths = dict(widths)
    excess = _total(widths) - terminal_width()
    while excess > 0:
        title = max((one for one in flexible if one in widths), key=widths.__getitem__, default="")
        if not title or widths[title] <= least:
            break
        widths[title] -= 1
        excess -= 1
    return widths


def _total(widths: dict[str, int]) -> int:
    return sum(width + 2 for width in widths.values())


def terminal_width() -> int:
    """Return how many columns a line may take: those of the terminal, but at least 80."""
    return max(shutil.get_terminal_size().columns, LEAST_COLUMNS)


def cut(text: str, width: int) -> str:
    """Return text that is cut in the middle if it is longer than ``width``."""
    if len(text) <= width:
        return text
    end = (width - 3) // 2
    return f"{text[: width - 3 - end]}...{text[len(text) - end :]}"


def wrapped(text: str, *, first: str = "") -> str:
    """Return text whose lines fit the terminal; those that do already stay as they are.

    Args:
        text: One or several lines.
        first: What goes in front of the first line.
    """
    begin, *others = text.split("\n")
    return "\n".join((_wrap(first + begin, len(first)), *(_wrap(line, 0) for line in others)))


def _wrap(line: str, hang: int) -> str:
    width = terminal_width()
    if len(line) <= width:
        return line
    indent = hang or len(line) - len(line.lstrip()) + 2
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,  # a path can be copied
        break_on_hyphens=False,
    )


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

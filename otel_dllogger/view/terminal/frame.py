"""Runs as lines of text that fit a terminal: a line per run, its ranks below, then the findings."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from otel_dllogger.errors import count_of
from otel_dllogger.metrics import health
from otel_dllogger.view.numbers import format_rate, format_step, format_value
from otel_dllogger.view.terminal.rank_table import STYLES, RankTable
from otel_dllogger.view.terminal.run_line import run_parts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_dllogger.view.assessment import Finding, RunStatus
    from otel_dllogger.view.table import Row, Table
    from otel_dllogger.view.terminal.characters import Characters

_NAME_SHARE = 0.5  # of a line that the name of a run may take
_FINDINGS_SHARE = 0.3  # of a screen that findings may take, if there is no room for all
_MOST_LINES = 3  # of a finding
_ROOM_FOR_RUN = 8  # lines of the screen for each run that leave room for a second one about it
_ROOM_FOR_TWO = 4  # lines of a run that leave room for a second one about its other ranks
_SEVERITIES = {health.CRITICAL: "bold red", health.WARNING: "yellow", health.INFO: "cyan"}


class Shown(NamedTuple):
    """A run that is shown.

    Attributes:
        status: What it is doing.
        table: Its ranks, in the order in which they are shown.
    """

    status: RunStatus
    table: Table


class Size(NamedTuple):
    """How much room there is, in characters.

    Attributes:
        columns: In a line.
        lines: Lines.
    """

    columns: int
    lines: int


def draw_runs(runs: Sequence[Shown], size: Size, characters: Characters) -> list[Text]:
    """Return lines that show runs, those first that are not over.

    Args:
        runs: The runs.
        size: How much room there is.
        characters: What the terminal can show.
    """
    runs = sorted(runs, key=lambda run: run.status.state in health.OVER)
    most = 2 if len(runs) * _ROOM_FOR_RUN <= size.lines else 1
    heads = [_run_lines(run, size.columns, most, characters) for run in runs]
    rows = sum(len(head) + len(run.table.rows) for head, run in zip(heads, runs, strict=True))
    left, least = size.lines - 1 - rows, int(size.lines * _FINDINGS_SHARE)
    found = [finding for run in runs for finding in run.status.findings]
    if left < least:  # what only tells of an end is in the line about the run as well
        found = [finding for finding in found if finding.severity != health.INFO]
    findings = _findings(found, size.columns, max(left, least) - 1, characters)
    room = size.lines - 1 - (len(findings) + 1 if findings else 0)
    active = sum(len(run.table.rows) for run in runs if run.status.state not in health.OVER)
    most_runs = room - min(active, room // 2)  # lines about runs, which leave some for their ranks
    shown = runs if len(runs) <= most_runs else runs[: max(most_runs - 1, 0)]
    heads = heads[: len(shown)]
    counts = _share_out(shown, room - sum(map(len, heads)) - (len(shown) < len(runs)))
    others = [_other_ranks(*each, size.columns) for each in zip(shown, counts, strict=True)]
    # Of the ranks of a run, those are shown that leave room for the line about the others.
    kept = [
        run.table._replace(rows=run.table.rows[: max(count - len(about), 0)])
        for run, count, about in zip(shown, counts, others, strict=True)
    ]
    table = RankTable(kept, size.columns, characters)
    lines = [table.heading]
    for number, head in enumerate(heads):
        lines += [*head, *table.lines(number)]
        lines += [Text(characters.clean(line), "dim") for line in others[number]]
    if len(shown) < len(runs):
        lines.append(Text(_other_runs(runs[len(shown) :]), "dim"))
    if findings:
        lines += [Text(), *findings]
    for line in lines:
        line.truncate(size.columns)
    return lines[: size.lines]


def _share_out(runs: Sequence[Shown], lines: int) -> list[int]:
    """Return how many lines the ranks of each run get: all, or as many as those of the others.

    Those of runs that are over get what the others leave.
    """
    counts = [0] * len(runs)
    for is_over in (False, True):
        while lines > 0:
            short = [
                number
                for number, run in enumerate(runs)
                if (run.status.state in health.OVER) == is_over
                and counts[number] < len(run.table.rows)
            ]
            if not short:
                break
            each = max(lines // len(short), 1)
            for number in short:
                more = min(each, len(runs[number].table.rows) - counts[number], lines)
                counts[number] += more
                lines -= more
    return counts


def _run_lines(run: Shown, columns: int, most: int, characters: Characters) -> list[Text]:
    """Return lines about a run, without its last parts if there is no room for them."""
    name = characters.fit(characters.clean(run.status.run.name), int(columns * _NAME_SHARE))
    state, *parts = map(characters.clean, run_parts(*run))
    lines = [Text.assemble((name, "bold"), "  ", (state, STYLES[run.status.state]))]
    for part in parts:
        if lines[-1].cell_len + cell_len(characters.dot + part) <= columns:
            lines[-1].append(characters.dot + part)
        elif len(lines) < most:
            lines.append(Text(f"  {part}"))
        else:
            break
    return lines


def _other_runs(runs: Iterable[Shown]) -> str:
    counts = Counter(run.status.state for run in runs)
    return f"{count_of(sum(counts.values()), 'more run')}: {_count_states(counts)}"


def _count_states(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[state]:,} {state}" for state in health.URGENCY if counts[state])


def _other_ranks(run: Shown, count: int, columns: int) -> list[str]:
    """Return lines about the ranks that ``count`` lines have no room for."""
    rows = run.table.rows
    if count >= len(rows) or not count:
        return []
    lines: list[str] = []
    for most in (1, 2) if count >= _ROOM_FOR_TWO else (1,):
        noun = "others" if count > most else "ranks"
        text = _summary(rows[count - most :], noun, run.table.unit)
        lines = textwrap.wrap(text, columns, subsequent_indent="  ")
        if len(lines) <= most:
            break
    return lines[:most]


def _summary(rows: Sequence[Row], noun: str, unit: str) -> str:
    counts = Counter(row.status.state for row in rows)
    states = next(iter(counts)) if len(counts) == 1 else _count_states(counts)
    parts = [
        _spread("step", [row.status.rank.iteration for row in rows], format_step),
        _spread("loss", [row.loss for row in rows], format_value),
        _spread(unit, [row.throughput for row in rows], format_rate),
    ]
    spread = "; ".join(filter(None, parts))
    return f"{len(rows):,} {noun}: {states}" + (f"; min/median/max: {spread}" if spread else "")


def _spread(name: str, values: Iterable[float | None], form: Callable[[float | None], str]) -> str:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return ""
    found = (min(finite), statistics.median(finite), max(finite))
    return f"{name} {'/'.join(map(form, found))}"


def _findings(
    findings: Iterable[Finding], columns: int, most: int, characters: Characters
) -> list[Text]:
    """Return lines about what is wrong, the worst first, as many as there may be."""
    order = list(_SEVERITIES)
    found = sorted(findings, key=lambda finding: order.index(finding.severity))
    lines: list[Text] = []
    for number, finding in enumerate(found):
        drawn = _finding(finding, columns, characters)
        is_last = number == len(found) - 1
        if len(lines) + len(drawn) + (not is_last) > most:
            if len(lines) < most:
                lines.append(Text(count_of(len(found) - number, "more finding"), "dim"))
            break
        lines += drawn
    return lines


def _finding(finding: Finding, columns: int, characters: Characters) -> list[Text]:
    words = characters.clean(f"{finding.severity}: {finding.words}")
    first, *others = textwrap.wrap(words, columns, subsequent_indent="  ", max_lines=_MOST_LINES)
    line = Text(first)
    line.stylize(_SEVERITIES[finding.severity], 0, len(finding.severity))
    return [line, *map(Text, others)]

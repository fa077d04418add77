"""A log file in words: its dialect, its steps, its metrics, and its damage."""

from __future__ import annotations

import re
import time
from collections import Counter
from typing import TYPE_CHECKING, BinaryIO

from otel_dllogger.commands.log_lines import BARE_JSON, NVIDIA_TEXT, TCAP_TEXT, Line, parse_line
from otel_dllogger.commands.log_summary import MAX_LINES_NAMED, LogSummary, MetricSummary, Range
from otel_dllogger.commands.report import (
    Report,
    count_of,
    format_duration,
    format_number,
    format_table,
)
from otel_dllogger.metrics.mapping import parse_goal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE_BYTES = 16 * 2**20
"""Bytes of a line that are read; a longer one is called damaged."""

_KINDS = ("LOG", "METADATA", "INFO", "text", "other", "corrupt")
_TRIED_FORMAT = re.compile(r"[^0-9]*(?:[0-9]{1,3}[^0-9]+)*[0-9]{0,3}")
_GOALS_SPELT_RIGHT = frozenset(("MINIMIZE", "MAXIMIZE", "NONE", ""))


def describe_log(title: str, stream: BinaryIO) -> Report:
    """Describe a log, line by line, in memory that does not grow with the file.

    Args:
        title: The file's name, for the first line.
        stream: The file, at its beginning.
    """
    return _Log(Report()).describe(title, stream)


class _Log:
    """Read a log and fill a report."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._summary = LogSummary()
        self._kinds: Counter[str] = Counter()
        self._dialects: Counter[str] = Counter()
        self._damage: list[tuple[int, str]] = []
        self._damaged = 0
        self._metadata_problems: list[str] = []

    def describe(self, title: str, stream: BinaryIO) -> Report:
        size_bytes, ends_in_newline, number = 0, True, 0
        for number, raw in enumerate(_lines(stream), start=1):
            size_bytes += len(raw)
            ends_in_newline = raw.endswith(b"\n")
            if len(raw) >= MAX_LINE_BYTES:
                self._note_damage(number, f"longer than {MAX_LINE_BYTES:,} bytes")
                continue
            text = raw.decode("utf-8", "replace").rstrip("\r\n")
            if text.strip():
                for line in parse_line(text):
                    self._add(number, line)
        report = self._report
        report.facts.append(f"Log {title}: {self._dialect()}")
        parts = [
            f"{self._kinds[kind]:,} {kind if kind != 'other' else 'not of the logger'}"
            for kind in _KINDS
            if self._kinds[kind]
        ]
        report.facts.append(f"  {count_of(number, 'line')}: {', '.join(parts) or 'all empty'}")
        self._describe_steps()
        self._describe_metrics()
        self._find_damage(number, ends_in_newline=ends_in_newline)
        self._find_metadata()
        return report

    def _add(self, number: int, line: Line) -> None:
        self._kinds[line.kind] += 1
        if line.dialect:
            self._dialects[line.dialect] += 1
        if line.problem is not None:
            self._note_damage(number, line.problem)
        if line.kind == "LOG":
            self._summary.add_log(line.fields)
        elif line.kind == "INFO":
            self._summary.add_info(line.fields)
        elif line.kind == "METADATA":
            problem = self._summary.add_metadata(line.fields)
            if problem is not None and len(self._metadata_problems) < MAX_LINES_NAMED:
                self._metadata_problems.append(f"line {number}: {problem}")

    def _note_damage(self, number: int, problem: str) -> None:
        self._damaged += 1
        if len(self._damage) < MAX_LINES_NAMED:
            self._damage.append((number, problem))

    def _dialect(self) -> str:
        return " and ".join(self._dialects) or "not a log of DLLogger"

    def _describe_steps(self) -> None:
        summary, facts = self._summary, self._report.facts
        if summary.times:
            begin, end = summary.times.least, summary.times.greatest
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begin))
            facts.append(f"  from {when}, over {format_duration(end - begin)}")
        if summary.steps:
            counts = [count_of(count, f"{kind} step") for kind, count in summary.steps.items()]
            spans = _span("epoch", summary.epochs) + _span("iteration", summary.iterations)
            facts.append(f"  {', '.join(counts)}{'; ' if spans else ''}{', '.join(spans)}")
        if summary.steps["iteration"] > 1 and summary.iterations.is_one and summary.epochs.is_one:
            self._report.warnings.append(
                f"all {summary.steps['iteration']:,} iteration steps are the same one: nothing can "
                "be drawn over steps; pass log() the epoch and iteration"
            )
        if summary.parameters:
            facts.append(f"  {count_of(summary.parameters, 'line')} of hyper-parameters")
        if summary.ranks:
            facts.append(f"  ranks {', '.join(sorted(summary.ranks, key=float)[:20])}")
        if summary.runs > 1:
            facts.append(
                f"  elapsed times jump back {count_of(summary.runs - 1, 'time')}: several runs, or "
                "several ranks at once, are in this file"
            )

    def _describe_metrics(self) -> None:
        summary = self._summary
        rows = [_row(name, metric) for name, metric in summary.metrics.items() if metric.values]
        if rows:
            titles = ("metric", "values", "last", "NaN/Inf", "unit", "goal", "stage", "logged per")
            self._report.facts += ["", f"{count_of(len(rows), 'metric')}:"]
            self._report.facts += format_table(titles, rows)
        if summary.unnamed_values:
            self._report.warnings.append(
                f"more than {len(summary.metrics):,} names: {summary.unnamed_values:,} values of "
                "others are not in the table; keep counters and ids out of metric names"
            )
        for name, metric in summary.metrics.items():
            if metric.nonfinite:
                self._report.warnings.append(
                    f"{name!r} was NaN or Inf {count_of(metric.nonfinite, 'time')}, first at step "
                    f"{metric.nonfinite_step}; look at what came before it"
                )

    def _find_damage(self, last: int, *, ends_in_newline: bool) -> None:
        wrong = self._report.wrong
        for number, problem in self._damage:
            if number == last and not ends_in_newline and "breaks off" in problem:
                wrong.append(
                    f"line {number}, the last, is only half there: the run was killed in its "
                    "midst, or its logger holds back what is missing"
                )
            else:
                wrong.append(f"line {number}: {problem}")
        if self._damaged > len(self._damage):
            wrong.append(f"{self._damaged - len(self._damage):,} more damaged lines")
        if not ends_in_newline and not (self._damage and self._damage[-1][0] == last):
            self._report.warnings.append(
                "no newline at the end: what is appended next will stand on the last line"
            )
        if set(self._dialects) <= {BARE_JSON}:
            wrong.append(
                "its lines are JSON, but without the prefix DLLL: another tool's log"
                if self._dialects
                else "no line is of DLLogger; pass the file that JSONStreamBackend was given"
            )
        elif self._dialects.keys() <= {NVIDIA_TEXT, TCAP_TEXT}:
            self._report.warnings.append(
                "text is for people: values are not checked; pass the JSON file for that"
            )
        if self._kinds["other"] and set(self._dialects) - {BARE_JSON, NVIDIA_TEXT, TCAP_TEXT}:
            self._report.warnings.append(
                f"{count_of(self._kinds['other'], 'line')} of somebody else's in between"
            )

    def _find_metadata(self) -> None:
        warnings = self._report.warnings
        warnings += self._metadata_problems
        metrics = self._summary.metrics.items()
        formats = _by_value("format", metrics)
        for template, names in formats.items():
            if not _can_format(template):
                warnings.append(
                    f"the format {template[:40]!r} of {_listed(names)} is damaged: values are "
                    "printed as they are; write it as ':.3f'"
                )
        for goal, names in _by_value("GOAL", metrics).items():
            if goal not in _GOALS_SPELT_RIGHT:
                meant = parse_goal(goal)
                warnings.append(
                    f"the GOAL {goal[:40]!r} of {_listed(names)} is "
                    + (f"read as {meant.upper()}" if meant else "unknown: no best value is kept")
                    + "; write MINIMIZE, MAXIMIZE or NONE"
                )


def _by_value(key: str, metrics: Iterable[tuple[str, MetricSummary]]) -> dict[str, list[str]]:
    """Return the metrics' names by what their metadata says under a key."""
    names: dict[str, list[str]] = {}
    for name, metric in metrics:
        value = metric.metadata.get(key)
        if value is not None:
            names.setdefault(str(value), []).append(name)
    return names


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


def _row(name: str, metric: MetricSummary) -> tuple[str, ...]:
    said = [metric.metadata.get(key) for key in ("unit", "GOAL", "STAGE")]
    return (
        name[:60],
        f"{metric.values:,}",
        metric.last,
        f"{metric.nonfinite:,}" if metric.nonfinite else "",
        *("" if one is None else str(one)[:20] for one in said),
        ", ".join(sorted(metric.granularities)),
    )


def _span(word: str, span: Range) -> list[str]:
    if not span:
        return []
    if span.is_one:
        return [f"{word} {format_number(span.least)}"]
    return [f"{word}s {format_number(span.least)} to {format_number(span.greatest)}"]


def _can_format(template: str) -> bool:
    # A width of many digits would fill the memory, and is damage as well.
    if not _TRIED_FORMAT.fullmatch(template):
        return False
    try:
        f"{{{template}}}".format(1.0)
    except (ValueError, LookupError, AttributeError, TypeError):
        return False
    return True


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of a file, none longer than ``MAX_LINE_BYTES``."""
    while line := stream.readline(MAX_LINE_BYTES):
        rest = line
        while len(rest) == MAX_LINE_BYTES and not rest.endswith(b"\n"):
            rest = stream.readline(MAX_LINE_BYTES)
            if rest.endswith(b"\n"):
                line = line[:-1] + b"\n"
        yield line

"""Describe a log file in words: its run and rank, formats, steps, metrics and damage."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_dllogger.cli.check.log_damage import Damage
from otel_dllogger.cli.check.log_summary import MAX_METRICS, LogSummary, MetricSummary, Range
from otel_dllogger.cli.check.rank_table import describe_goodput
from otel_dllogger.cli.check.report import (
    Report,
    cut,
    format_duration,
    format_number,
    format_table,
)
from otel_dllogger.diagnostics import BLANK, HARMLESS, NOISE, NOT_A_RECORD
from otel_dllogger.errors import count_of
from otel_dllogger.logs.findings import LogFindings
from otel_dllogger.logs.ranks import Ranks
from otel_dllogger.logs.reader import MAX_NAME_CHARACTERS
from otel_dllogger.logs.source import LogFiles, Source
from otel_dllogger.metrics.naming import is_scope, is_stage, parse_goal
from otel_dllogger.view.goodput import Goodputs
from otel_dllogger.view.hangs import Hangs

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_TRIED_FORMAT = re.compile(r"[^0-9]*(?:[0-9]{1,3}[^0-9]+)*[0-9]{0,3}")
_GOALS_SPELT_RIGHT = frozenset(("MINIMIZE", "MAXIMIZE", "NONE", ""))
_MAX_RANKS_SHOWN = 16
_MAX_RUN = 50


def describe_log(
    path: Path,
    lines: Iterable[bytes],
    *,
    name: str = "",
    files: LogFiles | None = None,
    ranks: Ranks | None = None,
    goodputs: Goodputs | None = None,
    hangs: Hangs | None = None,
) -> LogReport:
    """Describe a log as bridge and backfill read it, in memory that does not grow with it.

    Args:
        path: The file.
        lines: Its lines, as ``read_lines`` yields them.
        name: What to call it; empty for its path.
        files: Opens it, as one of several; None to open it alone.
        ranks: The ranks of all logs that are checked; None for those of this one.
        goodputs: What accounts for the time of all logs that are checked; None to do it for this
            one, and to say it in the report.
        hangs: What collects the hangs of all logs that are checked; None to do it for this one,
            and to say them in the report.
    """
    own_hangs = Hangs() if hangs is None else hangs
    log = _Log(
        path,
        name or str(path),
        LogFiles(Source([str(path)])) if files is None else files,
        Ranks() if ranks is None else ranks,
        goodputs=Goodputs() if goodputs is None else goodputs,
        hangs=own_hangs,
    )
    report = log.describe(lines)
    if goodputs is None:
        report.facts += log.where_time_went()
    if hangs is None:
        report.warnings += own_hangs.describe()
    return report


@dataclass(slots=True)
class LogReport(Report):
    """The report about a log.

    Attributes:
        findings: What its records show.
    """

    findings: LogFindings = field(kw_only=True)


class _Log:
    """A log that is read into a report."""

    def __init__(
        self,
        path: Path,
        name: str,
        files: LogFiles,
        ranks: Ranks,
        *,
        goodputs: Goodputs,
        hangs: Hangs,
    ) -> None:
        self._path = path
        self._name = name
        self._files = files
        self._damage = Damage()
        log = files.open(str(path), context=self._damage.context)
        log.observe()
        self._identity = log.identity
        self._reader = log.reader
        self._ranks = ranks
        self._goodputs = goodputs
        self._hangs = hangs
        self._summary = LogSummary()
        self._findings = LogFindings(log.reader)
        self._report = LogReport(findings=self._findings)

    def describe(self, lines: Iterable[bytes]) -> LogReport:
        reader, summary, damage, findings = (
            self._reader,
            self._summary,
            self._damage,
            self._findings,
        )
        number, line = 0, b""
        for number, line in enumerate(lines, start=1):
            items = [
                (self._ranks.of(self._identity, rank), item) for rank, item in reader.read(line)
            ]
            damage.look(number, line)
            if not items:
                findings.look(line)
            for rank, item in items:
                rank.take(item)
                self._goodputs.take(rank, item)
                self._hangs.take(rank, item)
                findings.take(rank, item)
            summary.add(number, items)
        report, found = self._report, findings.found()
        report.facts.append(f"Log {self._name}: {self._formats()}")
        self._describe_origin()
        unit = "event" if reader.context.is_events else "line"
        report.facts.append(f"  {count_of(number, unit)}: {self._kinds()}")
        self._describe_times()
        self._describe_ranks()
        self._describe_steps()
        report.facts += [f"  {note}" for note in found.notes]
        self._describe_metrics()
        report.wrong += self._damage.findings()
        if any("binary file" in one for one in found.wrong):
            # Nobody can read its lines.
            report.wrong[:] = [finding.partition("\n")[0] for finding in report.wrong]
        report.wrong += found.wrong
        report.warnings += found.warnings
        is_cut = not (line.endswith(b"\n") or reader.context.is_events)
        if reader.entries and is_cut and not damage.is_in(number):
            report.warnings.append(
                "no newline at the end: what is appended next will be on the same line"
            )
        self._find_metadata()
        return report

    def where_time_went(self) -> list[str]:
        """Return what the time went to, in lines."""
        return describe_goodput(self._goodputs, has_names=self._path.is_file())

    def _formats(self) -> str:
        """Return the formats of the lines, with counts if there are several."""
        entries = self._reader.entries
        infos = entries.pop("", 0)
        if not entries and infos:
            return "INFO lines, as TCAP DLLogger and this package write them"
        if len(entries) <= 1:
            return "".join(entries) or "nothing that can be read"
        return "; ".join(f"{log_format} ({count:,})" for log_format, count in entries.items())

    def _kinds(self) -> str:
        summary, skipped = self._summary, self._reader.skipped
        others = summary.records + summary.infos + summary.phases + summary.events
        metadata = sum(self._reader.entries.values()) - others
        counts = {
            "record" if summary.records == 1 else "records": summary.records,
            "METADATA": metadata,
            "INFO": summary.infos,
            "PHASE": summary.phases,
            "EVENT": summary.events,
            "without a scalar"
            if self._reader.context.is_events
            else "from other programs": skipped.get(NOT_A_RECORD, 0),
            "on lines of records": skipped.get(NOISE, 0),
            "blank": skipped.get(BLANK, 0),
            "damaged": sum(n for reason, n in skipped.items() if reason not in HARMLESS),
        }
        return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)

    def _describe_origin(self) -> None:
        facts, path = self._report.facts, str(self._path)
        if not self._path.is_file():  # a pipe, whose name says nothing
            return
        run, rank, host, rank_by, _is_run_given = self._identity
        where = "" if host is None else f" on {host}"
        by = f"by {rank_by}" if rank_by else "assumed, since the path says none"
        facts.append(
            f"  for bridge and backfill: run {cut(run, _MAX_RUN)!r}, rank {rank}{where} ({by})"
        )
        if self._files.repeats_twin(path):
            facts.append(
                "  the same training is in another file: bridge and backfill leave this one out "
                "if they find both"
            )

    def _describe_times(self) -> None:
        summary, facts = self._summary, self._report.facts
        if summary.times_us:
            begin_s, end_s = summary.times_us.least / 1e6, summary.times_us.greatest / 1e6
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begin_s))
            if "times" in self._reader.context.guesses:
                when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(end_s))
                facts.append(f"  no times; changed last at {when}")
                return
            guessed = (
                ", worked out from the durations of iterations, since the file has no times"
                if summary.interpolated
                else ""
            )
            facts.append(f"  from {when}, over {format_duration(end_s - begin_s)}{guessed}")

    def _describe_ranks(self) -> None:
        facts, attempts = self._report.facts, self._reader.attempts
        if attempts.keys() - {self._identity.rank}:
            facts.append(f"  records of {_listed_ranks(attempts)}")
            ranks_by = self._reader.context.ranks_by
            if ranks_by:
                rank, by = min(ranks_by.items())
                facts.append(f"  ranks by tags in front of lines: rank {rank} by {by}")
        restarts = {rank: attempt - 1 for rank, attempt in attempts.items() if attempt > 1}
        if restarts:
            most = max(restarts.values())
            up_to = "up to " if most > min(restarts.values()) else ""
            of_ranks = f": {_listed_ranks(restarts)}" if len(attempts) > 1 else ""
            facts.append(f"  restarted {up_to}{count_of(most, 'time')}{of_ranks}")

    def _describe_steps(self) -> None:
        summary, facts = self._summary, self._report.facts
        if summary.steps:
            counts = [count_of(count, f"{kind} step") for kind, count in summary.steps.items()]
            spans = _span("epoch", summary.epochs) + _span("iteration", summary.iterations)
            facts.append(f"  {', '.join(counts)}{'; ' if spans else ''}{', '.join(spans)}")
        if summary.parameters:
            facts.append(f"  {count_of(summary.parameters, 'line')} of hyper-parameters")

    def _describe_metrics(self) -> None:
        summary = self._summary
        rows = [_row(metric) for metric in summary.metrics.values() if metric.values]
        if rows:
            titles = ("metric", "values", "last", "NaN/Inf", "unit", "stage", "goal", "logged per")
            self._report.facts += ["", f"{count_of(len(rows), 'metric')}:"]
            self._report.facts += format_table(
                (*titles, "exported as"),
                rows,
                flexible=("metric", "exported as"),
                second=("logged per", "exported as"),
            )
        self._describe_guessed_kinds()
        if summary.unnamed_values:
            left_out = (
                f"more than {MAX_METRICS:,} names: {count_of(summary.unnamed_values, 'value')} of "
                "further names are"
                if len(summary.metrics) == MAX_METRICS
                else f"{count_of(summary.unnamed_values, 'value')} with names of more than "
                f"{MAX_NAME_CHARACTERS:,} characters: they are"
            )
            self._report.warnings.append(
                f"{left_out} not in the table; keep counters and ids out of metric names"
            )

    def _describe_guessed_kinds(self) -> None:
        """Say what names were taken to mean, where METADATA says neither unit nor GOAL."""
        names: dict[str, list[str]] = {}
        for metric in self._summary.metrics.values():
            kind = metric.guessed_kind
            if metric.numbers and kind is not None:
                names.setdefault(kind, []).append(metric.name)
        for kind, of_kind in names.items():
            once = list(dict.fromkeys(of_kind))  # MMEngine's have one for each stage
            self._report.facts.append(f"  kind: {kind}: {_listed(once)}")

    def _find_metadata(self) -> None:
        warnings = self._report.warnings
        warnings += self._summary.problems
        metrics = self._summary.metrics.values()
        for stage, names in _by_said("STAGE", metrics).items():
            if not is_stage(stage):
                warnings.append(
                    f"the STAGE {stage[:40]!r} of {_listed(names)} is unknown: it becomes a stage "
                    "of its own; write TRAIN, VAL, TEST or INFER"
                )
        for template, names in _by_said("format", metrics).items():
            if not _can_format(template):
                warnings.append(
                    f"the format {template[:40]!r} of {_listed(names)} is invalid: values are "
                    "printed as they are; write it like ':.3f'"
                )
        for goal, names in _by_said("GOAL", metrics).items():
            if goal not in _GOALS_SPELT_RIGHT:
                meant = parse_goal(goal)
                warnings.append(
                    f"the GOAL {goal[:40]!r} of {_listed(names)} is "
                    + (f"read as {meant.upper()}" if meant else "unknown: no best value is kept")
                    + "; write MINIMIZE, MAXIMIZE or NONE"
                )
        for scope, names in _by_said("SCOPE", metrics).items():
            if not is_scope(scope):
                warnings.append(
                    f"the SCOPE {scope[:40]!r} of {_listed(names)} is unknown: it is not exported; "
                    "write RANK if each rank logs its own value, GLOBAL if each logs the run's"
                )


def _by_said(key: str, metrics: Iterable[MetricSummary]) -> dict[str, list[str]]:
    """Return the names of metrics by what their METADATA says under a key."""
    names: dict[str, list[str]] = {}
    for metric in metrics:
        value = metric.said.get(key, metric.said.get(key.lower()))
        if value is not None:
            names.setdefault(value, []).append(metric.name)
    return names


def _listed(names: list[str]) -> str:
    shown = ", ".join(repr(name[:60]) for name in names[:8])
    return shown if len(names) <= 8 else f"{shown} and {len(names) - 8} more"


def _listed_ranks(ranks: Iterable[int]) -> str:
    numbers = sorted(ranks)
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    if len(numbers) > 2 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"ranks {numbers[0]} to {numbers[-1]}"
    shown = ", ".join(map(str, numbers[:_MAX_RANKS_SHOWN]))
    more = len(numbers) - _MAX_RANKS_SHOWN
    return f"ranks {shown} and {more:,} more" if more > 0 else f"ranks {shown}"


def _row(metric: MetricSummary) -> tuple[str, ...]:
    mapped = metric.mapped
    return (
        metric.name,
        f"{metric.values:,}",
        metric.last_text,
        f"{metric.nonfinite:,}" if metric.nonfinite else "",
        str(metric.known.get("unit") or "")[:20],
        mapped.stage or "",
        mapped.goal or "",
        ", ".join(sorted(metric.granularities)),
        mapped.prometheus_name if metric.numbers else "not exported: not a number",
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

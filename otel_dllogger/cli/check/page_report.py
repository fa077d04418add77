"""Describe a ``/metrics`` page in words: its runs, ranks and metrics, and what is wrong."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

from otel_dllogger.cli.check.report import Report, format_duration, format_number, format_table
from otel_dllogger.diagnostics import FILE, LINE, OTLP, PROCESS, REASONS, Reason
from otel_dllogger.errors import count_of
from otel_dllogger.http.scrape import UnreadablePageError, parse_page
from otel_dllogger.metrics import health

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Sample

DROPS = {**REASONS[LINE], **REASONS[OTLP], **REASONS[PROCESS]}
"""What each reason of ``dllogger_dropped_total`` means, for a training process or a log."""

_UNKNOWN = Reason("unknown to this version")
_OF_BRIDGE = {
    "dllogger_bridge_faults_total": DROPS,
    "dllogger_bridge_unusual_total": REASONS[FILE],
}
_PAGE_TYPES = ("text/plain", "application/openmetrics-text")

_MOST_DIGITS = 9  # of a rank

_RankKey = tuple[str, str]


def describe_page(title: str, text: str, content_type: str, *, read_at_s: float) -> Report:
    """Describe a page.

    Args:
        title: What it is, for the first line.
        text: The page.
        content_type: As it was sent; empty for a file.
        read_at_s: When the page was read, seconds since the Unix epoch.
    """
    report = Report([title])
    if content_type and not content_type.startswith(_PAGE_TYPES):
        report.wrong.append(
            f"it is {content_type.partition(';')[0]!r} and not a metrics page; "
            "pass the address of a rank's page, which ends in /metrics"
        )
        return report
    try:
        families = parse_page(text, content_type)
    except UnreadablePageError as error:
        report.wrong.append(f"it is not a valid metrics page, Prometheus would refuse it: {error}")
        return report
    _Page(report, [one for family in families for one in family.samples], read_at_s).describe(
        families, text, content_type
    )
    return report


class _Page:
    """The samples of one page, and the report about them."""

    def __init__(self, report: Report, samples: list[Sample], read_at_s: float) -> None:
        self._report = report
        self._samples = samples
        self._read_at_s = read_at_s
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)
        self._has_runs = len({one.labels["run"] for one in samples if "run" in one.labels}) > 1
        self._interrupted_runs = {
            one.labels.get("run", "")
            for one in self._by_name.get("dllogger_phase", [])
            if one.value == 1.0 and one.labels.get("phase") in health.INTERRUPTING_PHASES
        }

    def describe(self, families: list[Metric], text: str, content_type: str) -> None:
        """Fill the report."""
        report = self._report
        size_kib = len(text.encode()) / 1024
        kind = f", {content_type}" if content_type else ""
        report.facts.append(f"  {count_of(len(self._samples), 'sample')}, {size_kib:.1f} KiB{kind}")
        self._find_duplicates()
        ranks = sorted(
            {
                (one.labels.get("run", ""), one.labels["rank"])
                for one in self._samples
                if _is_ours(one.name) and "rank" in one.labels
            },
            key=lambda key: (key[0], _number_of(key[1]), key[1]),
        )
        if not ranks:
            names = ", ".join(family.name for family in families[:5])
            report.wrong.append(
                "no series with a name that begins with dllogger_ or dl_ (the page has "
                f"{names or 'none at all'}); is this the port of a rank?"
            )
            return
        for run in dict.fromkeys(run for run, _rank in ranks):
            report.facts += ["", f"Run {run}"]
            for key in ranks:
                if key[0] == run:
                    self._describe_rank(key)
        self._describe_metrics()
        self._find_losses()

    def _describe_rank(self, key: _RankKey) -> None:
        report, rank = self._report, key[1]
        info = next(iter(self._of(key, "dllogger_rank_info")), None)
        labels = info.labels if info else {}
        where = f" on {labels['host']}" if labels.get("host") else ""
        if labels.get("pid"):  # a bridge does not know the process
            where += f", process {labels['pid']}"
        of = f" of {labels['world_size']}" if "world_size" in labels else ""
        report.facts.append(f"  rank {rank}{of}{where}")
        attempt = labels.get("attempt", "1")
        ended = next(
            (
                word
                for word in (health.FINISHED, health.TERMINATED)
                if self._value(key, f"dllogger_run_{word}") == 1.0
            ),
            "",
        )
        steps = self._value(key, "dllogger_steps_total") or 0.0
        step_s = (self._value(key, "dllogger_step_seconds_total") or 0.0) / max(steps - 1, 1)
        parts = [] if attempt == "1" else [f"attempt {attempt}"]
        for word in ("epoch", "iteration"):
            value = self._value(key, f"dllogger_{word}")
            if value is not None:
                parts.append(f"{word} {format_number(value)}")
        if steps:
            parts.append(f"{count_of(steps, 'step')} of {step_s:.3g} s")
        parts.append(self._last_record(key, ended=ended))
        report.facts.append(f"    {', '.join(parts)}")
        records = self._of(key, "dllogger_records_total")
        counts = [
            f"{count_of(one.value, one.labels.get('type', '?') + ' call')}" for one in records
        ]
        log_s = self._value(key, "dllogger_log_seconds_total")
        calls = self._records(key)
        cost = f"; a log call takes {log_s / calls * 1e6:.0f} us" if log_s and calls else ""
        report.facts.append(f"    {', '.join(counts)}{cost}")

    def _last_record(self, key: _RankKey, *, ended: str) -> str:
        last_s = self._value(key, "dllogger_last_log_timestamp_seconds")
        if last_s is None:
            if not ended:
                self._report.warnings.append(
                    f"{self._named(*key)} has not logged anything yet; does the script call init "
                    "and log?"
                )
            return "no record yet" + (f", {ended}" if ended else "")
        when = _local_time(last_s)
        if when is None:
            self._report.warnings.append(
                f"{self._named(*key)} logged last at {last_s:g} s since 1970, which is not a time; "
                "look at what serves this page"
            )
            return f"{ended}, last record at {last_s:g}".removeprefix(", ")
        age_s = self._read_at_s - last_s
        if ended:
            return f"{ended}, last record {format_duration(max(age_s, 0.0))} ago ({when})"
        if age_s < -health.ALIVE_S:
            self._report.warnings.append(
                f"{self._named(*key)} logged {format_duration(-age_s)} in the future; compare the "
                "clocks"
            )
        start_s = self._value(key, "dllogger_run_start_timestamp_seconds") or last_s
        state = health.activity(
            age_s,
            max(last_s - start_s, 0.0),
            self._records(key),
            is_interrupted=key[0] in self._interrupted_runs,
        )
        if state != health.TRAINING:
            self._report.warnings.append(
                f"{self._named(*key)} is {state}: it {health.STATES[state]} "
                f"({format_duration(age_s)}); check whether it hangs"
            )
        return f"{state}, last record {format_duration(max(age_s, 0.0))} ago ({when})"

    def _records(self, key: _RankKey) -> int:
        """Return how many records a rank logged."""
        calls = self._of(key, "dllogger_records_total")
        count = sum(one.value for one in calls if one.labels.get("type") == "log")
        return int(count) if math.isfinite(count) else 0

    def _describe_metrics(self) -> None:
        titles = (
            *("run", "rank", "series", "value", "stage", "granularity", "goal"),
            *("kind", "unit", "scope", "logged as"),
        )
        rows = [
            (
                one.labels.get("run", "") if self._has_runs else "",
                one.labels.get("rank", ""),
                one.name,
                format_number(one.value),
                one.labels.get("stage", ""),
                one.labels.get("granularity", ""),
                one.labels.get("goal", ""),
                one.labels.get("kind", ""),
                one.labels.get("unit", ""),
                one.labels.get("scope", ""),
                one.labels.get("metric", ""),
            )
            for one in self._samples
            if one.name.startswith("dl_")
        ]
        if rows:
            self._report.facts += ["", f"Logged, {len(rows):,} series:"]
            self._report.facts += format_table(
                titles,
                rows,
                flexible=("run", "series", "logged as"),
                second=("stage", "granularity", "goal", "kind", "unit", "scope", "logged as"),
            )
        else:
            self._report.facts += ["", "No metric has a value."]

    def _find_losses(self) -> None:
        for one in self._by_name.get("dllogger_nonfinite_total", []):
            if one.value:
                self._report.warnings.append(self._describe_nonfinite(one))
        for one in self._by_name.get("dllogger_dropped_total", []):
            if one.value:
                reason = one.labels.get("reason", "?")
                drop = DROPS.get(reason, _UNKNOWN)
                where = self._report.warnings if drop.is_harmless else self._report.wrong
                by = (
                    "otel-dllogger check on its log says"
                    if reason in REASONS[LINE]
                    else "its stderr says"
                )
                where.append(
                    f"{self._whose(one)} dropped {format_number(one.value)} "
                    f"({reason}): {drop.words}; {by} more"
                )
        for one in self._by_name.get("dllogger_hang_dumps_total", []):
            if one.value:
                self._report.warnings.append(
                    f"{self._whose(one)} seemed to hang {count_of(one.value, 'time')}: its stacks "
                    "are in the file beside its log, .stacks"
                )
        for name, meanings in _OF_BRIDGE.items():
            for one in self._by_name.get(name, []):
                if one.value:
                    reason = one.labels.get("reason", "?")
                    self._report.warnings.append(
                        f"the bridge counted {format_number(one.value)} ({reason}): "
                        f"{meanings.get(reason, _UNKNOWN).words}"
                    )

    def _describe_nonfinite(self, one: Sample) -> str:
        rank, metric = one.labels.get("rank", "?"), one.labels.get("metric", "?")
        run = one.labels.get("run")
        has_value = any(
            other.name.startswith("dl_")
            and other.labels.get("metric") == metric
            and other.labels.get("rank") == rank
            and other.labels.get("run") == run
            for other in self._samples
        )
        now = "" if has_value else ", and still is"
        return (
            f"{self._whose(one)}: {metric!r} was NaN or Inf {count_of(one.value, 'time')}{now}; "
            "a JSON log has the steps"
        )

    def _find_duplicates(self) -> None:
        seen = Counter((one.name, tuple(sorted(one.labels.items()))) for one in self._samples)
        for (name, labels), count in seen.items():
            if count > 1:
                text = ", ".join(f'{key}="{value}"' for key, value in labels)
                self._report.wrong.append(
                    f"{name}{{{text}}} is on the page {count} times, and Prometheus keeps only one "
                    "of them; do two backends export the same metrics?"
                )

    def _named(self, run: str, rank: str) -> str:
        """Return a rank's name, with its run if there are several."""
        return f"run {run!r}, rank {rank}" if self._has_runs else f"rank {rank}"

    def _whose(self, one: Sample) -> str:
        return self._named(one.labels.get("run", ""), one.labels.get("rank", "?"))

    def _of(self, key: _RankKey, name: str) -> list[Sample]:
        run, rank = key
        return [
            one
            for one in self._by_name.get(name, [])
            if one.labels.get("rank") == rank and one.labels.get("run", "") == run
        ]

    def _value(self, key: _RankKey, name: str) -> float | None:
        return next((float(one.value) for one in self._of(key, name)), None)


def _is_ours(name: str) -> bool:
    return name.startswith(("dllogger_", "dl_"))


def _number_of(rank: str) -> int:
    """Return a rank as a number, -1 if it is none."""
    return int(rank) if rank.isdecimal() and len(rank) <= _MOST_DIGITS else -1


def _local_time(time_s: float) -> str | None:
    """Return a time for people, None if there is no such time."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_s))
    except (ValueError, OverflowError, OSError):
        return None

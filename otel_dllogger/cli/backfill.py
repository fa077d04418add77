"""``otel-dllogger backfill``: write existing logs to databases, with their original times."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_dllogger.backfill import alone
from otel_dllogger.cli.log_source import explain, is_log, open_exporter, say
from otel_dllogger.cli.terminal import Bar, UserError
from otel_dllogger.diagnostics import HARMLESS
from otel_dllogger.errors import BackfillError, ConfigurationError
from otel_dllogger.logs.findings import SHARED, Announcements, merge_warnings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_dllogger.backfill.samples import FoundLog, ReadLogs
    from otel_dllogger.backfill.sorting import SampleSorter
    from otel_dllogger.cli.parameter_types import Instant
    from otel_dllogger.logs.source import Source

_PATIENCE_S = 30.0
EXIT_UNFINISHED = 1


@dataclasses.dataclass(frozen=True, slots=True)
class BackfillOptions:
    """The options of ``backfill``.

    Attributes:
        source: The logs.
        kind: ``openmetrics``, ``prometheus``, ``victoriametrics`` or ``otlp``.
        target: Its file, folder or URL.
        since_us: Earlier samples are left out; microseconds since the Unix epoch.
        until_us: Samples from this time on are left out.
        query_url: Where to ask a VictoriaMetrics cluster what is there.
        unchecked: Send to VictoriaMetrics without asking what is there.
        checkpoint: The folder that stores how far logs were sent over OTLP.
        quiet: Print only errors.
    """

    source: Source
    kind: str
    target: str
    since_us: Instant | None
    until_us: Instant | None
    query_url: str | None
    unchecked: bool
    checkpoint: Path | None
    quiet: bool


def run_backfill(options: BackfillOptions) -> int:
    """Read logs, and write their samples to the target.

    Returns:
        The exit code.

    Raises:
        UserError: If it cannot be done; its message is one line.
    """
    from otel_dllogger.backfill.prometheus import DataFolder  # noqa: PLC0415 - when it is needed
    from otel_dllogger.backfill.samples import find_logs  # noqa: PLC0415

    _check_options(options)
    try:
        if options.kind == "prometheus":
            DataFolder(options.target)  # before hours of reading, rather than after
        logs = find_logs(options.source)
        if options.kind == "otlp":
            return _send(options, logs)
        return _fill(options, logs)
    except BackfillError as error:
        raise UserError(str(error)) from None
    except (ConfigurationError, ImportError) as error:
        raise UserError(explain(error)) from None


def _check_options(options: BackfillOptions) -> None:
    kind = options.kind
    if kind == "openmetrics" and is_log(Path(options.target)):
        raise UserError(
            f"--to openmetrics {options.target} is a log and would be overwritten; name another "
            "file"
        )
    if kind == "prometheus" and "://" in options.target:
        raise UserError(
            f"--to prometheus takes the data folder of Prometheus, not {options.target}: give the "
            "value of its flag --storage.tsdb.path"
        )
    for name, given, of in (
        ("--query-url", options.query_url, "victoriametrics"),
        ("--unchecked", options.unchecked, "victoriametrics"),
        ("--checkpoint", options.checkpoint, "otlp"),
    ):
        if given and kind != of:
            raise UserError(
                f"{name} is for --to {of}, and has no effect with --to {kind}; leave it out"
            )
    since_us, until_us = options.since_us, options.until_us
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise UserError("--since is not before --until; there is nothing between the two")


def _fill(options: BackfillOptions, logs: list[FoundLog]) -> int:
    """Sort the samples of all logs, and write them to a file or a database."""
    from otel_dllogger.backfill.samples import SampleReader  # noqa: PLC0415
    from otel_dllogger.backfill.sorting import SampleSorter  # noqa: PLC0415

    with Bar(hidden=options.quiet) as bar, SampleSorter() as sorter:
        total_bytes = sum(log.size_bytes for log in logs)
        found = SampleReader(
            options.source,
            sorter,
            since_us=options.since_us,
            until_us=options.until_us,
            progress=bar.advance("reading logs", total_bytes),
        ).run(logs)
        samples = sorter.samples
        written = _write(options, sorter, samples, bar)
    _report(options, logs, found, sorter, written)
    if not samples:
        _warn(
            options,
            "there was nothing to write: otel-dllogger check FILE shows what a log holds"
            if options.since_us is options.until_us is None
            else "there is nothing in the time range of --since and --until",
        )
    return 0


def _write(options: BackfillOptions, sorter: SampleSorter, samples: int, bar: Bar) -> str:
    """Write sorted samples; return what was done, in words.

    Args:
        options: Where to write them.
        sorter: Has the samples.
        samples: How many were put into the sorter.
        bar: Shows the progress.
    """
    if options.kind == "openmetrics":
        from otel_dllogger.backfill.openmetrics import write_openmetrics  # noqa: PLC0415

        written = write_openmetrics(sorter.sorted(), options.target)
        return f"{_counted(written, 'sample')} written to {options.target}"
    if options.kind == "prometheus":
        from otel_dllogger.backfill.prometheus import backfill_prometheus  # noqa: PLC0415

        done = backfill_prometheus(
            sorter.sorted(), options.target, progress=bar.stage, samples=samples
        )
        if done.notice:
            say(done.notice)
        return (
            f"{_counted(done.installed, 'sample')} installed in {_counted(done.blocks, 'block')} "
            f"of {options.target}, {done.present:,} already there"
        )
    from otel_dllogger.backfill.victoriametrics import import_victoriametrics  # noqa: PLC0415

    sent = import_victoriametrics(
        sorter.sorted(),
        options.target,
        query_url=options.query_url,
        unchecked=options.unchecked,
        progress=bar.stage,
        samples=samples,
    )
    kept = f", {sent.kept:,} of them with another value" if sent.kept else ""
    return f"{_counted(sent.imported, 'sample')} imported, {sent.present:,} already there{kept}"


def _send(options: BackfillOptions, logs: list[FoundLog]) -> int:
    """Send every step of all logs to a collector, and save how far that got."""
    from otel_dllogger.backfill.otlp import (  # noqa: PLC0415 - needs the extra ``otlp``
        checkpoint_folder,
        make_folder,
        send_logs,
    )

    source, target = options.source, options.target
    since, until = (
        None if instant is None else instant.text
        for instant in (options.since_us, options.until_us)
    )
    folder = options.checkpoint or checkpoint_folder(source, target, since, until)
    make_folder(folder)
    with alone(folder, doing=f"sending to {target}"), Bar(hidden=options.quiet) as bar:
        exporter = open_exporter(
            target, threading.Event(), say, patience_s=_PATIENCE_S, skips_refused=False
        )
        lines = send_logs(
            logs,
            source,
            exporter,
            folder,
            target=target,
            since_us=options.since_us,
            until_us=options.until_us,
            progress=bar.advance("sending", sum(log.size_bytes for log in logs)),
            tell=lambda line: _warn(options, line),
        )
    refused = f", {exporter.refused:,} refused" if exporter.refused else ""
    _tell(
        options,
        f"{_counted(exporter.sent, 'point')} sent to {target}{refused}; "
        f"{_counted(lines, 'new line')} of {_counted(len(logs), 'file')}",
    )
    return EXIT_UNFINISHED if exporter.refused else 0


def _report(
    options: BackfillOptions,
    logs: list[FoundLog],
    found: ReadLogs,
    sorter: SampleSorter,
    written: str,
) -> None:
    announcements = Announcements(lambda line: _warn(options, line))
    announcements.announce((path, one.found().all()) for path, one in found.findings)
    for warning in merge_warnings(found.findings):
        _warn(options, warning)
    if found.shared:
        more = f" and {len(found.shared) - 1} more" if len(found.shared) > 1 else ""
        _warn(
            options,
            f"{found.shared[0]}{more}: {SHARED}",
        )
    if found.interpolated:
        _warn(
            options,
            f"{_counted(found.interpolated, 'record')} without a time: spread evenly over the time "
            "from the run's start to the last change of the file; copying a file changes that time",
        )
    if found.damaged:
        reasons = ", ".join(f"{count} {name}" for name, count in _damage(found.skipped))
        _tell(options, f"lines that gave no record: {reasons}; otel-dllogger check FILE shows them")
    duplicates = (
        f"; {sorter.duplicates:,} replaced by a later one of the same millisecond"
        if sorter.duplicates
        else ""
    )
    _tell(
        options,
        f"{written}{duplicates}; {_counted(found.lines, 'line')} of "
        f"{_counted(len(logs), 'file')}, {_counted(found.ranks, 'rank')}",
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _damage(skipped: dict[str, int]) -> Iterable[tuple[str, int]]:
    return sorted((name, count) for name, count in skipped.items() if name not in HARMLESS)


def _warn(options: BackfillOptions, message: str) -> None:
    if not options.quiet:
        say(message)


def _tell(options: BackfillOptions, message: str) -> None:
    if not options.quiet:
        into_stdout = options.kind == "openmetrics" and not Path(options.target).is_file()
        click.echo(message, err=into_stdout)  # or it would become part of the output

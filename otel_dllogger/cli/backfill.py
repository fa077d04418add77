"""``otel-dllogger backfill``: write existing logs to databases, with their original times."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from otel_dllogger.backfill import alone
from otel_dllogger.backfill.output_file import STDOUT
from otel_dllogger.cli.log_source import explain, is_among, is_log, open_exporter, say
from otel_dllogger.cli.terminal import Bar, UserError
from otel_dllogger.errors import BackfillError, ConfigurationError, count_of
from otel_dllogger.logs.findings import Announcements, merge_warnings
from otel_dllogger.logs.row import LogRow
from otel_dllogger.logs.whole_logs import NO_VALUE

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.backfill.sorting import SampleSorter
    from otel_dllogger.cli.parameter_types import Instant
    from otel_dllogger.logs.source import Source
    from otel_dllogger.logs.whole_logs import FoundLog, ReadLogs

_PATIENCE_S = 30.0
_FILES = ("csv", "openmetrics")  # kinds that are written to a file
_HEADS = (",".join(LogRow._fields).encode(), b"# HELP dl", b"# EOF")
"""How the files that a backfill writes begin."""

_HEAD_BYTES = max(map(len, _HEADS))
EXIT_UNFINISHED = 1


class _Written(NamedTuple):
    """What was written.

    Attributes:
        words: What was done, in words.
        present: How many samples are in the target now, new ones and earlier ones.
        not_finite: Whether there were samples, but none of them was finite.
    """

    words: str
    present: int
    not_finite: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class BackfillOptions:
    """The options of ``backfill``.

    Attributes:
        source: The logs.
        kind: ``csv``, ``openmetrics``, ``prometheus``, ``victoriametrics`` or ``otlp``.
        target: Its file, folder or URL.
        since_us: Earlier samples are left out; microseconds since the Unix epoch.
        until_us: Samples from this time on are left out.
        query_url: Where to ask a VictoriaMetrics cluster what is there.
        unchecked: Send to VictoriaMetrics without asking what is there.
        checkpoint: The folder that stores how far logs were sent over OTLP.
        quiet: Print only errors.
        step_histogram: Whether the option asked for a histogram of step times.
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
    step_histogram: bool = False


def run_backfill(options: BackfillOptions) -> int:
    """Read logs, and write their samples to the target.

    Returns:
        The exit code.

    Raises:
        UserError: If it cannot be done; its message is one line.
    """
    from otel_dllogger.backfill.prometheus import DataFolder  # noqa: PLC0415 - when it is needed
    from otel_dllogger.logs.whole_logs import find_logs  # noqa: PLC0415

    _check_options(options)
    try:
        if options.kind in _FILES and options.target != STDOUT:
            _check_file(options, Path(options.target))
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
    if kind in _FILES and options.target != STDOUT and is_log(Path(options.target)):
        raise UserError(
            f"--to {kind} {options.target} is a log and would be overwritten; name another file"
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
    if options.step_histogram and kind == "csv":
        raise UserError(
            "--step-histogram has no effect with --to csv, whose rows are what was logged; leave "
            "it out"
        )
    since_us, until_us = options.since_us, options.until_us
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise UserError("--since is not before --until; there is nothing between the two")


def _check_file(options: BackfillOptions, path: Path) -> None:
    """Refuse to overwrite a log that is read, and what no earlier backfill wrote."""
    if is_among(path, options.source.paths):
        raise UserError(
            f"--to {options.kind} {path} is among the logs that are read, now or the next time, "
            "and would be overwritten; name a file outside of their folders"
        )
    if not path.is_file() or not path.stat().st_size:
        return
    try:
        with path.open("rb") as file:
            is_ours = file.read(_HEAD_BYTES).startswith(_HEADS)
    except OSError:
        is_ours = False
    if not is_ours:
        raise UserError(
            f"--to {options.kind} {path} was not written by a backfill, and would be overwritten; "
            "name another file"
        )


def _fill(options: BackfillOptions, logs: list[FoundLog]) -> int:
    """Read all logs, and write what they hold to a file or a database."""
    with Bar(hidden=options.quiet) as bar:
        read = _read_rows if options.kind == "csv" else _read_samples
        found, written = read(options, logs, bar)
    _report(options, logs, found, written.words if written.present else "")
    if written.present:
        return 0
    if written.not_finite:
        say("nothing was written: every value in that time range is NaN or infinite")
        return EXIT_UNFINISHED
    return _say_empty(found.left_out)


def _say_empty(left_out: int) -> int:
    """Say why nothing was written, and return the exit code.

    Args:
        left_out: How many values are outside of the time range that was asked for.
    """
    say(
        f"nothing was written: all that the logs hold ({count_of(left_out, 'value')}) is outside "
        "of the time range of --since and --until"
        if left_out
        else f"nothing was written: {NO_VALUE}"
    )
    return EXIT_UNFINISHED


def _read_rows(
    options: BackfillOptions, logs: list[FoundLog], bar: Bar
) -> tuple[ReadLogs, _Written]:
    """Write the values of all logs as a table."""
    from otel_dllogger.backfill.csv_rows import write_csv  # noqa: PLC0415
    from otel_dllogger.logs.rows import RowReader  # noqa: PLC0415

    with RowReader(
        options.source,
        since_us=options.since_us,
        until_us=options.until_us,
        progress=_progress(bar, logs),
    ) as reader:
        found = reader.run(logs)
        rows = write_csv(reader.sorted(), options.target)
        repeated = (
            f"; {count_of(reader.repeated, 'record')} left out, being there twice"
            if reader.repeated
            else ""
        )
    return found, _Written(
        f"{count_of(rows, 'row')} written to {_file_name(options)}{repeated}", rows
    )


def _read_samples(
    options: BackfillOptions, logs: list[FoundLog], bar: Bar
) -> tuple[ReadLogs, _Written]:
    """Sort the samples of all logs, and write them to a file or a database."""
    from otel_dllogger.backfill.samples import SampleReader  # noqa: PLC0415
    from otel_dllogger.backfill.sorting import SampleSorter  # noqa: PLC0415

    with SampleSorter() as sorter:
        found = SampleReader(
            options.source,
            sorter,
            since_us=options.since_us,
            until_us=options.until_us,
            progress=_progress(bar, logs),
        ).run(logs)
        words, present = _write(options, sorter, samples := sorter.samples, bar)
        if sorter.duplicates:
            words += f"; {sorter.duplicates:,} replaced by a later one of the same millisecond"
    return found, _Written(words, present, not_finite=samples > 0)


def _file_name(options: BackfillOptions) -> str:
    return "standard output" if options.target == STDOUT else options.target


def _progress(bar: Bar, logs: list[FoundLog]) -> Callable[[int], object]:
    return bar.advance("reading logs", sum(log.size_bytes for log in logs))


def _write(
    options: BackfillOptions, sorter: SampleSorter, samples: int, bar: Bar
) -> tuple[str, int]:
    """Write sorted samples.

    Args:
        options: Where to write them.
        sorter: Has the samples.
        samples: How many were put into the sorter.
        bar: Shows the progress.

    Returns:
        What was done, in words, and how many samples are in the target now.
    """
    if options.kind == "openmetrics":
        from otel_dllogger.backfill.openmetrics import write_openmetrics  # noqa: PLC0415

        written = write_openmetrics(sorter.sorted(), options.target)
        return f"{count_of(written, 'sample')} written to {_file_name(options)}", written
    if options.kind == "prometheus":
        from otel_dllogger.backfill.prometheus import backfill_prometheus  # noqa: PLC0415

        done = backfill_prometheus(
            sorter.sorted(), options.target, progress=bar.stage, samples=samples
        )
        if done.notice:
            say(done.notice)
        words = (
            f"{count_of(done.installed, 'sample')} installed in {count_of(done.blocks, 'block')} "
            f"of {options.target}, {done.present:,} already there"
        )
        return words, done.installed + done.present
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
    words = f"{count_of(sent.imported, 'sample')} imported, {sent.present:,} already there{kept}"
    return words, sent.imported + sent.present


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
        sent = send_logs(
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
        f"{count_of(exporter.sent, 'point')} sent to {target}{refused}; "
        f"{count_of(sent.lines, 'new line')} of {count_of(len(logs), 'file')}",
    )
    if exporter.refused:
        return EXIT_UNFINISHED
    return 0 if sent.is_any_there else _say_empty(sent.left_out)


def _report(
    options: BackfillOptions,
    logs: list[FoundLog],
    found: ReadLogs,
    written: str,
) -> None:
    announcements = Announcements(lambda line: _warn(options, line))
    announcements.announce((path, one.found().all()) for path, one in found.findings)
    for warning in (*merge_warnings(found.findings), *found.guesses("--pattern 'log_{rank}.json'")):
        _warn(options, warning)
    if damage := found.damage():
        _warn(options, damage)
    if written:
        _tell(
            options,
            f"{written}; {count_of(found.lines, 'line')} of "
            f"{count_of(len(logs), 'file')}, {count_of(found.ranks, 'rank')}",
        )


def _warn(options: BackfillOptions, message: str) -> None:
    if not options.quiet:
        say(message)


def _tell(options: BackfillOptions, message: str) -> None:
    if not options.quiet:
        into_stdout = options.kind in _FILES and (
            options.target == STDOUT or not Path(options.target).is_file()
        )
        click.echo(message, err=into_stdout)  # or it would become part of the output

"""``otel-dllogger backfill``: logs that are there, with the times at which they were written."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otel_dllogger.backfill.faults import BackfillError
from otel_dllogger.commands.bridge import in_options, is_log
from otel_dllogger.commands.user_error import UserError
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_dllogger.backfill.external_sort import SampleSorter
    from otel_dllogger.backfill.logs import LogFile
    from otel_dllogger.backfill.samples import Replayed
    from otel_dllogger.bridge.source import Source
    from otel_dllogger.commands.moment import Instant

_PATIENCE_S = 30.0
_PARTS = 1_000
EXIT_UNFINISHED = 1


@dataclasses.dataclass(frozen=True, slots=True)
class BackfillOptions:
    """Say what a backfill does.

    Attributes:
        source: The logs.
        kind: ``openmetrics``, ``prometheus``, ``victoriametrics`` or ``otlp``.
        target: Its file, folder or URL.
        since_us: Samples before are left out; microseconds since the Unix epoch.
        until_us: Samples from here on are left out.
        query_url: Where to ask a VictoriaMetrics cluster what is there.
        unchecked: Send to VictoriaMetrics without asking what is there.
        checkpoint: A folder that keeps how far logs were sent over OTLP.
        quiet: Print errors alone.
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
    """Read logs, and put their samples where they are asked for.

    Returns:
        The exit code.

    Raises:
        UserError: If it cannot be done, in one line.
    """
    from otel_dllogger.backfill.data_folder import DataFolder  # noqa: PLC0415 - when it is needed
    from otel_dllogger.backfill.logs import find_logs  # noqa: PLC0415

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
        raise UserError(in_options(error)) from None


def _check_options(options: BackfillOptions) -> None:
    kind = options.kind
    if kind == "openmetrics" and is_log(Path(options.target)):
        raise UserError(
            f"--to openmetrics {options.target} is a log, which it would replace; name another file"
        )
    if kind == "prometheus" and "://" in options.target:
        raise UserError(
            f"--to prometheus takes the data folder of Prometheus, not {options.target}: give the "
            "one that its flag --storage.tsdb.path names"
        )
    for name, given, of in (
        ("--query-url", options.query_url, "victoriametrics"),
        ("--unchecked", options.unchecked, "victoriametrics"),
        ("--checkpoint", options.checkpoint, "otlp"),
    ):
        if given and kind != of:
            raise UserError(f"{name} is for --to {of}, and says nothing to {kind}; leave it out")
    since_us, until_us = options.since_us, options.until_us
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise UserError("--since is not before --until; there is nothing between the two")


def _fill(options: BackfillOptions, logs: list[LogFile]) -> int:
    """Sort the samples of all logs, and give them to a file or a database."""
    from otel_dllogger.backfill.external_sort import SampleSorter  # noqa: PLC0415
    from otel_dllogger.backfill.samples import Replay  # noqa: PLC0415

    with _Bar(options) as bar, SampleSorter(tempfile.gettempdir()) as sorter:
        total_bytes = sum(log.size_bytes for log in logs)
        replayed = Replay(
            options.source,
            sorter,
            since_us=options.since_us,
            until_us=options.until_us,
            progress=bar.advance("reading logs", total_bytes),
        ).run(logs)
        samples = sorter.samples
        written = _write(options, sorter, bar)
    _report(options, logs, replayed, sorter, written)
    if not samples:
        _warn(
            options,
            "there was nothing to write: otel-dllogger check FILE shows what a log holds"
            if options.since_us is options.until_us is None
            else "there is nothing in the time that --since and --until leave",
        )
    return 0


def _write(options: BackfillOptions, sorter: SampleSorter, bar: _Bar) -> str:
    """Write sorted samples; return what was done, in words."""
    samples = sorter.samples
    if options.kind == "openmetrics":
        from otel_dllogger.backfill.openmetrics import write_openmetrics  # noqa: PLC0415

        written = write_openmetrics(sorter.sorted(), options.target)
        return f"{written:,} samples written to {options.target}"
    if options.kind == "prometheus":
        from otel_dllogger.backfill.prometheus import backfill_prometheus  # noqa: PLC0415

        done = backfill_prometheus(
            sorter.sorted(), options.target, progress=bar.stage, samples=samples
        )
        if done.notice:
            bar.say(done.notice)
        return (
            f"{done.installed:,} samples installed in {done.blocks:,} blocks of {options.target}, "
            f"{done.present:,} were there"
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
    return f"{sent.imported:,} samples imported, {sent.present:,} were there{kept}"


def _send(options: BackfillOptions, logs: list[LogFile]) -> int:
    """Send every step of all logs to a collector, and remember how far that came."""
    from otel_dllogger.bridge.delivery import Delivery  # noqa: PLC0415
    from otel_dllogger.bridge.outbox import Refused, Stopped  # noqa: PLC0415
    from otel_dllogger.bridge.ranks import Ranks  # noqa: PLC0415
    from otel_dllogger.commands.bridge import open_outbox  # noqa: PLC0415

    folder = _checkpoint_folder(options)
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)  # for as long as the process lives
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise BackfillError(
            f"another backfill is sending to {options.target}: run this again when it has ended"
        ) from None
    ranks = Ranks(max_series=options.source.max_series)
    lines = 0
    with _Bar(options) as bar:
        outbox = open_outbox(
            options.target,
            threading.Event(),
            bar.say,
            patience_s=_PATIENCE_S,
            skips_refused=False,
        )
        advance = bar.advance("sending", sum(log.size_bytes for log in logs))
        for log in logs:
            # The name of the run is decided by all paths that were given, not by this one.
            source = dataclasses.replace(options.source, paths=(log.path,), run=log.origin.run)
            delivery = Delivery(
                source,
                outbox,
                ranks=ranks,
                checkpoint=str(folder / _digest(os.path.realpath(log.path))),
                since_us=options.since_us,
                until_us=options.until_us,
            )
            try:
                delivery.run_to_end()
            except Refused as error:
                raise BackfillError(
                    f"{options.target} refuses the metrics ({error}): mend its address or what it "
                    "asks for and run the same command again; it goes on where it was"
                ) from None
            except Stopped as error:
                raise BackfillError(
                    f"{options.target} takes no metrics ({error}): start the collector and run "
                    "the same command again; it goes on where it was"
                ) from None
            finally:
                delivery.close()
                lines += delivery.lines
            advance(log.size_bytes)
    refused = f", {outbox.refused:,} refused" if outbox.refused else ""
    _say(
        options,
        f"{outbox.sent:,} points sent to {options.target}{refused}; {lines:,} new lines of "
        f"{len(logs):,} files",
    )
    return EXIT_UNFINISHED if outbox.refused else 0


def _checkpoint_folder(options: BackfillOptions) -> Path:
    """Return the folder for how far each log was sent to this collector, for this time.

    Raises:
        BackfillError: If there is none.
    """
    folder = options.checkpoint
    if folder is None:
        home = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
        how = dataclasses.replace(options.source, paths=())
        since, until = (
            None if instant is None else instant.text
            for instant in (options.since_us, options.until_us)
        )
        key = f"{options.target.rstrip('/')} {since} {until} {how}"
        folder = Path(home, "otel-dllogger", "backfill", _digest(key))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackfillError(
            f"{folder} cannot be made ({error.strerror}): name a folder with --checkpoint"
        ) from None
    return folder


def _digest(text: str) -> str:
    return hashlib.blake2b(os.fsencode(text), digest_size=10).hexdigest()


def _report(
    options: BackfillOptions,
    logs: list[LogFile],
    replayed: Replayed,
    sorter: SampleSorter,
    written: str,
) -> None:
    if replayed.shared:
        more = f" and {len(replayed.shared) - 1} more" if len(replayed.shared) > 1 else ""
        _warn(
            options,
            f"{replayed.shared[0]}{more} is of the same run and rank as another log of that time: "
            "where they are not, say how files are named, as --pattern 'log_{rank}.json'",
        )
    if replayed.interpolated:
        _warn(
            options,
            f"{replayed.interpolated:,} records have no times: they are spread evenly over the "
            "time from the run's start to the last change of the file, which a copy changes",
        )
    if replayed.damaged:
        reasons = ", ".join(f"{count} {name}" for name, count in _damage(replayed.skipped))
        _say(options, f"lines that gave no record: {reasons}; otel-dllogger check FILE shows them")
    duplicates = (
        f"; {sorter.duplicates:,} gave way to a later one of the same millisecond"
        if sorter.duplicates
        else ""
    )
    _say(
        options,
        f"{written}{duplicates}; {replayed.lines:,} lines of {len(logs):,} files, "
        f"{replayed.ranks:,} ranks",
    )


def _damage(skipped: dict[str, int]) -> Iterable[tuple[str, int]]:
    from otel_dllogger.logfiles.skipped import HARMLESS  # noqa: PLC0415

    return sorted((name, count) for name, count in skipped.items() if name not in HARMLESS)


def _warn(options: BackfillOptions, message: str) -> None:
    if not options.quiet:
        click.echo(f"otel-dllogger: {message}", err=True)


def _say(options: BackfillOptions, message: str) -> None:
    if not options.quiet:
        into_stdout = options.kind == "openmetrics" and not Path(options.target).is_file()
        click.echo(message, err=into_stdout)  # or it would be a part of what is written there


class _Bar:
    """A bar on a terminal for each stage; nothing where there is none."""

    def __init__(self, options: BackfillOptions) -> None:
        self._hidden = options.quiet or not sys.stderr.isatty()
        self._bar: Any = None
        self._name = ""

    def __enter__(self) -> _Bar:  # noqa: PYI034 - private
        return self

    def __exit__(self, *_error: object) -> None:
        self._begin("", 0)
        FAULTS.speak()

    def stage(self, name: str, done: float) -> None:
        """Show how much of a stage is done, from 0 to 1."""
        self._begin(name, _PARTS)
        if self._bar is not None:
            self._update(round(done * _PARTS) - self._bar.pos)

    def advance(self, name: str, total: int) -> Callable[[int], None]:
        """Return what advances a stage of so many bytes."""
        self._begin(name, max(total, 1))
        return self._update

    def say(self, message: str) -> None:
        """Print a line beside the bar."""
        click.echo(f"otel-dllogger: {message}", err=True)

    def _begin(self, name: str, length: int) -> None:
        """End the bar of the last stage, and show that of another one."""
        if name == self._name:
            return
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None
        self._name = name
        if name and not self._hidden:
            self._bar = click.progressbar(length=length, label=f"{name:>12}", file=sys.stderr)

    def _update(self, steps: int) -> None:
        if self._bar is not None and steps > 0:
            self._bar.update(steps)

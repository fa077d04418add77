"""``otel-dllogger check``: find out which targets are pages or logs, and describe them."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import itertools
import os
import re
import select
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_dllogger.cli.check.log_report import describe_log
from otel_dllogger.cli.check.page_report import describe_page
from otel_dllogger.cli.check.rank_table import describe_goodput, describe_ranks
from otel_dllogger.cli.check.report import Report
from otel_dllogger.cli.terminal import UserError
from otel_dllogger.errors import ConfigurationError, count_of, in_words
from otel_dllogger.http.discovery_folder import folders_to_read
from otel_dllogger.http.scrape import MAX_PAGE_BYTES, UnreachableError, fetch, page_url, why_refused
from otel_dllogger.logs.findings import SHARED, grouped, merge_warnings
from otel_dllogger.logs.ranks import Ranks
from otel_dllogger.logs.source import LogFiles, read_lines
from otel_dllogger.logs.tail.anomalies import FileAnomalies
from otel_dllogger.logs.tail.candidates import has_prefix, is_settings
from otel_dllogger.logs.tail.find_files import FileFinder
from otel_dllogger.logs.whole_logs import find_logs
from otel_dllogger.redaction import redact_address
from otel_dllogger.view.goodput import Goodputs
from otel_dllogger.view.hangs import Hangs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_dllogger.logs.findings import LogFindings
    from otel_dllogger.logs.source import Source
    from otel_dllogger.logs.whole_logs import FoundLog

_PAGE_LINE = re.compile(rb"^# (?:HELP|TYPE) [a-zA-Z_:]", re.MULTILINE)
_SNIFFED_BYTES = 65536
_HTTP_OK = 200
_MAX_LEFT_OUT = 3
_WRITER_MS = 1_000

MAX_DESCRIBED = 3
"""Targets that are described in full; of more, only the findings are printed."""


def check_targets(source: Source, *, details: bool = False) -> int:
    """Describe pages and logs on standard output.

    Args:
        source: How to read logs; its paths may be addresses and saved pages as well.
        details: Describe each log, however many there are.

    Returns:
        1 if something is wrong, else 0.

    Raises:
        UserError: If there is nothing to read.
    """
    reports: list[tuple[str, Report]] = []
    paths: list[str] = []
    for target in source.paths:
        path = Path(target)
        url = None if path.exists() else page_url(target)
        if url is not None:
            reports.append((redact_address(url), _check_url(url)))
        elif path.is_dir() or (not path.exists() and glob.has_magic(target)):
            paths.append(target)
        elif path.exists():
            _refuse_device(path)
            report = _check_file(path)
            if report is None:
                paths.append(target)
            else:
                reports.append((target, report))
        elif path.is_symlink():
            raise UserError(f"{target!r} is a link to what does not exist; pass the log itself")
        else:
            raise UserError(
                f"no file {target!r}; pass a log, a folder, a saved page, or the address of a page "
                "such as 127.0.0.1:9464"
            )
    logs = _Logs(dataclasses.replace(source, paths=paths))
    if paths:
        reports += logs.reports()
    whole = _combined(reports, logs, details=details or len(reports) <= MAX_DESCRIBED)
    click.echo(whole.format())
    return whole.exit_code


def _combined(reports: list[tuple[str, Report]], logs: _Logs, *, details: bool) -> Report:
    """Return one report about all targets."""
    whole = Report(facts=logs.table())
    for _name, report in reports:
        if details and report.facts:
            whole.facts += ["", *report.facts] if whole.facts else report.facts
    if not details:
        whole.facts += ["", f"{count_of(len(reports), 'file')}; --details describes each of them"]
    whole.facts += logs.left_out()
    wrong = [(name, words) for name, report in reports for words in report.wrong]
    warnings = [(name, words) for name, report in reports for words in report.warnings]
    if len(reports) > 1:
        whole.wrong = grouped(wrong)
        whole.warnings = grouped(warnings)
    else:
        whole.wrong = [words for _name, words in wrong]
        whole.warnings = [words for _name, words in warnings]
    whole.warnings += logs.warnings
    if not whole.wrong:
        whole.wrong += logs.wrong
    return whole


def _check_url(url: str) -> Report:
    refusal = why_refused(url)
    if refusal is not None:
        raise UserError(refusal)
    try:
        answer = fetch(url)
    except UnreachableError as error:
        raise UserError(
            f"{redact_address(url)} cannot be reached: {error}; is the run still going, and is "
            f"this its port? {_where_ports_are()}"
        ) from error
    if answer.status != _HTTP_OK:
        report = Report([f"{redact_address(url)} answers with HTTP status {answer.status}."])
        report.wrong.append("it is not a metrics page; is this the port of a rank?")
        return report
    return describe_page(
        f"Metrics page {redact_address(url)}",
        answer.text,
        answer.content_type,
        read_at_s=time.time(),
    )


def _where_ports_are() -> str:
    folders = " and ".join(str(one.path) for one in folders_to_read() if one.path.is_dir())
    if not folders:
        return "otel-dllogger watch looks for ranks on the usual ports"
    return f"Files in {folders} have the ports of this machine's ranks"


def _check_file(path: Path) -> Report | None:
    """Describe a page, a pipe, or what cannot be a log; return None for a log."""
    with _reading(path):
        lines = read_lines(_open_pipe(path) if path.is_fifo() else str(path))
        # A pipe can be read only once, so its first lines are put back before the others.
        first = _take(lines, _SNIFFED_BYTES)
        lines = itertools.chain(first, lines)
        if _PAGE_LINE.search(b"".join(first)):
            page = b"".join(_take(lines, MAX_PAGE_BYTES))[:MAX_PAGE_BYTES]
            text = page.decode("utf-8", "replace")
            read_at_s = path.stat().st_mtime
            return describe_page(f"Saved metrics page {path}", text, "", read_at_s=read_at_s)
        report = _check_head(path, first)
        if report is None and not path.is_file():
            return describe_log(path, lines)
        return report


def _refuse_device(path: Path) -> None:
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        kind = "a socket" if stat.S_ISSOCK(mode) else "a device"
        raise UserError(f"{path} is {kind}, which has no end and no records; pass a log")


def _open_pipe(path: Path) -> int:
    """Open a pipe, and return its descriptor, without waiting for somebody who never writes.

    Opening by name waits for a writer, even if one came, wrote and left.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(_WRITER_MS):
        with contextlib.suppress(BlockingIOError):  # somebody may write yet
            if not os.read(descriptor, 1):
                os.close(descriptor)
                raise UserError(f"{path} is a pipe that nobody writes to; start the writer first")
    os.set_blocking(descriptor, True)
    return descriptor


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({in_words(error)}): make it readable, or leave it out"
        ) from error


def _take(lines: Iterator[bytes], size_bytes: int) -> list[bytes]:
    """Return lines until they have ``size_bytes`` together, or there are no more."""
    taken = []
    for line in lines:
        taken.append(line)
        size_bytes -= len(line)
        if size_bytes <= 0:
            break
    return taken


def _check_head(path: Path, first: list[bytes]) -> Report | None:
    """Describe a file whose first lines show that it is not a log that can be read."""
    if not first:
        return Report(
            wrong=[f"{path} is empty: nothing was logged, or the script is still starting"]
        )
    if first[0].startswith(b"\x1f\x8b"):
        return Report(wrong=[f"{path} is compressed; unpack it first"])
    if is_settings(path.name) and not any(map(has_prefix, first)):
        rule = "bridge and backfill leave it out of a folder; pass the log beside it"
        return Report(wrong=[f"{path} holds settings or results, as its name says: {rule}"])
    return None


class _Logs:
    """The logs at some paths, which are read as bridge and backfill read them.

    Args:
        source: Where they are, and how to read them.

    Attributes:
        warnings: What is doubtful about several of them together.
        wrong: That none of them holds anything.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._ranks = Ranks(max_series=source.max_series)
        self._goodputs = Goodputs()
        self._hangs = Hangs()
        self._first_nonfinite: dict[tuple[str, int], str] = {}
        self._left_out: list[str] = []
        self.warnings: list[str] = []
        self.wrong: list[str] = []

    def reports(self) -> Iterator[tuple[str, Report]]:
        """Read the logs, and yield a report about each of them.

        Raises:
            UserError: If there is none, or one that cannot be read.
        """
        source = self._source
        try:
            found = find_logs(source)
            files = LogFiles(source)
            scan = FileFinder(source.paths, anomalies=FileAnomalies()).scan()
        except ConfigurationError as error:
            raise UserError(str(error)) from None
        read = {log.path for log in found}
        self._left_out = [each.path for each in scan.files.values() if each.path not in read]
        named = set(map(os.path.abspath, source.paths))
        together = []
        for log in found:
            path, name = Path(log.path), _short(log.path)
            is_named = log.path in named
            report = None if is_named else _check_file(path)
            if report is None:
                report, findings = self._read(log, files, name)
                together.append((name, findings))
                is_named = is_named or findings.has_records
            if not is_named:  # a folder may hold other files
                report.warnings[:0] = report.wrong
                report.wrong.clear()
            yield name, report
        self.warnings += self._hangs.describe()
        self.warnings += merge_warnings(together)
        if together and not any(findings.has_records for _name, findings in together):
            self.wrong.append(f"nothing was read: no file of {' '.join(source.paths)} is a log")

    def _read(self, log: FoundLog, files: LogFiles, name: str) -> tuple[Report, LogFindings]:
        before = self._ranks.find(log.identity.run, log.identity.rank)
        last_us = None if before is None else before.state.last_log_us
        with _reading(Path(log.path)):
            report = describe_log(
                Path(log.path),
                read_lines(log.path),
                name=name,
                files=files,
                ranks=self._ranks,
                goodputs=self._goodputs,
                hangs=self._hangs,
            )
        if log.is_shared(last_us):
            report.warnings.append(SHARED)
        for key, step in report.findings.first_nonfinite.items():
            self._first_nonfinite.setdefault(key, step)
        return report, report.findings

    def left_out(self) -> list[str]:
        """Return a line about files that hold the same as others."""
        if not self._left_out:
            return []
        shown = ", ".join(map(_short, sorted(self._left_out)[:_MAX_LEFT_OUT]))
        more = len(self._left_out) - _MAX_LEFT_OUT
        shown += f" and {more:,} more" if more > 0 else ""
        return ["", f"Left out, since another log holds the same: {shown}"]

    def table(self) -> list[str]:
        """Return a line for each rank, and where the time went, once all reports were made."""
        ranks = describe_ranks(self._ranks, self._first_nonfinite)
        return ranks + describe_goodput(self._goodputs)


def _short(path: str) -> str:
    """Return a path as people would name it from the current folder."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative

"""``otel-dllogger check``: find out whether a target is a page or a log, and describe it."""

from __future__ import annotations

import itertools
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from otel_dllogger.cli.check.log_report import describe_log
from otel_dllogger.cli.check.page_report import describe_page
from otel_dllogger.cli.check.report import Report
from otel_dllogger.cli.scrape import MAX_PAGE_BYTES, UnreachableError, fetch
from otel_dllogger.cli.terminal import UserError
from otel_dllogger.errors import in_words
from otel_dllogger.logs.source import read_lines
from otel_dllogger.logs.tail.candidates import has_prefix, is_settings
from otel_dllogger.redaction import redact_address

if TYPE_CHECKING:
    from collections.abc import Iterator

_ADDRESS = re.compile(r"(?:(?P<host>[\w.-]+|\[[0-9a-fA-F:.]+\])?:)?(?P<port>\d{1,5})(?P<path>/.*)?")
_PAGE_LINE = re.compile(rb"^# (?:HELP|TYPE) [a-zA-Z_:]", re.MULTILINE)
_SNIFFED_BYTES = 65536
_HTTP_OK = 200


def check_target(target: str) -> int:
    """Describe a page or a log on standard output.

    Args:
        target: An address or a path.

    Returns:
        1 if something is wrong, else 0.

    Raises:
        UserError: If there is nothing to read.
    """
    path = Path(target)
    if path.exists():
        report = _check_file(path)
    else:
        url = page_url(target)
        if url is None:
            raise UserError(
                f"no file {target!r}; pass a log, a saved page, or the address of a page such as "
                "127.0.0.1:9464"
            )
        report = _check_url(url)
    click.echo(report.format())
    return report.exit_code


def page_url(target: str) -> str | None:
    """Return the address of a page, None if the target is not an address.

    Args:
        target: A URL with or without a path, ``host:port``, or a port of this machine.
    """
    if target.startswith(("http://", "https://")):
        scheme, _, rest = target.partition("://")
        host, _slash, path = rest.partition("/")
        return f"{scheme}://{host}/{path or 'metrics'}" if host else None
    match = _ADDRESS.fullmatch(target)
    if match is None or int(match["port"]) > 65535:
        return None
    path = match["path"] or ""
    return f"http://{match['host'] or '127.0.0.1'}:{match['port']}" + (
        path if len(path) > 1 else "/metrics"
    )


def _check_url(url: str) -> Report:
    try:
        answer = fetch(url)
    except UnreachableError as error:
        raise UserError(
            f"{redact_address(url)} cannot be reached: {error}; is the run still going, and is "
            "this its port? The discovery folder has the ports of all ranks"
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


def _check_file(path: Path) -> Report:
    if path.is_dir():
        raise UserError(f"{str(path)!r} is a folder; pass one of the files in it")
    try:
        lines = read_lines(str(path))
        # A pipe can be read only once, so its first lines are put back before the others.
        first = _take(lines, _SNIFFED_BYTES)
        lines = itertools.chain(first, lines)
        if _PAGE_LINE.search(b"".join(first)):
            page = b"".join(_take(lines, MAX_PAGE_BYTES))[:MAX_PAGE_BYTES]
            text = page.decode("utf-8", "replace")
            read_at_s = path.stat().st_mtime
            return describe_page(f"Saved metrics page {path}", text, "", read_at_s=read_at_s)
        return _check_log(path, first, lines)
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


def _check_log(path: Path, first: list[bytes], lines: Iterator[bytes]) -> Report:
    if not first:
        return Report(
            wrong=[f"{path} is empty: nothing was logged, or the script is still starting"]
        )
    if first[0].startswith(b"\x1f\x8b"):
        return Report(wrong=[f"{path} is compressed; unpack it first"])
    if is_settings(path.name) and not any(map(has_prefix, first)):
        rule = "bridge and backfill leave it out of a folder; pass the log beside it"
        return Report(wrong=[f"{path} holds settings or results, as its name says: {rule}"])
    return describe_log(path, lines)

"""``otel-dllogger report``: what past runs did, in one file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

from otel_dllogger.backfill.output_file import STDOUT, writing
from otel_dllogger.cli.log_source import explain, is_among, say
from otel_dllogger.cli.terminal import Bar, UserError, missing_extra
from otel_dllogger.errors import BackfillError, ConfigurationError, count_of
from otel_dllogger.http.scrape import page_url
from otel_dllogger.http.service_discovery import announced_pages
from otel_dllogger.logs.not_logs import refuse_not_logs
from otel_dllogger.logs.whole_logs import NO_VALUE, find_logs
from otel_dllogger.view.report import FORMAT

if TYPE_CHECKING:
    from otel_dllogger.logs.source import Source
    from otel_dllogger.view.report.past_runs import PastRuns

HTML = "html"
MARKDOWN = "md"
JSON = "json"
FORMATS = (HTML, MARKDOWN, JSON)

_DEFAULT_FILE = "report.html"
_HEAD_BYTES = 1 << 16
_EXIT_EMPTY = 1


@dataclasses.dataclass(frozen=True, slots=True)
class ReportOptions:
    """The options of ``report``.

    Attributes:
        source: The logs.
        form: One of ``FORMATS``.
        output: The file, ``-`` for standard output; None for the format's usual one.
        is_forced: Whether to overwrite a file that is not a report.
        quiet: Print only errors.
    """

    source: Source
    form: str
    output: str | None
    is_forced: bool
    quiet: bool


def run_report(options: ReportOptions) -> int:
    """Read logs, and write the report of their runs.

    Returns:
        The exit code.

    Raises:
        UserError: If it cannot be done; its message is one line.
    """
    output = options.output or (_DEFAULT_FILE if options.form == HTML else STDOUT)
    _refuse_pages(options.source)
    try:
        refuse_not_logs(options.source.paths)
        _check_output(options, output)
        past = _read(options)
        if not past.runs:
            for doubt in past.doubts:
                say(doubt)
            say(f"nothing was written: {NO_VALUE}")
            return _EXIT_EMPTY
        content = _render(past, options.form)
        with writing(output) as file:
            file.write(content)
    except BackfillError as error:
        raise UserError(str(error)) from None
    except ConfigurationError as error:
        raise UserError(explain(error)) from None
    if output != STDOUT and not options.quiet:
        say(f"{count_of(len(past.runs), 'run')} in {output} ({_size(len(content))})")
    return 0


def _read(options: ReportOptions) -> PastRuns:
    try:
        from otel_dllogger.view.report.past_runs import read_past  # noqa: PLC0415 - needs NumPy
    except ImportError as error:
        raise UserError(missing_extra(error, "view")) from None
    logs = find_logs(options.source)
    with Bar(hidden=options.quiet) as bar:
        progress = bar.advance("reading logs", sum(log.size_bytes for log in logs))
        return read_past(options.source, logs, progress=progress)


def _render(past: PastRuns, form: str) -> bytes:
    from otel_dllogger.view.report.summary import summarise  # noqa: PLC0415 - needs NumPy

    summary = summarise(past)
    if form == JSON:
        return (json.dumps(summary, indent=2, allow_nan=False) + "\n").encode()
    if form == MARKDOWN:
        from otel_dllogger.view.report.markdown import make_markdown  # noqa: PLC0415

        return make_markdown(summary).encode(errors="replace")
    from otel_dllogger.view.report.curve_data import pack_curves  # noqa: PLC0415
    from otel_dllogger.view.report.html_page import make_page  # noqa: PLC0415

    return make_page(summary, pack_curves(past.runs, past.events)).encode(errors="replace")


def _refuse_pages(source: Source) -> None:
    """Refuse what is not a log but a page: it does not tell the past of a run."""
    for target in source.paths:
        path = Path(target)
        is_page = not path.exists() and page_url(target) is not None
        if is_page or (path.is_dir() and announced_pages(path)):
            raise UserError(
                f"a report is made of logs, and {target} leads to pages of running ranks; "
                f"otel-dllogger view {target} or watch {target} shows those"
            )


def _check_output(options: ReportOptions, output: str) -> None:
    """Refuse to overwrite a log, or a file that somebody else wrote."""
    path = Path(output)
    if output == STDOUT:
        return
    if is_among(path, options.source.paths):
        raise UserError(
            f"{output} is among the logs that are read, or would be the next time; name a file "
            "outside of their folders with -o"
        )
    if not path.is_file():
        return
    try:
        with path.open("rb") as file:
            is_report = FORMAT.encode() in file.read(_HEAD_BYTES)
    except OSError:
        is_report = False
    if not is_report and not options.is_forced and path.stat().st_size:
        raise UserError(
            f"{output} is there and is not a report; name another file with -o, or pass -f to "
            "overwrite it"
        )


def _size(count_bytes: int) -> str:
    return f"{count_bytes / 1e6:.1f} MB" if count_bytes >= 1e6 else f"{count_bytes / 1e3:.0f} kB"

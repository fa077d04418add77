"""Runs of the past, read from their logs to the ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import count_of, printable
from otel_dllogger.logs.findings import Announcements, merge_warnings
from otel_dllogger.logs.whole_logs import WholeLogs
from otel_dllogger.record import Event
from otel_dllogger.view.assessment import assess_past
from otel_dllogger.view.goodput import Goodputs
from otel_dllogger.view.log_source import LogFeed
from otel_dllogger.view.model import Model
from otel_dllogger.view.report.past_events import PastEvents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from otel_dllogger.logs.source import Source
    from otel_dllogger.logs.whole_logs import FoundLog, ReadLogs
    from otel_dllogger.view.assessment import RunStatus
    from otel_dllogger.view.goodput import Goodput

_NAMING = "--pattern 'log_{rank}.json'"


class PastRuns(NamedTuple):
    """Runs of the past.

    Attributes:
        runs: How each of them went, in the order of their names.
        doubts: What makes their logs doubtful, each in one line.
        goodputs: Where the time of each run went, by its name, as far as its logs have times.
        events: The events of each run that had any, by its name.
    """

    runs: list[RunStatus]
    doubts: list[str]
    goodputs: Mapping[str, Goodput]
    events: Mapping[str, PastEvents]


def read_past(
    source: Source,
    logs: Iterable[FoundLog],
    *,
    progress: Callable[[int], object] = lambda _bytes: None,
) -> PastRuns:
    """Read logs to their ends, and say how their runs went.

    Args:
        source: How to read them.
        logs: In the order of ``find_logs``.
        progress: Called with how many bytes were read since the last call.

    Raises:
        ConfigurationError: If a log cannot be read.
    """
    beyond_before = DIAGNOSTICS.dropped["series_limit"]
    model = Model()
    feed = LogFeed(model)
    goodputs, events = Goodputs(), dict[str, PastEvents]()
    whole = WholeLogs(source, progress=progress)
    for rank, item in whole.read(logs):
        feed.take(rank, item)
        goodputs.take(rank, item)
        if isinstance(item, Event):
            events.setdefault(rank.run, PastEvents()).take(
                item,
                rank.rank,
                attempt=rank.topology.attempt,
                x=model.rank(rank.run, rank.rank).axis.x,
            )
    feed.sync()
    runs = [assess_past(model.runs[name]) for name in sorted(model.runs)]
    doubts = _doubts(whole.found)
    if beyond := DIAGNOSTICS.dropped["series_limit"] - beyond_before:
        doubts.append(
            f"{count_of(beyond, 'value')} of series beyond the limit of {source.max_series:,} for "
            "one rank: not read, so that this report does not have them"
        )
    return PastRuns(
        [status for status in runs if _has_values(status)], doubts, goodputs.find(), events
    )


def _has_values(status: RunStatus) -> bool:
    return any(rank.series for rank in status.run)


def _doubts(found: ReadLogs) -> list[str]:
    """Return what backfill would say of the logs, without the folders that all are in."""
    lines: list[str] = []
    Announcements(lines.append).announce((path, one.found().all()) for path, one in found.findings)
    lines += merge_warnings(found.findings)
    lines += found.guesses(_NAMING)
    if damage := found.damage():
        lines.append(damage)
    folders = [os.path.dirname(os.path.abspath(path)) for path, _one in found.findings]  # noqa: PTH100, PTH120 - paths are text
    above = os.path.dirname(os.path.commonpath(folders)) if folders else ""  # noqa: PTH120
    return [printable(line.replace(f"{above.rstrip('/')}/", "")) for line in lines]

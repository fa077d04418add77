"""The options of ``otel-dllogger watch``."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_dllogger.logs.source import Source


@dataclasses.dataclass(frozen=True, slots=True)
class WatchOptions:
    """The options of ``watch``.

    Attributes:
        source: What to watch, and how to read logs.
        sort: What the ranks are sorted by.
        is_ascii: Whether to draw with ASCII only, whatever the terminal can show.
        interval_s: Seconds between two lines about a run, if there is no terminal.
        until_finished: Whether to end once all runs are over.
    """

    source: Source
    sort: str
    is_ascii: bool
    interval_s: float
    until_finished: bool

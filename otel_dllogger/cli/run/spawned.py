"""The page of a process that a script spawned: opened when it logs, or never.

Scripts that start their ranks with ``multiprocessing`` log in the children, while the
workers of a data loader import the script and log nothing.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from otel_dllogger.cli.run.page import PageOptions
from otel_dllogger.logger import RecordBackend
from otel_dllogger.record import Metadata

if TYPE_CHECKING:
    from otel_dllogger.backends.prometheus import PrometheusBackend
    from otel_dllogger.record import Info, Record

VARIABLE = "_OTEL_DLLOGGER_PAGE"
"""The environment variable that carries the options to the children."""

MAX_HELD = 10_000
"""Calls of ``metadata`` and ``info`` that are kept until the first record."""


def hand_down(options: PageOptions, run: str) -> None:
    """Leave the options to the processes that this one spawns.

    Args:
        options: The options of this process's page.
        run: The run's name as this process found it; the children are part of it.
    """
    handed = asdict(replace(options, run=run))
    os.environ[VARIABLE] = json.dumps(handed, default=os.fspath)


def inherited_options() -> PageOptions | None:
    """Return the options that the parent left, None without them."""
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    fields = json.loads(text)
    folder = fields["discovery_dir"]
    return PageOptions(**{**fields, "discovery_dir": None if folder is None else Path(folder)})


class PageAtFirstRecord(RecordBackend):
    """Open the page at the first ``log`` call, when the script has set the process's rank.

    Args:
        options: Where to serve it.
    """

    def __init__(self, options: PageOptions) -> None:
        super().__init__(options.verbosity)
        self._options = options
        self._page: PrometheusBackend | None = None
        self._held: list[Metadata | Info] = []

    def write_record(self, record: Record) -> None:
        """Take one ``log`` call."""
        if self._page is None:
            self._page = self._options.open()
            for entry in self._held:
                self._pass_on(self._page, entry)
            self._held.clear()
        self._page.write_record(record)

    def write_metadata(self, metadata: Metadata) -> None:
        """Take one ``metadata`` call."""
        self._keep(metadata)

    def write_info(self, info: Info) -> None:
        """Take one ``info`` call."""
        self._keep(info)

    def _keep(self, entry: Metadata | Info) -> None:
        if self._page is not None:
            self._pass_on(self._page, entry)
        elif len(self._held) < MAX_HELD:
            self._held.append(entry)

    @staticmethod
    def _pass_on(page: PrometheusBackend, entry: Metadata | Info) -> None:
        if isinstance(entry, Metadata):
            page.write_metadata(entry)
        else:
            page.write_info(entry)

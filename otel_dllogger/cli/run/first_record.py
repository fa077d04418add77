"""A backend that is made at the first ``log`` call: a process that logs nothing exports nothing.

By then a script has set the rank, and a launcher such as torchrun has shown that it is none.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from otel_dllogger.logger import RecordBackend
from otel_dllogger.record import Info, Metadata, Phase, Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.record import Entry, Event

MAX_HELD = 10_000
"""Calls other than ``log`` that are kept until the first record."""


class AtFirstRecord(RecordBackend):
    """A backend that makes another one at the first ``log`` call, and passes everything on to it.

    A forked child makes none, as it exports nothing otherwise.

    Args:
        verbosity: The highest verbosity that is exported.
        make: Makes the other one. If it raises, it is not called again.

    Attributes:
        made: The other one; None before the first record.
    """

    def __init__(self, verbosity: int, make: Callable[[], RecordBackend]) -> None:
        super().__init__(verbosity)
        self._make = make
        self._pid = os.getpid()
        self._begun = threading.Lock()  # taken once and never released: one thread makes it
        self.made: RecordBackend | None = None
        self._held: list[Entry] = []

    def write_record(self, record: Record) -> None:
        """Take one ``log`` call."""
        if self.made is not None:
            self.made.write_record(record)
        elif os.getpid() != self._pid:
            pass
        elif self._begun.acquire(blocking=False):
            try:
                backend = self._make()
            except Exception:
                self._held.clear()
                raise
            held, self._held, self.made = self._held, [], backend
            for entry in [*held, record]:
                self._pass_on(backend, entry)
        else:
            self._keep(record.detach())

    def write_metadata(self, metadata: Metadata) -> None:
        """Take one ``metadata`` call."""
        self._keep(metadata)

    def write_info(self, info: Info) -> None:
        """Take one ``info`` call."""
        self._keep(info)

    def write_phase(self, phase: Phase) -> None:
        """Take a phase that ended or is announced."""
        self._keep(phase)

    def write_event(self, event: Event) -> None:
        """Take one ``event`` call."""
        self._keep(event)

    def _keep(self, entry: Entry) -> None:
        if self.made is not None:
            self._pass_on(self.made, entry)
        elif len(self._held) < MAX_HELD:
            self._held.append(entry)

    @staticmethod
    def _pass_on(backend: RecordBackend, entry: Entry) -> None:
        if isinstance(entry, Record):
            backend.write_record(entry)
        elif isinstance(entry, Metadata):
            backend.write_metadata(entry)
        elif isinstance(entry, Info):
            backend.write_info(entry)
        elif isinstance(entry, Phase):
            backend.write_phase(entry)
        else:
            backend.write_event(entry)

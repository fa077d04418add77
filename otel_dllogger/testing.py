"""A backend that records what it is given, for the tests of scripts that use the package."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.logger import RecordBackend, Verbosity
from otel_dllogger.record import GRANULARITIES, OPEN

if TYPE_CHECKING:
    from otel_dllogger.record import Event, Info, Metadata, Phase, Record


__all__ = ["RecordingBackend"]


class RecordingBackend(RecordBackend):
    """A backend that keeps everything a Logger is given, in order, for a test to look at.

    Values are those at the time of the call: ``record.plain`` and ``record.numbers`` do not
    change when the script later changes its objects, while ``record.data`` is the script's own
    object.

    Args:
        verbosity: The highest verbosity of a ``log`` call that is kept.

    Attributes:
        records: The ``log`` calls.
        metadata_calls: The ``metadata`` calls.
        infos: The ``info`` calls.
        phases: The phases that ended.
        events: The ``event`` calls.
        is_closed: Whether ``close`` was called.
    """

    def __init__(self, verbosity: int = Verbosity.VERBOSE) -> None:
        super().__init__(verbosity)
        self.records: list[Record] = []
        self.metadata_calls: list[Metadata] = []
        self.infos: list[Info] = []
        self.phases: list[Phase] = []
        self.events: list[Event] = []
        self.is_closed = False

    def write_record(self, record: Record) -> None:
        """Keep one ``log`` call."""
        record.convert()
        if not record.is_pair:
            record.position  # noqa: B018 - read now: a list may change later
        self.records.append(record)

    def write_metadata(self, metadata: Metadata) -> None:
        """Keep one ``metadata`` call."""
        self.metadata_calls.append(metadata.detach())

    def write_info(self, info: Info) -> None:
        """Keep one ``info`` call."""
        self.infos.append(info.detach())

    def write_phase(self, phase: Phase) -> None:
        """Keep a phase that ended."""
        if phase.outcome != OPEN:
            self.phases.append(phase.detach())

    def write_event(self, event: Event) -> None:
        """Keep one ``event`` call."""
        self.events.append(event.detach())

    def close(self) -> None:
        """Note that the Logger was closed; later entries are still kept."""
        self.is_closed = True

    def values(self, metric: str, *, granularity: str | None = None) -> list[float]:
        """Return the values of a metric in the order in which they were logged.

        Args:
            metric: Its name as it was logged.
            granularity: Only those of such steps: ``iteration``, ``epoch``, ``validation`` or
                ``run``.

        Raises:
            ValueError: If there is no such granularity.
        """
        if granularity not in (None, *GRANULARITIES):
            raise ValueError(
                f"granularity {granularity!r} is not one of {', '.join(GRANULARITIES)}"
            )
        return [
            record.numbers[metric]
            for record in self.records
            if metric in record.numbers
            and not record.is_parameter
            and granularity in (None, record.granularity)
        ]

    def parameters(self) -> dict[str, Any]:
        """Return the values logged with the step ``"PARAMETER"``, the last one of each name."""
        found: dict[str, Any] = {}
        for record in self.records:
            if record.is_parameter and isinstance(record.plain, dict):
                found.update(record.plain)
        return found

    def metadata_of(self, metric: str) -> dict[str, Any]:
        """Return the metadata of a metric; later calls add to and override earlier ones."""
        found: dict[str, Any] = {}
        for call in self.metadata_calls:
            if call.name == metric and isinstance(call.plain, dict):
                found.update(call.plain)
        return found

    def clear(self) -> None:
        """Forget everything recorded so far, and that the Logger was closed."""
        self.is_closed = False
        self.records.clear()
        self.metadata_calls.clear()
        self.infos.clear()

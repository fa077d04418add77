"""A record of a log file: what the loop logged, and what the line says besides."""

from __future__ import annotations

from otel_dllogger.record import ITERATION, VALIDATION, Record, parse_rank

DLLOGGER_JSON = "DLLogger JSON lines"
DLLOGGER_TEXT = "DLLogger text, as its StdOutBackend prints it"
TCAP_JSON = "TCAP DLLogger JSON lines"
TCAP_TEXT = "TCAP DLLogger text, as its StdOutBackend prints it"
MMENGINE_TEXT = "MMEngine text log"
MMENGINE_SCALARS = "MMEngine scalars.json"

_STAGE_OF_GRANULARITY = {ITERATION: "train", VALIDATION: "val"}


class FileRecord(Record):
    """Hold one record of a log file.

    Attributes:
        dialect: Who wrote the line.
        file_rank: The rank of the file, for records that do not name theirs.
        header_stage: The stage that stands in the line's header, None where there is none.
        interpolated: Whether the time was worked out from the record's place in the file.
    """

    # Of the class where they are what they nearly always are, as in Record.
    dialect = DLLOGGER_JSON
    file_rank = 0
    header_stage: str | None = None
    interpolated = False

    @property
    def rank(self) -> int:
        """Return the rank: the one in the data, else the file's."""
        data = self.data
        rank = parse_rank(data["rank"]) if isinstance(data, dict) and "rank" in data else None
        return self.file_rank if rank is None else rank

    @property
    def stage(self) -> str | None:
        """Return the stage of the record as a whole; a metric's metadata or name may differ.

        It is the header's; else by the step, as DLLogger's documentation defines it,
        train for a training iteration and val for one of validation. A summary of an
        epoch or of the run holds metrics of several stages: None, the names say it.
        """
        if self.header_stage is not None:
            return self.header_stage
        return _STAGE_OF_GRANULARITY.get(self.granularity)

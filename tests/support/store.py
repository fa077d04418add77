"""A SeriesStore with helpers for tests."""

from __future__ import annotations

from otel_dllogger.diagnostics import PROCESS, REASONS
from otel_dllogger.json_encoding import encode_record
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.record import Info, Metadata, Record

# Series that exist before anything is logged: those of a rank (dllogger_records_total counts as
# 4, dllogger_phase_seconds_total as 3), those of the process with its GPU, and target_info.
A_RANK = 18
A_PROCESS = len(REASONS[PROCESS]) + 3


class Store(SeriesStore):
    """A store that tests log to in one line, after a JSON backend or alone."""

    def __init__(self, *, rank=0, room=1000, encoded=False):
        series = A_PROCESS + A_RANK + room
        super().__init__(run="run", rank=rank, start_us=5_000_000, max_series=series)
        self.encoded = encoded
        self.woken = 0
        self.on_new_series = self.wake

    def wake(self):
        self.woken += 1

    def log(self, step, data, at_s=0.0):
        record = Record(round(at_s * 1e6) + 10_000_000, round(at_s * 1e6), step, data)
        if self.encoded:
            encode_record(record)
        self.take(record)

    def tell(self, metric, metadata):
        self.take(Metadata(0, 0, metric, metadata))

    def info(self, data):
        self.take(Info(7_000_000, 0, data))

    def values(self, rank=0):
        """Return the values by granularity, without empty granularities."""
        return {name: cell for name, cell in self.ranks[rank].cells.items() if cell}

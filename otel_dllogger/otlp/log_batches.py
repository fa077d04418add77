"""Log records that wait to be sent, encoded, in batches of limited size."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_dllogger.otlp.batches import ResourceKey

MAX_BATCH_BYTES = 1 << 20
"""The bytes of a batch, with one record at least: below gRPC's limit of 4 MiB."""

_RECORD_BYTES = 100  # of an object and its place in a list


class LogBatch:
    """The log records that are sent in one request.

    Attributes:
        records: The encoded records by resource, in the order in which they were logged.
        size_bytes: The estimated memory that the batch takes.
        logged: The number of records.
    """

    __slots__ = ("logged", "records", "size_bytes")

    def __init__(self, _start_us: int) -> None:
        self.records: dict[ResourceKey, list[bytes]] = {}
        self.size_bytes = 0
        self.logged = 0

    @property
    def size(self) -> int:
        """Return the number of records."""
        return self.logged

    def has_room(self, _time_us: int, size_bytes: int) -> bool:
        """Return whether a record of this size fits into this batch."""
        return not self.logged or self.size_bytes + size_bytes <= MAX_BATCH_BYTES

    def add(self, resource: ResourceKey, record: bytes) -> None:
        """Add an encoded record.

        Args:
            resource: The resource that it belongs to.
            record: The bytes of a ``LogRecord``.
        """
        self.records.setdefault(resource, []).append(record)
        self.size_bytes += len(record) + _RECORD_BYTES
        self.logged += 1

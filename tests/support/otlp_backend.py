"""Helpers of the tests of OTLPBackend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.record import Record
from tests.support.collector import GRPCCollector, HTTPCollector

if TYPE_CHECKING:
    from otel_dllogger.backends.otlp import OTLPBackend

START_US = 1_700_000_000_000_000
PROTOCOLS = {"http/protobuf": HTTPCollector, "grpc": GRPCCollector}


def log(backend: OTLPBackend, step: int, value: Any, *, at_us: int | None = None) -> None:
    """Log one value at a time that the test chooses."""
    time_us = START_US + step * 1000 if at_us is None else at_us
    backend.write_record(Record(time_us, step * 1000, (0, step), {"loss": value}))

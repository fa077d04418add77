"""A forwarder of logs to a collector, and the times when steps were logged and received."""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING

from otel_dllogger.bridge.otlp_forwarder import OTLPForwarder
from otel_dllogger.logs.source import Source
from otel_dllogger.otlp.encoder import Encoder
from otel_dllogger.otlp.patient_exporter import PatientExporter
from otel_dllogger.otlp.settings import read_options
from otel_dllogger.otlp.transport import open_transport

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.collector import HTTPCollector

START_US = 1_700_000_000_000_000


def times_us(first: int, last: int) -> list[int]:
    """Return when the steps of ``tests.support.bridge.steps`` were logged."""
    return [START_US + (number + 1) * 100_000 for number in range(first, last)]


def received_us(collector: HTTPCollector, name: str = "dl.loss") -> list[int]:
    """Return the times of a series' points in the order in which they came."""
    return [point.time_us for point in collector.named(name)]


def open_forwarder(
    logs: Path,
    url: str,
    checkpoint: Path | None,
    tell=print,
    patience_s: float = 0.0,
    idle_s: float = math.inf,
) -> OTLPForwarder:
    """Return a forwarder in this process, whose patience by default ends at once."""
    transport = open_transport(read_options(endpoint=url))
    exporter = PatientExporter(
        transport,
        Encoder(),
        timeout_s=5,
        stopping=threading.Event(),
        tell=tell,
        patience_s=patience_s,
    )
    path = None if checkpoint is None else str(checkpoint)
    return OTLPForwarder(Source([str(logs)]), exporter, checkpoint=path, idle_s=idle_s)

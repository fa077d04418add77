"""Resident memory over a million ``log`` calls."""

from __future__ import annotations

import os
from pathlib import Path

from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend

WARM_UP = 100_000
CALLS = 1_000_000


def growth_bytes() -> int:
    """Return by how many bytes the process grew over a million calls, after a warm-up."""
    logger = Logger([JSONStreamBackend(1, os.devnull), PrometheusBackend(1, port=0, run="bench")])
    names = [f"train.metric_{i}" for i in range(10)]
    for i in range(WARM_UP):
        logger.log((0, i), {name: float(i) for name in names})
    before = _resident_bytes()
    for i in range(CALLS):
        logger.log((0, i), {name: float(i) for name in names})
    after = _resident_bytes()
    logger.close()
    return after - before


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

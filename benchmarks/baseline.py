"""The baseline: the same line from ``json.dumps``, ``datetime`` and a buffered text file.

This is the work that DLLogger does for a ``log`` call, with the same structure: a Logger that
takes the time and calls each backend, and a backend that formats and buffers. It is
reimplemented here, since DLLogger is not on any package index.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class BufferedJSONBackend:
    """A backend that formats lines with the standard library into a buffer of 8 KiB."""

    def __init__(self, verbosity: int, path: Path) -> None:
        self._verbosity = verbosity
        self._file = path.open("w")

    @property
    def verbosity(self) -> int:
        """Return the highest verbosity that is written."""
        return self._verbosity

    def log(self, timestamp: datetime, elapsedtime: float, step: Any, data: Any) -> None:
        """Write a LOG line."""
        line = {
            "timestamp": str(timestamp.timestamp()),
            "datetime": str(timestamp.astimezone()),
            "elapsedtime": str(elapsedtime),
            "type": "LOG",
            "step": step,
            "data": data,
        }
        self._file.write(f"DLLL {json.dumps(line)}\n")


class BaselineLogger:
    """A Logger that takes the time and passes every call to every backend."""

    def __init__(self, backends: list[Any]) -> None:
        self.backends = backends
        self.start = datetime.now()  # noqa: DTZ005 - naive, as DLLogger's

    def log(self, step: Any, data: Any, verbosity: int = 1) -> None:
        """Log one step."""
        timestamp = datetime.now()  # noqa: DTZ005 - naive, as DLLogger's
        elapsed = (timestamp - self.start).total_seconds()
        for backend in self.backends:
            if backend.verbosity >= verbosity:
                backend.log(timestamp, elapsed, step, data)

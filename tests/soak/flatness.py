"""Whether a process that lives long stays as large as it is."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

MORE_DESCRIPTORS = 4
MORE_THREADS = 2
MORE_MIB = 64
"""What the last part of a life may need beyond its first part. Memory has to hold 1 MB names of
pages, 2 MiB for OTLP, up to 8 MiB of lines for a full disk, twice over while they are rendered."""

WARM_UP_S = 20.0
LEAST_S = 45.0
"""Seconds that a life must last for its parts to say something."""


@dataclass(frozen=True)
class Size:
    """What a process needs at one moment."""

    descriptors: int
    threads: int
    mib: float


@dataclass
class Sizes:
    """What one process needed over its life: ``of`` is its name for the report."""

    of: str
    pid: int
    seen: list[tuple[float, Size]] = field(default_factory=list)

    def look(self, age_s: float) -> None:
        """Note what the process needs now, if it is still there."""
        with contextlib.suppress(OSError, ValueError, LookupError):
            status = dict(
                line.split(":", 1)
                for line in Path(f"/proc/{self.pid}/status").read_text().splitlines()
            )
            descriptors = sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())
            mib = int(status["VmRSS"].split()[0]) / 1024
            self.seen.append((age_s, Size(descriptors, int(status["Threads"]), mib)))

    def compare(self) -> tuple[Size, Size] | None:
        """Return the least of the first third after the warm-up and of the last third.

        The least, since clients come and go: a leak raises the floor.

        Returns:
            None where the life was too short to say.
        """
        if not self.seen or self.seen[-1][0] < LEAST_S:
            return None
        last_s = self.seen[-1][0]
        third_s = (last_s - WARM_UP_S) / 3
        first = [size for age_s, size in self.seen if 0 <= age_s - WARM_UP_S <= third_s]
        last = [size for age_s, size in self.seen if age_s >= last_s - third_s]
        return (_least(first), _least(last)) if first and last else None

    def discrepancies(self) -> list[str]:
        """Return what grew beyond its bound."""
        parts = self.compare()
        if parts is None:
            return []
        first, last = parts
        found = []
        if last.descriptors > first.descriptors + MORE_DESCRIPTORS:
            found.append(f"descriptors grew from {first.descriptors} to {last.descriptors}")
        if last.threads > first.threads + MORE_THREADS:
            found.append(f"threads grew from {first.threads} to {last.threads}")
        if last.mib > first.mib + MORE_MIB:
            found.append(f"memory grew from {first.mib:.0f} to {last.mib:.0f} MiB")
        return [f"{self.of}: {one}" for one in found]


def _least(sizes: list[Size]) -> Size:
    return Size(
        min(size.descriptors for size in sizes),
        min(size.threads for size in sizes),
        min(size.mib for size in sizes),
    )

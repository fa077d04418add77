"""Samples as tests write them, and as a backfill takes them."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from otel_dllogger.backfill.sorting import Chunk, SeriesName

if TYPE_CHECKING:
    from collections.abc import Iterator

Samples = dict[SeriesName, dict[int, float]]
"""Values by series and millisecond."""

_CHUNK_SAMPLES = 300  # few, so that a series has several chunks


def as_chunks(samples: Samples) -> Iterator[Chunk]:
    """Yield samples as the sorter does, in short chunks."""
    for name in sorted(samples):
        column = sorted(samples[name].items())
        for start in range(0, len(column), _CHUNK_SAMPLES):
            times_ms, values = zip(*column[start : start + _CHUNK_SAMPLES], strict=True)
            yield Chunk(name, array("q", times_ms), array("d", values))


def count(samples: Samples) -> int:
    """Return how many samples there are."""
    return sum(map(len, samples.values()))

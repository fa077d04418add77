"""Series and the columns of samples that belong to them."""

from __future__ import annotations

import dataclasses
import math
from array import array
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class SeriesName:
    """Name a series as a metrics page does; family and labels alone tell two apart.

    Attributes:
        family: The Prometheus name, of a counter with its ``_total``.
        labels: Names and values, sorted by name.
        kind: ``gauge`` or ``counter``.
        help: What it is, in words.
        unit: The unit as Prometheus' names end in it, ``seconds``; empty if there is none.
    """

    family: str
    labels: tuple[tuple[str, str], ...]
    kind: Literal["gauge", "counter"] = dataclasses.field(default="gauge", compare=False)
    help: str = dataclasses.field(default="", compare=False)
    unit: str = dataclasses.field(default="", compare=False)


class Chunk(NamedTuple):
    """Hold samples of one series, their times ascending, no time twice.

    Attributes:
        series: What they belong to.
        times_ms: Milliseconds since the Unix epoch, typecode ``q``.
        values: As many, typecode ``d``; some may not be finite.
    """

    series: SeriesName
    times_ms: array[int]
    values: array[float]


def finite_only(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
    """Leave out samples that are not finite, as a metrics page does, and chunks without any.

    Args:
        chunks: Samples.
    """
    for chunk in chunks:
        # The sum of finite ones may overflow: then it is only slower.
        if math.isfinite(sum(chunk.values)):
            if chunk.values:
                yield chunk
            continue
        kept = [math.isfinite(value) for value in chunk.values]
        if chosen := keep(chunk, kept):
            yield chosen


def keep(chunk: Chunk, kept: Iterable[object]) -> Chunk | None:
    """Return the samples that are to be kept, None if there are none.

    Args:
        chunk: Samples.
        kept: For each whether it stays.
    """
    pairs = [
        pair
        for pair, stays in zip(zip(chunk.times_ms, chunk.values, strict=True), kept, strict=True)
        if stays
    ]
    if not pairs:
        return None
    times_ms, values = zip(*pairs, strict=True)
    return Chunk(chunk.series, array("q", times_ms), array("d", values))

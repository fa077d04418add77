"""Write samples as OpenMetrics text, each with its time.

Source: OpenMetrics 1.0, https://prometheus.io/docs/specs/om/open_metrics_spec/, "Text format".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import orjson

from otel_dllogger.backfill.output_file import writing
from otel_dllogger.backfill.sorting import finite_only
from otel_dllogger.metrics import text_format
from otel_dllogger.metrics.text_format import format_head

if TYPE_CHECKING:
    import os
    from array import array
    from collections.abc import Iterable

    from otel_dllogger.backfill.sorting import Chunk, SeriesName


def write_openmetrics(chunks: Iterable[Chunk], path: str | os.PathLike[str]) -> int:
    """Write samples to a file, which appears once it is whole; equal samples give equal bytes.

    Samples that are not finite are left out: ``promtool`` would turn them into values, while a
    metrics page shows none.

    Args:
        chunks: Samples by family, series and time, as ``SampleSorter.sorted`` gives them.
        path: The file, as ``writing`` takes it.

    Returns:
        How many samples were written.

    Raises:
        BackfillError: If it cannot be written.
    """
    with writing(path) as file:
        return write_to(chunks, file)


def write_to(chunks: Iterable[Chunk], file: BinaryIO) -> int:
    """Write samples to an open file, as ``write_openmetrics`` does.

    Args:
        chunks: Samples by family, series and time.
        file: Where to write.

    Returns:
        How many samples were written.
    """
    samples = 0
    family: str | None = None
    series: SeriesName | None = None
    prefix = b""
    known_ms: array[int] | None = None
    ends: list[bytes] = []
    for chunk in finite_only(chunks):
        if chunk.series != series:
            series = chunk.series
            if series.family != family:
                family = series.family
                file.write(_format_family(series))
            prefix = format_series(series).encode() + b" "
        # What is logged together has the same times, and formatting them takes the longest.
        if known_ms is None or chunk.times_ms != known_ms:
            known_ms, ends = chunk.times_ms, _format_times(chunk.times_ms)
        # orjson writes the shortest digits that are read back as the same value, as repr does.
        values = orjson.dumps(chunk.values.tolist())[1:-1].split(b",")
        file.write(
            b"".join([prefix + value + end for value, end in zip(values, ends, strict=True)])
        )
        samples += len(values)
    file.write(b"# EOF\n")
    return samples


def format_series(series: SeriesName) -> str:
    """Return a series as text formats and queries write it, ``name{label="value"}``."""
    return text_format.format_series(series.family, series.labels)


def _format_family(series: SeriesName) -> bytes:
    return format_head(
        series.family, series.kind, series.help, series.unit, open_metrics=True
    ).encode()


def _format_times(times_ms: array[int]) -> list[bytes]:
    """Return the ends of lines: exact seconds, with three digits after the decimal point.

    Prometheus reads the number as a float, multiplies it by 1000 and truncates the result; from
    November 2004 until 2038 that changes no millisecond.
    """
    if times_ms[0] >= 1000:  # they ascend
        texts = orjson.dumps(times_ms.tolist())[1:-1].split(b",")
        return [b" %b.%b\n" % (text[:-3], text[-3:]) for text in texts]
    return [
        b" %b%d.%03d\n" % (b"-" if time_ms < 0 else b"", *divmod(abs(time_ms), 1000))
        for time_ms in times_ms
    ]

"""Write samples as OpenMetrics text, each with its time.

Source: OpenMetrics 1.0, https://prometheus.io/docs/specs/om/open_metrics_spec/, "Text format".
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from typing import TYPE_CHECKING, BinaryIO

import orjson

from otel_dllogger.backfill.sorting import finite_only
from otel_dllogger.errors import BackfillError, in_words
from otel_dllogger.metrics import text_format
from otel_dllogger.metrics.text_format import format_head
from otel_dllogger.runtime.files import replacing

if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable

    from otel_dllogger.backfill.sorting import Chunk, SeriesName


def write_openmetrics(chunks: Iterable[Chunk], path: str | os.PathLike[str]) -> int:
    """Write samples to a file, which appears once it is whole; equal samples give equal bytes.

    Samples that are not finite are left out: ``promtool`` would turn them into values, while a
    metrics page shows none.

    Args:
        chunks: Samples by family, series and time, as ``SampleSorter.sorted`` gives them.
        path: The file, which may be there already. Its folder must exist.

    Returns:
        How many samples were written.

    Raises:
        BackfillError: If it cannot be written.
    """
    path = os.fspath(path)
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 - no Path
            with open(path, "wb") as device:  # noqa: PTH123 - a pipe, /dev/stdout
                return write_to(chunks, device)
        # Next to the file that a link leads to; otherwise the link would be lost.
        path = os.path.realpath(path)
        descriptor, temporary = _open_temporary(path)
        mode = 0o666 & ~_umask()
        with replacing(path, temporary, descriptor=descriptor, mode=mode, sync=os.fsync) as file:
            return write_to(chunks, file)
    except OSError as error:
        raise BackfillError(
            f"{path} cannot be written ({in_words(error)}): name another file, or make room"
        ) from error


def _open_temporary(path: str) -> tuple[int, str]:
    """Return a new, locked file beside another one, and remove those that a kill has left there.

    The lock ends with its process, however that ends.
    """
    folder, name = os.path.split(path)
    prefix = f".{name[:100]}."
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        pattern = re.compile(rf"{re.escape(prefix)}[a-z0-9_]{{8}}\.tmp")
        for entry in entries:
            if pattern.fullmatch(entry.name):
                _remove_if_left(entry.path)
    while True:
        descriptor, temporary = tempfile.mkstemp(dir=folder, prefix=prefix, suffix=".tmp")
        with contextlib.suppress(OSError):  # a file system without locks: nobody removes it
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        if os.fstat(descriptor).st_nlink:
            return descriptor, temporary
        os.close(descriptor)  # another backfill removed it before it was locked


def _remove_if_left(path: str) -> None:
    """Remove a temporary file if no process is writing it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                os.unlink(path)  # noqa: PTH108 - no Path here
        finally:
            os.close(descriptor)


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


def _umask() -> int:
    # The only way to read it is to set it; nothing else in the process makes files here.
    umask = os.umask(0)
    os.umask(umask)
    return umask

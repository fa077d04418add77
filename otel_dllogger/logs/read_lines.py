"""The lines of a file as it is, whatever is in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from otel_dllogger.logs.parsers.skipped import MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator


def read_lines(path: str) -> Iterator[bytes]:
    """Yield the lines of a file; of one that is too long its beginning, which is too long.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:  # noqa: PTH123 - as everywhere where paths are text
        while line := file.readline(MAX_LINE_BYTES + 2):
            yield line
            if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                _skip_line(file)


def _skip_line(file: BinaryIO) -> None:
    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
        pass

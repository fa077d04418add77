"""Write the values of logs as comma-separated values, RFC 4180."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from otel_dllogger.backfill.output_file import writing
from otel_dllogger.logs.row import LogRow

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from datetime import datetime


def write_csv(rows: Iterable[LogRow], path: str | os.PathLike[str]) -> int:
    """Write rows to a file, which appears once it is whole; equal rows give equal bytes.

    A NaN is ``nan``, and infinite values are ``inf`` and ``-inf``. What is not known is empty.

    Args:
        rows: The rows.
        path: The file, as ``writing`` takes it.

    Returns:
        How many rows were written, without the header.

    Raises:
        BackfillError: If it cannot be written.
    """
    count = 0
    last: datetime | None = None
    time = ""
    with writing(path) as file:
        # It must not close the file with itself, which may be standard output.
        text = io.TextIOWrapper(file, "utf-8", newline="")
        try:
            writer = csv.writer(text)
            writer.writerow(LogRow._fields)
            for row in rows:
                if row.time is not last:  # one object for all the values of a record
                    last = row.time
                    time = last.isoformat(timespec="microseconds")
                writer.writerow((time, *row[1:]))
                count += 1
            text.flush()
        finally:
            text.detach()
    return count

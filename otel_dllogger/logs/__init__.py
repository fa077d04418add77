"""The log files of other programs, read as records; ``read`` returns their values as rows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from otel_dllogger.logs.row import LogRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["LogRow", "read"]


def read(
    path: str | os.PathLike[str],
    *paths: str | os.PathLike[str],
    run: str | None = None,
    pattern: str | Iterable[str] = (),
    timezone: str | None = None,
    conventions: bool = True,
) -> Iterator[LogRow]:
    """Read the values of logs, in the order of their times.

    It reads what ``otel-dllogger bridge`` and ``backfill`` read: logs of DLLogger, MMEngine,
    TensorBoard and the other tools in docs/reference/formats.md. A record that is there twice, as
    in two copies of a log of one rank, counts once. Text is left out, hyper-parameters that are
    numbers are rows of their own granularity. Logs may be larger than memory; they are read when
    the first row is asked for.

    What has to be guessed, and how much is damaged, is said in a ``UserWarning`` each.

    For example:

        import otel_dllogger.logs
        import pandas

        table = pandas.DataFrame(otel_dllogger.logs.read("runs/"))
        loss = table[(table.metric == "train.loss") & (table.granularity == "iteration")]
        loss.pivot_table(index="time", columns=["run", "rank"], values="value").plot()

    Args:
        path: A log file, a folder with all below it, or a glob.
        paths: More of them.
        run: The name of the run of all files; None for each file's own.
        pattern: How files are named, such as ``"{run}_rank{rank}.json"``; one or several.
        timezone: The zone of times that name none, such as ``"Europe/Paris"`` or ``"+08:00"``;
            None for this machine's.
        conventions: Whether names say what the metadata do not, such as MMEngine's units.

    Returns:
        The rows. Each is a named tuple.

    Raises:
        ConfigurationError: If an argument is invalid, there is no log, or one cannot be read; from
            the iterator, if no log holds a value, or the disk has no room to sort them.
    """
    from otel_dllogger.logs.rows import read_source  # noqa: PLC0415 - every parser imports this
    from otel_dllogger.logs.source import Source  # noqa: PLC0415

    return read_source(
        Source(
            tuple(os.fsdecode(one) for one in (path, *paths)),
            run,
            (pattern,) if isinstance(pattern, str) else tuple(pattern),
            timezone,
            conventions,
        )
    )

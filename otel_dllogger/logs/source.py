"""What to follow, and how to read it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from otel_dllogger.logs.reader import FileReader
from otel_dllogger.logs.run_identity import RunIdentities, find_start_us
from otel_dllogger.metrics.store import DEFAULT_MAX_SERIES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_dllogger.logs.run_identity import RunIdentity


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Say what to follow, and how to read it.

    Attributes:
        paths: Files, folders and globs.
        run: The name of the run of all files; None: each file's own.
        patterns: How files are named, as ``RunIdentities`` takes it.
        zone: The zone of times without an offset; None is the machine's.
        conventions: Let names say what metadata do not.
        max_series: Series that one rank has at most.
    """

    paths: Sequence[str]
    run: str | None = None
    patterns: Sequence[str] = ()
    zone: str | None = None
    conventions: bool = True
    max_series: int = DEFAULT_MAX_SERIES

    def identities(self) -> RunIdentities:
        """Return what tells whose lines a file holds.

        Raises:
            ConfigurationError: If a pattern can mean nothing.
        """
        return RunIdentities(self.paths, run=self.run, patterns=self.patterns)


def open_reader(
    source: Source, identity: RunIdentity, path: str, state: dict[str, Any] | None = None
) -> FileReader:
    """Return what reads one of the files.

    Args:
        source: How to read it.
        identity: Whose lines it holds.
        path: Where it is.
        state: Where to go on, as an earlier reader of the file had it; None: at 0.

    Raises:
        ConfigurationError: If there is no such zone.
    """
    return FileReader(
        identity,
        zone=source.zone,
        conventions=source.conventions,
        run_start_us=find_start_us(path, zone=source.zone),
        state=state,
    )

"""What to follow, and how to read it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from otel_dllogger.bridge.feed import LogFeed
from otel_dllogger.logfiles.origin import Origins
from otel_dllogger.metrics.store import DEFAULT_MAX_SERIES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_dllogger.bridge.ranks import Rank, Ranks
    from otel_dllogger.logfiles.follow import Follower
    from otel_dllogger.logfiles.reader import Item


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Say what to follow, and how to read it.

    Attributes:
        paths: Files, folders and globs.
        run: The name of the run of all files; None: each file's own.
        patterns: How files are named, as ``Origins`` takes it.
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


def open_feed(
    source: Source,
    ranks: Ranks,
    follower: Follower,
    take: Callable[[Rank, Item], None] | None = None,
) -> LogFeed:
    """Return what hands lines to ranks, with all that the follower's checkpoint knows of them.

    Args:
        source: What is followed.
        ranks: Where ranks are kept.
        follower: Follows its paths.
        take: As ``LogFeed`` takes it.

    Raises:
        ConfigurationError: If a pattern or the zone cannot mean anything.
    """
    origins = Origins(source.paths, run=source.run, patterns=source.patterns)
    feed = LogFeed(
        ranks,
        origins,
        follower.covers,
        take=take,
        zone=source.zone,
        conventions=source.conventions,
    )
    if not feed.restore(follower.files):
        follower.start_over()
    return feed

"""The ranks of this host: by their discovery files, and by their pages on the usual ports."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.http.discovery_folder import folders_to_read, is_readable
from otel_dllogger.http.scrape import (
    SCANNED_PORTS,
    UnreachableError,
    UnreadablePageError,
    fetch,
    parse_page,
)
from otel_dllogger.http.service_discovery import announced_ranks
from otel_dllogger.identity import detect_topology, host_name

if TYPE_CHECKING:
    from collections.abc import Iterator

_INFO = "dllogger_rank_info{"
_PAGE_S = 2.0
_MOST_DIGITS = 10


class RankHere(NamedTuple):
    """A rank, as far as this host knows it.

    Attributes:
        run: The run's name.
        rank: The rank.
        host: Its host.
        pid: Its process, in the process numbers of this host or container.
        is_here: Whether the process can be looked at from here.
    """

    run: str
    rank: int
    host: str
    pid: int
    is_here: bool


def find_ranks(folder: Path | None = None) -> list[RankHere]:
    """Return the ranks that this host knows of, those in discovery folders first.

    A rank whose page does not answer, since native code holds the GIL, is announced all the same.

    Args:
        folder: The discovery folder; by default those in which ranks announce themselves.
    """
    folders = [each.path for each in folders_to_read() if is_readable(each)]
    found: dict[tuple[str, int], RankHere] = {}
    for path in folders if folder is None else [folder]:
        for one in announced_ranks(path):
            rank = RankHere(one.run, one.rank, one.host, one.pid, one.is_here)
            key = (rank.run, rank.rank)
            if key not in found or rank.is_here:
                found[key] = rank
    with ThreadPoolExecutor(len(SCANNED_PORTS)) as pool:
        for ranks in pool.map(_ranks_on_port, SCANNED_PORTS):
            for rank in ranks:
                found.setdefault((rank.run, rank.rank), rank)
    return list(found.values())


def world_size_of(pid: int) -> int | None:
    """Return how many ranks the run of a process has; None if its environment does not tell."""
    try:
        pairs = Path(f"/proc/{pid}/environ").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return None
    environ = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    return detect_topology(environ, run="unused").world_size


def _ranks_on_port(port: int) -> list[RankHere]:
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        answer = fetch(url, timeout_s=_PAGE_S, silence_s=_PAGE_S)
        lines = [line for line in answer.text.splitlines() if line.startswith(_INFO)]
        return list(_ranks_of("\n".join([*lines, ""])))
    except (UnreachableError, UnreadablePageError):
        return []


def _ranks_of(page: str) -> Iterator[RankHere]:
    for family in parse_page(page):
        for sample in family.samples:
            labels = sample.labels
            rank, pid = labels.get("rank", ""), labels.get("pid", "")
            # The page of a bridge knows of no processes.
            if all(text.isdecimal() and len(text) <= _MOST_DIGITS for text in (rank, pid)):
                host = labels.get("host", "")
                is_here = host == host_name()
                yield RankHere(labels.get("run", ""), int(rank), host, int(pid), is_here)

"""The hangs that ranks report as events, and where their stacks are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from otel_dllogger.errors import printable, visible
from otel_dllogger.metrics.health import format_duration
from otel_dllogger.record import HANG, Event

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_dllogger.logs.ranks import LoggedRank
    from otel_dllogger.logs.reader import RankEntry

_MOST_SHOWN = 4  # files, spans of ranks, and sets of phases
_MOST_TEXT = 200
_MOST_S = 1e9


class Hang(NamedTuple):
    """The last hang of a rank; of one on a page, only the time is known.

    Attributes:
        time_s: When it was reported, seconds since the Unix epoch.
        file: The file with the stacks; empty if it is not known.
        seconds: For how long nothing was logged; 0 if it is not known.
        phases: The names of the open phases, outermost first; None if they are not known.
    """

    time_s: float
    file: str = ""
    seconds: float = 0.0
    phases: tuple[str, ...] | None = None

    @classmethod
    def of(cls, event: Event) -> Hang:
        """Return what an event says, whose data may be anything."""
        plain = event.plain
        data: dict[str, Any] = plain if isinstance(plain, dict) else {}
        file, seconds, phases = map(data.get, ("file", "seconds", "open_phases"))
        return cls(
            event.time_us / 1e6,
            file if isinstance(file, str) else "",
            seconds if isinstance(seconds, (int, float)) and 0 < seconds < _MOST_S else 0.0,
            tuple(map(str, phases)) if isinstance(phases, list) else None,
        )


class Hangs:
    """The hangs in logs, the last one of each rank."""

    def __init__(self) -> None:
        self._by_run: dict[str, dict[int, Hang]] = {}

    def take(self, rank: LoggedRank, item: RankEntry) -> None:
        """Take one item of a log."""
        if isinstance(item, Event) and item.name == HANG:
            self._by_run.setdefault(rank.run, {})[rank.rank] = Hang.of(item)

    def describe(self) -> list[str]:
        """Return a line for each run that had hangs."""
        return [describe_hangs(run, hangs) for run, hangs in sorted(self._by_run.items())]


def describe_hangs(run: str, hangs: Mapping[int, Hang]) -> str:
    """Say which ranks of a run hung, and where to look.

    Args:
        run: The run.
        hangs: The last hang of each rank that had one.
    """
    facts = []
    longest_s = max(hang.seconds for hang in hangs.values())
    if longest_s:
        facts.append(f"nothing logged for {format_duration(longest_s)}")
    by_phases: dict[tuple[str, ...], list[int]] = {}
    for rank, hang in hangs.items():
        if hang.phases is not None:
            by_phases.setdefault(hang.phases, []).append(rank)
    if by_phases:  # whom the others wait for is among the few
        opened = sorted(by_phases.items(), key=lambda each: (len(each[1]), each[0]))
        facts.append("open phases: " + _some([_opened(*each) for each in opened], " / "))
    details = f" ({'; '.join(facts)})" if facts else ""
    files = [hangs[rank].file for rank in sorted(hangs) if hangs[rank].file]
    return f"{_ranks(hangs).capitalize()} of run {run} seemed to hang{details}: {_files(files)}"


def _opened(phases: Sequence[str], ranks: Sequence[int]) -> str:
    return f"{_cut(', '.join(map(visible, phases))) or 'none'} on {_ranks(ranks)}"


def _files(files: Sequence[str]) -> str:
    """Return where the stacks are, with the folder once if it is that of all."""
    if not files:
        return "the stacks are in a file beside each log, .stacks"
    folders = {file.rpartition("/")[0] for file in files}
    once = list(dict.fromkeys(files))  # ranks that share a log share the file
    if len(folders) > 1 or len(once) == 1:
        return f"the stacks are in {_some(list(map(_cut, once)))}"
    shown = _some([_cut(file.rpartition("/")[2]) for file in once])
    return f"the stacks are in {shown}, in {_cut(folders.pop())}"


def _ranks(numbers: Iterable[int]) -> str:
    """Return ranks as ``rank 3`` or ``ranks 0-2, 4-7``."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    is_one = len(spans) == 1 and spans[0][0] == spans[0][1]
    return f"{'rank' if is_one else 'ranks'} {_some(texts)}"


def _some(texts: Sequence[str], separator: str = ", ") -> str:
    shown = separator.join(texts[:_MOST_SHOWN])
    more = len(texts) - _MOST_SHOWN
    return f"{shown} and {more:,} more" if more > 0 else shown


def _cut(text: str) -> str:
    text = printable(text)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"

"""How long ranks waited while others were in a phase that stops the training."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from otel_dllogger.view.rank_ledger import BLOCKING
from otel_dllogger.view.stretches import Stretches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from otel_dllogger.view.rank_ledger import RankTimes


@dataclasses.dataclass(slots=True)
class Waits:
    """The waiting of one rank, in microseconds.

    Attributes:
        by_phase_us: By the name of the phase that was waited for.
        unsaid_us: What of it was after the last step of a process, where its log says nothing.
    """

    by_phase_us: dict[str, int] = dataclasses.field(default_factory=dict)
    unsaid_us: int = 0


@dataclasses.dataclass(slots=True)
class _Occurrence:
    """A phase that ranks were in one beside the other.

    Attributes:
        name: Its name.
        begin_us: When the first rank was in it, microseconds since the Unix epoch.
        end_us: When the last one had left it.
        by_rank_us: The time of each rank in it, by the rank's place in the list.
    """

    name: str
    begin_us: int
    end_us: int
    by_rank_us: dict[int, int] = dataclasses.field(default_factory=dict)


def find_waits(ranks: Sequence[RankTimes]) -> list[Waits]:
    """Find for how long each rank waited.

    A rank waits for the one that is longest in a phase, as long as its own time in it is shorter.
    It waits only while it has a process, is in no such phase itself, and waits for no other. Over
    the whole run it waits for a phase no longer than it has been less in it than the rank that was
    most: clocks of machines that disagree make no waiting of what ranks did together.

    Args:
        ranks: The ranks of a run.

    Returns:
        The waiting of each of them.
    """
    own = [_all_blocked(rank) for rank in ranks]
    waited = [Stretches() for _rank in ranks]
    found = [Waits() for _rank in ranks]
    totals_us = {name: [rank.phases_us.get(name, 0) for rank in ranks] for name in BLOCKING}
    for occurrence in _occurrences(ranks):
        name, when = occurrence.name, (occurrence.begin_us, occurrence.end_us)
        longest_us = max(occurrence.by_rank_us.values())
        most_us = max(totals_us[name])
        for at, rank in enumerate(ranks):
            waits = found[at]
            before_us = waits.by_phase_us.get(name, 0)
            missing_us = min(
                longest_us - occurrence.by_rank_us.get(at, 0),
                most_us - totals_us[name][at] - before_us,
            )
            if missing_us <= 0:
                continue
            taken_us = own[at].within(*when) + waited[at].within(*when)
            wait_us = min(missing_us, rank.up.within(*when) - taken_us)
            if wait_us > 0:
                waited[at].add(*when, wait_us)
                waits.by_phase_us[name] = before_us + wait_us
                waits.unsaid_us += min(wait_us, rank.unsaid.within(*when))
    return found


def _all_blocked(rank: RankTimes) -> Stretches:
    blocked = Stretches()
    for stretch in sorted(stretch for stretches in rank.blocked.values() for stretch in stretches):
        blocked.add(*stretch)
    return blocked


def _occurrences(ranks: Sequence[RankTimes]) -> Iterator[_Occurrence]:
    """Yield the occurrences of all phases, in the order of their begins."""
    found: list[_Occurrence] = []
    for name in BLOCKING:
        last: _Occurrence | None = None
        for stretch, at in sorted(
            (stretch, at) for at, rank in enumerate(ranks) for stretch in rank.blocked.get(name, ())
        ):
            if last is None or stretch.begin_us >= last.end_us:
                last = _Occurrence(name, stretch.begin_us, stretch.end_us)
                found.append(last)
            last.end_us = max(last.end_us, stretch.end_us)
            last.by_rank_us[at] = last.by_rank_us.get(at, 0) + stretch.time_us
    yield from sorted(found, key=lambda occurrence: occurrence.begin_us)

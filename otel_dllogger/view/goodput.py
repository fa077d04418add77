"""Where the time of a run went, of wall time x ranks: what was training, and what took the rest.

Every second of every rank is in one part, so the parts add up to the whole.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_dllogger.errors import count_of, printable, visible
from otel_dllogger.metrics.naming import label_text
from otel_dllogger.metrics.phases import STALLED, STARTUP, TRAIN
from otel_dllogger.values import HASH_CHARACTERS, short_hash
from otel_dllogger.view.rank_ledger import COMMUNICATION, RESTORE, RankLedger
from otel_dllogger.view.waits import find_waits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_dllogger.logs.ranks import LoggedRank
    from otel_dllogger.logs.reader import RankEntry
    from otel_dllogger.view.rank_ledger import RankTimes

_ORDER = (STARTUP, "compile", RESTORE, "data_wait", "validation", "checkpoint")

PRODUCTIVE, SLOWEST, REDONE = "productive", "wait for the slowest", "redone"
DOWN, OTHER = "down", "other"

_WAIT_FOR = "wait for "
_MAX_NAME = 60
_LEAST_AT_RISK_US = 500_000

NO_PHASES = (
    "checkpoints, validations and waiting for data: without phases in the logs, they count as "
    "productive, stalled or other"
)
NO_COMMUNICATION = (
    "waiting for the slowest rank: not all ranks have communication phases, so it counts as "
    "productive"
)
NO_REDONE = (
    "what was done again after a restart: neither steps nor checkpoint_saved events say it, so it "
    "counts as productive"
)


def _part_of_phase(name: str) -> str:
    """Return the name of a phase for people: of one line, short, and of no other part."""
    text = visible(printable(label_text(name)))
    if text in (PRODUCTIVE, REDONE, DOWN, OTHER) or text.startswith(_WAIT_FOR):
        text = f"phase {text}"
    if len(text) <= _MAX_NAME:
        return text
    return f"{text[: _MAX_NAME - HASH_CHARACTERS - 1]}~{short_hash(name)}"


@dataclasses.dataclass(slots=True)
class Parts:
    """The parts of the time of one rank, or of all ranks together, in microseconds.

    Attributes:
        productive_us: Training steps that count.
        phases_us: Phases other than training, by name.
        waits_us: Waiting for other ranks, which were in a phase, by its name.
        slowest_us: Waiting for the slowest rank in communication.
        redone_us: Training steps that were done again.
        stalled_us: Intervals between records, beyond ten times the usual.
        down_us: No process: before, between and after those of the rank.
        other_us: A process of which its log does not say what it did.
    """

    productive_us: int = 0
    phases_us: dict[str, int] = dataclasses.field(default_factory=dict)
    waits_us: dict[str, int] = dataclasses.field(default_factory=dict)
    slowest_us: int = 0
    redone_us: int = 0
    stalled_us: int = 0
    down_us: int = 0
    other_us: int = 0

    @property
    def total_us(self) -> int:
        """Return the sum of all parts."""
        return sum(time_us for _name, time_us in self.named())

    def named(self) -> list[tuple[str, int]]:
        """Return the parts with their names for people, in a fixed order."""
        phases = sorted(
            self.phases_us, key=lambda name: (_ORDER.index(name) if name in _ORDER else 99, name)
        )
        return [
            (PRODUCTIVE, self.productive_us),
            *((_part_of_phase(name), self.phases_us[name]) for name in phases),
            *((f"{_WAIT_FOR}{name}", time_us) for name, time_us in sorted(self.waits_us.items())),
            (SLOWEST, self.slowest_us),
            (REDONE, self.redone_us),
            (STALLED, self.stalled_us),
            (DOWN, self.down_us),
            (OTHER, self.other_us),
        ]

    def shares(self) -> list[tuple[str, int, float]]:
        """Return the parts that are not 0: name, microseconds, and percent to one decimal.

        The percent add up to 100: what rounding leaves goes to those that lost most by it.
        """
        total_us = self.total_us
        parts = [(name, time_us) for name, time_us in self.named() if time_us]
        tenths = [time_us * 1000 // total_us for _name, time_us in parts]
        by_rest = sorted(range(len(parts)), key=lambda at: (-(parts[at][1] * 1000 % total_us), at))
        for at in by_rest[: 1000 - sum(tenths)]:
            tenths[at] += 1
        return [(*part, tenth / 10) for part, tenth in zip(parts, tenths, strict=True)]

    def add(self, other: Parts) -> None:
        """Add the parts of another rank."""
        for field in dataclasses.fields(self):
            mine, more = getattr(self, field.name), getattr(other, field.name)
            if isinstance(more, dict):
                for name, time_us in more.items():
                    mine[name] = mine.get(name, 0) + time_us
            else:
                setattr(self, field.name, mine + more)

    def to_plain(self) -> dict[str, Any]:
        """Return the parts in seconds, as types of JSON.

        ``parts`` are those that are not 0, with their names for people and their shares.
        """
        plain: dict[str, Any] = {
            "parts": [
                {"name": name, "seconds": time_us / 1e6, "percent": percent}
                for name, time_us, percent in self.shares()
            ]
        }
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            plain[field.name.removesuffix("_us") + "_s"] = (
                {name: time_us / 1e6 for name, time_us in sorted(value.items())}
                if isinstance(value, dict)
                else value / 1e6
            )
        return plain


@dataclasses.dataclass(frozen=True, slots=True)
class Goodput:
    """Where the time of a run went.

    Attributes:
        wall_us: From the first start to the last record, microseconds.
        whole: The parts of all ranks together.
        by_rank: The parts of each rank.
        redone_steps: The most steps that a rank did again.
        at_risk_us: The training since the last checkpoint, of the rank that has most of it; None
            if no checkpoint was logged, or all ranks have finished.
        not_measured: What the logs do not say, in words.
    """

    wall_us: int
    whole: Parts
    by_rank: dict[int, Parts]
    redone_steps: float
    at_risk_us: int | None
    not_measured: list[str]

    def to_plain(self) -> dict[str, Any]:
        """Return it as types of JSON, with times in seconds."""
        return {
            "wall_s": self.wall_us / 1e6,
            **self.whole.to_plain(),
            "redone_steps": self.redone_steps,
            "at_risk_s": None if self.at_risk_us is None else self.at_risk_us / 1e6,
            "not_measured": self.not_measured,
            "by_rank": [
                {"rank": rank, **parts.to_plain()} for rank, parts in sorted(self.by_rank.items())
            ],
        }

    def describe(self) -> list[str]:
        """Return lines that say it, beginning with the share that was productive."""
        shares = self.whole.shares()
        productive = next((percent for name, _, percent in shares if name == PRODUCTIVE), 0.0)
        losses = [
            f"{name} {percent:.1f}%{self._steps(name)}"
            for name, _time_us, percent in shares
            if name != PRODUCTIVE and percent
        ]
        lines = [f"Goodput {productive:.1f}%{': ' if losses else ''}{', '.join(losses)}"]
        if self.at_risk_us and self.at_risk_us >= _LEAST_AT_RISK_US:
            lines.append(
                f"at risk: {self.at_risk_us / 1e6:,.0f} s of training since the last checkpoint"
            )
        return lines + [f"not measured: {words}" for words in self.not_measured]

    def _steps(self, name: str) -> str:
        is_known = name == REDONE and self.redone_steps >= 1
        return f" ({count_of(round(self.redone_steps), 'step')})" if is_known else ""


def find_goodput(logged: Sequence[RankTimes]) -> Goodput | None:
    """Find where the time of a run went.

    Args:
        logged: Its ranks that logged. Of those that logged neither steps nor phases, as in scripts
            in which rank 0 alone does, nothing can be said, so they are left out.

    Returns:
        None if there is no time, or no training in it.
    """
    ranks = [rank for rank in logged if rank.has_steps or rank.has_phases]
    if not any(rank.has_steps for rank in ranks):
        return None
    wall_us = max(max(rank.end_us for rank in ranks) - min(rank.start_us for rank in ranks), 0)
    known = [rank.redone_share for rank in ranks if rank.is_redone_known]
    # Ranks train together: those whose logs do not say it have lost as much as the others.
    usual_share = sum(known) / len(known) if known else 0.0
    is_measured = len(ranks) > 1 and all(COMMUNICATION in rank.phases_us for rank in ranks)
    worked = _without_waits(ranks)
    least_us = min(each.phases_us.get(COMMUNICATION, 0) for each in worked)
    by_rank = {
        rank.rank: _parts_of(
            rank,
            each,
            wall_us=wall_us,
            needed_us=least_us if is_measured else each.phases_us.get(COMMUNICATION, 0),
            redone_share=rank.redone_share if rank.is_redone_known else usual_share,
        )
        for rank, each in zip(ranks, worked, strict=True)
    }
    whole = Parts()
    for parts in by_rank.values():
        whole.add(parts)
    if not whole.total_us:
        return None
    not_measured = []
    if len(ranks) < len(logged):
        silent = count_of(len(logged) - len(ranks), "rank")
        not_measured.append(f"{silent} without steps and phases in the logs")
    if not any(rank.has_phases for rank in ranks):
        not_measured.append(NO_PHASES)
    if len(ranks) > 1 and not is_measured:
        not_measured.append(NO_COMMUNICATION)
    if not known:
        not_measured.append(NO_REDONE)
    at_risk_us = [rank.at_risk_us for rank in ranks if rank.at_risk_us is not None]
    return Goodput(
        wall_us,
        whole,
        by_rank,
        max(rank.redone_steps for rank in ranks),
        max(at_risk_us, default=None),
        not_measured,
    )


class _Worked(NamedTuple):
    """The time of a rank, in microseconds.

    Attributes:
        phases_us: By phase, without the waiting.
        waits_us: The waiting, by the phase that was waited for.
        other_us: The time of which the log does not say anything, without the waiting.
    """

    phases_us: dict[str, int]
    waits_us: dict[str, int]
    other_us: int


def _without_waits(ranks: Sequence[RankTimes]) -> list[_Worked]:
    """Take out the time in which ranks waited for others that were in a phase.

    A phase that blocks the training and is longer on some ranks holds up the others. They are in
    communication meanwhile; or their step takes longer, so that they seem to be stalled, or to
    train. While some restore a checkpoint before the first step, the others are still in startup.
    After the last step, logs say nothing of the waiting.
    """
    unavailable_us = {
        name: min(rank.phases_us.get(name, 0) for rank in ranks) for name in (STARTUP, STALLED)
    }
    found = []
    for rank, waits in zip(ranks, find_waits(ranks), strict=True):
        phases_us = dict(rank.phases_us)
        waits_us: dict[str, int] = {}
        other_us = max(rank.uptime_us - sum(phases_us.values()), 0)
        unsaid_us = min(waits.unsaid_us, other_us)
        other_us -= unsaid_us
        for name, missing_us in waits.by_phase_us.items():
            taken_us = min(missing_us, unsaid_us)
            unsaid_us -= taken_us
            held_up = (COMMUNICATION, STARTUP, STALLED, TRAIN)
            for of in held_up if name == RESTORE else (COMMUNICATION, STALLED, TRAIN):
                available_us = phases_us.get(of, 0) - unavailable_us.get(of, 0)
                more_us = min(missing_us - taken_us, available_us)
                if more_us:
                    phases_us[of] -= more_us
                    taken_us += more_us
            if taken_us:
                waits_us[name] = taken_us
        found.append(_Worked(phases_us, waits_us, other_us + unsaid_us))
    return found


def _parts_of(
    rank: RankTimes,
    worked: _Worked,
    *,
    wall_us: int,
    needed_us: int,
    redone_share: float,
) -> Parts:
    """Return the parts of the time of one rank.

    Args:
        rank: The rank.
        worked: Its time with and without the waiting.
        wall_us: The time of the run.
        needed_us: The communication that even the slowest rank needs.
        redone_share: What share of its training was done again.
    """
    credited_us = sum(rank.phases_us.values())
    phases_us = dict(worked.phases_us)
    trained_us = phases_us.pop(TRAIN, 0) + needed_us
    redone_us = min(round(trained_us * redone_share), trained_us)
    return Parts(
        productive_us=trained_us - redone_us,
        slowest_us=phases_us.pop(COMMUNICATION, 0) - needed_us,
        stalled_us=phases_us.pop(STALLED, 0),
        phases_us={name: time_us for name, time_us in phases_us.items() if time_us},
        waits_us=worked.waits_us,
        redone_us=redone_us,
        down_us=max(wall_us - max(rank.uptime_us, credited_us), 0),
        other_us=worked.other_us,
    )


class Goodputs:
    """The accounting of runs while their logs are read."""

    def __init__(self) -> None:
        self._ledgers: dict[LoggedRank, RankLedger] = {}

    def take(self, logged: LoggedRank, item: RankEntry) -> None:
        """Take one item of a log, after the rank has taken it."""
        ledger = self._ledgers.get(logged)
        if ledger is None:
            ledger = self._ledgers[logged] = RankLedger(logged)
        ledger.take(item)

    def find(self) -> dict[str, Goodput]:
        """Return where the time of each run went, by the name of the run.

        A run whose times are worked out, since its logs have none, is not among them.
        """
        runs: dict[str, list[RankTimes | None]] = {}
        for logged, ledger in self._ledgers.items():
            if logged.state.logs:
                runs.setdefault(logged.run, []).append(ledger.times())
        found = {
            run: find_goodput([one for one in times if one is not None])
            for run, times in runs.items()
            if all(times)
        }
        return {run: goodput for run, goodput in found.items() if goodput is not None}

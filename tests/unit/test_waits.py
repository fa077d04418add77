"""Waiting for ranks that save, validate or restore: found in time, and never counted twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_dllogger.view.stretches import Stretches
from tests.support.timed_log import TimedLog, read_goodput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.newest_only


def percent_of(folder: Path, ranks: int, play: Callable[[TimedLog, int], None]) -> dict[str, float]:
    """Play the ranks of a run, and return what its time went to, in percent."""
    for rank in range(ranks):
        log = TimedLog(folder, rank)
        play(log, rank)
        log.close()
    found = read_goodput(folder)
    assert found.whole.total_us == ranks * found.wall_us
    return {name: percent for name, _time_us, percent in found.whole.shares()}


def test_nobody_waits_who_has_ended(tmp_path: Path) -> None:
    """Rank 0 validates after the others have ended: they are down, and trained before."""

    def play(log: TimedLog, rank: int) -> None:
        log.wait(40)
        log.step(0)
        log.steps(1, 900)
        if rank == 0:
            log.phase("validation", 900)

    assert percent_of(tmp_path, 4, play) == {
        "productive": 48.9,
        "startup": 2.2,
        "validation": 12.2,
        "down": 36.7,
    }


def test_the_last_wait_is_not_taken_from_training(tmp_path: Path) -> None:
    """The others wait for rank 0 after their last step, and then log a summary or save."""

    def play(log: TimedLog, rank: int) -> None:
        log.wait(40)
        log.step(0)
        log.steps(1, 400)
        if rank == 0:
            log.phase("validation", 400)
        else:
            log.wait(400)
        if rank < 2:
            log.phase("checkpoint", 10)
        else:
            log.wait(10)
        log.step(())

    assert percent_of(tmp_path, 4, play) == {
        "productive": 47.0,
        "startup": 4.7,
        "validation": 11.8,
        "checkpoint": 0.6,
        "wait for checkpoint": 0.6,
        "wait for validation": 35.3,
    }


def test_ranks_in_two_phases_at_once_do_not_wait(tmp_path: Path) -> None:
    """Half of them save while the others validate, six times."""

    def play(log: TimedLog, rank: int) -> None:
        log.step(0, 40)
        for at in range(6):
            log.steps(100 * at + 1, 100 * at + 100)
            log.phase("checkpoint" if rank % 2 else "validation", 100)

    assert percent_of(tmp_path, 4, play) == {
        "productive": 48.4,
        "startup": 3.2,
        "validation": 24.2,
        "checkpoint": 24.2,
    }


def test_a_rank_waits_for_one_of_two_phases(tmp_path: Path) -> None:
    """Rank 0 saves while rank 1 validates for longer: rank 2 waits as long as both took."""

    def play(log: TimedLog, rank: int) -> None:
        log.step(0, 20)
        log.steps(1, 60)
        if rank == 0:
            log.phase("checkpoint", 60)
            log.step(61, 60)  # of which it waits 59 seconds for rank 1
        elif rank == 1:
            log.phase("validation", 119)
            log.step(61, 1)
        else:
            log.step(61, 120)
        log.steps(62, 100)

    found = percent_of(tmp_path, 3, play)
    waits = found.pop("wait for checkpoint"), found.pop("wait for validation")
    assert sum(waits) == pytest.approx(100 * (119 + 59) / (3 * 239), abs=0.1)
    assert found == pytest.approx(
        {
            "productive": 100 * 100 / 239,
            "startup": 100 * 20 / 239,
            "validation": 100 * 119 / (3 * 239),
            "checkpoint": 100 * 60 / (3 * 239),
        },
        abs=0.1,
    )


def test_clocks_that_disagree_make_no_waiting(tmp_path: Path) -> None:
    """All save together, but by the clock of rank 1 it is two minutes later."""

    def play(log: TimedLog, rank: int) -> None:
        log.start(120 * rank)
        log.step(0, 10)
        log.steps(1, 300)
        log.phase("checkpoint", 60)
        log.steps(301, 330)

    found = percent_of(tmp_path, 2, play)
    assert found == {"productive": 63.5, "startup": 1.9, "checkpoint": 11.5, "down": 23.1}


def test_a_phase_that_was_announced_counts_once(tmp_path: Path) -> None:
    """Rank 0 logs a result while it validates, and then waits for rank 1, which saves."""

    def play(log: TimedLog, rank: int) -> None:
        log.step(0, 10)
        log.steps(1, 100)
        if rank == 0:
            log.announce("validation", 20)
            log.step((0, 100, 1))
            log.phase("communication", 10)
            log.phase("validation", 40, announced=20, inner=10)
        else:
            log.phase("checkpoint", 40)
        log.steps(101, 150)

    assert percent_of(tmp_path, 2, play) == {
        "productive": 75.0,
        "startup": 5.0,
        "validation": 7.5,
        "checkpoint": 10.0,
        "wait for checkpoint": 2.5,
    }


def test_many_checkpoints_need_no_more_memory() -> None:
    """Neighbors become one, and what is within a time stays right on the whole."""
    stretches = Stretches()
    for at in range(10_000):
        stretches.add(100 * at, 100 * at + 10, 10)
    assert len(stretches) < 300
    assert stretches.within(0, 1_000_000) == 100_000
    assert stretches.within(0, 500_000) == pytest.approx(50_000, rel=0.01)
    assert stretches.within(999_900, 999_905) == 5  # the last one is exact


def test_stretches_that_overlap_are_one() -> None:
    """As a phase and the one within it; the time is never longer than the stretch."""
    stretches = Stretches()
    stretches.add(20, 40, 20)
    stretches.add(0, 50, 30)
    stretches.add(45, 60, 15)
    stretches.add(70, 70, 5)
    assert list(stretches) == [(0, 60, 60)]
    assert (stretches.within(10, 20), stretches.within(60, 90)) == (10, 0)

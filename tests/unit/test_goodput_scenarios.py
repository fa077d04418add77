"""Where the time of a run went, for runs whose answer is known, read from the lines of logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.support.timed_log import TimedLog, read_goodput

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.newest_only


def interruptions(log: TimedLog, rank: int) -> None:
    """Startup 40, 900 steps of 1, validation 20, checkpoint 40."""
    log.wait(40)
    log.steps(0, 0, 0)
    log.steps(1, 500)
    log.phase("validation", 20)
    log.phase("checkpoint", 40)
    log.steps(501, 900)


def restart(log: TimedLog, rank: int) -> None:
    """Dies at step 600, and goes on from 500 after a gap of 140."""
    log.wait(35)
    log.step(0)
    log.steps(1, 500)
    log.phase("checkpoint", 30)
    log.steps(501, 600)
    log.start(log.now_s + 140)
    log.phase("restore", 30)
    log.wait(35)
    log.step(501)
    log.steps(502, 1000)
    log.phase("checkpoint", 30)
    log.steps(1001, 1601)


def one_saves(log: TimedLog, rank: int) -> None:
    """Rank 0 alone saves for 60 seconds, in which the others wait in their step."""
    log.wait(40)
    log.step(0)
    log.steps(1, 450)
    if rank == 0:
        log.phase("checkpoint", 60)
        log.steps(451, 900)
    else:
        log.step(451, 61)
        log.steps(452, 900)


def nested(log: TimedLog, rank: int) -> None:
    """A checkpoint of 20 inside of a validation of 50."""
    log.wait(20)
    log.step(0)
    log.steps(1, 200)
    log.phase("checkpoint", 20)
    log.phase("validation", 50, inner=20)
    log.steps(201, 430)


def data_wait(log: TimedLog, rank: int) -> None:
    """Data are waited for 80 of the 760 seconds of steps, and loaded by a thread meanwhile."""
    log.wait(40)
    log.step(0)
    for step in range(1, 401):
        log.phase("data_wait", 0.2)
        log.phase("load", 0.5, inner=0.5, is_overlapping=True)
        log.step(step, 1.7)


def slow_rank(log: TimedLog, rank: int) -> None:
    """Steps of 1.25 seconds, in which the slow rank alone does not wait for the others."""
    communication_s = 0.10 if rank == 3 else 0.35
    log.wait(50)
    log.step(0)
    for step in range(1, 761):
        log.phase("communication", communication_s)
        log.step(step, 1.25 - communication_s)


def hang(log: TimedLog, rank: int) -> None:
    """A checkpoint at 1600, the last record at 1800, and another process at 3000."""
    log.wait(80)
    log.step(0)
    log.steps(1, 1520)
    if rank == 0:
        log.event("checkpoint_saved", 1520)
    log.steps(1521, 1720)
    log.start(3000)
    log.phase("restore", 40)
    log.wait(80)
    log.step(1521)
    log.steps(1522, 2401)


class Expected(NamedTuple):
    """What a run is to show, in percent of wall time x ranks."""

    ranks: int
    wall_s: float
    productive: float
    losses: dict[str, float]
    naive: float
    """What a simpler count would say, and of which parts it would be that much too high."""
    counted_wrongly: tuple[str, ...]
    of: str = "productive"


SCENARIOS = {
    interruptions: Expected(4, 1000, 90, {"startup": 4, "validation": 2, "checkpoint": 4}, 90, ()),
    restart: Expected(
        4,
        2000,
        80,
        {"startup": 3.5, "restore": 1.5, "checkpoint": 3, "redone": 5, "down": 7},
        85,
        ("redone",),
    ),
    one_saves: Expected(
        4,
        1000,
        90,
        {"startup": 4, "checkpoint": 1.5, "wait for checkpoint": 4.5},
        94.5,
        ("wait for checkpoint",),
    ),
    nested: Expected(
        1,
        500,
        86,
        {"startup": 4, "checkpoint": 4, "validation": 6},
        104,
        ("checkpoint",),
        of="sum",
    ),
    data_wait: Expected(8, 800, 85, {"startup": 5, "data_wait": 10}, 110, ("data_wait",), of="sum"),
    slow_rank: Expected(
        4,
        1000,
        80.75,
        {"startup": 5, "wait for the slowest": 14.25},
        95,
        ("wait for the slowest",),
    ),
    hang: Expected(
        8,
        4000,
        60,
        {"startup": 4, "restore": 1, "redone": 5, "down": 30},
        65,
        ("redone",),
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_time_of_a_run_is_split_as_by_hand(
    scenario: Callable[[TimedLog, int], None], tmp_path: Path
) -> None:
    """From the lines that the backend wrote, and not as a simpler count would have it."""
    expected = SCENARIOS[scenario]
    for rank in range(expected.ranks):
        log = TimedLog(tmp_path, rank)
        scenario(log, rank)
        log.close()
    found = read_goodput(tmp_path)
    assert found.wall_us == expected.wall_s * 1e6
    assert found.whole.total_us == expected.ranks * found.wall_us
    percent = {
        name: 100 * time_us / found.whole.total_us
        for name, time_us in found.whole.named()
        if time_us
    }
    assert percent == pytest.approx(
        {"productive": expected.productive, **expected.losses}, abs=0.05
    )
    right = {"productive": expected.productive, "sum": 100}[expected.of]
    wrong = sum(percent[name] for name in expected.counted_wrongly)
    assert right + wrong == pytest.approx(expected.naive, abs=0.05)
    for parts in found.by_rank.values():
        assert parts.total_us == found.wall_us

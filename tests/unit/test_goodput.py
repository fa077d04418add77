"""Where the time of a run went: what adds up whatever is logged, and what logs do not say."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger.view.goodput import (
    NO_COMMUNICATION,
    NO_PHASES,
    NO_REDONE,
    Parts,
    find_goodput,
)
from otel_dllogger.view.progress import Progress
from otel_dllogger.view.rank_ledger import RankTimes
from otel_dllogger.view.stretches import Stretches
from tests.support.timed_log import TimedLog, read_goodput

pytestmark = pytest.mark.newest_only

NAMES = ("startup", "train", "checkpoint", "validation", "restore", "communication", "other")

TIMES = st.floats(0, 100)
NUMBERS = st.integers(-5, 50)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), NUMBERS, TIMES),
        st.tuples(st.just("step"), st.tuples(st.integers(0, 3), NUMBERS), TIMES),
        st.tuples(st.just("step"), st.tuples(st.integers(0, 3)), TIMES),
        st.tuples(st.just("phase"), st.sampled_from(NAMES), TIMES),
        st.tuples(st.just("event"), st.sampled_from(("checkpoint_saved", "checkpoint_restored"))),
        st.tuples(st.just("event"), st.just("checkpoint_restored"), NUMBERS),
        st.tuples(st.just("restart"), st.floats(-200, 200)),
        st.tuples(st.just("wait"), TIMES),
    ),
    min_size=1,
    max_size=40,
)


def write(folder: Path, rank: int, actions) -> None:
    log = TimedLog(folder, rank)
    log.step(0)
    for name, *arguments in actions:
        if name == "restart":
            log.start(max(log.now_s + arguments[0], 0))
        else:
            getattr(log, name)(*arguments)
    log.close()


@settings(max_examples=150, deadline=None)
@given(st.lists(ACTIONS, min_size=1, max_size=4))
def test_the_parts_add_up_whatever_is_logged(ranks) -> None:
    """To the microsecond for each rank, and to 100 percent; and no part is negative."""
    with tempfile.TemporaryDirectory() as name:
        for rank, actions in enumerate(ranks):
            write(Path(name), rank, [*actions, ("step", 60, 1.0)])
        found = read_goodput(Path(name))
    assert found.whole.total_us == sum(parts.total_us for parts in found.by_rank.values())
    for parts in (found.whole, *found.by_rank.values()):
        assert all(time_us >= 0 for _name, time_us in parts.named())
        assert sum(round(10 * percent) for _, _, percent in parts.shares()) == 1000
        assert parts.total_us >= found.wall_us
    assert found.redone_steps >= 0


@pytest.mark.parametrize("ranks", [1, 1024])
def test_the_parts_of_few_and_of_many_ranks_add_up(tmp_path: Path, ranks: int) -> None:
    """Over a restart, with one rank that is slow and another one that alone saves."""
    for rank in range(ranks):
        log = TimedLog(tmp_path, rank)
        for attempt in range(2):
            log.start(attempt * 100.0)
            log.step(3 * attempt, 10)
            log.steps(3 * attempt + 1, 3 * attempt + 4, 1.0 + (rank == 7))
            log.phase("communication", 1.0 - (rank == 7) / 2)
            if rank == 0:
                log.phase("checkpoint", 5)
            log.step(3 * attempt + 5, 1)
        log.close()
    found = read_goodput(tmp_path)
    assert len(found.by_rank) == ranks
    assert found.whole.total_us == ranks * found.wall_us
    assert sum(round(10 * percent) for _, _, percent in found.whole.shares()) == 1000
    assert all(time_us >= 0 for _name, time_us in found.whole.named())
    assert found.whole.redone_us > 0
    assert (found.whole.slowest_us > 0) == (ranks > 1)


def test_shares_add_up_although_they_are_rounded() -> None:
    """Three thirds are 33.4, 33.3 and 33.3 percent."""
    thirds = Parts(productive_us=1, down_us=1, other_us=1).shares()
    assert [percent for _, _, percent in thirds] == [33.4, 33.3, 33.3]


def test_names_of_phases_from_a_log_are_shown_in_one_line(tmp_path: Path) -> None:
    """Long ones are cut and stay different; control characters are escaped."""
    log = TimedLog(tmp_path)
    log.step(0, 10)
    log.steps(1, 50)
    for name in ("x" * 5_000, "x" * 5_001, "\x1b[31mred\n", "\u202eleft"):
        log.phase(name, 10)
    log.close()
    found = read_goodput(tmp_path)
    names = [name for name, _time_us in found.whole.named() if name.startswith("x")]
    assert len(set(names)) == 2
    assert [len(name) for name in names] == [60, 60]
    (line, *_not_measured) = found.describe()
    assert line.isprintable()
    assert "\\u001b[31mred\\u000a" in line
    assert len(line) < 300


def test_empty_and_blank_names_are_in_quotes(tmp_path: Path) -> None:
    """Nobody would see them otherwise."""
    log = TimedLog(tmp_path)
    log.step(0, 10)
    log.steps(1, 60)
    for name in ("", " ", " x "):
        log.phase(name, 10)
    log.close()
    (line, *_not_measured) = read_goodput(tmp_path).describe()
    assert line == 'Goodput 60.0%: startup 10.0%, "" 10.0%, " " 10.0%, " x " 10.0%'


def test_a_phase_is_not_taken_for_another_part(tmp_path: Path) -> None:
    """It may be named as the parts are; and what is called productive is training."""
    log = TimedLog(tmp_path)
    log.step(0, 10)
    log.steps(1, 50)
    for name in ("productive", "down", "other", "redone"):
        log.phase(name, 10)
    log.close()
    (line, *_not_measured) = read_goodput(tmp_path).describe()
    assert line == (
        "Goodput 50.0%: startup 10.0%, phase down 10.0%, phase other 10.0%, "
        "phase productive 10.0%, phase redone 10.0%"
    )


def test_nothing_is_at_risk_right_after_a_checkpoint(tmp_path: Path) -> None:
    """Less than half a second would be said as 0 s."""
    log = TimedLog(tmp_path)
    log.step(0, 10)
    log.steps(1, 50)
    log.event("checkpoint_saved")
    log.step(51, 0.4)
    log.close()
    found = read_goodput(tmp_path)
    assert found.at_risk_us == 400_000
    assert not any("at risk" in line for line in found.describe())


def percent_of(found) -> dict[str, float]:
    total_us = found.whole.total_us
    return {name: 100 * time_us / total_us for name, time_us in found.whole.named() if time_us}


def test_a_log_without_phases(tmp_path: Path) -> None:
    """As all logs before phases: startup, steps, a stall, a restart, and what cannot be said."""
    for rank in range(2):
        log = TimedLog(tmp_path, rank)
        log.wait(50)
        log.step(0)
        log.steps(1, 400)
        log.step(401, 90)  # ten times the usual is a step
        log.steps(402, 600)
        log.start(log.now_s + 110)
        log.wait(60)
        log.step(501)
        log.steps(502, 591)
        log.close()
    found = read_goodput(tmp_path)
    assert found.wall_us == 999e6
    assert percent_of(found) == pytest.approx(
        # Of the 609 seconds of the first process, a sixth was done again.
        {
            "startup": 100 * 110 / 999,
            "stalled": 100 * 80 / 999,
            "down": 100 * 110 / 999,
            "redone": 100 * 101.5 / 999,
            "productive": 100 * (609 + 90 - 101.5) / 999,
        },
        abs=0.05,
    )
    assert found.not_measured == [NO_PHASES, NO_COMMUNICATION]
    assert found.redone_steps == 100
    assert found.at_risk_us is None


def lost_steps(tmp_path: Path, *processes) -> tuple[float, list[str]]:
    """Return how many steps were done again, and what the logs do not say."""
    log = TimedLog(tmp_path)
    for number, actions in enumerate(processes):
        if number:
            log.start(log.now_s + 100)
        for name, *arguments in actions:
            getattr(log, name)(*arguments)
    log.close()
    found = read_goodput(tmp_path)
    return round(found.redone_steps, 3), found.not_measured


def test_each_failure_loses_the_steps_since_its_checkpoint(tmp_path: Path) -> None:
    """Steps 501 to 600 are made three times; what the second process made is lost as well."""
    again = [("steps", 501, 550)], [("steps", 501, 900)]
    assert lost_steps(tmp_path, [("steps", 1, 600)], *again)[0] == 150


def test_epochs_whose_iterations_begin_at_0(tmp_path: Path) -> None:
    """The second epoch is done again from its middle."""
    first = [("step", (epoch, at), 1.0) for epoch in range(2) for at in range(100)]
    second = [("step", (1, at), 1.0) for at in range(50, 100)]
    assert lost_steps(tmp_path, first, second)[0] == 50


def test_a_checkpoint_that_says_its_step(tmp_path: Path) -> None:
    """Every hundredth step is logged, so the first one that is does not say where it goes on."""
    first = [("step", at, 10.0) for at in range(0, 1001, 100)]
    second = [
        ("event", "checkpoint_restored", 850),
        *(("step", at, 10.0) for at in range(900, 2001, 100)),
    ]
    assert lost_steps(tmp_path / "said", first, second)[0] == 150
    assert lost_steps(tmp_path / "guessed", first, second[1:])[0] == 200


def test_a_process_goes_back_to_a_checkpoint(tmp_path: Path) -> None:
    """As after a spike of the loss, without a restart."""
    assert lost_steps(tmp_path, [("steps", 1, 300), ("steps", 251, 400)])[0] == 50


def test_two_counters_in_turn_are_not_steps_that_are_done_again(tmp_path: Path) -> None:
    """As generator and discriminator may have; and a late line of a step before."""
    lines = [("step", step, 0.5) for at in range(1, 100) for step in (at + 5_000, at)]
    assert lost_steps(tmp_path / "two", lines)[0] == 0
    late = [("steps", 1, 50), ("step", 49), ("steps", 51, 90)]
    assert lost_steps(tmp_path / "late", late)[0] == 0


def test_a_counter_that_begins_anew_in_each_epoch_tells_nothing_of_a_restart(
    tmp_path: Path,
) -> None:
    """Its steps are not done again, and only a checkpoint says which are, after a restart."""
    epochs = [("steps", 0, 99), ("steps", 0, 99), ("steps", 0, 49)]
    assert lost_steps(tmp_path / "one", epochs) == (0, [NO_PHASES])
    lost, not_measured = lost_steps(tmp_path / "two", epochs, epochs)
    assert (lost, not_measured) == (0, [NO_PHASES, NO_REDONE])
    saved = [*epochs[:2], ("event", "checkpoint_saved"), epochs[2]]
    lost, not_measured = lost_steps(tmp_path / "three", saved, epochs)
    assert (lost, not_measured) == (pytest.approx(50, abs=1), [NO_PHASES])


def test_a_restored_process_that_counts_from_its_beginning(tmp_path: Path) -> None:
    """It does not begin the training again, as one that restored nothing does."""
    first = [("steps", 1, 500), ("event", "checkpoint_saved"), ("steps", 501, 600)]
    second = [("phase", "restore", 5), ("steps", 1, 100)]
    assert lost_steps(tmp_path / "restored", first, second)[0] == pytest.approx(100, abs=1)
    assert lost_steps(tmp_path / "anew", first, second[1:])[0] == 600


def test_epochs_alone(tmp_path: Path) -> None:
    """Summaries of epochs: the time until a checkpoint is worked out within its epoch."""
    log = TimedLog(tmp_path)
    for epoch in range(4):
        log.step((epoch,), 90)
    log.event("checkpoint_saved")
    log.step((4,), 90)
    log.wait(45)
    log.event("checkpoint_saved")
    log.step((5,), 45)
    log.step((6,), 90)
    log.close()
    found = read_goodput(tmp_path)
    assert percent_of(found) == pytest.approx({"startup": 100 / 7, "productive": 600 / 7})
    assert found.at_risk_us == 135e6


def test_waiting_for_a_restore_of_one_rank_is_not_startup(tmp_path: Path) -> None:
    """The others are in startup meanwhile, so nothing is missing from their training."""
    for rank in range(2):
        log = TimedLog(tmp_path, rank)
        log.wait(10)
        if rank == 0:
            log.phase("restore", 30)
        else:
            log.wait(30)
        log.step(0)
        log.steps(1, 60)
        log.close()
    assert percent_of(read_goodput(tmp_path)) == pytest.approx(
        {"productive": 60, "startup": 10, "restore": 15, "wait for restore": 15}
    )


def test_a_rank_that_ends_early_is_down(tmp_path: Path) -> None:
    """And one that begins late; both are ranks of the whole run."""
    for rank, (begin_s, steps) in enumerate([(0, 99), (40, 29)]):
        log = TimedLog(tmp_path, rank)
        log.start(begin_s)
        log.step(0, 1.0)
        log.steps(1, steps)
        log.close()
    found = read_goodput(tmp_path)
    assert [parts.down_us for parts in found.by_rank.values()] == [0, 70e6]


def test_ranks_that_log_no_steps_are_not_idle(tmp_path: Path) -> None:
    """Rank 0 alone logs steps, as in many scripts; the others log a summary."""
    for rank in range(4):
        log = TimedLog(tmp_path, rank)
        log.wait(10)
        if rank == 0:
            log.step(0)
            log.steps(1, 90)
        log.wait(90 if rank else 0)
        log.step(())
        log.close()
    found = read_goodput(tmp_path)
    assert percent_of(found) == {"productive": 90, "startup": 10}
    assert found.not_measured == ["3 ranks without steps and phases in the logs", NO_PHASES]


def test_progress_remembers_the_newest_stretches() -> None:
    """A rank that starts again and again needs no more memory for it."""
    progress = Progress()
    for at in range(5_000):
        progress.begin(at)
        progress.extend(at + 1, 10)
    progress.cut_to_step(4_990)
    assert progress.kept_us == pytest.approx(49_900, abs=10)
    progress.cut_to_step(1_000)  # in the part that was merged
    assert progress.kept_us == pytest.approx(10_000, abs=10)
    assert (progress.lost_steps, progress.end) == (4_000, 1_000)


def test_a_stall_of_all_ranks_is_not_waiting_for_one(tmp_path: Path) -> None:
    """A checkpoint of rank 0 takes time from training where the stall was something else."""
    for rank in range(2):
        log = TimedLog(tmp_path, rank)
        log.step(0)
        log.steps(1, 100)
        log.step(101, 100)  # the file system hangs
        log.steps(102, 110)
        if rank == 0:
            log.phase("checkpoint", 5)
        log.step(111, 1 if rank == 0 else 6)
        log.close()
    found = read_goodput(tmp_path)
    assert [parts.stalled_us for parts in found.by_rank.values()] == [90e6, 90e6]
    assert [parts.waits_us for parts in found.by_rank.values()] == [{}, {"checkpoint": 5e6}]


def test_clocks_that_disagree_leave_no_gap() -> None:
    """Phases that are longer than the process, as two Loggers in one may have them."""
    times = RankTimes(
        0, 0, 100, 60, {"train": 80}, Stretches(), Stretches(), {}, True, True, 0.0, 0.0, True, None
    )
    found = find_goodput([times])
    assert found is not None
    assert (found.whole.productive_us, found.whole.down_us, found.whole.other_us) == (80, 20, 0)
    assert find_goodput([times._replace(has_steps=False)]) is None
    assert find_goodput([]) is None

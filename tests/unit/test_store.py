"""The last values of every series, and what is known of each rank."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.record import SeriesMetadata
from tests.support.store import Store

# Values


def test_the_last_value_by_granularity(store):
    """A loss per iteration, its epoch mean and its validation are series of their own."""
    store.log((0, 1), {"loss": 3.0, "lr": 0.1})
    store.log((0, 2), {"loss": 2.0})
    store.log((0, 2, 5), {"loss": 2.5})
    store.log((0,), {"loss": 2.2})
    store.log((), {"loss": 2.1})
    store.log("event", {"n": 1})
    store.log(3, {"loss": 1.0})
    assert store.values() == {
        "iteration": {"loss": 1.0, "lr": 0.1},
        "validation": {"loss": 2.5},
        "epoch": {"loss": 2.2},
        "run": {"loss": 2.1, "n": 1},
    }


def test_only_numbers_are_series(store):
    """Ints, floats, bools, numeric text and 0-d arrays are metrics, all else is not."""
    data = {"i": 1, "f": 0.5, "b": True, "t": "2.5", "np": np.float32(0.25), "a": np.array(3)}
    other = {"none": None, "text": "x", "list": [1], "dict": {"a": 1}, "array": np.ones(2)}
    store.log((0, 1), {**data, **other})
    expected = {"i": 1, "f": 0.5, "b": True, "t": 2.5, "np": 0.25, "a": 3}
    assert store.values() == {"iteration": expected}


@pytest.mark.parametrize("data", [None, "text", [1], 3.0])
def test_data_without_metrics_still_counts(store, data):
    """A record of something else is a sign of life."""
    store.log((0, 1), data)
    state = store.ranks[0]
    assert (store.values(), state.logs, state.last_log_us) == ({}, 1, 10_000_000)


def test_new_series_are_announced_once(store):
    """Whoever makes instruments is told of new series, and of nothing else."""
    woken = []
    for step, data in [((0, 1), {"a": 1}), ((0, 2), {"a": 2}), ((0, 3), {"a": 3, "b": 1})]:
        store.log(step, data)
        woken.append(store.woken)
    store.log((0,), {"a": 1})
    assert [*woken, store.woken] == [1, 1, 2, 3]


# NaN and Inf


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, "nan", np.float32("inf"), 10**400])
def test_nonfinite_values_are_counted(store, bad):
    """The count is there at 0 from the first value, and the bad value stays in its cell."""
    store.log((0, 1), {"loss": 1.0, "lr": 0.1})
    counts = [dict(store.ranks[0].nonfinite)]
    for step in ((0, 2), (0, 3), (0,)):
        store.log(step, {"loss": bad, "lr": 0.1})
        counts.append(dict(store.ranks[0].nonfinite))
    store.log((0, 4), {"loss": 2.0})
    assert counts == [{"loss": n, "lr": 0} for n in range(4)]
    assert store.values()["iteration"]["loss"] == 2.0
    assert not math.isfinite(store.values()["epoch"]["loss"])


def test_a_first_value_that_is_nan_counts(store):
    """A metric may begin with NaN."""
    store.log((0, 1), {"loss": math.nan})
    assert store.ranks[0].nonfinite == {"loss": 1}


# Steps


@pytest.mark.parametrize(
    ("steps", "expected", "seconds"),
    [
        ([(0, 0), (0, 1), (0, 2)], 3, 2),
        ([0, 1, 2], 3, 2),
        ([[0, 0], (0, 1), (np.int64(0), np.int64(2))], 3, 2),
        ([(0, 0), (0, 10), (0, 20)], 21, 2),
        ([(0, 0), (0, 10), (1, 0), (1, 10)], 31, 3),
        ([(0, 0), (0, 1), (1, 0), (1, 1)], 4, 3),
        ([(0, 3), (1, 3), (2, 3)], 3, 2),
        ([(0, 1), (0, 1), (0, 1)], 1, 0),
        ([(0, 1), (0, 1), (0, 2)], 2, 2),
        ([(0, 1), (0,), (0, 1, 3), (), "event", (0, 2)], 2, 5),
        ([(0, 1), (0,), (0, 1)], 1, 0),
        ([(0, 9), (0, 10, 0), (0, 10)], 2, 2),
        ([(0, 9), (0, 10, 0), (0, 10), (1, 0)], 3, 3),
        ([(0,), (1,)], 0, 0),
        ([(0, 1, 2), (0, 2, 2)], 0, 0),
        (["PARAMETER", "event", ()], 0, 0),
        ([("Calibration", 1), ("Calibration", 2)], 0, 0),
    ],
)
def test_the_counter_of_steps(store, steps, expected, seconds):
    """It counts training steps, also those between two logs, and the time they took."""
    for second, step in enumerate(steps):
        store.log(step, {"loss": 1.0}, at_s=second)
    state = store.ranks[0]
    assert (state.steps, state.step_us) == (expected, seconds * 1_000_000)


def test_step_time_never_goes_back(store):
    """Two Loggers have clocks of their own: the sum of seconds stays a counter."""
    for step, at_s in enumerate((0.0, 5.0, 1.0, 2.0)):
        store.log((0, step), {}, at_s=at_s)
    assert store.ranks[0].step_us == 6_000_000


def test_epoch_and_iteration(store):
    """They are where the last step that said so was."""
    places = []
    for step in [(), (2,), (2, 7), (2, 8, 1), 9, "event", ("x", 1), (3, "y"), [4, 5]]:
        store.log(step, {})
        places.append((store.ranks[0].epoch, store.ranks[0].iteration))
    assert places == [
        (None, None),
        (2, None),
        (2, 7),
        (2, 8),
        (2, 9),
        (2, 9),
        (2, 9),
        (3, 9),
        (4, 5),
    ]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([], False),
        ([(0, 1)], False),
        ([()], True),
        ([(0, 1), ()], True),
        ([(0, 1), (), ()], True),
        ([(), (0, 1)], False),
        ([(0, 1), (), (0, 1)], False),
        ([(), (1,)], False),
        ([(), 1], False),
        ([(), (0, 1, 2)], False),
        ([(), "event"], True),
        ([(), "PARAMETER"], True),
        (["event"], False),
        ([[]], True),
    ],
    ids=repr,
)
def test_run_finished(store, steps, expected):
    """It is 1 after the run's summary, until training goes on."""
    for step in steps:
        store.log(step, {"loss": 1.0})
    assert store.ranks[0].finished is expected


def test_a_clean_close_finishes_every_rank(store):
    """finish() says so for all ranks, and a late summary changes nothing."""
    store.log((0, 1), {"rank": 1})
    store.log((0, 1), {"rank": 2})
    store.finish()
    assert [state.finished for state in store.rank_states()] == [True] * 3


# Ranks


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("3", 3),
        (3, 3),
        (3.0, 3),
        (np.int64(3), 3),
        (np.array(3), 3),
        (-1, 0),
        ("-1", 0),
        (1e9, 1_000_000_000),
        ("abc", 7),
        (None, 7),
        (math.nan, 7),
        (math.inf, 7),
        (0.5, 7),
        ([3], 7),
        (10**400, 7),
    ],
    ids=lambda raw: repr(raw)[:20],
)
@pytest.mark.parametrize("encoded", [False, True])
def test_a_rank_in_the_data(raw, expected, encoded):
    """It wins over the process's own, -1 is 0, and what is no rank is not taken for one."""
    store = Store(rank=7, encoded=encoded)
    store.log((0, 1), {"rank": raw, "loss": 1.0})
    assert store.values(expected)["iteration"] == {"loss": 1.0}
    assert store.ranks[expected].logs == 1
    assert set(store.ranks) == {7, expected}
    assert store.ranks[expected].rank == str(expected)


def test_ranks_are_told_apart(store):
    """Every rank has its own values, steps and times; the data is left as it was."""
    data = {"rank": 1, "loss": 1.0}
    store.log((0, 1), data)
    store.log((0, 5), {"rank": "2", "loss": math.nan}, at_s=1.0)
    assert data == {"rank": 1, "loss": 1.0}
    assert [state.rank for state in store.rank_states()] == ["0", "1", "2"]
    assert [state.logs for state in store.rank_states()] == [0, 1, 1]
    assert [state.start_us for state in store.rank_states()] == [5_000_000, 10_000_000, 11_000_000]
    assert [state.nonfinite for state in store.rank_states()] == [{}, {"loss": 0}, {"loss": 1}]
    assert [state.iteration for state in store.rank_states()] == [None, 1, 5]


# Best


def test_best_by_goal(store):
    """The best finite value so far, from the first value on."""
    store.tell("loss", {"GOAL": "MIMIMIZE"})
    store.tell("acc", {"GOAL": "MAXIMIZE"})
    store.tell("lr", {"GOAL": "NONE"})
    best = []
    for n, value in enumerate((2.0, 1.0, math.nan, -math.inf, math.inf, 3.0)):
        store.log((0, n), {"loss": value, "acc": value, "lr": value})
        best.append(dict(store.ranks[0].best))
    assert best == [
        {"loss": 2.0, "acc": 2.0},
        {"loss": 1.0, "acc": 2.0},
        {"loss": 1.0, "acc": 2.0},
        {"loss": 1.0, "acc": 2.0},
        {"loss": 1.0, "acc": 2.0},
        {"loss": 1.0, "acc": 3.0},
    ]


def test_best_has_none_before_a_finite_value(store):
    """A metric that is NaN from the start has no best."""
    store.tell("loss", {"GOAL": "MINIMIZE"})
    store.log((0, 1), {"loss": math.nan})
    assert store.ranks[0].best == {}


def test_a_goal_that_comes_late(store):
    """It begins with the last values there are, of every granularity and rank."""
    store.log((0, 1), {"loss": 1.0, "rank": 1})
    store.log((0, 2), {"loss": 2.0})
    store.log((0,), {"loss": 1.5})
    store.log((0, 3), {"acc": 1.0})
    store.tell("loss", {"GOAL": "MINIMIZE"})
    assert [state.best for state in store.rank_states()] == [{"loss": 1.5}, {"loss": 1.0}]


def test_a_goal_that_changes(store):
    """The best begins anew; without a goal there is none; the same goal changes nothing."""
    best = []
    store.log((0, 1), {"f1": 1.0})
    for goal, value in (
        ("MINIMIZE", 2.0),
        ("MINIMIZE", 3.0),
        ("MAXIMIZE", 2.0),
        ("NONE", 9.0),
        ("MAXIMIZE", 8.0),
    ):
        store.tell("f1", {"GOAL": goal})
        store.log((0, int(value)), {"f1": value})
        best.append(dict(store.ranks[0].best))
    assert best == [{"f1": 1.0}, {"f1": 1.0}, {"f1": 3.0}, {}, {"f1": 9.0}]


@given(st.lists(st.floats(), min_size=1), st.booleans())
def test_best_is_the_best_of_all(values, minimize):
    """Whatever is logged, the best is the least or the greatest of the finite values."""
    store = Store()
    store.tell("m", {"GOAL": "MINIMIZE" if minimize else "MAXIMIZE"})
    for n, value in enumerate(values):
        store.log((0, n), {"m": value})
    finite = [value for value in values if math.isfinite(value)]
    expected = {"m": (min if minimize else max)(finite)} if finite else {}
    assert store.ranks[0].best == expected
    assert store.ranks[0].nonfinite == {"m": len(values) - len(finite)}


# Liveness


def test_seconds_since_last_log(store):
    """The youngest record of any rank counts, and before the first there is none."""
    assert store.seconds_since_last_log(100.0) is None
    store.tell("loss", {"unit": "s"})
    assert store.seconds_since_last_log(100.0) is None
    store.log((0, 1), {}, at_s=1.0)
    store.log((0, 1), {"rank": 1}, at_s=2.5)
    store.log("PARAMETER", {}, at_s=2.0)
    assert store.seconds_since_last_log(20.0) == 7.5


def test_calls_by_type(store):
    """Every call is counted under its type."""
    store.log((0, 1), {})
    store.log("event", {})
    store.log("PARAMETER", {})
    store.info("text")
    store.tell("loss", {})
    state = store.ranks[0]
    assert (state.logs, state.calls) == (2, {"metadata": 1, "info": 1, "parameter": 1})


def test_steps_beyond_all_floats_beside_fractions(store):
    """Whole numbers of any size and fractions follow each other, and nothing is raised."""
    for iteration in (0.5, 10**400, 10**400 + 1, 1.5, 10**401, 0.25):
        store.log((0, iteration), {"loss": 1.0})
    assert 6 == store.ranks[0].logs


@pytest.mark.parametrize("odd", [1e308, 10**400], ids=["float", "int"])
def test_steps_that_jump_beyond_all_sums_count_once(store, odd):
    """The counter goes on, where it would be infinite and vanish."""
    for iteration in (1, odd, 2, 3.5, -odd, odd, 4):
        store.log((1, iteration), {"loss": 1.0})
    state = store.ranks[0]
    assert 7 <= state.steps <= 10


def test_a_key_of_ones_own_is_exported_by_the_name_that_was_logged(store):
    """A reader tells metrics apart by keys that no label may show."""
    store.take(SeriesMetadata("loss\0val", "loss", {"STAGE": "VAL"}))
    store.take(SeriesMetadata("lr", "lr", {"unit": "s"}))
    mapped = store.map("loss\0val")
    assert ("loss", "dl_loss", "val") == (mapped.metric, mapped.prometheus_name, mapped.stage)
    assert "lr" == store.map("lr").metric
    assert {"loss\0val": "loss"} == store.to_plain()["names"]

"""What tuples that are steps mean: DLLogger's definition, or a total at their end."""

from __future__ import annotations

import json

import pytest

from otel_dllogger.metrics.rank_state import RankState
from tests.support.store import Store

TRAIN = {"train.loss": 1.0}
VAL = {"val.loss": 1.0}
NO_STAGE = {"loss": 1.0}


@pytest.fixture
def store():
    """Return a store with a clock of its own."""
    return Store()


def granularities(store):
    """Return the granularities that hold values."""
    return {name for name, cell in store.ranks[0].cells.items() if cell}


def place(store):
    """Return the epoch, the iteration, and how many steps there were."""
    state = store.ranks[0]
    return state.epoch, state.iteration, state.steps


@pytest.mark.parametrize("data", [TRAIN, {**TRAIN, "lr": 0.1}])
def test_triples_of_training_metrics_are_iterations(store, data, caplog):
    """(epoch, iteration, iterations per epoch), from the first one on; it is said once."""
    for epoch in (1, 2):
        for iteration in range(1, 5):
            store.log((epoch, iteration, 4), data)
    assert {"iteration"} == granularities(store)
    assert (2, 4, 8) == place(store)
    assert 1 == caplog.text.count("(epoch, iteration, iterations per epoch)")


@pytest.mark.parametrize("data", [VAL, {**TRAIN, **VAL}])
def test_triples_of_other_metrics_are_validations(store, data):
    """The stage decides, even where the last element would not."""
    for iteration in range(1, 5):
        store.log((0, iteration, 4), data)
    assert {"validation"} == granularities(store)


def test_the_stage_may_come_from_metadata(store):
    """As in NVIDIA's scripts, which describe each metric."""
    store.tell("loss", {"STAGE": "TRAIN"})
    store.log((1, 1, 4), NO_STAGE)
    assert {"iteration"} == granularities(store)


def test_metadata_that_comes_late_holds_from_then_on(store):
    """What was decided of a name is not kept longer than its metadata."""
    store.log((1, 3, 2), NO_STAGE)
    assert {"validation"} == granularities(store)
    store.tell("loss", {"STAGE": "TRAIN"})
    store.log((1, 2, 2), NO_STAGE)
    assert {"iteration", "validation"} == granularities(store)


def test_without_a_stage_a_total_shows_itself(store):
    """The third step with the same bound is a training iteration, and those after it."""
    for iteration in range(1, 6):
        store.log((1, iteration, 40), NO_STAGE)
    assert (1, 5, 3) == place(store)


def test_a_total_shows_itself_between_validations(store):
    """After a training step the third triple with one bound does; it is known in later epochs."""
    store.log((0, 1), NO_STAGE)
    for epoch in range(3):
        for iteration in range(4):
            store.log((epoch, iteration, 4), NO_STAGE)
        for validation in range(1, 3):
            store.log((epoch, 4, validation), {"val_loss": 1.0})
    assert (2, 4, 1 + 2 + 4 + 4) == place(store)


@pytest.mark.parametrize("odd", [None, "x", [1], {"a": 1}])
def test_a_triple_without_numbers_is_compared_with_nothing(store, odd):
    """Whatever it holds, those after it are read."""
    for step in [(1, odd, 4), (1, 2, 4), (1, 2, odd), (1, 3, 4)]:
        store.log(step, NO_STAGE)


@pytest.mark.parametrize(
    "steps",
    [
        [(0, 10, i) for i in range(5)],  # a validation of five batches
        [(0, 10 * i, 3) for i in range(1, 6)],  # it does not bound the iteration
        [(0, 10, 9), (0, 2, 8), (0, 3, 9), (0, 4, 8)],
        [(0, i, None) for i in range(5)],
        [("a", i, "b") for i in range(5)],
    ],
)
def test_what_dllogger_defines_stays(store, steps):
    """(epoch, iteration, validation iteration)."""
    for step in steps:
        store.log(step, NO_STAGE)
    assert {"validation"} == granularities(store)
    assert 0 == store.ranks[0].steps


def test_pairs_of_iteration_and_all_iterations(store, caplog):
    """The last element stays, and the first one counts up to it."""
    for iteration in range(1, 6):
        store.log((iteration, 50), TRAIN)
    assert (None, 5, 5) == place(store)
    assert 1 == caplog.text.count("(iteration, all iterations)")
    store.log((50, 50), TRAIN)
    assert (None, 50, 50) == place(store)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(0, 50), (1, 50)], (1, 50, 2)),  # the ends of two epochs
        ([(1, 3), (2, 3), (3, 3), (4, 3)], (4, 3, 4)),  # beyond the bound
        ([(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)], (3, 2, 8)),
        ([(0, 0), (1, 0), (2, 0)], (2, 0, 3)),
        ([(2, 9), (1, 9), (0, 9)], (0, 9, 3)),
    ],
)
def test_other_pairs_are_epoch_and_iteration(store, steps, expected):
    """As DLLogger defines them."""
    for step in steps:
        store.log(step, TRAIN)
    assert expected == place(store)


def test_a_pair_that_contradicts_ends_the_guess(store):
    """A new last element is an iteration again."""
    for step in [(1, 50), (2, 50), (3, 50), (4, 60)]:
        store.log(step, TRAIN)
    assert (4, 60) == place(store)[:2]


@pytest.mark.parametrize(
    ("setting", "step", "expected"),
    [
        ("dllogger", (1, 2, 4), ({"validation"}, (1, 2, 0))),
        ("total", (1, 2, 4), ({"iteration"}, (1, 2, 1))),
        ("TOTAL", (1, 2, 4), ({"iteration"}, (1, 2, 1))),
        ("auto", (1, 2, 4), ({"iteration"}, (1, 2, 1))),
        ("", (1, 2, 4), ({"iteration"}, (1, 2, 1))),
        ("typo", (1, 2, 4), ({"iteration"}, (1, 2, 1))),
    ],
)
def test_a_setting_overrides_the_guess(monkeypatch, setting, step, expected, caplog):
    """OTEL_DLLOGGER_STEPS says what the tuples are."""
    monkeypatch.setenv("OTEL_DLLOGGER_STEPS", setting)
    store = Store()
    store.log(step, TRAIN)
    assert expected == (granularities(store), place(store))
    assert ("typo" in caplog.text) == (setting == "typo")


@pytest.mark.parametrize(("setting", "expected"), [("total", (None, 2)), ("dllogger", (2, 50))])
def test_a_setting_holds_for_pairs_too(monkeypatch, setting, expected):
    """From the first one whose total repeats."""
    monkeypatch.setenv("OTEL_DLLOGGER_STEPS", setting)
    store = Store()
    for step in [(1, 50), (2, 50)]:
        store.log(step, TRAIN)
    assert expected == place(store)[:2]


@pytest.mark.parametrize("steps", [[(1, 50), (2, 50), (3, 50)], [(1, i, 9) for i in range(2)]])
def test_what_was_decided_survives_a_checkpoint(store, steps):
    """A reader that continues decides as the one before would have."""
    for step in steps:
        store.log(step, NO_STAGE)
    plain = json.loads(json.dumps(store.ranks[0].to_plain()))
    loaded = RankState(0, 0)
    loaded.load_plain(plain)
    assert plain == json.loads(json.dumps(loaded.to_plain()))


def test_an_epoch_that_is_not_known(store):
    """None takes no place of its own, and leaves the iteration."""
    store.log((None, 7, None), VAL)
    assert (None, 7) == place(store)[:2]

"""How much the store keeps at most, and that the rest is counted."""

from __future__ import annotations

import math

import pytest

from otel_dllogger.metrics.store import MAX_LONG_NAMES_CHARACTERS
from tests.support.store import A_RANK, Store


def test_names_beyond_the_limit_are_counted(counted):
    """Each metric costs its value and its count of NaN; known ones go on."""
    store = Store(room=4)
    store.log((0, 1), {"a": 1, "b": 1})
    assert counted() == {}
    store.log((0, 2), {"a": 2, "c": 2, "d": 2})
    store.log((0, 3), {"a": 3, "c": 3, "b": math.nan})
    store.log((0,), {"a": 4})
    assert store.values()["iteration"]["a"] == 3
    assert list(store.values()["iteration"]) == ["a", "b"]
    assert "epoch" not in store.values()
    assert store.ranks[0].nonfinite == {"a": 0, "b": 1}
    assert counted() == {"series_limit": 4}


def test_a_record_that_meets_the_limit_is_admitted_as_far_as_it_goes(counted):
    """The first names of the record that meets the limit are in."""
    store = Store(room=4)
    store.log((0, 1), dict.fromkeys("abcd", 1))
    assert (list(store.values()["iteration"]), counted()) == (["a", "b"], {"series_limit": 2})


def test_ranks_beyond_the_limit_are_counted(counted):
    """A rank that there is no room for is dropped whole, value by value."""
    store = Store(room=A_RANK + 2)
    store.log((0, 1), {"rank": 1, "a": 1})
    store.log((0, 1), {"rank": 2, "a": 1, "b": 2})
    store.log((0, 2), {"rank": 1, "a": 2})
    assert set(store.ranks) == {0, 1}
    assert store.values(1) == {"iteration": {"a": 2}}
    assert counted() == {"series_limit": 2}


def test_parameters_beyond_the_limit_are_counted(counted):
    """Parameters count as series, and those that are known go on."""
    store = Store(room=2)
    store.log("PARAMETER", {"a": 1, "b": 2, "c": 3})
    store.log("PARAMETER", {"a": 5, "c": 3})
    assert store.ranks[0].parameters == {"a": 5, "b": 2}
    assert counted() == {"series_limit": 2}


def test_best_counts_as_a_series(counted):
    """There is no best where there is no room, and a goal that goes makes room."""
    store = Store(room=3)
    store.tell("a", {"GOAL": "MINIMIZE"})
    store.log((0, 1), {"a": 1.0})
    assert (store.ranks[0].best, counted()) == ({"a": 1.0}, {})
    store.log((0, 2), {"b": 1.0})
    assert counted() == {"series_limit": 1}
    store.tell("a", {"GOAL": "NONE"})
    store.log((0,), {"a": 1.0})
    assert counted() == {"series_limit": 1}
    assert store.values()["epoch"] == {"a": 1.0}


def test_metadata_beyond_the_limit_is_counted(counted):
    """Metadata of a million names is not kept."""
    store = Store(room=0)
    for number in range(store.max_series + 3):
        store.tell(f"m{number}", {"unit": "s"})
    assert (len(store.metadata), counted()) == (store.max_series, {"series_limit": 3})


def test_a_million_names_do_not_fill_the_memory(counted):
    """What is kept is bounded, whatever is logged."""
    store = Store(room=100)
    for number in range(2000):
        store.log((0, number), {f"loss{number}": 1.0, "rank": number % 3})
        store.log("PARAMETER", {f"p{number}": 1.0, f"t{number}": "x"})
    series = sum(len(cell) for state in store.rank_states() for cell in state.cells.values()) + sum(
        len(state.parameters) + len(state.nonfinite) for state in store.rank_states()
    )
    assert series <= 100
    assert len(store.ranks[0].texts) <= store.max_series
    assert counted()["series_limit"] > 3000


@pytest.mark.slow
@pytest.mark.parametrize("what", ["metrics", "metadata", "parameters"])
def test_names_are_bounded_by_their_characters(store, what, counted):
    """30 names of a megabyte are not kept, and each that is left out is counted."""
    count, size = 30, 1 << 20
    for number in range(count):
        name = f"{number}".rjust(size, "x")
        if what == "metrics":
            store.log((0, number), {name: 1.0})
        elif what == "metadata":
            store.tell(name, {"unit": "s"})
        else:
            store.log("PARAMETER", {name: 1.0})
    state = store.ranks[0]
    kept = {"metrics": state.iterations, "metadata": store.metadata, "parameters": state.parameters}
    assert sum(map(len, kept[what])) <= MAX_LONG_NAMES_CHARACTERS
    assert len(kept[what]) + counted()["series_limit"] == count
    store.log((1, 0), {"short": 2.0})
    assert state.iterations["short"] == 2.0


def test_long_units_are_not_kept(store):
    """Of what metadata say, no more is kept than a unit can have."""
    store.tell("loss", {"unit": "s" * (1 << 20), "GOAL": ["x" * (1 << 20)], "STAGE": "train"})
    assert len(str(store.to_plain()["metadata"])) < 10_000

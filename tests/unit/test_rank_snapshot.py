"""A store and a rank as a checkpoint keeps them: what goes through JSON is the same again."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.logs.reader import SeriesMetadata
from otel_dllogger.metrics.rank_state import RankState
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.record import Info, Metadata, Record

STEPS = st.one_of(
    st.integers(0, 50),
    st.floats(0, 50),
    st.tuples(st.integers(0, 3)),
    st.tuples(st.integers(0, 3), st.integers(0, 50)),
    st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(0, 5)),
    st.just(()),
    st.just("PARAMETER"),
)
NAMES = st.sampled_from(("train.loss", "val_accuracy", "lr", "\ud800", "a\0b"))
VALUES = st.one_of(st.floats(), st.integers(-(10**30), 10**30), st.just("text"))
ENTRIES = st.one_of(
    st.builds(
        lambda step, data, rank: Record(0, 0, step, {**data, **rank}),
        STEPS,
        st.dictionaries(NAMES, VALUES, max_size=3),
        st.sampled_from(({}, {"rank": 0}, {"rank": 2})),
    ),
    st.builds(
        lambda name, raw: Metadata(0, 0, name, raw),
        NAMES,
        st.fixed_dictionaries(
            {},
            optional={
                "unit": st.sampled_from(("s", "%", None)),
                "GOAL": st.sampled_from(("MINIMIZE", "MAXIMIZE", "NONE")),
                "stage": st.sampled_from(("TRAIN", "VAL")),
            },
        ),
    ),
    st.builds(lambda name: SeriesMetadata(f"{name}\0val", name, {"STAGE": "VAL"}), NAMES),
    st.builds(lambda data: Info(0, 0, data), st.one_of(st.just("text"), st.just({"seed": 1}))),
)


def take(store, entries, first_us):
    """Let a store take entries, a second apart."""
    for number, entry in enumerate(entries):
        if isinstance(entry, SeriesMetadata):
            store.describe(entry.key, entry.metadata, name=entry.name)
            continue
        elapsed_us = number * 10**6
        if isinstance(entry, Record):
            store.record(Record(first_us + elapsed_us, elapsed_us, entry.step, entry.data))
        elif isinstance(entry, Metadata):
            store.write_metadata(entry)
        else:
            store.write_info(entry)


def new_store():
    return SeriesStore(run="r", rank=0, start_us=7)


def restored(store):
    """Return a new store of what JSON says of another one."""
    fresh = new_store()
    fresh.load_plain(json.loads(json.dumps(store.to_plain())))
    return fresh


def shown(store):
    """Return all that can be seen of a store, NaN as text."""
    plain = store.to_plain()
    names = {
        key for rank in plain["ranks"].values() for cell in rank["cells"].values() for key in cell
    }
    mapped = {name: store.map(name) for name in sorted(names)}
    return json.dumps(plain, sort_keys=True), mapped, store._series


@given(st.lists(ENTRIES, max_size=12), st.lists(ENTRIES, max_size=12))
def test_a_store_goes_on_from_a_snapshot_as_if_nothing_was(before, after):
    """Values, names, bests, counts of series and steps: now, and after more was logged."""
    store = new_store()
    take(store, before, 10**9)
    fresh = restored(store)
    assert shown(store) == shown(fresh)
    take(store, after, 10**10)
    take(fresh, after, 10**10)
    assert shown(store) == shown(fresh)


def test_what_is_not_finite_is_kept():
    """JSON of the standard has no NaN; a checkpoint must."""
    store = new_store()
    take(store, [Record(0, 0, 1, {"loss": math.nan, "top": math.inf})], 0)
    cell = restored(store).ranks[0].iterations
    assert (True, math.inf) == (math.isnan(cell["loss"]), cell["top"])


def test_a_validation_that_is_repeated_is_the_same_place_after_a_restart():
    """Places are compared by the identity of their kind."""
    store = new_store()
    take(store, [Record(0, 0, (0, 5, 1), {"loss": 1})], 0)
    (state,) = restored(store).ranks.values()
    assert store.ranks[0].place == state.place
    assert store.ranks[0].place[0] is state.place[0]


@pytest.mark.parametrize(
    "change",
    [
        {"logs": "1"},
        {"logs": None},
        {"steps": "many"},
        {"start_us": 1.5},
        {"last_log_us": "x"},
        {"finished": 1},
        {"epoch": []},
        {"best": [1]},
        {"best": {"loss": "1"}},
        {"nonfinite": {"loss": 0.5}},
        {"texts": {"name": 1}},
        {"calls": None},
        {"cells": {"iteration": {"loss": None}}},
        {"cells": {"nothing": {}}},
        {"cells": []},
        {"place": 3},
        {"place": ["nothing", [1, 2]]},
    ],
)
def test_what_is_no_snapshot_is_refused(change):
    """An error comes at once, and none with a later record."""
    plain = json.loads(json.dumps(RankState(0, 1).to_plain()))
    RankState(0, 2).load_plain(plain)
    with pytest.raises((LookupError, TypeError, ValueError)):
        RankState(0, 2).load_plain({**plain, **change})
    (missing,) = change
    del plain[missing]
    with pytest.raises(KeyError):
        RankState(0, 2).load_plain(plain)


def test_ranks_of_a_snapshot_that_do_not_fit_are_left_out(counted):
    """A process that is restarted with a lower limit goes on with the ranks there is room for."""
    store = new_store()
    records = [Record(0, 0, (0, 5), {"loss": rank, "rank": rank}) for rank in range(4)]
    take(store, records, 10**9)
    fresh = SeriesStore(run="r", rank=3, start_us=7, max_series=store._series - 5)
    fresh.load_plain(json.loads(json.dumps(store.to_plain())))
    assert [3, 0, 1] == list(fresh.ranks)
    for rank, state in fresh.ranks.items():
        assert store.ranks[rank].to_plain() == state.to_plain()
    take(fresh, records, 10**10)
    assert [2, 2, 2] == [state.logs for state in fresh.rank_states()]
    assert {"series_limit": 1} == counted()

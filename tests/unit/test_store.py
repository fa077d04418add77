"""The last values of every series, and what is known of each rank."""

from __future__ import annotations

import argparse
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.diagnostics import PROCESS, REASONS
from otel_dllogger.json_encoding import encode_record
from otel_dllogger.metrics.naming import MetricMetadata
from otel_dllogger.metrics.store import MAX_LONG_NAMES_CHARACTERS, SeriesStore
from otel_dllogger.record import Info, Metadata, Record, SeriesMetadata

# Series that there are before anything is logged: what a rank has (dllogger_records_total
# counts as 4), what the process has, and target_info.
A_RANK = 12
A_PROCESS = len(REASONS[PROCESS]) + 2


class Store(SeriesStore):
    """A store that is logged to in one line, after a JSON backend or alone."""

    def __init__(self, *, rank=0, room=1000, encoded=False):
        series = A_PROCESS + A_RANK + room
        super().__init__(run="run", rank=rank, start_us=5_000_000, max_series=series)
        self.encoded = encoded
        self.woken = 0
        self.on_new_series = self.wake

    def wake(self):
        self.woken += 1

    def log(self, step, data, at_s=0.0):
        record = Record(round(at_s * 1e6) + 10_000_000, round(at_s * 1e6), step, data)
        if self.encoded:
            encode_record(record)
        self.take(record)

    def tell(self, metric, metadata):
        self.take(Metadata(0, 0, metric, metadata))

    def info(self, data):
        self.take(Info(7_000_000, 0, data))

    def values(self, rank=0):
        """Return the values by granularity, without the granularities that have none."""
        return {name: cell for name, cell in self.ranks[rank].cells.items() if cell}


@pytest.fixture(params=[False, True], ids=["alone", "after JSON"])
def store(request):
    """A store that converts records itself, and one behind a backend that encoded them."""
    return Store(encoded=request.param)


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


# Parameters, metadata, info


@pytest.mark.parametrize("step", ["PARAMETER", "HPARAMS"])
def test_parameters(store, step):
    """Numbers are parameters by their path, text is kept apart, and neither is a metric."""
    store.log(
        step,
        {
            "lr": 0.1,
            "batch_size": "128",
            "amp": True,
            "arch": "resnet50",
            "seed": None,
            "sizes": [1, 2],
            "nan": math.nan,
            "optimizer": {"name": "sgd", "decay": {"weight": 1e-4}},
            "config": argparse.Namespace(depth=3),
        },
    )
    state = store.ranks[0]
    assert state.parameters == {
        "lr": 0.1,
        "batch_size": 128,
        "amp": 1,
        "optimizer.decay.weight": 1e-4,
        "config.depth": 3,
    }
    assert state.texts == {"arch": "resnet50", "optimizer.name": "sgd"}
    assert (store.values(), state.logs, state.calls["parameter"]) == ({}, 0, 1)
    assert state.last_log_us == 10_000_000


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "db_password",
        "DB.PASSWD",
        "wandb_api_key",
        "apiKey",
        "api-key",
        "aws_secret_access_key",
        "accessKey",
        "private_key",
        "hf_token",
        "authToken",
        "token",
        "auth",
        "client_secret",
        "credentials",
    ],
)
def test_secrets_are_left_out(store, name):
    """A parameter whose name speaks of a secret is kept nowhere, number or text, nested too."""
    store.log("PARAMETER", {name: "hunter2", "a": {name: 1234}, name + "s": 5, "lr": 0.1})
    store.log("PARAMETER", {name: {"value": "hunter2", "b": {"c": 1}}})
    state = store.ranks[0]
    assert "hunter2" not in state.texts.values()
    assert [n for n in state.parameters if n != f"{name}s"] == ["lr"]


@pytest.mark.parametrize("name", ["max_tokens", "tokens", "keys", "author", "tokenizer", "monkey"])
def test_what_only_sounds_like_a_secret_is_kept(store, name):
    """Words are compared as wholes."""
    store.log("PARAMETER", {name: 1})
    assert store.ranks[0].parameters == {name: 1}


def test_a_secret_within_a_text_is_taken_out(store):
    """The rest of it stays, and of a long text it is taken out before that is cut."""
    command = "train.py --lr 0.1 --password hunter2 --epochs 3"
    store.log("PARAMETER", {"argv": command, "db": "pg://me:hunter2@h/x", "tokens": "hunter2"})
    store.info({"env": "A=1 " * 62 + "HF_TOKEN=hunter2 " + "B=2 " * 10_000})
    store.info({"weights": {"s3://me:hunter2@b/x": 0.5}})
    state = store.ranks[0]
    assert "hunter2" not in str(state.to_plain())
    assert state.texts["argv"] == "train.py --lr 0.1 --password [redacted] --epochs 3"
    assert state.texts["db"] == "pg://[redacted]@h/x"
    assert state.texts["env"].startswith("A=1 " * 59)
    assert state.parameters == {"weights.s3://[redacted]@b/x": 0.5}


def test_a_parameter_has_one_value(store):
    """The later one counts, a number or a text; what is neither changes nothing."""
    state = store.ranks[0]
    for value, number, text in (
        ("auto", None, "auto"),
        (0.1, 0.1, None),
        (math.nan, 0.1, None),
        ("auto", None, "auto"),
        (None, None, "auto"),
        ("0.2", 0.2, None),
    ):
        store.log("PARAMETER", {"lr": value})
        assert (state.parameters.get("lr"), state.texts.get("lr")) == (number, text)
    store.log("PARAMETER", {"a.b": 1, "a": {"b": "x"}, "c.d": "y", "c": {"d": 2}})
    assert (state.parameters, state.texts) == ({"lr": 0.2, "c.d": 2}, {"a.b": "x"})


@pytest.mark.parametrize("encoded", [False, True])
def test_a_parameter_that_becomes_text_makes_room(encoded):
    """And takes it again as a number, of which there are never more than there is room for."""
    store = Store(room=2, encoded=encoded)
    state = store.ranks[0]
    for _ in range(3):
        store.log("PARAMETER", {"a": 1, "b": 2})
        store.log("PARAMETER", {"a": "x"})
        store.log("PARAMETER", {"c": 3})
        assert (state.parameters, state.texts) == ({"b": 2, "c": 3}, {"a": "x"})
        store.log("PARAMETER", {"a": 1})  # no room: it is what it was last nowhere
        assert (state.parameters, state.texts) == ({"b": 2, "c": 3}, {})
        store.log("PARAMETER", {"c": "x", "b": "x"})
        store.log("PARAMETER", {"c": 1, "b": 1, "d": 1})
        assert (state.parameters, state.texts) == ({"c": 1, "b": 1}, {})
        store.log("PARAMETER", {"c": "x", "b": "x"})
        state.texts.clear()


def test_nested_parameters_are_followed_to_a_bounded_depth(store):
    """A whole configuration costs what its first levels cost."""
    nested = {"lr": 1.0}
    for _level in range(20):
        nested = {"a": nested, "n": 1.0}
    store.log("PARAMETER", nested)
    assert list(store.ranks[0].parameters) == [f"{'a.' * n}n" for n in reversed(range(8))]


@pytest.mark.parametrize(
    ("data", "parameters"),
    [
        ("start training ...", {}),
        ({"lr": 0.2, "model": "x"}, {"lr": 0.2}),
        (argparse.Namespace(lr=0.2, token="x"), {"lr": 0.2}),
        (None, {}),
        ([1, 2], {}),
    ],
    ids=repr,
)
def test_info(store, data, parameters):
    """The numbers of a dict or Namespace are parameters; every call is a sign of life."""
    store.info(data)
    state = store.ranks[0]
    assert (state.parameters, state.calls["info"]) == (parameters, 1)
    assert state.last_log_us == 7_000_000


def test_metadata_is_merged(store):
    """Later metadata adds to earlier, overrides it, and an empty one takes nothing away."""
    found = []
    for metadata in (
        {"unit": "s"},
        {"GOAL": "MINIMIZE"},
        {},
        {"unit": "ms", "STAGE": "TRAIN", "format": ":.3f"},
        {"GOAL": None},
        None,
        "text",
    ):
        store.tell("loss", metadata)
        found.append(store.metadata.get("loss", MetricMetadata()))
    assert found == [
        MetricMetadata("s"),
        MetricMetadata("s", "minimize"),
        MetricMetadata("s", "minimize"),
        MetricMetadata("ms", "minimize", "train"),
        MetricMetadata("ms", None, "train"),
        MetricMetadata("ms", None, "train"),
        MetricMetadata("ms", None, "train"),
    ]
    assert store.ranks[0].calls["metadata"] == 7


def test_metadata_that_says_nothing_new_changes_nothing(store):
    """Whoever moves series is told of real changes only."""
    store.tell("loss", {"unit": None, "format": ":.3f"})
    assert (store.changed_metadata, store.woken) == (set(), 0)
    store.tell("loss", {"unit": "s"})
    assert (store.changed_metadata, store.woken) == ({"loss"}, 1)
    store.changed_metadata.clear()
    store.tell("loss", {"unit": "sec"})
    assert (store.changed_metadata, store.woken) == (set(), 1)


def test_metadata_of_a_name_that_is_no_text(store):
    """Names are those that the JSON line has."""
    store.tell(3, {"GOAL": "MINIMIZE"})
    store.log((0, 1), {3: 0.5})
    assert store.ranks[0].best == {"3": 0.5}


# Limits


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


def test_a_key_of_ones_own_is_exported_by_the_name_that_was_logged(store):
    """A reader tells metrics apart by keys that no label may show."""
    store.take(SeriesMetadata("loss\0val", "loss", {"STAGE": "VAL"}))
    store.take(SeriesMetadata("lr", "lr", {"unit": "s"}))
    mapped = store.map("loss\0val")
    assert ("loss", "dl_loss", "val") == (mapped.metric, mapped.prometheus_name, mapped.stage)
    assert "lr" == store.map("lr").metric
    assert {"loss\0val": "loss"} == store.to_plain()["names"]


@pytest.mark.parametrize("what", ["metrics", "metadata", "parameters"])
def test_names_are_bounded_by_their_characters(store, what, counted):
    """300 names of a megabyte are not kept, and each that is left out is counted."""
    count, size = 300, 1 << 20
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

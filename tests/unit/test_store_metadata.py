"""Parameters, metadata and infos in the store."""

from __future__ import annotations

import argparse
import math

import pytest

from otel_dllogger.metrics.naming import MetricMetadata
from tests.support.store import Store


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

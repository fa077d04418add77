"""Backends, loggers and format hooks that users of DLLogger derive and pass in."""

from __future__ import annotations

import io
import sys
import types
from datetime import datetime, timedelta

import numpy as np
import pytest

from otel_dllogger import (
    Backend,
    JSONStreamBackend,
    Logger,
    StdOutBackend,
    Verbosity,
)
from tests.support.drop_in import Keeper, read_lines

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("_no_global_logger")]


# What users derive from the package, and what they do not derive


def test_a_backend_of_two_methods_gets_dlloggers_arguments():
    """It is given a naive local datetime, float seconds, and the user's own objects."""
    keeper = Keeper()
    before = datetime.now()  # noqa: DTZ005 - naive by contract
    logger = Logger([keeper])
    step, data, metadata = (0, np.int64(1)), {"loss": np.float32(1.0)}, {"unit": None}
    logger.metadata("loss", metadata)
    logger.log(step, data)
    logger.flush()
    logger.info("ignored")
    after = datetime.now()  # noqa: DTZ005 - naive by contract
    (timestamp, elapsedtime, *logged) = keeper.logged[0]
    assert logged[0] is step
    assert logged[1] is data
    assert keeper.described[0][3] is metadata
    assert type(timestamp) is datetime
    assert timestamp.tzinfo is None
    assert type(elapsedtime) is float
    a_little = timedelta(milliseconds=5)  # the wall clock may be set by the system
    assert before - a_little <= keeper.described[0][0] <= timestamp <= after + a_little
    assert 0.0 <= keeper.described[0][1] <= elapsedtime <= (after - before).total_seconds() + 1


def test_a_backend_without_log_or_metadata_cannot_be_made():
    """The two methods are abstract, flush is not."""
    assert Backend.__abstractmethods__ == {"log", "metadata"}


def test_a_backend_whose_log_level_raises():
    """No attribute that a subclass may not have is read."""

    class Levelled(Keeper):
        @property
        def log_level(self):
            return self._log_level  # never set, as in the script that has it

    keeper = Levelled()
    with Logger([keeper]) as logger:
        logger.metadata("loss", {})
        logger.info("text")
        logger.log((0, 1), {"loss": 1.0})
        logger.flush()
    assert keeper.steps == [(0, 1)]


class Duck:
    """Not derived from Backend, with the attributes that upstream's Logger uses."""

    verbosity = 1

    def __init__(self):
        self.calls = []

    def log(self, timestamp, elapsedtime, step, data):
        self.calls.append(("log", type(timestamp), type(elapsedtime), step, data))

    def metadata(self, timestamp, elapsedtime, metric, metadata):
        self.calls.append(("metadata", type(timestamp), type(elapsedtime), metric, metadata))

    def flush(self):
        self.calls.append(("flush",))


def test_a_duck_typed_backend(counted):
    """A backend that is derived from nothing gets DLLogger's calls, and no others."""
    duck = Duck()
    with Logger([duck]) as logger:
        logger.metadata("loss", {})
        logger.log((0, 1), {"loss": 1.0})
        logger.info("text")
        logger.flush()
    assert duck.calls == [
        ("metadata", datetime, float, "loss", {}),
        ("log", datetime, float, (0, 1), {"loss": 1.0}),
        ("flush",),
    ]
    assert counted() == {}


def test_a_backend_made_of_functions_is_flushed(counted):
    """Methods that stand on the object and not on its class are called all the same."""
    calls = []
    backend = types.SimpleNamespace(
        verbosity=1,
        log=lambda *_arguments: calls.append("log"),
        metadata=lambda *_arguments: calls.append("metadata"),
        flush=lambda: calls.append("flush"),
    )
    logger = Logger([backend])
    logger.metadata("loss", {})
    logger.log((0, 1), {"loss": 1.0})
    logger.flush()
    assert (calls, counted()) == (["metadata", "log", "flush"], {})


def test_a_proxy_that_passes_attributes_on_keeps_its_own_log(tmp_path):
    """A wrapper that filters log and hands everything else on is not gone round."""

    class EverySecond:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def log(self, timestamp, elapsedtime, step, data):
            if step[1] % 2 == 0:
                self.inner.log(timestamp, elapsedtime, step, data)

    path = tmp_path / "log.json"
    logger = Logger([EverySecond(JSONStreamBackend(1, path))])
    logger.metadata("loss", {})
    for iteration in range(4):
        logger.log((0, iteration), {"loss": 1.0})
    logger.flush()
    lines = read_lines(path)
    assert [line.get("step", line["type"]) for line in lines] == ["METADATA", [0, 0], [0, 2]]


def test_a_logger_subclass_with_an_own_log():
    """A subclass of Logger may override log and call super's, by position or by name."""

    class PerEpoch(Logger):
        def __init__(self, backends):
            super().__init__(backends)
            self.epoch = 0

        def log(self, step, data, verbosity=0):
            super().log(step=(self.epoch, step), data=data, verbosity=verbosity)

    keeper = Keeper(0)
    logger = PerEpoch([keeper])
    logger.log(7, {"loss": 1.0})
    logger.metadata("loss", {})
    logger.flush()
    assert keeper.steps == [(0, 7)]
    assert len(keeper.described) == 1


def test_a_logger_subclass_with_an_own_metadata_serves_metadata_batch():
    """metadata_batch goes through the subclass's metadata."""

    class Prefixed(Logger):
        def metadata(self, metric, metadata):
            super().metadata(f"train.{metric}", metadata)

    keeper = Keeper()
    Prefixed([keeper]).metadata_batch(["loss", "lr"], {"unit": ""})
    assert [entry[2] for entry in keeper.described] == ["train.loss", "train.lr"]


def test_a_subclass_of_our_json_backend_with_an_own_log(tmp_path):
    """Its log is called once a call with DLLogger's arguments, and super().log writes."""
    calls = []

    class Scaled(JSONStreamBackend):
        def log(self, timestamp, elapsedtime, step, data):
            calls.append((timestamp.tzinfo, type(elapsedtime), step))
            super().log(timestamp, elapsedtime, step, {k: v * 2 for k, v in data.items()})

    path = tmp_path / "log.json"
    logger = Logger([Scaled(Verbosity.VERBOSE, path)])
    logger.metadata("loss", {"unit": "nat"})
    logger.log((0, 1), {"loss": 1.5})
    logger.flush()
    lines = read_lines(path)
    assert calls == [(None, float, (0, 1))]
    assert [line["type"] for line in lines] == ["METADATA", "LOG"]
    assert lines[1]["data"] == {"loss": 3.0}


def test_a_subclass_of_our_stdout_backend_with_an_own_log_and_metadata(capsys):
    """Its methods are called once a call, and super's do what they always did."""
    calls = []

    class Gated(StdOutBackend):
        def log(self, timestamp, elapsedtime, step, data):
            calls.append("log")
            if step != ():
                super().log(timestamp, elapsedtime, step, data)

        def metadata(self, timestamp, elapsedtime, metric, metadata):
            calls.append("metadata")
            super().metadata(timestamp, elapsedtime, metric, {**metadata, "unit": "nat"})

        def info(self, timestamp, data):
            calls.append("info")
            super().info(timestamp, data)

    logger = Logger([Gated(1, prefix_format=lambda _timestamp: "")])
    logger.metadata("loss", {"format": ":.1f"})
    logger.log((0, 1), {"loss": 1.0})
    logger.log((), {"loss": 1.0})
    logger.info("text")
    assert calls == ["metadata", "log", "log", "info"]
    assert capsys.readouterr().out == "(0, 1) loss : 1.0 nat\ntext\n"


def test_a_mixin_before_our_backend(tmp_path):
    """A log that comes from a mixin counts as the user's own."""

    class RankZero:
        def log(self, timestamp, elapsedtime, step, data):
            if data.get("rank", 0) == 0:
                super().log(timestamp, elapsedtime, step, data)

    class Gated(RankZero, JSONStreamBackend):
        pass

    path = tmp_path / "log.json"
    logger = Logger([Gated(1, path)])
    for rank in range(3):
        logger.log((0, rank), {"rank": rank})
    assert [line["step"] for line in read_lines(path)] == [[0, 0]]


# Format hooks


def test_format_hooks_get_the_users_own_objects(capsys):
    """Steps, values and metadata come to the hooks unchanged, the timestamp naive."""
    seen = {}

    def step_format(step):
        seen["step"] = step
        return f"Epoch {step[0]}"

    def metric_format(metric, metadata, value):
        seen["metric"] = (metric, metadata, value)
        return f"{metric}: {value.sum()}"

    def prefix_format(timestamp):
        seen["timestamp"] = timestamp
        return "DLLL - "

    step, metadata, value = [np.int64(3), {"any": "object"}], {"unit": "nat"}, np.ones(4)
    logger = Logger([StdOutBackend(1, step_format, metric_format, prefix_format)])
    logger.metadata("loss", metadata)
    logger.log(step, {"loss": value})
    assert seen["step"] is step
    assert seen["metric"][2] is value
    assert seen["metric"][:2] == ("loss", {"unit": "nat"})
    assert type(seen["timestamp"]) is datetime
    assert seen["timestamp"].tzinfo is None
    assert capsys.readouterr().out == "DLLL - Epoch 3 loss: 4.0\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"rank": "3"}, 3),
        ({"rank": -1}, 0),
        ({"rank": 1.5}, 5),
        ({"rank": 2}, 2),
        ({"rank": np.int64(4)}, 4),
        ({}, 5),
        ("text", 5),
    ],
)
def test_prefix_format_of_tcap_takes_rank_and_timestamp(monkeypatch, capsys, data, expected):
    """The rank is the record's own, else the process's; the timestamp is DLLogger's."""
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    seen = []

    def prefix_format(rank, timestamp):
        seen.append((rank, type(timestamp)))
        return f"[{rank}] "

    logger = Logger(
        [StdOutBackend(1, lambda _: "s", lambda *_arguments: "m", prefix_format=prefix_format)]
    )
    logger.log((0, 1), data)
    logger.info("text")
    assert seen == [(expected, datetime), (5, datetime)]
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out] == [f"[{expected}]", "[5]"]


def test_a_prefix_format_put_in_later(capsys):
    """Scripts replace the hooks of a backend that is in use; its form is found out anew."""
    backend = StdOutBackend(1, lambda _: "s", lambda *_arguments: "m")
    backend.prefix_format = lambda _timestamp: "one "
    logger = Logger([backend])
    logger.log(0, {"x": 1})
    backend.prefix_format = lambda rank, _timestamp: f"two {rank} "
    logger.log(0, {"x": 1})
    backend.prefix_format = lambda _timestamp, extra="three": f"{extra} "
    logger.log(0, {"x": 1})
    assert capsys.readouterr().out == "one s m\ntwo 0 s m\nthree s m\n"


def test_info_reaches_a_users_backend_that_wants_it():
    """TCAP's backends have info(timestamp, data)."""
    seen = []

    class Informed(Keeper):
        def info(self, timestamp, data):
            seen.append((type(timestamp), timestamp.tzinfo, data))

    data = {"lr": 0.1}
    Logger([Informed(), Keeper(), Duck()]).info(data)
    assert seen == [(datetime, None, data)]
    assert seen[0][2] is data


def test_stdout_is_looked_up_at_every_line(monkeypatch):
    """A script that replaces sys.stdout after init gets its lines there."""
    logger = Logger([StdOutBackend(1, prefix_format=lambda _: "")])
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    logger.log(0, {"loss": None})
    assert stream.getvalue() == "0 loss : None \n"

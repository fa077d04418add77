"""Scripts written for NVIDIA DLLogger and for TCAP DLLogger, unchanged but for the import."""

from __future__ import annotations

import argparse
import atexit
import io
import json
import math
import os
import subprocess
import sys
import types
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

import otel_dllogger as dllogger
from otel_dllogger import (
    Backend,
    ConfigurationError,
    DLLLoggerAlreadyInitialized,
    DLLoggerNotInitialized,
    JSONStreamBackend,
    Logger,
    StdOutBackend,
    Verbosity,
)
from otel_dllogger.logger import attached

DEADLINE_S = 30

# What DLLogger's own users do in every script of NVIDIA's DeepLearningExamples.
MODULE_CALLS = {
    "log": lambda: dllogger.log(step=(0, 1), data={"loss": 1.0}),
    "metadata": lambda: dllogger.metadata("loss", {"unit": "nat"}),
    "metadata_batch": lambda: dllogger.metadata_batch(["loss"], {"unit": "nat"}),
    "info": lambda: dllogger.info("hello"),
    "flush": dllogger.flush,
}


@pytest.fixture(autouse=True)
def _no_global_logger():
    yield
    dllogger.shutdown()


class Keeper(Backend):
    """A user's backend: DLLogger's two abstract methods and nothing else."""

    def __init__(self, verbosity=Verbosity.VERBOSE):
        super().__init__(verbosity=verbosity)
        self.logged = []
        self.described = []

    def log(self, timestamp, elapsedtime, step, data):
        self.logged.append((timestamp, elapsedtime, step, data))

    def metadata(self, timestamp, elapsedtime, metric, metadata):
        self.described.append((timestamp, elapsedtime, metric, metadata))

    @property
    def steps(self):
        return [step for _timestamp, _elapsedtime, step, _data in self.logged]


def read_lines(path):
    """Read a log back as DLLogger's users do."""
    with Path(path).open() as file:
        return [json.loads(line[4:]) for line in file]


def run_script(tmp_path, code, *arguments, tz="UTC", **environ):
    """Run a script in a process of its own, and return its stdout, stderr and exit code."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "TZ": tz, **environ},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return result.stdout, result.stderr, result.returncode


# Module functions, GLOBAL_LOGGER, exceptions


@pytest.mark.parametrize("name", MODULE_CALLS)
def test_every_module_function_raises_before_init(name):
    """A call before init raises DLLoggerNotInitialized, flush included."""
    with pytest.raises(DLLoggerNotInitialized, match=r"init\(backends\)"):
        MODULE_CALLS[name]()


@pytest.mark.parametrize("attribute", ["backends", "log", "flush", "__class__", "anything"])
def test_the_global_logger_refuses_every_attribute_before_init(attribute):
    """GLOBAL_LOGGER stands there before init, but answers nothing."""
    with pytest.raises(DLLoggerNotInitialized):
        getattr(dllogger.GLOBAL_LOGGER, attribute)


def test_the_exceptions_keep_dlloggers_names():
    """The second one is spelt with three L's, and neither is a kind of the other."""
    names = [DLLoggerNotInitialized.__name__, DLLLoggerAlreadyInitialized.__name__]
    assert names == ["DLLoggerNotInitialized", "DLLLoggerAlreadyInitialized"]
    assert DLLoggerNotInitialized.__bases__ == (Exception,)
    assert DLLLoggerAlreadyInitialized.__bases__ == (Exception,)


@pytest.mark.parametrize("backends", [[], [Keeper()]], ids=["empty", "one"])
def test_a_second_init_raises(backends):
    """A second init raises, also after init([]), and the first Logger stays."""
    dllogger.init(backends)
    first = dllogger.GLOBAL_LOGGER
    with pytest.raises(DLLLoggerAlreadyInitialized):
        dllogger.init(backends=[])
    assert dllogger.GLOBAL_LOGGER is first


def test_init_makes_a_logger_of_the_very_list():
    """GLOBAL_LOGGER is a Logger, and its backends are the list that init was given."""
    backends = [Keeper()]
    dllogger.init(backends)
    assert type(dllogger.GLOBAL_LOGGER) is Logger
    assert dllogger.GLOBAL_LOGGER.backends is backends


def test_a_failed_init_leaves_the_module_as_it_was():
    """After an init that raised, the module is not initialized, and init works."""
    with pytest.raises(ConfigurationError, match="is not a list"):
        dllogger.init(None)
    with pytest.raises(DLLoggerNotInitialized):
        dllogger.flush()
    dllogger.init([])
    dllogger.flush()


def test_init_with_no_backends_takes_every_call():
    """What all ranks but 0 do: init([]), and then the same calls as rank 0."""
    dllogger.init([])
    assert [call() for call in MODULE_CALLS.values()] == [None] * len(MODULE_CALLS)


def test_rank_gated_init_and_ungated_flush_raises_as_upstream():
    """A script that inits on rank 0 alone and flushes everywhere fails on rank 1, as before."""
    rank = 1
    if rank == 0:
        dllogger.init([])
    with pytest.raises(DLLoggerNotInitialized):
        dllogger.flush()


def test_shutdown_lets_init_be_called_again(tmp_path):
    """After shutdown there is no Logger; a new init opens the same file anew with "w"."""
    path = tmp_path / "log.json"
    for run in range(2):
        dllogger.init([JSONStreamBackend(Verbosity.VERBOSE, path)])
        dllogger.log((0, run), {"loss": 1.0})
        dllogger.shutdown()
        with pytest.raises(DLLoggerNotInitialized):
            dllogger.log((0, run), {"loss": 1.0})
    assert [line["step"] for line in read_lines(path)] == [[0, 1]]


def test_shutdown_without_init_does_nothing():
    """Calling shutdown twice, or before init, is no error."""
    assert [dllogger.shutdown(), dllogger.shutdown()] == [None, None]


def test_positional_and_keyword_calls(tmp_path, capsys):
    """Every argument may be given by position or by DLLogger's name."""
    by_name, by_place = tmp_path / "name.json", tmp_path / "place.json"
    dllogger.init(
        backends=[
            JSONStreamBackend(verbosity=1, filename=by_name, append=False),
            JSONStreamBackend(1, by_place, False),
            StdOutBackend(
                verbosity=1,
                step_format=lambda step: f"<{step}>",
                metric_format=lambda metric, _metadata, value: f"{metric}={value}",
                prefix_format=lambda _timestamp: "",
            ),
            StdOutBackend(1, lambda _: "s", lambda _m, _d, _v: "m", lambda _: "p "),
        ]
    )
    dllogger.metadata(metric="loss", metadata={"unit": "nat"})
    dllogger.metadata("loss", {"unit": "nat"})
    dllogger.metadata_batch(metrics=["loss"], metadata={"unit": "nat"})
    dllogger.log(step=(0, 1), data={"loss": 1.0}, verbosity=0)
    dllogger.log((0, 1), {"loss": 1.0}, 0)
    dllogger.info(data="text")
    dllogger.flush()
    lines = [read_lines(path)[:5] for path in (by_name, by_place)]
    assert lines[0] == lines[1]
    assert [line["type"] for line in lines[0]] == ["METADATA"] * 3 + ["LOG"] * 2
    assert capsys.readouterr().out == "<(0, 1)> loss=1.0\np s m\n" * 2 + "text\np text\n"


# Verbosity


def test_verbosity_is_plain_ints():
    """The levels are the ints -1, 0 and 1."""
    levels = [Verbosity.OFF, Verbosity.DEFAULT, Verbosity.VERBOSE]
    assert levels == [-1, 0, 1]
    assert {type(level) for level in levels} == {int}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: dllogger.log((0,), {}), [0, 1, 2]),
        (lambda: dllogger.GLOBAL_LOGGER.log((0,), {}), [1, 2]),
        (lambda: dllogger.log((0,), {}, verbosity=Verbosity.VERBOSE), [1, 2]),
        (lambda: dllogger.log((0,), {}, 2), [2]),
        (lambda: dllogger.GLOBAL_LOGGER.log((0,), {}, Verbosity.OFF), [-1, 0, 1, 2]),
        (lambda: dllogger.GLOBAL_LOGGER.log((0,), {}, verbosity=3), []),
    ],
    ids=["module", "Logger", "VERBOSE", "2", "OFF", "3"],
)
def test_a_backend_takes_calls_up_to_its_verbosity(call, expected):
    """The module function's default verbosity is 0, that of Logger.log is 1."""
    backends = [Keeper(verbosity) for verbosity in (-1, 0, 1, 2)]
    dllogger.init(backends)
    call()
    assert [backend.verbosity for backend in backends if backend.logged] == expected


def test_metadata_knows_no_verbosity(tmp_path, capsys):
    """Metadata reaches a backend of any verbosity, as in DLLogger, and so does info."""
    path = tmp_path / "log.json"
    keeper = Keeper(Verbosity.OFF)
    silent = StdOutBackend(Verbosity.OFF)
    dllogger.init([keeper, JSONStreamBackend(Verbosity.OFF, path), silent])
    dllogger.metadata("loss", {"unit": "nat"})
    assert [entry[2:] for entry in keeper.described] == [("loss", {"unit": "nat"})]
    assert [line["type"] for line in read_lines(path)] == ["METADATA"]
    assert silent._metadata == {"loss": {"unit": "nat"}}
    assert capsys.readouterr().out == ""


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


# Logger.backends and other attributes that scripts touch


def test_the_list_of_backends_is_live():
    """Backends may be replaced, appended, removed, iterated and asked for their type."""
    first, second, third = Keeper(), Keeper(), Keeper()
    backends = [first]
    logger = Logger(backends)
    logger.log(0, {})
    logger.backends[0] = second
    logger.log(1, {})
    backends.append(third)
    logger.log(2, {})
    logger.backends.remove(second)
    logger.log(3, {})
    logger.backends = [first]
    logger.log(4, {})
    assert [first.steps, second.steps, third.steps] == [[0, 4], [1, 2], [2, 3]]
    assert [isinstance(backend, Backend) for backend in logger.backends] == [True]


def test_our_backends_are_backends(tmp_path):
    """Scripts look for one of the backends with isinstance."""
    backends = [JSONStreamBackend(1, tmp_path / "log.json"), StdOutBackend(1)]
    logger = Logger(backends)
    found = [b for b in logger.backends if isinstance(b, JSONStreamBackend)]
    assert found == backends[:1]
    assert all(isinstance(backend, Backend) for backend in logger.backends)


@pytest.mark.parametrize("kind", [tuple, iter, lambda backends: (b for b in backends)])
def test_backends_may_be_any_collection(kind):
    """A tuple stays one; an iterator is read once and kept as a list."""
    keeper = Keeper()
    logger = Logger(kind([keeper]))
    logger.log(0, {})
    logger.log(1, {})
    assert keeper.steps == [0, 1]


def test_backends_must_be_a_collection():
    """One backend alone is refused where the Logger is made, with the next step."""
    with pytest.raises(ConfigurationError, match=r"pass one, as in \[StdOutBackend"):
        Logger(Keeper())


def test_attributes_that_scripts_read(tmp_path):
    """The file name is the object that was given, the verbosity the int."""
    path, text = tmp_path / "a.json", str(tmp_path / "b.json")
    backends = [JSONStreamBackend(2, path), JSONStreamBackend(0, text), StdOutBackend(1)]
    assert backends[0]._filename is path
    assert backends[1]._filename is text
    assert [backend._verbosity for backend in backends] == [2, 0, 1]
    assert [backend.verbosity for backend in backends] == [2, 0, 1]
    assert type(Logger(backends).starttime) is datetime


def test_a_script_that_uses_the_file_itself(tmp_path):
    """The file takes text, tells its name, and a line after its close still lands."""
    path = tmp_path / "log.json"
    backend = JSONStreamBackend(1, str(path))
    assert backend.file.name == str(path)
    assert backend.file.write("DLLL {}\n") == 8
    backend.file.flush()
    backend.file.close()
    assert backend.file.closed
    Logger([backend]).log((0, 1), {"loss": 1.0})
    assert [line.get("step") for line in read_lines(path)] == [None, [0, 1]]


def test_metadata_set_on_the_stdout_backend_before_init(capsys):
    """Scripts change the defaultdict of the backend itself, before there is a Logger."""
    backend = StdOutBackend(Verbosity.DEFAULT, prefix_format=lambda _timestamp: "")
    backend._metadata["loss"].update({"unit": "nat", "format": ":.2f"})
    backend._metadata["lr"]["unit"] = None
    backend._metadata["speed"] = {"unit": "images/s"}
    dllogger.init([backend])
    dllogger.log(1, {"loss": 1, "lr": 0.1, "speed": 5})
    assert capsys.readouterr().out == "1 loss : 1.00 nat lr : 0.1 None speed : 5 images/s\n"


def test_atexit_unregister_of_flush_and_close(tmp_path):
    """Scripts take DLLogger's exit handlers back; nothing is lost nor printed for it."""
    code = """
import atexit, sys
import otel_dllogger as dllogger
backend = dllogger.JSONStreamBackend(1, sys.argv[1])
dllogger.init(backends=[backend])
atexit.unregister(dllogger.GLOBAL_LOGGER.flush)
atexit.unregister(backend.file.close)
dllogger.log((0, 1), {"loss": 1.0})
"""
    path = tmp_path / "log.json"
    assert run_script(tmp_path, code, str(path)) == ("", "", 0)
    assert [line["step"] for line in read_lines(path)] == [[0, 1]]


def test_flush_is_registered_at_exit(tmp_path):
    """A user's backend is flushed at exit, once, unless that was taken back."""
    code = """
import atexit, sys
import otel_dllogger as dllogger
class Buffered(dllogger.Backend):
    def log(self, timestamp, elapsedtime, step, data): pass
    def metadata(self, timestamp, elapsedtime, metric, metadata): pass
    def flush(self): print("flushed", self.verbosity)
kept, taken = (dllogger.Logger([Buffered(verbosity)]) for verbosity in (0, 1))
atexit.unregister(taken.flush)
closed = dllogger.Logger([Buffered(2)])
closed.close()
"""
    assert run_script(tmp_path, code) == ("flushed 2\nflushed 0\n", "", 0)


def test_a_log_call_from_an_exit_handler_lands(tmp_path):
    """A line logged after every handler of the package has run is in the file."""
    code = """
import atexit, sys
def late():
    dllogger.log((), {"total": 1.0})
atexit.register(late)
import otel_dllogger as dllogger
dllogger.init([dllogger.JSONStreamBackend(1, sys.argv[1])])
dllogger.log((0, 1), {"loss": 1.0})
backend = dllogger.GLOBAL_LOGGER.backends[0]
atexit.register(backend.file.close)
dllogger.GLOBAL_LOGGER.close()
"""
    path = tmp_path / "log.json"
    assert run_script(tmp_path, code, str(path)) == ("", "", 0)
    assert [line["step"] for line in read_lines(path)] == [[0, 1], []]


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


# JSON lines


def test_json_lines_have_dlloggers_keys_in_dlloggers_order(tmp_path):
    """No line and no key more than DLLogger writes."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    logger.metadata("loss", {"unit": "nat", "GOAL": "MINIMIZE"})
    logger.log("PARAMETER", {"lr": 0.1})
    logger.log((0, 1), {"loss": 1.0})
    logger.log((0, 1), {"hidden": 1.0}, verbosity=2)
    logger.close()
    common = ["timestamp", "datetime", "elapsedtime", "type"]
    assert [list(line) for line in read_lines(path)] == [
        ["timestamp", "elapsedtime", "datetime", "type", "metric", "metadata"],
        [*common, "step", "data"],
        [*common, "step", "data"],
    ]


def test_lines_are_read_back_at_either_offset(tmp_path):
    """Scripts cut 4 or 5 characters off before json.loads."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    logger.metadata("loss", {"unit": "nat"})
    logger.log((0, 1), {"loss": 1.0})
    lines = path.read_text().splitlines()
    assert [line[:5] for line in lines] == ["DLLL ", "DLLL "]
    assert [json.loads(line[4:]) for line in lines] == [json.loads(line[5:]) for line in lines]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ((0, 1), "[0, 1]"),
        ([0, 1], "[0, 1]"),
        ((0,), "[0]"),
        ((0, 1, 2), "[0, 1, 2]"),
        ((), "[]"),
        (7, "7"),
        (0.5, "0.5"),
        ("PARAMETER", '"PARAMETER"'),
        (("Calibration", 3), '["Calibration", 3]'),
        ((np.int64(2), np.int32(3)), "[2, 3]"),
        ((1.0, 2), "[1.0, 2]"),
        ((True, 2), "[true, 2]"),
        (None, "null"),
    ],
    ids=repr,
)
def test_a_step_is_written_as_dllogger_writes_it(tmp_path, step, expected):
    """The text of a step is that of json.dumps, blanks included: scripts grep for it."""
    path = tmp_path / "log.json"
    Logger([JSONStreamBackend(1, path)]).log(step, {"loss": 1.5, "n": 2})
    line = path.read_text()
    assert line[line.index(', "type"') :] == (
        f', "type": "LOG", "step": {expected}, "data": {{"loss":1.5,"n":2}}}}\n'
    )


def test_the_files_of_several_ranks_are_equal_line_by_line(tmp_path):
    """Readers zip the ranks' files and demand equal types and steps, of every line."""
    code = """
import os, sys
import otel_dllogger as dllogger
rank = int(os.environ["RANK"])
dllogger.init([dllogger.JSONStreamBackend(1, f"log_{rank}.json")])
dllogger.metadata("train.loss", {"unit": "nat"})
dllogger.log("PARAMETER", {"rank": rank, "lr": 0.1})
for iteration in range(3):
    dllogger.log((0, iteration), {"train.loss": float("nan") if rank == iteration else 1.0})
dllogger.log((0,), {"val.loss": None if rank else 1.0})
dllogger.log((), {"total": str(rank)})
dllogger.flush()
"""
    for rank in range(3):
        out = run_script(tmp_path, code, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="3")
        assert out == ("", "", 0)
    files = [read_lines(tmp_path / f"log_{rank}.json") for rank in range(3)]
    kinds = [[(line["type"], line.get("step")) for line in file] for file in files]
    assert kinds[0] == kinds[1] == kinds[2]
    expected = [None, "PARAMETER", [0, 0], [0, 1], [0, 2], [0], []]
    assert [step for _type, step in kinds[0]] == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({}, [1]), ({"append": False}, [1]), ({"append": True}, [0, 1])],
    ids=["default", "append=False", "append=True"],
)
def test_append(tmp_path, arguments, expected):
    """A file is emptied unless it is to be kept, as with DLLogger's "w" and "a"."""
    path = tmp_path / "log.json"
    for step in range(2):
        with Logger([JSONStreamBackend(1, path, **arguments)]) as logger:
            logger.log(step, {})
    assert [line["step"] for line in read_lines(path)] == expected


def test_nan_and_inf_are_bare_tokens(tmp_path):
    """A diverged loss is written as Python's json reads it back, also as a step."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    logger.log((0, 1), {"loss": math.nan, "up": math.inf, "down": -math.inf, "ok": 1.0})
    logger.log((0, 2), {"deep": {"list": [math.nan, np.float32("nan"), np.array(math.nan)]}})
    logger.log((math.nan, 2), {"loss": np.float64("nan")})
    text = path.read_text()
    assert '"data": {"loss":NaN,"up":Infinity,"down":-Infinity,"ok":1.0}}\n' in text
    assert '"data": {"deep":{"list":[NaN,NaN,NaN]}}}\n' in text
    assert '"step": [NaN, 2], "data": {"loss":NaN}}\n' in text
    assert math.isnan(read_lines(path)[0]["data"]["loss"])


def test_two_json_backends_at_once(tmp_path):
    """Two files get the same lines, each by its own verbosity."""
    paths = [tmp_path / "all.json", tmp_path / "some.json"]
    dllogger.init([JSONStreamBackend(v, p) for v, p in zip((1, 0), paths, strict=True)])
    dllogger.log((0, 1), {"loss": 1.0}, verbosity=1)
    dllogger.log((0,), {"loss": 1.0})
    first, second = [path.read_bytes().splitlines() for path in paths]
    assert [len(first), second] == [2, first[1:]]


@pytest.mark.parametrize("kind", [str, Path], ids=["str", "Path"])
def test_file_names(tmp_path, kind):
    """File names are text or paths."""
    path = tmp_path / "log.json"
    Logger([JSONStreamBackend(1, kind(path))]).log(0, {})
    assert [line["step"] for line in read_lines(path)] == [0]


def test_devnull(counted):
    """Ranks that log nowhere use os.devnull, several times."""
    logger = Logger([JSONStreamBackend(1, os.devnull), JSONStreamBackend(1, Path(os.devnull))])
    logger.log((0, 1), {"loss": 1.0})
    logger.close()
    logger.log((0, 2), {"loss": 1.0})
    assert counted() == {}


# Times


@pytest.mark.parametrize(
    ("tz", "offset"),
    [("UTC", "+00:00"), ("NST3:30", "-03:30"), ("<+0545>-5:45", "+05:45"), ("<-12>12", "-12:00")],
    ids=["UTC", "America/St_Johns", "Asia/Kathmandu", "Etc/GMT+12"],
)
def test_times_in_several_time_zones(tmp_path, tz, offset):
    """A line's datetime has the local offset and is its timestamp, and hooks get it naive."""
    code = """
import sys
import otel_dllogger as dllogger
def prefix_format(timestamp):
    return f"{timestamp!s}\\n"
dllogger.init([
    dllogger.JSONStreamBackend(1, "log.json"),
    dllogger.StdOutBackend(1, prefix_format=prefix_format),
])
dllogger.metadata("loss", {})
dllogger.log((0, 1), {"loss": 1.0})
"""
    out, err, returncode = run_script(tmp_path, code, tz=tz)
    lines = read_lines(tmp_path / "log.json")
    zone = timezone(datetime.fromisoformat(f"2000-01-01T00:00:00{offset}").utcoffset())
    expected = [str(datetime.fromtimestamp(float(line["timestamp"]), zone)) for line in lines]
    assert [line["datetime"] for line in lines] == expected
    assert [line["datetime"][-6:] for line in lines] == [offset, offset]
    assert (err, returncode) == ("", 0)
    assert out.splitlines()[0] + offset == lines[1]["datetime"]


AT_GIVEN_TIMES = """
import json, sys
import otel_dllogger as dllogger
from otel_dllogger.record import Metadata, Record, microseconds
backend = dllogger.JSONStreamBackend(1, "log.json")
for time_us in json.loads(sys.argv[1]):
    record = Record(time_us, 1_500_000, (0, 1), {"loss": 1.0})
    backend.write_record(record)
    backend.log(record.timestamp, record.elapsed_s, (0, 1), {"loss": 1.0})
    backend.write_metadata(Metadata(time_us, 1_500_000, "loss", {}))
"""


def test_the_hour_that_comes_twice(tmp_path):
    """When summer time ends the offset changes from one line to the next."""
    tz = "EST5EDT,M3.2.0,M11.1.0"
    end_us = 1730613600_000000  # 2024-11-03 06:00 UTC
    times_us = [end_us - 500_000, end_us - 1, end_us, end_us + 250_000]
    run_script(tmp_path, AT_GIVEN_TIMES, json.dumps(times_us), tz=tz)
    lines = read_lines(tmp_path / "log.json")
    assert [line["datetime"] for line in lines[::3]] == [
        "2024-11-03 01:59:59.500000-04:00",
        "2024-11-03 01:59:59.999999-04:00",
        "2024-11-03 01:00:00-05:00",
        "2024-11-03 01:00:00.250000-05:00",
    ]
    for first in range(0, len(lines), 3):
        times = [(line["timestamp"], line["datetime"]) for line in lines[first : first + 3]]
        assert times == times[:1] * 3


def test_the_hour_that_is_left_out(tmp_path):
    """When summer time begins the offset changes from one line to the next."""
    begin_us = 1710054000_000000  # 2024-03-10 07:00 UTC
    times_us = [begin_us - 1, begin_us]
    tz = "EST5EDT,M3.2.0,M11.1.0"
    run_script(tmp_path, AT_GIVEN_TIMES, json.dumps(times_us), tz=tz)
    lines = read_lines(tmp_path / "log.json")
    assert [line["datetime"] for line in lines[::3]] == [
        "2024-03-10 01:59:59.999999-05:00",
        "2024-03-10 03:00:00-04:00",
    ]


def test_lines_byte_by_byte(tmp_path):
    """What a reader of DLLogger's files sees, of a whole second and of its fractions."""
    times_us = [1570716916_143421, 1570716916_146970, 1570716916_000000, 1570716916_100000]
    run_script(tmp_path, AT_GIVEN_TIMES, json.dumps(times_us))
    head = 'DLLL {"timestamp": "1570716916.%s", "datetime": "2019-10-10 14:15:16%s+00:00", '
    tail = '"elapsedtime": "1.5", "type": "LOG", "step": [0, 1], "data": {"loss":1.0}}'
    metadata = (
        'DLLL {"timestamp": "1570716916.%s", "elapsedtime": "1.5", "datetime": '
        '"2019-10-10 14:15:16%s+00:00", "type": "METADATA", "metric": "loss", "metadata": {}}'
    )
    fractions = [
        ("143421", ".143421"),
        ("14697", ".146970"),
        ("0", ""),  # as str(float) and str(datetime) have it
        ("1", ".100000"),
    ]
    expected = [line % f for f in fractions for line in (head + tail, head + tail, metadata)]
    assert (tmp_path / "log.json").read_text().splitlines() == expected


# TCAP DLLogger


@pytest.mark.parametrize(
    ("data", "text", "written"),
    [
        ("start training ...", "start training ...", "start training ..."),
        ({"lr": 0.2, "amp": True}, "{'lr': 0.2, 'amp': True}", {"lr": 0.2, "amp": True}),
        (
            argparse.Namespace(lr=0.2, weights=None),
            "{'lr': 0.2, 'weights': None}",
            {"lr": 0.2, "weights": None},
        ),
    ],
    ids=["str", "dict", "Namespace"],
)
def test_info(tmp_path, monkeypatch, capsys, data, text, written):
    """Text, a dict and a Namespace are an INFO line of the file and a line of text."""
    for name, value in (("RANK", "6"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    path = tmp_path / "log.json"
    prefix_format = lambda _timestamp: "DLL "  # noqa: E731 - as scripts write it
    dllogger.init([JSONStreamBackend(1, path), StdOutBackend(1, prefix_format=prefix_format)])
    dllogger.info(data)
    line = path.read_text()
    entry = json.loads(line.removeprefix("INFO "))
    assert list(entry) == ["local_rank", "datetime", "type", "data"]
    assert (entry["local_rank"], entry["type"], entry["data"]) == (2, "INFO", written)
    assert datetime.fromisoformat(entry["datetime"]).tzinfo is None
    assert capsys.readouterr().out == f"DLL {text}\n"


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


def test_metadata_batch(tmp_path, capsys):
    """Several metrics get the same metadata: a line each, in order."""
    path = tmp_path / "log.json"
    dllogger.init([JSONStreamBackend(1, path), StdOutBackend(1, prefix_format=lambda _: "")])
    dllogger.metadata_batch(["train.loss", "val.loss"], {"unit": "nat", "format": ":.1f"})
    dllogger.log((0, 0), {"train.loss": 2, "val.loss": 3})
    described = [(line.get("metric"), line.get("metadata")) for line in read_lines(path)]
    metadata = {"unit": "nat", "format": ":.1f"}
    assert described == [("train.loss", metadata), ("val.loss", metadata), (None, None)]
    assert capsys.readouterr().out == "(0, 0) train.loss : 2.0 nat val.loss : 3.0 nat\n"


# Context manager and attached


def test_a_logger_is_a_context_manager(tmp_path):
    """Leaving the block closes the backends, and a late line still lands."""
    path = tmp_path / "log.json"
    backend = JSONStreamBackend(1, path)
    logger = Logger([backend])

    def train():
        with logger as entered:
            assert entered is logger
            entered.log(0, {})
            raise KeyError("training")

    with pytest.raises(KeyError, match="training"):
        train()
    assert backend.file.closed
    logger.log(1, {})
    assert [line["step"] for line in read_lines(path)] == [0, 1]


def test_close_frees_what_a_users_backend_holds():
    """A close of its own is called, else its flush, and one that raises keeps none from it."""
    calls = []

    class Closing(Keeper):
        def close(self):
            calls.append("close")
            raise OSError("disk")

    class Flushing(Keeper):
        def flush(self):
            calls.append("flush")

    Logger([Closing(), Flushing()]).close()
    assert calls == ["close", "flush"]


def test_attached_feeds_every_logger():
    """A backend that is attached gets the calls of all Loggers, and stays out of their lists."""

    class Other(Keeper):
        def info(self, timestamp, data):
            self.logged.append((timestamp, 0.0, "info", data))

    own, extra = Keeper(), Other()
    loggers = [Logger([own]), Logger([])]
    with attached(extra) as found:
        assert found is extra
        for number, logger in enumerate(loggers):
            logger.log(number, {})
            logger.metadata("loss", {})
            logger.info("text")
        assert [logger.backends for logger in loggers] == [[own], []]
    loggers[0].log(2, {})
    assert own.steps == [0, 2]
    assert extra.steps == [0, "info", 1, "info"]
    assert len(extra.described) == 2


def test_attached_leaves_alone_who_has_such_a_backend():
    """A Logger with a backend of that class exports once, not twice."""
    own, extra = Keeper(), Keeper()
    with attached(extra):
        Logger([own]).log(0, {})
        Logger([]).log(1, {})
    assert [own.steps, extra.steps] == [[0], [1]]


def test_attached_ends_with_the_block_that_raised():
    """An error in the block detaches the backend as well."""
    extra = Keeper()
    with pytest.raises(KeyError), attached(extra):
        raise KeyError
    Logger([]).log(0, {})
    assert extra.steps == []


# Published logs, replayed

NVIDIA_METADATA = """\
{"metric": "lr", "metadata": {}}
{"metric": "train.loss", "metadata": {"format": ":.5f+00:00", "type": "LOSS"}}
{"metric": "train.compute_ips", "metadata": {"unit": "img/s", "format": ":.2f+00:00"}}
{"metric": "train.total_ips", "metadata": {"unit": "img/s", "format": ":.2f+00:00"}}
{"metric": "train.data_time", "metadata": {"unit": "s", "format": ":.5f"}}
{"metric": "train.compute_time", "metadata": {"unit": "s", "format": ":.5f"}}
{"metric": "val.top1", "metadata": {"unit": "%", "format": ":.2f+00:00", "type": "ACCURACY"}}
{"metric": "val.top5", "metadata": {"unit": "%", "format": ":.2f+00:00", "type": "ACCURACY"}}
{"metric": "val.loss", "metadata": {"format": ":.5f+00:00", "type": "LOSS"}}
{"metric": "val.compute_latency", "metadata": {"unit": "s", "format": ":.5f"}}
"""
TCAP_METADATA = """\
{"metric": "train.loss", "metadata": {"unit": "", "GOAL": "MINIMIZE", "STAGE": "TRAIN"}}
{"metric": "val.loss", "metadata": {"unit": "", "GOAL": "MINIMIZE", "STAGE": "VALID"}}
{"metric": "train.ips", "metadata": {"unit": "imgs/s", "format": ":.3f", "GOAL": "MAXIMIZE"}}
"""
# The metadata of more scripts in NVIDIA's DeepLearningExamples.
SCRIPTS_METADATA = """\
{"metric": "a", "metadata": {"name": null, "unit": null, "format": "0:.5f"}}
{"metric": "b", "metadata": {"name": "b", "format": ":>3.2e", "description": "?"}}
{"metric": "c", "metadata": {"format": ".3f"}}
{"metric": "d", "metadata": {"format": "%.3f", "unit": "x"}}
{"metric": "e", "metadata": {"format": ":5f"}}
{"metric": "f", "metadata": {"format": null, "GOAL": "MIMIMIZE"}}
"""


@pytest.mark.parametrize(
    ("described", "expected", "damaged"),
    [
        (
            NVIDIA_METADATA,
            (
                "lr : 1.25  train.loss : 1.25  train.compute_ips : 1.25 img/s "
                "train.total_ips : 1.25 img/s train.data_time : 1.25000 s "
                "train.compute_time : 1.25000 s val.top1 : 1.25 % val.top5 : 1.25 % "
                "val.loss : 1.25  val.compute_latency : 1.25000 s"
            ),
            6,
        ),
        (TCAP_METADATA, "train.loss : 1.25  val.loss : 1.25  train.ips : 1.250 imgs/s", 0),
        (
            SCRIPTS_METADATA,
            "a : 1.25000 None b : 1.25e+00  c : 1.25  d : 1.25 x e : 1.250000  f : 1.25 ",
            3,
        ),
    ],
    ids=["NVIDIA", "TCAP", "scripts"],
)
def test_published_metadata_is_replayed(tmp_path, capsys, counted, described, expected, damaged):
    """Damaged formats raise nothing: the plain value is printed, and each is counted."""
    path = tmp_path / "log.json"
    entries = [json.loads(line) for line in described.splitlines()]
    dllogger.init([JSONStreamBackend(1, path), StdOutBackend(1, prefix_format=lambda _: "")])
    for entry in entries:
        dllogger.metadata(entry["metric"], entry["metadata"])
    dllogger.log((0, 1), {entry["metric"]: 1.25 for entry in entries})
    assert capsys.readouterr().out == f"(0, 1) {expected}\n"
    assert counted() == ({"format_failed": damaged} if damaged else {})
    lines = read_lines(path)
    kept = [{key: line[key] for key in ("metric", "metadata")} for line in lines[:-1]]
    assert kept == entries


def test_metadata_that_comes_late_or_changes(capsys):
    """Metadata may come after the first log, and later calls add to earlier ones."""
    logger = Logger([StdOutBackend(1, prefix_format=lambda _: "")])
    logger.log(0, {"loss": 1.25})
    logger.metadata("loss", {"unit": "nat"})
    logger.log(1, {"loss": 1.25})
    logger.metadata("loss", {"format": ":.1f"})
    logger.metadata("loss", {})
    logger.log(2, {"loss": 1.25})
    expected = ["0 loss : 1.25 ", "1 loss : 1.25 nat", "2 loss : 1.2 nat"]
    assert capsys.readouterr().out.splitlines() == expected


def test_nothing_is_printed_where_the_package_is_imported(tmp_path):
    """Importing the package starts no thread, opens no file and prints nothing."""
    code = """
import os, threading
files, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
import otel_dllogger
assert set(os.listdir("/proc/self/fd")) == files
assert threading.active_count() == threads
"""
    assert run_script(tmp_path, code) == ("", "", 0)
    assert list(tmp_path.iterdir()) == []


def test_flush_of_a_logger_that_is_gone_is_no_error():
    """The exit handler may be called by hand, twice, and after close."""
    logger = Logger([StdOutBackend(1)])
    logger.close()
    atexit.unregister(logger.flush)
    assert [logger.flush(), logger.flush()] == [None, None]


def test_a_step_hook_of_a_published_script(capsys):
    """The step format that most of NVIDIA's scripts share."""

    def format_step(step):
        if isinstance(step, str):
            return step
        names = ("Epoch", "Iteration", "Validation Iteration")
        return " ".join(f"{name}: {n}" for name, n in zip(names, step, strict=False))

    logger = Logger([StdOutBackend(1, step_format=format_step, prefix_format=lambda _: "")])
    logger.metadata("loss", {"unit": "nat"})
    for step in ("PARAMETER", (0,), (0, 3), (0, 3, 1), ()):
        logger.log(step, {"loss": 130.0})
    assert capsys.readouterr().out.splitlines() == [
        "PARAMETER loss : 130.0 nat",
        "Epoch: 0 loss : 130.0 nat",
        "Epoch: 0 Iteration: 3 loss : 130.0 nat",
        "Epoch: 0 Iteration: 3 Validation Iteration: 1 loss : 130.0 nat",
        " loss : 130.0 nat",
    ]


def test_stdout_is_looked_up_at_every_line(monkeypatch):
    """A script that replaces sys.stdout after init gets its lines there."""
    logger = Logger([StdOutBackend(1, prefix_format=lambda _: "")])
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    logger.log(0, {"loss": None})
    assert stream.getvalue() == "0 loss : None \n"

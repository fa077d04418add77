"""Scripts written for NVIDIA DLLogger and for TCAP DLLogger, unchanged but for the import."""

from __future__ import annotations

import atexit
from datetime import datetime

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
from tests.support.drop_in import Keeper, read_lines, run_script

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("_no_global_logger")]

# What DLLogger's own users do in every script of NVIDIA's DeepLearningExamples.
MODULE_CALLS = {
    "log": lambda: dllogger.log(step=(0, 1), data={"loss": 1.0}),
    "metadata": lambda: dllogger.metadata("loss", {"unit": "nat"}),
    "metadata_batch": lambda: dllogger.metadata_batch(["loss"], {"unit": "nat"}),
    "info": lambda: dllogger.info("hello"),
    "flush": dllogger.flush,
}


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

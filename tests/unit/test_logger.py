"""The Logger: every call to every backend, and nothing raised into training."""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import subprocess
import sys
import threading
import weakref

import pytest

from otel_dllogger import Backend, JSONStreamBackend, Logger, StdOutBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.logger import RecordBackend
from otel_dllogger.testing import RecordingBackend


class Keeper(Backend):
    """A backend that keeps the names of its calls."""

    def __init__(self, verbosity=1):
        super().__init__(verbosity)
        self.calls = []

    def log(self, timestamp, elapsedtime, step, data):
        self.calls.append("log")

    def metadata(self, timestamp, elapsedtime, metric, metadata):
        self.calls.append("metadata")

    def info(self, timestamp, data):
        self.calls.append("info")

    def flush(self):
        self.calls.append("flush")

    def close(self):
        self.calls.append("close")


class Failing(Keeper):
    """A backend whose every call raises."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def fail(self, *_arguments):
        raise self.error

    log = metadata = info = flush = close = fail


class FailingOnRecords(RecordBackend):
    """A backend of the package's own kind whose every call raises."""

    def write_record(self, record):
        raise OSError("record")

    def write_metadata(self, metadata):
        raise OSError("metadata")

    def write_info(self, info):
        raise OSError("info")

    def flush(self):
        raise OSError("flush")


def unregistered(*backends):
    """Make a Logger that is not flushed at the end of the tests."""
    logger = Logger(list(backends))
    atexit.unregister(logger.flush)
    atexit.unregister(logger._settle)
    return logger


CALLS = {
    "log": lambda logger: logger.log((0, 1), {"loss": 1.0}),
    "metadata": lambda logger: logger.metadata("loss", {}),
    "info": lambda logger: logger.info("text"),
    "flush": lambda logger: logger.flush(),
    "close": lambda logger: logger.close(),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "failing",
    [lambda: Failing(ValueError("theirs")), lambda: FailingOnRecords(1)],
    ids=["user's", "own"],
)
def test_a_backend_that_raises_does_not_keep_others(counted, call, failing):
    """The call goes on to the other backends, and each fault is counted."""
    first, last = Keeper(), Keeper()
    CALLS[call](unregistered(first, failing(), failing(), last))
    assert [first.calls, last.calls] == [[call], [call]]
    assert counted() == {"backend_failed": 2}


@pytest.mark.parametrize("call", CALLS)
def test_otel_dllogger_raise_turns_faults_into_exceptions(monkeypatch, counted, call):
    """Under tests a fault is raised where it happened, with its own type."""
    monkeypatch.setenv("OTEL_DLLOGGER_RAISE", "1")
    error = ValueError("theirs")
    with pytest.raises(ValueError, match="theirs") as raised:
        CALLS[call](unregistered(Failing(error)))
    assert raised.value is error
    assert counted() == {}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_process_passes_through(counted, call, error):
    """Ctrl-C in the middle of a call stops training, as ever."""
    with pytest.raises(error):
        CALLS[call](unregistered(Failing(error())))
    assert counted() == {}


@pytest.mark.parametrize("verbosity", [None, "1", object()], ids=["None", "str", "object"])
def test_a_verbosity_that_cannot_be_compared(counted, verbosity):
    """It costs no record: what is not a number is taken for 0."""
    keeper, quiet = Keeper(), Keeper(-1)
    logger = Logger([keeper, quiet])
    logger.log(0, {}, verbosity)
    logger.log(0, {}, 1)
    assert (keeper.calls, quiet.calls, counted()) == (["log", "log"], [], {})


@pytest.mark.parametrize("backend", [None, 3, "text", object(), Keeper])
def test_a_backend_that_is_none(counted, backend):
    """Whatever a script puts into the list, the others are served."""
    keeper = Keeper()
    logger = unregistered(keeper)
    logger.backends.insert(0, backend)
    for call in CALLS.values():
        call(logger)
    assert keeper.calls == list(CALLS)
    assert set(counted()) <= {"backend_failed"}
    assert counted()["backend_failed"] >= 2


def test_a_backend_that_takes_itself_off_the_list(counted):
    """A backend may change the list during a call."""

    class Once(Keeper):
        def log(self, timestamp, elapsedtime, step, data):
            super().log(timestamp, elapsedtime, step, data)
            logger.backends.remove(self)

    once, keeper = Once(), Keeper()
    logger = Logger([keeper, once])
    logger.log(0, {})
    logger.log(1, {})
    assert [keeper.calls, once.calls, counted()] == [["log"] * 2, ["log"], {}]


def test_a_backend_that_logs_in_its_log(tmp_path, counted):
    """A backend may call the Logger it belongs to."""

    class Reentrant(Keeper):
        def log(self, timestamp, elapsedtime, step, data):
            super().log(timestamp, elapsedtime, step, data)
            if step == (0, 1):
                logger.log("event", {"n": 1})

    path = tmp_path / "log.json"
    reentrant = Reentrant()
    logger = Logger([reentrant, JSONStreamBackend(1, path)])
    logger.log((0, 1), {"loss": 1.0})
    assert [json.loads(line[5:])["step"] for line in path.read_text().splitlines()] == [
        "event",
        [0, 1],
    ]
    assert counted() == {}


def test_all_backends_share_one_time(tmp_path, capsys):
    """A call has one timestamp, whatever the backends before took."""
    seen = []

    class Timed(Keeper):
        def log(self, timestamp, elapsedtime, step, data):
            seen.append((str(timestamp), elapsedtime))

    path = tmp_path / "log.json"
    printing = StdOutBackend(1, prefix_format=lambda timestamp: f"{timestamp}|")
    logger = Logger([Timed(), JSONStreamBackend(1, path), printing, Timed()])
    logger.log(0, {})
    line = json.loads(path.read_text()[5:])
    assert seen[0] == seen[1]
    assert capsys.readouterr().out.split("|")[0] == seen[0][0]
    assert line["datetime"].startswith(seen[0][0])
    assert float(line["elapsedtime"]) == seen[0][1]


def test_elapsed_time_begins_with_the_logger_and_never_goes_back(tmp_path):
    """It is of the monotonic clock: a step of the wall clock does not move it."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    for step in range(100):
        logger.log(step, {})
    elapsed = [float(json.loads(line[5:])["elapsedtime"]) for line in path.read_text().splitlines()]
    assert elapsed == sorted(elapsed)
    assert 0 <= elapsed[0] < 60


def test_the_time_in_log_is_added_up():
    """It grows with every call, by what the call took and no more."""
    logger = Logger([Keeper()])
    before = DIAGNOSTICS.log_ns
    logger.log(0, {})
    once = DIAGNOSTICS.log_ns
    logger.metadata("loss", {})
    assert before < once == DIAGNOSTICS.log_ns


def test_a_subclass_is_called_through_what_it_overrides(tmp_path, counted):
    """Each method of DLLogger's by itself; what it leaves alone takes whole entries."""

    class Plain(JSONStreamBackend):
        pass

    class OwnLog(Plain):
        def log(self, timestamp, elapsedtime, step, data):
            super().log(timestamp, elapsedtime, step, {**data, "own": 1})

    class OwnMetadata(OwnLog):
        def metadata(self, timestamp, elapsedtime, metric, metadata):
            super().metadata(timestamp, elapsedtime, metric, {"unit": "own"})

    class OwnVerbosity(Plain):
        verbosity = -1

    class OwnInfo(Plain):
        def __init_subclass__(cls):
            """Tell nobody of subclasses."""

        def info(self, timestamp, data):
            super().info(timestamp, f"own {data}")

    class Untold(OwnInfo):
        pass

    kinds = (Plain, OwnLog, OwnMetadata, OwnVerbosity, OwnInfo, Untold)
    backends = [kind(1, tmp_path / kind.__name__) for kind in kinds]
    with unregistered(*backends) as logger:
        logger.log((0, 1), {"loss": 1})
        logger.metadata("loss", {"unit": "s"})
        logger.info("text")
    written = {}
    for kind in kinds:
        lines = (tmp_path / kind.__name__).read_text().splitlines()
        entries = [json.loads(line[5:]) for line in lines]
        written[kind] = [one.get("metadata", one.get("data")) for one in entries]
    loss, unit, text = {"loss": 1}, {"unit": "s"}, "text"
    assert written == {
        Plain: [loss, unit, text],
        OwnLog: [{"loss": 1, "own": 1}, unit, text],
        OwnMetadata: [{"loss": 1, "own": 1}, {"unit": "own"}, text],
        OwnVerbosity: [unit, text],
        OwnInfo: [loss, unit, "own text"],
        Untold: [loss, unit, "own text"],
    }
    assert counted() == {}


class Proxy:
    """Hand on everything to another object, as a library of mocks or wrappers does."""

    def __init__(self, target):
        self._target = target
        self.asked = []

    def __getattr__(self, name):
        self.asked.append(name)
        return getattr(self._target, name)


def test_a_backend_of_another_class_is_asked_for_dlloggers_methods_alone(counted):
    """Also one that stands in for a backend of the package; nothing else of it is looked at."""
    recording = RecordingBackend()
    proxy = Proxy(recording)
    logger = unregistered(proxy)
    proxy.asked.clear()
    logger.log((0, 1), {"loss": 1.0})
    logger.metadata("loss", {"unit": "s"})
    logger.info("text")
    assert proxy.asked == ["verbosity", "log", "metadata", "info"]
    assert recording.values("loss") == [1.0]
    assert recording.metadata_of("loss") == {"unit": "s"}
    assert [one.data for one in recording.infos] == ["text"]
    assert counted() == {}


def test_a_backend_without_what_is_optional(counted):
    """NVIDIA's have no ``info``, and a minimal one neither ``flush`` nor ``close``."""

    class Minimal:
        verbosity = 1

        def __init__(self):
            self.calls = []

        def log(self, timestamp, elapsedtime, step, data):
            self.calls.append(("log", step, data))

        def metadata(self, timestamp, elapsedtime, metric, metadata):
            self.calls.append(("metadata", metric, metadata))

    minimal = Minimal()
    logger = unregistered(minimal)
    for call in CALLS.values():
        call(logger)
    assert minimal.calls == [("log", (0, 1), {"loss": 1.0}), ("metadata", "loss", {})]
    assert counted() == {}


def test_backends_come_and_go_at_any_time():
    """The list is the script's; each call finds those that are in it now."""
    first, second = RecordingBackend(), Keeper()
    backends = [first]
    logger = unregistered()
    logger.backends = backends
    logger.log(0, {"loss": 0})
    backends.append(second)
    logger.log(1, {"loss": 1})
    backends[0] = Proxy(first)
    logger.log(2, {"loss": 2})
    del backends[0]
    logger.log(3, {"loss": 3})
    assert first.values("loss") == [0, 1, 2]
    assert second.calls == ["log"] * 3


def test_close_takes_the_logger_from_the_exit_handlers():
    """A closed Logger and its backends can be forgotten."""
    logger = Logger([Keeper()])
    logger.close()
    alive = weakref.ref(logger)
    del logger
    gc.collect()
    assert alive() is None


def test_every_call_of_many_threads_arrives():
    """The Logger itself adds no limit to how many threads log."""
    keeper = Keeper()
    logger = Logger([keeper])

    def train():
        for step in range(100):
            logger.log(step, {})

    threads = [threading.Thread(target=train) for _number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert keeper.calls == ["log"] * 400


def test_closing_works_with_an_exit_stack():
    """A Logger is a context manager like any other."""
    keeper = Keeper()
    with contextlib.ExitStack() as stack:
        logger = stack.enter_context(Logger([keeper]))
        logger.flush()
    assert keeper.calls == ["flush", "close"]


def test_a_log_handler_that_logs_here_does_not_block():
    """Warnings are given with no lock held: a handler may wait for a thread that logs."""
    code = """
import logging, threading
import otel_dllogger as dllogger

entered = threading.Event()

class Handler(logging.Handler):
    def emit(self, record):
        if record.name == "app":
            entered.set()
            warned.wait(20)
            dllogger.log((0, 2), {"loss": 2})

warned = threading.Event()
logging.getLogger().addHandler(Handler())
dllogger.init([dllogger.JSONStreamBackend(1, "/dev/full")])
thread = threading.Thread(target=lambda: logging.getLogger("app").warning("x"), daemon=True)
thread.start()
entered.wait(20)
other = threading.Thread(target=lambda: dllogger.log((0, 1), {"loss": 1}), daemon=True)
other.start()
other.join(0.2)  # it waits for the handler's lock, and must hold none of ours
warned.set()
thread.join(20)
other.join(20)
print(thread.is_alive(), other.is_alive())
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout == "False False\n"


def test_a_backend_that_removes_itself_costs_the_next_one_no_entry():
    """A call goes to the backends that there were at its beginning."""

    class Once(RecordingBackend):
        def write_record(self, record):
            super().write_record(record)
            backends.remove(self)

    backends = [Once(), after := RecordingBackend()]
    logger = Logger(backends)
    logger.log((0, 0), {"loss": 1})
    logger.log((0, 1), {"loss": 2})
    assert after.values("loss") == [1, 2]
    assert backends == [after]

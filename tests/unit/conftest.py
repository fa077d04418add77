"""Fixtures that several files of unit tests use."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from otel_dllogger import Logger, shutdown
from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.http.endpoint import MetricsEndpoint
from otel_dllogger.logs.tail.tailer import Tailer
from otel_dllogger.otlp import exporter as exporter_module
from otel_dllogger.phases import PHASES
from otel_dllogger.testing import RecordingBackend
from otel_dllogger.training import MessageHub, MMLogger
from tests.support.check import at_this_moment
from tests.support.collector import HTTPCollector
from tests.support.command import otel_dllogger
from tests.support.endpoint import small
from tests.support.otlp_backend import PROTOCOLS
from tests.support.store import Store
from tests.support.track import Keeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def check(tmp_path):
    """Write a file and have it checked."""

    def check(content, name="log.json"):
        path = tmp_path / name
        path.write_bytes(
            content if isinstance(content, bytes) else at_this_moment(content).encode()
        )
        return otel_dllogger("check", name, cwd=tmp_path)

    return check


@pytest.fixture(params=[False, True], ids=["alone", "after JSON"])
def store(request):
    """A store that converts records itself, and one behind a backend that encoded them."""
    return Store(encoded=request.param)


@pytest.fixture
def serve() -> Iterator[Callable[..., MetricsEndpoint]]:
    """Open endpoints on free ports and close them after the test."""
    with ExitStack() as stack:

        def start(render=small, *, port: int = 0, **options) -> MetricsEndpoint:
            opened = MetricsEndpoint(render, port=port, **options)
            stack.callback(opened.close)
            return opened

        yield start


@pytest.fixture
def no_loggers(monkeypatch):
    """Begin and end without loggers, and with a console that nobody asked to have colours."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    yield
    for logger in MMLogger._instances.values():
        for handler in logger.handlers:
            handler.close()
    MMLogger._instances.clear()


@pytest.fixture(params=PROTOCOLS)
def collector(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A collector of each protocol."""
    with PROTOCOLS[request.param]() as collector:
        collector.protocol = request.param
        yield collector


@pytest.fixture
def http() -> Iterator[HTTPCollector]:
    """A collector over HTTP, where the protocol does not matter."""
    with HTTPCollector() as collector:
        yield collector


@pytest.fixture
def open_backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., OTLPBackend]]:
    """Make backends that send soon and repeat soon, and close them in the end."""
    monkeypatch.setattr(exporter_module, "FIRST_WAIT_S", 0.02)
    made = []

    def make(collector: Any = None, **options: Any) -> OTLPBackend:
        if collector is not None:
            options.setdefault("endpoint", collector.url)
            options.setdefault("protocol", getattr(collector, "protocol", "http/protobuf"))
        options = {"interval_s": 0.02, "run": "r", "rank": 0, **options}
        backend = OTLPBackend(1, **options)
        made.append(backend)
        return backend

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def no_hubs():
    """Begin and end without a hub that other modules could get."""
    MessageHub._instances.clear()
    yield
    MessageHub._instances.clear()


@pytest.fixture
def logs(tmp_path):
    folder = tmp_path / "logs"
    folder.mkdir()
    return folder


@pytest.fixture
def follow():
    """Return what makes a Follower that the end of the test closes."""
    tailers = []

    def make(*paths, **options):
        tailers.append(Tailer(paths, **options))
        return tailers[-1]

    yield make
    for tailer in tailers:
        tailer.close()


@pytest.fixture
def nothing_global():
    """Begin and end without hubs, without loggers by name and without a global Logger."""
    for named in (MessageHub, MMLogger):
        named._instances.clear()
    yield
    shutdown()
    for named in (MessageHub, MMLogger):
        named._instances.clear()


@pytest.fixture
def keeper():
    return Keeper()


@pytest.fixture
def hub():
    return MessageHub("a")


@pytest.fixture
def options(hub, keeper):
    """Return a hub and a logger for a loop."""
    return {"hub": hub, "logger": Logger([keeper])}


@pytest.fixture
def recording() -> RecordingBackend:
    """Return a backend that keeps what it is given, in a process that has no open phases."""
    PHASES.__init__()
    return RecordingBackend()


@pytest.fixture
def logger(recording: RecordingBackend) -> Logger:
    """Return a Logger with that backend."""
    return Logger([recording])

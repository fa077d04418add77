"""OTLP with receivers that refuse, hang or vanish, full queues, and the end of a process."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from otel_dllogger import ConfigurationError, Logger
from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp import exporter as exporter_module
from otel_dllogger.otlp import sender as sender_module
from tests.support.collector import BlackHole, GRPCCollector, HTTPCollector, free_port
from tests.support.http import wait_until
from tests.support.otlp_backend import PROTOCOLS, START_US, log

if TYPE_CHECKING:
    from otel_dllogger.record import Record

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")
pytest.importorskip("grpc", reason="pip install 'otel-dllogger[otlp]'")

RETRYABLE = {"http/protobuf": 503, "grpc": "UNAVAILABLE"}
FINAL = {"http/protobuf": 400, "grpc": "INVALID_ARGUMENT"}


def test_a_request_that_failed_is_sent_again(collector: Any, open_backend: Any) -> None:
    """After answers that ask for it, every value arrives once, in order."""
    answers = itertools.chain([RETRYABLE[collector.protocol]] * 3, itertools.repeat(200))
    collector.answer = lambda _points: (next(answers), {}, b"")
    backend = open_backend(collector)
    for step in range(100):
        log(backend, step, float(step))
    assert list(map(float, range(100))) == collector.wait_for("dl.loss", 100)
    assert 3 == sum(request.status != 200 for request in collector.requests)
    assert 0 == sum(DIAGNOSTICS.dropped.values())


def retry_after(protocol: str) -> dict[str, Any]:
    """Say "not before a second has passed" in the words of the protocol."""
    if protocol != "grpc":
        return {"Retry-After": "1"}
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415 - optional

    status = status_pb2.Status(code=8)
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromMilliseconds(1000)
    status.details.add().Pack(info)
    return {"grpc-status-details-bin": status.SerializeToString()}


@pytest.mark.slow
def test_a_collector_can_ask_for_time(collector: Any, open_backend: Any) -> None:
    """Retry-After, and gRPC's RetryInfo, which makes RESOURCE_EXHAUSTED one to repeat."""
    status = {"http/protobuf": 429, "grpc": "RESOURCE_EXHAUSTED"}[collector.protocol]
    times_s: list[float] = []

    def answer(_points: Any) -> tuple[Any, dict[str, Any], bytes]:
        times_s.append(time.monotonic())
        return (
            (status, retry_after(collector.protocol), b"") if len(times_s) == 1 else (200, {}, b"")
        )

    collector.answer = answer
    log(open_backend(collector), 1, 1.0)
    assert [1.0] == collector.wait_for("dl.loss", 1)
    assert times_s[1] - times_s[0] >= 1.0


def test_what_is_refused_is_counted_and_not_repeated(
    collector: Any, open_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A request that no repetition mends is dropped with its values, and the next one goes."""
    final = FINAL[collector.protocol]
    collector.answer = lambda points: (
        (final, {}, b"no thirteens") if any(p.value == 13.0 for p in points) else (200, {}, b"")
    )
    backend = open_backend(collector, interval_s=60)
    for step in range(5):
        log(backend, step, 13.0)
    backend.flush()
    wait_until(lambda: collector.requests)
    for step in range(5, 8):
        log(backend, step, 1.0)
    backend.close()
    assert [1.0] * 3 == collector.values("dl.loss")
    refused = [request for request in collector.requests if request.status != 200]
    assert 1 == len(refused)
    assert 5 == DIAGNOSTICS.dropped["otlp_refused"] == sum(DIAGNOSTICS.dropped.values())
    (warning,) = caplog.messages
    assert "no thirteens" in warning or "INVALID_ARGUMENT" in warning


@pytest.mark.parametrize("status", [302, 401, 404, 413, 500])
def test_no_other_status_is_one_to_repeat(
    status: int, http: HTTPCollector, open_backend: Any
) -> None:
    """OTLP says which ones are. A redirection would turn the POST into a GET."""
    http.answer = lambda _points: (status, {"Location": http.url}, b"")
    backend = open_backend(http)
    log(backend, 1, 1.0)
    wait_until(lambda: DIAGNOSTICS.dropped["otlp_refused"])
    http.answer = lambda _points: (200, {}, b"")
    log(backend, 2, 2.0)
    backend.close()
    assert [2.0] == http.values("dl.loss")
    assert 1 == DIAGNOSTICS.dropped["otlp_refused"] == sum(DIAGNOSTICS.dropped.values())


def test_resources_exhausted_without_a_time_is_final(open_backend: Any) -> None:
    """A request that is too large would otherwise be repeated for ever."""
    with GRPCCollector() as collector:
        collector.answer = lambda _points: ("RESOURCE_EXHAUSTED", {}, b"")
        backend = open_backend(collector, protocol="grpc")
        log(backend, 1, 1.0)
        wait_until(lambda: DIAGNOSTICS.dropped["otlp_refused"])
    assert 1 == DIAGNOSTICS.dropped["otlp_refused"]


def test_points_that_are_refused_of_a_request_are_counted(
    collector: Any, open_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A partial success is no failure: its count is taken, and nothing is sent again."""
    from opentelemetry.proto.collector.metrics.v1 import (  # noqa: PLC0415 - optional
        metrics_service_pb2 as messages,
    )

    partial = messages.ExportMetricsServiceResponse()
    partial.partial_success.rejected_data_points = 2
    partial.partial_success.error_message = "too old"
    collector.answer = lambda _points: (200, {}, partial.SerializeToString())
    backend = open_backend(collector, interval_s=60)
    log(backend, 1, 1.0)
    backend.close()
    assert [1.0] == collector.values("dl.loss")
    assert 2 * len(collector.requests) == DIAGNOSTICS.dropped["otlp_refused"]
    assert "too old" in caplog.text


def test_log_does_not_wait_for_a_collector_that_hangs(collector: Any, open_backend: Any) -> None:
    """While a request hangs, logging goes on, and all of it arrives afterwards."""
    collector.hold.clear()
    backend = open_backend(collector)
    log(backend, 0, 0.0)
    wait_until(lambda: collector.waiting)
    for step in range(1, 2000):
        log(backend, step, float(step))
    backend.flush()
    assert not collector.requests
    collector.hold.set()
    assert list(map(float, range(2000))) == collector.wait_for("dl.loss", 2000)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_outage_loses_nothing_while_there_is_room(protocol: str, open_backend: Any) -> None:
    """The collector goes, values are kept, it comes back on its port and gets them in order."""
    port = free_port()
    backend = open_backend(endpoint=f"http://127.0.0.1:{port}", protocol=protocol)
    for step in range(1000):
        log(backend, step, float(step))
    wait_until(lambda: backend._sender._exporter.failures >= 3, 60)
    for step in range(1000, 2000):
        log(backend, step, float(step))
    with PROTOCOLS[protocol](port) as collector:
        assert list(map(float, range(2000))) == collector.wait_for("dl.loss", 2000)
        times_us = [point.time_us for point in collector.named("dl.loss")]
        assert [START_US + step * 1000 for step in range(2000)] == times_us
        backend.close()
    assert 0 == sum(DIAGNOSTICS.dropped.values())


@pytest.mark.slow
def test_a_full_queue_drops_the_oldest_and_counts_them(
    open_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What arrives and what was dropped are together what was logged, to the last value."""
    port, count = free_port(), 20_000
    backend = open_backend(endpoint=f"http://127.0.0.1:{port}", max_queue_bytes=128 << 10)
    for step in range(count):
        log(backend, step, float(step))
        if not step % 50:  # let the thread look at it, which else need not come to it
            wait_until(lambda: backend._queue._bytes < 5_000)
    wait_until(lambda: not backend._queue._bytes)
    assert backend._queue._limit_bytes < 96 << 10  # the backlog has the rest
    with HTTPCollector(port) as collector:
        collector.wait_for("dl.loss", 1)
        backend.close()
        arrived = collector.values("dl.loss")
    dropped = DIAGNOSTICS.dropped["otlp_queue"]
    assert 0 < dropped == sum(DIAGNOSTICS.dropped.values())
    assert list(map(float, range(dropped, count))) == arrived
    assert 1 == sum("the queue is full" in one for one in caplog.messages)


def test_a_thread_that_comes_to_nothing_drops_and_counts_as_well(
    http: HTTPCollector, open_backend: Any
) -> None:
    """Where the sender itself is held up, the queue before it is bounded all the same."""
    http.hold.clear()
    backend = open_backend(http, max_queue_bytes=128 << 10)
    log(backend, 0, 0.0)
    wait_until(lambda: http.waiting)
    for step in range(1, 1000):
        log(backend, step, float(step))
    assert backend._queue._bytes <= 128 << 10
    http.hold.set()
    backend.close()
    dropped = DIAGNOSTICS.dropped["otlp_queue"]
    assert 0 < dropped == sum(DIAGNOSTICS.dropped.values())
    assert [0.0, *map(float, range(1 + dropped, 1000))] == http.values("dl.loss")


def test_a_queue_that_fills_is_looked_at_before_its_time(
    http: HTTPCollector, open_backend: Any
) -> None:
    """However long the interval, a script that logs much is not made to drop anything."""
    backend = open_backend(http, interval_s=300, max_queue_bytes=128 << 10)
    for step in range(100):
        log(backend, step, float(step))
    http.wait_for("dl.loss", 1)
    assert 0 == sum(DIAGNOSTICS.dropped.values())


def test_what_was_given_up_is_counted_once(
    http: HTTPCollector, open_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that comes after the close, and refuses, changes no count any more."""
    monkeypatch.setattr(sender_module, "EXIT_S", 0.05)
    http.answer = lambda _points: (400, {}, b"")
    http.hold.clear()
    backend = open_backend(http)
    log(backend, 1, 1.0)
    wait_until(lambda: http.waiting)
    backend.close()
    http.hold.set()
    backend._sender._thread.join(60)
    assert 1 == len(http.requests)
    assert 1 == DIAGNOSTICS.dropped["otlp_exit"] == sum(DIAGNOSTICS.dropped.values())


def test_series_beyond_the_limit_are_not_sent(http: HTTPCollector, open_backend: Any) -> None:
    """New names beyond max_series are counted as dropped, known ones go on."""
    logger = Logger([open_backend(http, max_series=100)])
    logger.log((0, 1), {"known": 1})
    logger.log((0, 2), {f"name_{number}": 1 for number in range(100)})
    logger.log((0, 3), {"known": 2})
    logger.close()
    sent = {point.name for point in http.points if point.name.startswith("dl.name_")}
    assert 100 == len(sent) + DIAGNOSTICS.dropped["series_limit"]
    assert [1.0, 2.0] == http.values("dl.known")


@pytest.mark.slow
def test_close_is_quick_and_counts_what_no_collector_took(
    open_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """With a request under way that never ends, close takes two seconds; late values count."""
    with BlackHole() as hole:
        backend = open_backend(hole, interval_s=60)
        for step in range(10):
            log(backend, step, 1.0)
        backend.flush()
        wait_until(lambda: backend._sender._sending is not None)
        for step in range(10, 15):
            log(backend, step, 1.0)
        start_s = time.monotonic()
        backend.close()
        took_s = time.monotonic() - start_s
        assert 15 == DIAGNOSTICS.dropped["otlp_exit"] == sum(DIAGNOSTICS.dropped.values())
        assert 1.5 < took_s < 4
        log(backend, 15, 1.0)
        backend.flush()
        backend.close()
    assert 16 == DIAGNOSTICS.dropped["otlp_exit"]
    assert any("before a collector accepted the last values" in one for one in caplog.messages)


def test_values_that_the_thread_has_not_come_to_are_counted_at_the_end(
    http: HTTPCollector, open_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A close that gives up counts entries that were taken and are not yet points."""
    monkeypatch.setattr(sender_module, "EXIT_S", 0.05)
    backend = open_backend(http, interval_s=60)
    go_on, take = threading.Event(), backend._sender._replay._store.take

    def slow(entry: Record) -> None:
        assert go_on.wait(60)
        take(entry)

    monkeypatch.setattr(backend._sender._replay._store, "take", slow)
    for step in range(10):
        log(backend, step, 1.0)
    backend.close()
    go_on.set()
    assert 10 == DIAGNOSTICS.dropped["otlp_exit"]
    backend._sender._thread.join(60)
    assert [] == http.requests


def test_a_signal_handler_may_log_and_flush_at_any_moment(
    http: HTTPCollector, open_backend: Any
) -> None:
    """None of the locks that log and flush take keeps its own thread out."""
    backend = open_backend(http, interval_s=60)
    logger, handled = Logger([backend]), []

    def handler(_number: int, _frame: object) -> None:
        logger.log((1, len(handled)), {"signal": 1.0})
        logger.flush()
        handled.append(1)

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    step = 0
    try:
        while len(handled) < 200:
            logger.log((0, step), {"loss": step})
            logger.flush()
            step += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    logger.close()
    assert step == len(http.values("dl.loss"))
    assert len(handled) == len(http.values("dl.signal"))


def test_close_ends_the_thread(http: HTTPCollector, open_backend: Any) -> None:
    """The one thread is named, daemonic, and gone after a close."""
    backend = open_backend(http)
    (thread,) = [
        one for one in threading.enumerate() if one.name == sender_module.Sender.THREAD_NAME
    ]
    assert thread.daemon
    backend.close()
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("protocol", "missing"),
    [("http/protobuf", "requests"), ("grpc", "grpc"), ("grpc", "google.rpc")],
)
def test_a_missing_package_is_one_line_that_says_what_to_install(
    protocol: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the call, and not in a thread long after."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError) as caught:
        OTLPBackend(1, protocol=protocol)
    message = str(caught.value)
    assert "\n" not in message
    assert missing in message
    assert message.endswith(
        "pip install 'otel-dllogger[otlp]', or pip install '.[otlp]' in a checkout"
    )


@pytest.mark.parametrize(
    "option",
    [{"interval_s": 0}, {"interval_s": 1e9}, {"max_queue_bytes": 10}, {"max_queue_bytes": 1e9}],
)
def test_options_that_mean_nothing_are_refused(option: dict[str, Any]) -> None:
    """The error names the option and its value."""
    ((name, value),) = option.items()
    with pytest.raises(ConfigurationError, match=f"{name}={value}"):
        OTLPBackend(1, **option)


@pytest.mark.parametrize(
    ("failures", "retry_after_s", "least_s", "most_s"),
    [
        (0, None, 0.25, 0.5),
        (1, None, 0.5, 1.0),
        (5, None, 8.0, 16.0),
        (6, None, 15.0, 30.0),
        (10_000, None, 15.0, 30.0),
        (0, 7.0, 7.0, 7.0),
        (6, 0.1, 15.0, 30.0),
        (0, 1e9, 300.0, 300.0),
    ],
)
def test_the_wait_before_a_repetition(
    failures: int, retry_after_s: float | None, least_s: float, most_s: float
) -> None:
    """It is doubled up to half a minute, and what a collector asks for holds within reason."""
    waits_s = [exporter_module.backoff_s(failures, retry_after_s) for _ in range(1000)]
    assert least_s <= min(waits_s) <= max(waits_s) <= most_s
    if least_s < most_s:  # not all ranks at one moment: the whole range is used
        middle_s = (least_s + most_s) / 2
        assert min(waits_s) < middle_s < max(waits_s)

"""Every step over OTLP, with its own time, to real receivers that oblige, refuse or vanish."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otel_dllogger import ConfigurationError, JSONStreamBackend, Logger, Verbosity
from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics import internal
from otel_dllogger.otlp import exporter as exporter_module
from otel_dllogger.otlp import sender as sender_module
from otel_dllogger.record import Info, Metadata, Record
from otel_dllogger.version import __version__
from tests.support.collector import BlackHole, Collector, GRPCCollector, HTTPCollector, free_port
from tests.support.http import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")
pytest.importorskip("grpc", reason="pip install 'otel-dllogger[otlp]'")

NAN, INF = float("nan"), float("inf")
START_US = 1_700_000_000_000_000
PROTOCOLS = {"http/protobuf": HTTPCollector, "grpc": GRPCCollector}
RETRYABLE = {"http/protobuf": 503, "grpc": "UNAVAILABLE"}
FINAL = {"http/protobuf": 400, "grpc": "INVALID_ARGUMENT"}


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


def log(backend: OTLPBackend, step: int, value: Any, *, at_us: int | None = None) -> None:
    """Log one value at a time of the test's own."""
    time_us = START_US + step * 1000 if at_us is None else at_us
    backend.write_record(Record(time_us, step * 1000, (0, step), {"loss": value}))


def test_every_step_arrives_once_with_its_own_time(collector: Any, open_backend: Any) -> None:
    """Times, values, labels, unit, resource and scope are those of the contract."""
    backend = open_backend(collector, run="resnet50", rank=3)
    backend.write_metadata(Metadata(START_US, 0, "val.time", {"GOAL": "MINIMIZE", "unit": "s"}))
    steps = range(300)
    for step in steps:
        backend.write_record(
            Record(START_US + step * 7001, step, (1, step), {"val.time": step / 8})
        )
    backend.close()
    points = collector.named("dl.time")
    assert [(START_US + step * 7001, step / 8) for step in steps] == [
        (point.time_us, point.value) for point in points
    ]
    labels = {
        "run": "resnet50",
        "rank": "3",
        "metric": "val.time",
        "stage": "val",
        "goal": "minimize",
        "granularity": "iteration",
    }
    assert {(labels == point.labels, point.unit, point.is_sum) for point in points} == {
        (True, "s", False)
    }
    request = collector.requests[0]
    assert "otel_dllogger" == request.scope[0]
    assert "resnet50/3" == request.resource["service.instance.id"]
    assert "otel_dllogger" == request.resource["service.name"]


def test_the_resource_is_what_the_environment_says(
    http: HTTPCollector, open_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES hold, but not for the instance."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "vision")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "team=a%20b,service.instance.id=other")
    backend = open_backend(http)
    log(backend, 1, 1.0)
    backend.close()
    resource = http.requests[0].resource
    assert {"service.name": "vision", "team": "a b", "service.instance.id": "r/0"}.items() <= (
        resource.items()
    )


def test_what_a_collector_repeats_of_the_headers_is_not_shown(
    http: HTTPCollector, open_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A server may say which key it does not know."""
    http.answer = lambda _points: (
        401,
        {},
        b"no key abcd1234 here, nor password=hunter2",
    )
    backend = open_backend(http, headers={"x-key": "Key abcd1234"})
    log(backend, 1, 1.0)
    backend.close()
    assert "no key [redacted] here, nor password=[redacted]" in caplog.text


def test_a_value_that_is_not_finite_is_kept_and_marked_as_none(
    collector: Any, open_backend: Any
) -> None:
    """NaN and Inf arrive as they are, with the flag that ends a series; the others have none."""
    backend = open_backend(collector)
    for step, value in enumerate((1.0, NAN, INF, -INF, 2.0)):
        log(backend, step, value)
    backend.close()
    points = collector.named("dl.loss")
    assert ["1.0", "nan", "inf", "-inf", "2.0"] == [str(point.value) for point in points]
    assert [0, 1, 1, 1, 0] == [point.flags for point in points]
    assert [3.0] == collector.values("dllogger.nonfinite")[-1:]


def test_numbers_of_any_kind_are_doubles(collector: Any, open_backend: Any) -> None:
    """What OpenTelemetry's encoder loses a batch for is one float each; no number is no point."""
    values = {
        "int": 3,
        "bool": True,
        "huge": 2**63,
        "beyond": 10**400,
        "text": "0.25",
        "words": "no number",
        "none": None,
        "list": [1, 2],
        "zero_d": np.array(1.5),
        "scalar": np.float32(2.5),
        "np_int": np.int64(7),
        "nested": {"a": 1},
        "lo\ud800ss\n": 4,
    }
    logger = Logger([open_backend(collector)])
    logger.log((np.int64(0), np.int32(4)), values)
    logger.log([0, 5], {"after": 1})
    logger.close()
    found = {point.name: point.value for point in collector.points if point.name[:3] == "dl."}
    assert {
        "dl.int": 3.0,
        "dl.bool": 1.0,
        "dl.huge": 2.0**63,
        "dl.beyond": INF,
        "dl.text": 0.25,
        "dl.zero_d": 1.5,
        "dl.scalar": 2.5,
        "dl.np_int": 7.0,
        "dl.lo_ss": 4.0,
        "dl.after": 1.0,
    } == found
    assert [4.0, 5.0] == sorted(set(collector.values("dllogger.iteration")))


def test_what_changes_after_log_does_not_change_what_is_sent(
    http: HTTPCollector, open_backend: Any, tmp_path: Path
) -> None:
    """A script that uses one dict for all steps gets every step, JSON backend before it or not."""
    for backends in ([], [JSONStreamBackend(1, tmp_path / "log")]):
        http.requests.clear()
        logger = Logger([*backends, open_backend(http, interval_s=60)])
        data, step = {"loss": 0.0}, [0, 0]
        for number in range(20):
            data["loss"] = step[1] = number
            logger.log(tuple(step) if number % 2 else step, data)
        parameters = {"lr": 1.0}
        logger.log("PARAMETER", parameters)
        parameters["lr"] = 2.0
        logger.close()
        assert list(range(20)) == http.values("dl.loss")
        assert list(range(20)) == list(dict.fromkeys(http.values("dllogger.iteration")))
        assert [1.0] == http.values("dllogger.parameter")


def test_figures_are_cumulative_and_say_the_end(collector: Any, open_backend: Any) -> None:
    """Counters start before what they count; a clean close says that the run is finished."""
    before_us = time.time_ns() // 1000
    logger = Logger([open_backend(collector)])
    logger.info({"batch": 32})
    logger.log((0, 0), {"loss": 1.0})
    assert [1.0] == collector.wait_for("dllogger.steps", 1)  # the others come at the end
    for step in (10, 20):
        logger.log((0, step), {"loss": 1.0})
    logger.close()
    last = {point.series: point for point in collector.points if point.name[:4] == "dllo"}
    values = {point.name: point.value for point in last.values()}
    assert 21.0 == values["dllogger.steps"]
    assert 1.0 == values["dllogger.run_finished"] == values["dllogger.rank_info"]
    assert 32.0 == values["dllogger.parameter"]
    assert {"log": 3.0, "info": 1.0, "metadata": 0.0, "parameter": 0.0} == {
        point.labels["type"]: point.value
        for point in last.values()
        if point.name == "dllogger.records"
    }
    sums = {point.name for point in last.values() if point.is_sum}
    assert {"steps", "step", "records", "nonfinite", "dropped", "log"} == {
        name.removeprefix("dllogger.") for name in sums
    }
    for point in last.values():
        if point.is_sum:
            assert before_us <= point.start_us <= point.time_us
        else:
            assert 0 == point.start_us


def test_where_a_rank_is_has_a_point_at_each_step_that_changes_it(
    http: HTTPCollector, open_backend: Any
) -> None:
    """With the step's own time, and no second one where several calls log one step."""
    backend = open_backend(http, interval_s=60)
    for number, step in enumerate([(0, 1), (0, 1), (0, 2), (1, 0), (1,), (1, 0, 5)]):
        backend.write_record(Record(START_US + number * 1000, number, step, {"loss": 1.0}))
    backend.close()
    iterations = [(p.time_us - START_US, p.value) for p in http.named("dllogger.iteration")]
    assert [(0, 1.0), (2000, 2.0), (3000, 0.0)] == iterations[:-1]
    epochs = [(p.time_us - START_US, p.value) for p in http.named("dllogger.epoch")]
    assert [(0, 0.0), (3000, 1.0)] == epochs[:-1]


def test_an_exception_is_no_clean_close(http: HTTPCollector, open_backend: Any) -> None:
    """Out of a ``with`` block that raises, the values are sent and the run is not finished."""

    def train() -> None:
        with Logger([open_backend(http)]) as logger:
            logger.log((0, 1), {"loss": 1.0})
            raise KeyError

    with pytest.raises(KeyError):
        train()
    assert [1.0] == http.values("dl.loss")
    assert {0.0} == set(http.values("dllogger.run_finished"))


def test_idle_ranks_are_seen_to_be_alive(
    http: HTTPCollector, open_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Figures come again while nothing is logged; what was logged does not."""
    monkeypatch.setattr(internal, "OBSERVATION_INTERVAL_US", 50_000)
    log(open_backend(http), 1, 1.0)
    assert 3 <= len(http.wait_for("dllogger.last_log_timestamp", 3))
    assert [1.0] == http.values("dl.loss")


def test_metadata_that_is_late_moves_a_series_once(
    http: HTTPCollector, open_backend: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Before the first export it is not late at all; after it, once, with a warning."""
    backend = open_backend(http, interval_s=60)
    for step, unit in enumerate((None, "s", "ms"), 1):
        log(backend, step, float(step))
        if unit:
            backend.write_metadata(Metadata(START_US, 0, "loss", {"unit": unit}))
        if step != 1:
            backend.flush()
            wait_until(
                lambda want=step: any(p.value == want for p in http.points if p.name == "dl.loss")
            )
    log(backend, 4, 4.0)
    backend.write_metadata(Metadata(START_US, 0, "loss", {"unit": "h"}))
    backend.close()
    assert [("s", 1.0), ("s", 2.0), ("ms", 3.0), ("ms", 4.0)] == [
        (point.unit, point.value) for point in http.named("dl.loss")
    ]
    assert 1 == sum("came after its first export" in one.message for one in caplog.records)
    assert 1 == sum("changed again" in one.message for one in caplog.records)


def test_ranks_of_the_data_and_of_the_process(http: HTTPCollector, open_backend: Any) -> None:
    """Two processes' ranks do not mix, and a rank in the data wins."""
    for rank in (0, 1):
        backend = open_backend(http, rank=rank)
        for step in range(50):
            log(backend, step, rank + step / 100)
        backend.write_record(Record(START_US, 0, (0, 50), {"loss": 9.0, "rank": 7 + rank}))
        backend.close()
    for rank in (0, 1):
        assert [rank + step / 100 for step in range(50)] == http.values("dl.loss", rank=str(rank))
        assert [9.0] == http.values("dl.loss", rank=str(7 + rank))
        assert [50.0] == list(dict.fromkeys(http.values("dllogger.iteration", rank=str(7 + rank))))
    assert not http.named("dl.rank")


def test_threads_that_log_lose_and_repeat_nothing(collector: Any, open_backend: Any) -> None:
    """Eight threads at once: every value arrives once, in the order of its thread."""
    logger = Logger([open_backend(collector)])

    def run(thread: int) -> None:
        for step in range(1000):
            logger.log((thread, step), {f"loss_{thread}": step})

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    logger.close()
    for number in range(8):
        assert list(range(1000)) == collector.values(f"dl.loss_{number}")
    assert 0 == sum(DIAGNOSTICS.dropped.values())


def test_points_of_a_series_are_sorted_within_a_request(
    http: HTTPCollector, open_backend: Any
) -> None:
    """A clock that was set back, or a thread that came late, does not disorder a series."""
    backend = open_backend(http, interval_s=60)
    for step in (1, 5, 3, 2, 4):
        log(backend, step, float(step))
    backend.close()
    assert [1.0, 2.0, 3.0, 4.0, 5.0] == http.values("dl.loss")


def test_old_points_travel_alone(http: HTTPCollector, open_backend: Any) -> None:
    """No request spans more than a minute, nor more points than gRPC's limit allows."""
    backend = open_backend(http, interval_s=60)
    times_us = [START_US + step * 10_000_000 for step in range(30)]
    for step, time_us in enumerate(times_us):
        log(backend, step, 1.0, at_us=time_us)
    for step in range(10_000):
        log(backend, step, 1.0, at_us=START_US + 400_000_000 + step * 1000)
    backend.close()
    logged = [
        [point.time_us for point in request.points if point.name == "dl.loss"]
        for request in http.requests
    ]
    assert [*times_us, *range(START_US + 400_000_000, START_US + 410_000_000, 1000)] == list(
        itertools.chain(*logged)
    )
    assert all(times[-1] - times[0] <= 60_000_000 for times in logged if times)
    assert max(len(request.points) for request in http.requests) <= 2_000


def test_points_of_one_millisecond_share_a_request(http: HTTPCollector, open_backend: Any) -> None:
    """Of two requests, a receiver that keeps milliseconds would take the second for duplicates."""
    backend = open_backend(http, interval_s=60)
    for step in range(6_000):
        log(backend, step, 1.0, at_us=START_US + step * 300)
    backend.close()
    milliseconds = [
        {point.time_us // 1000 for point in request.points if point.name == "dl.loss"}
        for request in http.requests
    ]
    assert 3 <= len(milliseconds)
    for one, other in itertools.combinations(milliseconds, 2):
        assert set() == one & other


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
    assert any("before a collector took the last values" in one for one in caplog.messages)


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
    (thread,) = [one for one in threading.enumerate() if one.name == sender_module.THREAD_NAME]
    assert thread.daemon
    backend.close()
    assert not thread.is_alive()


def test_verbosity_says_what_is_sent(http: HTTPCollector, open_backend: Any) -> None:
    """What is logged at a higher verbosity than the backend's stays out."""
    backend = open_backend(http)
    backend._verbosity = Verbosity.DEFAULT
    logger = Logger([backend])
    logger.log((0, 1), {"quiet": 1.0}, verbosity=Verbosity.VERBOSE)
    logger.log((0, 1), {"loud": 1.0}, verbosity=Verbosity.DEFAULT)
    logger.close()
    assert [1.0] == http.values("dl.loud")
    assert [] == http.values("dl.quiet")


def test_headers_and_compression(
    collector: Any, open_backend: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both arrive as given, and a .netrc does not take the place of an authorization."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    backend = open_backend(collector, headers={"Authorization": "Bearer x"}, compression="gzip")
    for step in range(1000):
        log(backend, step, 1.0)
    backend.close()
    assert [1.0] * 1000 == collector.values("dl.loss")
    headers = collector.requests[0].headers
    assert "Bearer x" == headers["authorization"]
    if collector.protocol != "grpc":
        assert ("gzip", "/v1/metrics") == (headers["content-encoding"], headers["path"])
        assert int(headers["content-length"]) < 30_000


@pytest.mark.parametrize("headers", [{}, {"User-Agent": "mine/1 (team a)"}])
def test_the_user_agent(collector: Any, open_backend: Any, headers: dict[str, str]) -> None:
    """It says who sends, in which version and language; a header of the user's own wins."""
    backend = open_backend(collector, headers=headers)
    log(backend, 1, 1.0)
    backend.close()
    sent = collector.requests[0].headers["user-agent"]
    if collector.protocol == "grpc":
        sent, *_ = sent.partition(" grpc-python/")
    python = ".".join(map(str, sys.version_info[:3]))
    assert headers.get("User-Agent", f"otel-dllogger/{__version__} (Python {python})") == sent


def test_sdk_disabled_sends_nothing(
    http: HTTPCollector, open_backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OTEL_SDK_DISABLED=true: no thread, no request, and logging goes on."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    logger = Logger([open_backend(http)])
    logger.log((0, 1), {"loss": 1.0})
    logger.metadata("loss", {"unit": "s"})
    logger.flush()
    assert not [one for one in threading.enumerate() if one.name == sender_module.THREAD_NAME]
    logger.close()
    assert [] == http.requests
    assert 0 == sum(DIAGNOSTICS.dropped.values())


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
    assert message.endswith("pip install 'otel-dllogger[otlp]'")


@pytest.mark.parametrize(
    "option",
    [{"interval_s": 0}, {"interval_s": 1e9}, {"max_queue_bytes": 10}, {"max_queue_bytes": 1e9}],
)
def test_options_that_mean_nothing_are_refused(option: dict[str, Any]) -> None:
    """The error names the option and its value."""
    ((name, value),) = option.items()
    with pytest.raises(ConfigurationError, match=f"{name}={value}"):
        OTLPBackend(1, **option)


def test_dlloggers_own_form_is_taken(http: HTTPCollector, open_backend: Any) -> None:
    """A time before 1970, or after 2262, does not cost a batch."""
    backend = open_backend(http)
    log(backend, 1, 1.0, at_us=-5)
    log(backend, 2, 2.0, at_us=2**62)
    backend.write_info(Info(START_US, 0, "a line of text"))
    backend.close()
    assert [(0, 1.0), (2**63 // 1000 - 1, 2.0)] == [
        (point.time_us, point.value) for point in http.named("dl.loss")
    ]


def test_the_double_for_tests_can_fail() -> None:
    """A collector that was given nothing has nothing."""
    assert [] == Collector().values("dl.loss")


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

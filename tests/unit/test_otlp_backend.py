"""Every step over OTLP, with its own time, to real receivers."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otel_dllogger import JSONStreamBackend, Logger, Verbosity
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics import internal
from otel_dllogger.metrics.resource import SCHEMA_URL
from otel_dllogger.otlp import sender as sender_module
from otel_dllogger.record import Info, Metadata, Record
from otel_dllogger.version import __version__
from tests.support.collector import Collector, HTTPCollector
from tests.support.http import wait_until
from tests.support.otlp_backend import START_US, log

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")
pytest.importorskip("grpc", reason="pip install 'otel-dllogger[otlp]'")

NAN, INF = float("nan"), float("inf")


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
        "kind": "duration",
        "granularity": "iteration",
    }
    assert {(labels == point.labels, point.unit, point.is_sum) for point in points} == {
        (True, "s", False)
    }
    request = collector.requests[0]
    assert ("otel_dllogger", __version__) == request.scope
    assert (SCHEMA_URL,) * 2 == request.schema_urls
    assert "resnet50/3" == request.resource["service.instance.id"]
    assert "otel_dllogger" == request.resource["service.name"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_that_the_process_was_told_to_end_is_sent_at_once(
    collector: Any, open_backend: Any, number: int
) -> None:
    """A collector learns it while the script's own handler saves a checkpoint."""
    before = signal.signal(number, lambda *_: None)
    try:
        backend = open_backend(collector, interval_s=300)
        log(backend, 1, 1.0)
        backend.flush()
        collector.wait_for("dllogger.run_terminated", 1)
        assert [0] == collector.values("dllogger.run_terminated")
        signal.raise_signal(number)
        wait_until(lambda: 1 in collector.values("dllogger.run_terminated"))
        backend.close()
    finally:
        signal.signal(number, before)
    assert 1 == collector.values("dllogger.run_terminated")[-1]
    assert {0} == {*collector.values("dllogger.run_finished")}


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


def test_steps_beyond_the_range_of_a_float_are_the_largest_float(
    collector: Any, open_backend: Any
) -> None:
    """As on the metrics page: the values of such a step are sent, and nothing is lost."""
    logger = Logger([open_backend(collector)])
    for step in ((10**400, 1), (2, -(10**400))):
        logger.log(step, {"loss": 1.0})
    logger.close()
    assert [1.0, 1.0] == collector.values("dl.loss")
    assert {sys.float_info.max, 2.0} == set(collector.values("dllogger.epoch"))
    assert {1.0, -sys.float_info.max} == set(collector.values("dllogger.iteration"))
    assert not DIAGNOSTICS.dropped["backend_failed"]


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
    assert {
        "steps",
        "step",
        "phase_seconds",
        "records",
        "nonfinite",
        "dropped",
        "log",
        "hang_dumps",
    } == {name.removeprefix("dllogger.") for name in sums}
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
    assert not [
        one for one in threading.enumerate() if one.name == sender_module.Sender.THREAD_NAME
    ]
    logger.close()
    assert [] == http.requests
    assert 0 == sum(DIAGNOSTICS.dropped.values())


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

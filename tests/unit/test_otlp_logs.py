"""Events, parameters and info calls over OTLP, as log records, to real receivers."""

from __future__ import annotations

import argparse
import itertools
import os
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from otel_dllogger import Logger
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.resource import SCHEMA_URL
from otel_dllogger.otlp import log_records, log_sender
from otel_dllogger.version import __version__
from tests.support.collector import GRPCCollector, HTTPCollector, free_port
from tests.support.http import wait_until
from tests.support.otlp_backend import log

if TYPE_CHECKING:
    from collections.abc import Callable

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")
pytest.importorskip("grpc", reason="pip install 'otel-dllogger[otlp]'")

INFO = (9, "INFO")
NO_LOGS = {"http/protobuf": 404, "grpc": "UNIMPLEMENTED"}


def test_parameters_and_info_arrive_with_their_own_time(collector: Any, open_backend: Any) -> None:
    """Names, bodies, attributes, resource and scope are those that are documented."""
    logger = Logger([open_backend(collector, run="resnet50", rank=3)])
    logger.log("PARAMETER", {"lr": 0.1, "optimizer": {"name": "sgd", "betas": (1, 2.5)}, "x": None})
    logger.info("the mean of the dataset is 0.5")
    logger.info(argparse.Namespace(seed=1, amp=True))
    records = collector.wait_for_records(3)
    assert ["dllogger.parameter", "dllogger.info", "dllogger.info"] == [
        record.event for record in records
    ]
    assert [
        {"lr": 0.1, "optimizer": {"name": "sgd", "betas": [1, 2.5]}, "x": None},
        "the mean of the dataset is 0.5",
        {"seed": 1, "amp": True},
    ] == [record.body for record in records]
    for record in records:
        assert ({"run": "resnet50", "rank": "3"}, INFO) == (record.labels, record.severity)
        assert record.time_us == record.observed_us > 1_700_000_000_000_000
    request = collector.logs_requests[0]
    assert (("otel_dllogger", __version__), (SCHEMA_URL,) * 2) == (
        request.scope,
        request.schema_urls,
    )
    assert ("resnet50/3", os.getpid()) == (
        request.resource["service.instance.id"],
        request.resource["process.pid"],
    )
    logger.close()
    metrics = {one.labels["name"]: one.value for one in collector.named("dllogger.parameter")}
    assert {"lr": 0.1, "seed": 1.0, "amp": 1.0} == metrics


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (7, "7"),
        ((0, 5), "[0, 5]"),
        ((), "[]"),
        ("best", '"best"'),
        (np.int64(3), "3"),
        (float("nan"), "NaN"),
    ],
)
def test_events_arrive_under_their_own_names(
    http: HTTPCollector, open_backend: Any, step: Any, text: str
) -> None:
    """With the step in the form of the JSON log, and a warning for a hang."""
    logger = Logger([open_backend(http, rank=3)])
    logger.event("checkpoint_saved", {"path": "a.pt", "token": "hunter2"}, step=step)
    logger.event("hang")
    saved, hang = http.wait_for_records(2)
    labels = {"run": "r", "rank": "3"}
    assert ("checkpoint_saved", {"path": "a.pt"}, INFO) == (saved.event, saved.body, saved.severity)
    assert {**labels, "step": text} == saved.labels
    assert ("hang", None, (13, "WARN"), labels) == (
        hang.event,
        hang.body,
        hang.severity,
        hang.labels,
    )


def test_steps_are_no_log_records(collector: Any, open_backend: Any) -> None:
    """Only what is not a metric is sent as a log record."""
    backend = open_backend(collector)
    log(backend, 1, 1.0)
    backend.close()
    assert [1.0] == collector.values("dl.loss")
    assert [] == collector.logs_requests


def test_log_records_have_no_secrets(http: HTTPCollector, open_backend: Any) -> None:
    """By the rules of the parameters that are labels: by name, by form and by place."""
    logger = Logger([open_backend(http)])
    logger.info("clone https://me:hunter2@host/repo with --token hunter2")
    logger.log(
        "PARAMETER",
        {
            "db": {"password": "hunter2", "host": "pg://me:hunter2@host"},
            "argv": ["train.py", "--password", "hunter2", "--lr=0.1"],
            "tokens": {"train": 5},
            "api_keys": ["hunter2"],
            "passwords": [1, None, ["hunter2"]],
            "runs": [{"api_key": "hunter2", "id": 7}],
        },
    )
    text, parameters = http.wait_for_records(2)
    assert "clone https://[redacted]@host/repo with --token [redacted]" == text.body
    assert {
        "db": {"host": "pg://[redacted]@host"},
        "argv": ["train.py", "--password", "[redacted]", "--lr=0.1"],
        "tokens": {"train": 5},
        "api_keys": ["[redacted]"],
        "passwords": ["[redacted]", "[redacted]", ["[redacted]"]],
        "runs": [{"id": 7}],
    } == parameters.body


@pytest.mark.parametrize(
    ("data", "body"),
    [
        ({"a": 2**64, "b": -(2**63)}, {"a": str(2**64), "b": -(2**63)}),
        ({"a": "\ud800", "\udfff": 1}, {"a": "\\ud800", "\\udfff": 1}),
        ({"a": float("inf"), "b": True, "c": []}, {"a": float("inf"), "b": True, "c": []}),
        ({1: {2: "a\nb"}}, {"1": {"2": "a\nb"}}),
    ],
)
def test_what_one_record_holds_never_stops_the_others(
    http: HTTPCollector, open_backend: Any, data: Any, body: Any
) -> None:
    """Values that a message has no place for become text."""
    logger = Logger([open_backend(http)])
    logger.log("PARAMETER", data)
    logger.info("next")
    assert [body, "next"] == [record.body for record in http.wait_for_records(2)]
    assert 0 == sum(DIAGNOSTICS.dropped.values())


@pytest.mark.parametrize(
    "data",
    [{"a": ["x" * 1000] * 400}, {"a": [0] * 20_000}, {f"{key:09}": 0 for key in range(20_000)}],
)
def test_a_body_that_is_too_large_is_not_sent(
    http: HTTPCollector, open_backend: Any, data: Any
) -> None:
    """Log stores refuse it; the event itself arrives, and says so."""
    logger = Logger([open_backend(http)])
    logger.info(data)
    logger.info("x" * 1_000_000)
    large, text = http.wait_for_records(2)
    assert "[more than 256 KiB are not sent; a JSON log has them]" == large.body
    assert 7000 < len(text.body) < 8193


@pytest.mark.parametrize("wrap", [lambda inner: {"a": inner}, lambda inner: [inner]])
def test_a_body_that_is_nested_deeply_is_cut(
    http: HTTPCollector, open_backend: Any, wrap: Callable[[Any], Any]
) -> None:
    """A parser of messages has a limit, beyond which it would take nothing of the request."""
    data: Any = 1
    for _ in range(60):
        data = wrap(data)
    logger = Logger([open_backend(http)])
    logger.info(data)
    (record,) = http.wait_for_records(1)
    expected: Any = "[nested deeper than 16 levels; a JSON log has it]"
    for _ in range(16):
        expected = wrap(expected)
    assert expected == record.body
    assert 0 == sum(DIAGNOSTICS.dropped.values())


@pytest.fixture
def asked_for_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable says that logs are to be sent."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")


@pytest.mark.parametrize("status", [404, 405, 501, 401, 302])
@pytest.mark.usefixtures("asked_for_logs")
def test_a_receiver_without_logs_ends_them_with_one_warning(
    http: HTTPCollector, open_backend: Any, caplog: Any, counted: Callable[..., Any], status: int
) -> None:
    """What it did not take is counted; the metrics go on, and what comes later does not count."""
    http.answer_logs = lambda _records: (status, {}, b"")
    http.hold_logs.clear()
    backend = open_backend(http)
    logger = Logger([backend])
    logger.info("one")
    wait_until(lambda: backend._senders[1]._sending is not None)
    logger.info("two")
    http.hold_logs.set()
    if status == 501:  # of this request alone
        wait_until(lambda: len(http.logs_requests) == 2)
    else:
        backend._senders[1]._thread.join(60)
        assert not backend._senders[1]._thread.is_alive()
        logger.info("three")
    logger.log((0, 1), {"loss": 1.0})
    assert [1.0] == http.wait_for("dl.loss", 1)
    logger.close()
    DIAGNOSTICS.drain()
    assert {"otlp_refused": 2} == counted()
    (told,) = [record.message for record in caplog.records]
    assert f"HTTP status {status}" in told
    assert ("takes no logs" in told) == ("OTEL_LOGS_EXPORTER=none" in told) == (status != 501)
    assert (1 + (status == 501)) == len(http.logs_requests)


@pytest.mark.parametrize("variable", [None, "OTEL_LOGS_EXPORTER"])
def test_logs_that_nobody_asked_for_are_not_lost(
    http: HTTPCollector,
    open_backend: Any,
    counted: Callable[..., Any],
    caplog: Any,
    monkeypatch: Any,
    variable: str | None,
) -> None:
    """A receiver of metrics alone, as VictoriaMetrics, is not a reason for an alert."""
    if variable is not None:
        monkeypatch.setenv(variable, "otlp")
    http.answer_logs = lambda _records: (404, {}, b"")
    backend = open_backend(http)
    logger = Logger([backend])
    logger.info("one")
    backend._senders[1]._thread.join(60)
    logger.close()
    DIAGNOSTICS.drain()
    assert counted() == ({} if variable is None else {"otlp_refused": 1})
    assert "takes no logs" in caplog.text


@pytest.mark.usefixtures("asked_for_logs")
def test_what_waits_in_further_requests_is_counted_as_well(
    http: HTTPCollector, open_backend: Any, counted: Callable[..., Any], monkeypatch: Any
) -> None:
    """The first answer holds for all."""
    monkeypatch.setattr("otel_dllogger.otlp.log_batches.MAX_BATCH_BYTES", 1)
    http.answer_logs = lambda _records: (404, {}, b"")
    backend = open_backend(http, interval_s=300)
    logger = Logger([backend])
    for _ in range(3):
        logger.info("text")
    logger.close()
    assert 1 == len(http.logs_requests)
    assert {"otlp_refused": 3} == counted()


@pytest.mark.usefixtures("asked_for_logs")
def test_a_receiver_over_grpc_without_logs_ends_them(
    open_backend: Any, caplog: Any, counted: Callable[..., Any]
) -> None:
    """gRPC answers UNIMPLEMENTED by itself."""
    with GRPCCollector(takes_logs=False) as collector:
        backend = open_backend(collector, protocol="grpc")
        logger = Logger([backend])
        logger.info("one")
        logger.log((0, 1), {"loss": 1.0})
        assert [1.0] == collector.wait_for("dl.loss", 1)
        backend._senders[1]._thread.join(60)
        logger.close()
    DIAGNOSTICS.drain()
    assert {"otlp_refused": 1} == counted()
    (told,) = [record.message for record in caplog.records]
    assert "UNIMPLEMENTED" in told


def test_a_receiver_of_logs_that_hangs_does_not_delay_metrics(
    http: HTTPCollector, open_backend: Any, counted: Callable[..., Any], monkeypatch: Any
) -> None:
    """Neither while it hangs, nor when the process ends; what it has not taken is counted."""
    http.hold_logs.clear()
    backend = open_backend(http)
    logger = Logger([backend])
    logger.info("one")
    wait_until(lambda: backend._senders[1]._sending is not None)
    for step in range(5):
        log(backend, step, 1.0)
        http.wait_for("dl.loss", step + 1)
    log(backend, 5, 1.0)
    monkeypatch.setattr("otel_dllogger.otlp.sender.EXIT_S", 0.5)
    logger.close()
    assert 6 == len(http.values("dl.loss"))
    assert {"otlp_exit": 1} == counted()


def test_log_records_wait_for_a_receiver(collector: Any, open_backend: Any) -> None:
    """After answers that ask for it, each arrives once, in order."""
    status = {"http/protobuf": 503, "grpc": "UNAVAILABLE"}[collector.protocol]
    answers = itertools.chain([status] * 3, itertools.repeat(200))
    collector.answer_logs = lambda _records: (next(answers), {}, b"")
    logger = Logger([open_backend(collector)])
    for number in range(20):
        logger.info(str(number))
    assert [str(number) for number in range(20)] == [
        record.body for record in collector.wait_for_records(20)
    ]
    assert 0 == sum(DIAGNOSTICS.dropped.values())


def test_records_that_are_refused_of_a_request_are_counted(
    collector: Any, open_backend: Any, caplog: Any, counted: Callable[..., Any]
) -> None:
    """The receiver says how many, and why."""
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as messages  # noqa: PLC0415

    partial = messages.ExportLogsPartialSuccess(rejected_log_records=2, error_message="too old")
    body = messages.ExportLogsServiceResponse(partial_success=partial).SerializeToString()
    collector.answer_logs = lambda _records: (200, {}, body)
    backend = open_backend(collector, interval_s=60)
    logger = Logger([backend])
    for _ in range(3):
        logger.info("text")
    logger.close()
    DIAGNOSTICS.drain()
    assert {"otlp_refused": 2} == counted()
    assert "a collector refused log records: too old" in caplog.text


def test_the_oldest_records_are_dropped_when_the_room_is_full(
    open_backend: Any, counted: Callable[..., Any], caplog: Any
) -> None:
    """They have a share of the room, and leave the rest to metrics."""
    backend = open_backend(endpoint=f"http://127.0.0.1:{free_port()}", max_queue_bytes=1 << 20)
    logger = Logger([backend])
    for _ in range(200):
        logger.info("x" * 2000)
    wait_until(lambda: counted().get("otlp_queue", 0) > 100)
    DIAGNOSTICS.drain()
    assert "no collector accepts the log records" in caplog.text
    logger.close()
    assert 200 == sum(counted().values())


@pytest.mark.parametrize(
    ("variables", "are_sent"),
    [
        ({}, True),
        ({"OTEL_LOGS_EXPORTER": "none"}, False),
        ({"OTEL_LOGS_EXPORTER": "console"}, False),
        ({"OTEL_LOGS_EXPORTER": "console, OTLP"}, True),
        ({"OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_log_records_can_be_turned_off(
    http: HTTPCollector, open_backend: Any, monkeypatch: Any, variables: Any, are_sent: bool
) -> None:
    """Without their thread, and without a warning."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    backend = open_backend(http)
    names = {thread.name for thread in threading.enumerate()}
    assert are_sent == (log_sender.LogSender.THREAD_NAME in names)
    Logger([backend]).info("text")
    backend.close()
    assert are_sent == bool(http.records)
    assert 0 == sum(DIAGNOSTICS.dropped.values())
    assert log_sender.LogSender.THREAD_NAME not in {one.name for one in threading.enumerate()}


def test_a_receiver_of_their_own(http: HTTPCollector, open_backend: Any, monkeypatch: Any) -> None:
    """It gets its own headers, and not those that were given for the other one."""
    with HTTPCollector() as other:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{other.url}/own/logs")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "a=1")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip")
        logger = Logger([open_backend(http, headers={"authorization": "secret"})])
        logger.info("text")
        logger.close()
        (request,) = other.logs_requests
    assert ("/own/logs", "1", "gzip", None) == tuple(
        request.headers.get(name) for name in ("path", "a", "content-encoding", "authorization")
    )
    assert {"secret"} == {one.headers["authorization"] for one in http.requests}
    assert [] == http.logs_requests


def test_times_and_limits_are_those_of_otlp() -> None:
    """A clock that is wrong does not make a record that no message can hold."""
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord  # noqa: PLC0415

    from otel_dllogger.record import Info  # noqa: PLC0415

    for time_us, expected in ((-5, 0), (2**63, log_records._LAST_TIME_US * 1000)):
        encoded = log_records.encode_log_record(Info(time_us, 0, ""), {})
        assert expected == LogRecord.FromString(encoded).time_unix_nano

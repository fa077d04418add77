"""Events and parameters of logs that are followed, as log records of a collector."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from otel_dllogger.bridge.otlp_forwarder import OTLPForwarder
from otel_dllogger.cli.log_source import open_exporter
from otel_dllogger.logs.source import Source
from otel_dllogger.otlp import exporter as exporter_module
from otel_dllogger.record import Info, Record
from tests.support.bridge import append, log_line, steps
from tests.support.otlp_forwarder import START_US, received_us, times_us

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.collector import HTTPCollector

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")

HEAD = log_line("PARAMETER", {"lr": 0.1, "token": "hunter2"}, time_us=START_US)


def event_line(name: str, step: object, data: object, time_us: int) -> bytes:
    """Return the line of an event as JSONStreamBackend writes it."""
    entry = {
        "timestamp": f"{time_us / 1e6:.6f}",
        "datetime": "2023-11-14 22:13:20.000000",
        "elapsedtime": "1.5",
        "type": "EVENT",
        "name": name,
        "step": step,
        "data": data,
    }
    return b"DLLL " + json.dumps(entry).encode() + b"\n"


def saved(number: int) -> bytes:
    """Return the event after a number of steps."""
    time_us = times_us(number, number + 1)[0] - 1
    return event_line("checkpoint_saved", [0, number], {"path": f"{number}.pt"}, time_us)


def send(logs: Path, url: str, checkpoint: Path | None = None, **times: int) -> list[str]:
    """Send all that is new in logs, and return what was told."""
    told: list[str] = []
    exporter = open_exporter(url, threading.Event(), told.append, patience_s=60)
    path = None if checkpoint is None else str(checkpoint)
    forwarder = OTLPForwarder(Source([str(logs)]), exporter, checkpoint=path, **times)
    forwarder.run_to_end()
    forwarder.close()
    return told


def test_events_and_parameters_are_sent_once_with_their_own_times(
    tmp_path: Path, logs: Path, http: HTTPCollector, monkeypatch: Any
) -> None:
    """Those of the log, however often it is read; the process that reads it is not their own."""
    monkeypatch.setenv("SLURM_JOB_ID", "4242")
    log = logs / "run_rank3.json"
    append(log, HEAD + steps(0, 10) + saved(10))
    began_us = time.time_ns() // 1000
    assert [] == send(logs, http.url, tmp_path / "checkpoint")
    append(log, steps(10, 20) + saved(20))
    assert [] == send(logs, http.url, tmp_path / "checkpoint")
    assert [
        ("dllogger.parameter", START_US, {"lr": 0.1}, None),
        ("checkpoint_saved", times_us(10, 11)[0] - 1, {"path": "10.pt"}, "[0, 10]"),
        ("checkpoint_saved", times_us(20, 21)[0] - 1, {"path": "20.pt"}, "[0, 20]"),
    ] == [(one.event, one.time_us, one.body, one.labels.get("step")) for one in http.records]
    assert {"3"} == {one.labels["rank"] for one in http.records}
    assert all(one.observed_us >= began_us for one in http.records)
    assert times_us(0, 20) == received_us(http)
    for request in (*http.requests, *http.logs_requests):
        assert not {"host.name", "process.pid", "slurm.job.id"} & request.resource.keys()


def test_log_records_alone_are_noted_as_sent(http: HTTPCollector) -> None:
    """Otherwise a kill would send them again."""
    exporter = open_exporter(http.url, threading.Event(), print)
    noted: list[int] = []
    exporter.on_answer = lambda: noted.append(len(http.records))
    exporter.flush()
    exporter.add_entry(("r", 0), Info(START_US, 0, "text"))
    exporter.add_entry(("r", 0), Record(START_US, 0, (0, 1), {"loss": 1.0}))
    exporter.flush()
    exporter.flush()
    assert [1] == noted


def test_only_events_within_the_time_range_are_sent(logs: Path, http: HTTPCollector) -> None:
    """As with the steps."""
    append(logs / "run_rank0.json", HEAD + steps(0, 4) + saved(4) + steps(4, 9) + saved(9))
    since_us, until_us = times_us(0, 1)[0], times_us(8, 9)[0]
    send(logs, http.url, since_us=since_us, until_us=until_us)
    assert [{"path": "4.pt"}] == [one.body for one in http.records]
    assert times_us(0, 8) == received_us(http)


def test_a_collector_that_is_away_gets_each_record_once(
    logs: Path, http: HTTPCollector, monkeypatch: Any
) -> None:
    """They are waited for as steps are."""
    monkeypatch.setattr(exporter_module, "FIRST_WAIT_S", 0.01)
    answers = [503, 503]
    http.answer_logs = lambda _records: (answers.pop() if answers else 200, {}, b"")
    append(logs / "run_rank0.json", HEAD + steps(0, 10) + saved(10))
    (told,) = send(logs, http.url)
    assert "no collector accepts the log records, trying again" in told
    assert ["dllogger.parameter", "checkpoint_saved"] == [one.event for one in http.records]
    assert times_us(0, 10) == received_us(http)


@pytest.mark.parametrize(
    ("status", "words", "requests"),
    [(404, "takes no logs", 1), (400, "refused 1 log record: ", 2)],
)
def test_a_collector_without_logs_gets_every_step(
    logs: Path,
    http: HTTPCollector,
    monkeypatch: Any,
    status: int,
    words: str,
    requests: int,
) -> None:
    """What it refuses is told once, and does not end the steps."""
    monkeypatch.setattr("otel_dllogger.otlp.log_batches.MAX_BATCH_BYTES", 1)
    http.answer_logs = lambda _records: (status, {}, b"never")
    append(logs / "run_rank0.json", HEAD + steps(0, 10) + saved(10) + steps(10, 20))
    (told,) = send(logs, http.url)
    assert words in told
    assert requests == len(http.logs_requests)
    assert times_us(0, 20) == received_us(http)


def test_log_records_of_logs_can_be_turned_off(
    logs: Path, http: HTTPCollector, monkeypatch: Any
) -> None:
    """By OpenTelemetry's own variable."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    append(logs / "run_rank0.json", HEAD + steps(0, 10))
    assert [] == send(logs, http.url)
    assert [] == http.logs_requests
    assert times_us(0, 10) == received_us(http)

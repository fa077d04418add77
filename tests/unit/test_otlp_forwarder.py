"""``bridge --otlp``: every step at a collector with its own time, whatever happens to either."""

from __future__ import annotations

import random
import signal
import threading
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.bridge.sent_offsets import SentOffsets
from otel_dllogger.logs.tail.fingerprint import FilePosition
from otel_dllogger.otlp import exporter as exporter_module
from otel_dllogger.otlp.batches import MAX_POINTS
from otel_dllogger.otlp.encoder import Encoder
from otel_dllogger.otlp.patience import Stopped
from tests.support.bridge import (
    END_S,
    BridgeProcess,
    append,
    log_line,
    of_ranks,
    steps,
)
from tests.support.collector import BlackHole, HTTPCollector, free_port
from tests.support.command import environment
from tests.support.http import wait_until
from tests.support.otlp_forwarder import START_US, open_forwarder, received_us, times_us
from tests.support.prometheus import wait_for
from tests.support.victoriametrics import VictoriaMetrics

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

MANY = [f"a{number}" for number in range(40)]
REQUEST_STEPS = MAX_POINTS // (len(MANY) + 3) + 2
"""Steps of a request at most, where each logs so many values."""

DEADLINE_S = 60.0


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Return the folder of a run."""
    folder = tmp_path / "job"
    folder.mkdir()
    return folder


def test_victoria_metrics_has_every_step_and_the_names_of_the_page(
    tmp_path: Path, logs: Path
) -> None:
    """Two ranks, hundreds of steps with their times and values, and every figure of the page."""
    for rank in (0, 1):
        log = logs / f"log_rank{rank}.json"
        append(log, steps(0, 600, accuracy=rank))
        append(log, log_line([], {"top1": 0.75}, time_us=START_US + 10**8, elapsed_us=10**8))
    with (
        VictoriaMetrics(tmp_path / "data") as server,
        BridgeProcess(
            logs, "--otlp", server.otlp, folder=tmp_path, variables=environment()
        ) as bridge,
    ):
        wait_for(
            lambda: server.export('dllogger_run_finished{run="job"}'), lambda found: len(found) == 2
        )
        page = of_ranks(bridge.page())
        for rank in (0, 1):
            for name, values in {
                "dl_loss": [8 / (1 + number) for number in range(600)],
                "dl_accuracy": [rank] * 600,
            }.items():
                (series,) = server.export(f'{name}{{run="job",rank="{rank}"}}')
                assert [time_us // 1000 for time_us in times_us(0, 600)] == series["timestamps"]
                assert pytest.approx(values, rel=1e-11) == series["values"]
        found = set()
        for series in server.export('{run="job"}'):
            labels = series["metric"]
            name = labels.pop("__name__")
            found.add((name, *(f"{key}={value}" for key, value in sorted(labels.items()) if value)))
        (place,) = server.export('dllogger_iteration{run="job",rank="0"}')
        places = dict(zip(place["timestamps"], place["values"], strict=True))
        assert list(range(600)) == [places[time_us // 1000] for time_us in times_us(0, 600)]
        assert bridge.stop() < 10
    assert {key for key in page if key[0] != "dllogger_dropped_total"} == found


@pytest.mark.slow
def test_nothing_is_lost_while_no_collector_is_there(tmp_path: Path, logs: Path) -> None:
    """Not there at the start, gone in the middle, and back: each step comes once, in order."""
    port = free_port()
    log = logs / "log_rank0.json"
    append(log, steps(0, 3_000))
    options = ("--otlp", f"http://127.0.0.1:{port}", "--checkpoint", tmp_path / "checkpoint")
    with BridgeProcess(logs, *options, folder=tmp_path) as bridge:
        bridge.wait_for_value(3_000, "dllogger_records_total", "type=log")
        wait_until(lambda: "no collector accepts the metrics" in bridge.errors())
        with HTTPCollector(port) as first:
            first.wait_for("dl.loss", 3_000)
            # It also ends the connection, which would live on in a thread of its own.
            first.answer = lambda _points: (503, {"connection": "close"}, b"")
            append(log, steps(3_000, 4_000))
            wait_until(lambda: bridge.errors().count("no collector accepts the metrics") == 2, 20)
        append(log, steps(4_000, 5_000))
        with HTTPCollector(port) as second:
            second.wait_for("dl.loss", 2_000)
            append(log, steps(5_000, 5_100))
            second.wait_for("dl.loss", 2_100)
            assert bridge.stop() < END_S
    assert times_us(0, 5_100) == received_us(first) + received_us(second)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_end_at_any_moment_loses_nothing(tmp_path: Path, logs: Path, number: int) -> None:
    """A kill repeats one request at most, of however many a round has; a clean stop none."""
    last = 4_000
    append(logs / "log_rank0.json", steps(0, last, **dict.fromkeys(MANY, 1)))
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    ends = 0
    with HTTPCollector() as collector:
        options = ("--otlp", collector.url, "--checkpoint", tmp_path / "checkpoint")
        while ends < 6:
            before = len(collector.requests)
            with BridgeProcess(logs, *options, folder=tmp_path) as bridge:
                enough = before + chance.randrange(1, 12)  # a round has about eleven
                wait_until(lambda enough=enough: len(collector.requests) >= enough, DEADLINE_S)
                bridge.process.send_signal(number)
                assert bridge.process.wait(20) == (-number if number == signal.SIGKILL else 0)
                ends += 1
        assert len(set(received_us(collector))) < last  # or it was killed when all was over
        with BridgeProcess(logs, *options, folder=tmp_path) as bridge:
            wait_until(lambda: received_us(collector)[-1:] == times_us(last - 1, last), DEADLINE_S)
            assert bridge.stop() < END_S
    assert {200} == {one.status for one in collector.requests}
    counts = Counter(received_us(collector))
    assert times_us(0, last) == sorted(counts)
    repeated = sum(counts.values()) - last
    print(f"{repeated} of {last} steps came twice after {ends} ends")
    if number == signal.SIGTERM:
        assert 0 == repeated
    else:
        assert repeated <= ends * REQUEST_STEPS


@pytest.mark.slow
def test_a_collector_that_hangs_holds_up_neither_page_nor_end(tmp_path: Path, logs: Path) -> None:
    """It takes connections and never answers: logs are followed, and SIGTERM ends all at once."""
    log = logs / "log_rank0.json"
    append(log, steps(0, 100))
    with BlackHole() as hole, BridgeProcess(logs, "--otlp", hole.url, folder=tmp_path) as bridge:
        bridge.wait_for_value(100, "dllogger_records_total", "type=log")
        connection, _ = hole._socket.accept()
        with connection:
            assert connection.recv(4)  # a request is under way
            append(log, steps(100, 200))
            bridge.wait_for_value(200, "dllogger_records_total", "type=log")
            assert bridge.stop() < END_S
    assert [] == bridge.complaints()


def test_the_answers_of_a_round_are_noted_until_it_is_saved(tmp_path: Path, logs: Path) -> None:
    """A collector that is gone within a round gets the rest of that round, and nothing twice."""
    append(logs / "log_rank0.json", steps(0, 2_000) + b"noise\n")
    append(logs / "log_rank1.json", b"noise\n" + steps(0, 10))
    checkpoint = tmp_path / "checkpoint"
    sent = tmp_path / "checkpoint.sent"
    with HTTPCollector() as collector:
        takes = 1

        def answer(_points):
            nonlocal takes
            takes -= 1
            return (200 if takes >= 0 else 503), {}, b""

        collector.answer = answer
        forwarder = open_forwarder(logs / "log_rank0.json", collector.url, checkpoint)
        with pytest.raises(Stopped):
            forwarder.run_to_end()
        forwarder.close()
        assert sent.exists()
        with sent.open("ab") as file:
            file.write(b"[[1, 2, 3, 4], [5, ")  # as a kill may leave it
        takes = 1_000
        for _ in range(2):  # the second time there is nothing
            forwarder = open_forwarder(logs / "log_rank0.json", collector.url, checkpoint)
            forwarder.run_to_end()
            forwarder.close()
            assert not sent.exists()
    assert times_us(0, 2_000) == received_us(collector)
    assert len(received_us(collector, "dllogger.steps")) >= 1


def test_the_end_of_the_process_does_not_wait_for_a_round(tmp_path: Path, logs: Path) -> None:
    """After the answer that is under way nothing more is sent; the next start sends the rest."""
    append(logs / "log_rank0.json", steps(0, 1_500))
    checkpoint = tmp_path / "checkpoint"
    with HTTPCollector() as collector:
        forwarder = open_forwarder(logs, collector.url, checkpoint)
        stopping = forwarder._exporter._stopping
        collector.answer = lambda _points: (stopping.set(), (200, {}, b""))[1]
        forwarder.run(stopping)
        assert 1 == len(collector.requests)
        forwarder = open_forwarder(logs, collector.url, checkpoint)
        forwarder._exporter._stopping = threading.Event()
        forwarder.run_to_end()
        forwarder.close()
    assert times_us(0, 1_500) == received_us(collector)


def test_figures_that_were_not_yet_sent_come_after_the_restart(tmp_path: Path, logs: Path) -> None:
    """Ended between a run's last record and the next quarter minute, it says later how it was."""
    log = logs / "log_rank0.json"
    append(
        log, steps(0, 10) + log_line([], {"top1": 1}, time_us=START_US + 10**6, elapsed_us=10**6)
    )
    checkpoint = tmp_path / "checkpoint"
    with HTTPCollector() as collector:
        forwarder = open_forwarder(log, collector.url, checkpoint)
        assert forwarder.poll()
        forwarder.close()
        assert [] == collector.values("dllogger.run_finished")
        for _ in range(2):
            forwarder = open_forwarder(log, collector.url, checkpoint)
            forwarder.run_to_end()
            forwarder.close()
            assert [1.0] == collector.values("dllogger.run_finished")
        assert [10.0] == collector.values("dllogger.steps")
        # And counters still begin when the run did.
        (point,) = collector.named("dllogger.steps")
        assert START_US == point.start_us


def test_what_a_collector_refuses_is_told_and_the_rest_goes_on(logs: Path) -> None:
    """A request that no repetition will help is not repeated."""
    append(logs / "log_rank0.json", steps(0, 10))
    told: list[str] = []
    with HTTPCollector() as collector:
        collector.answer = lambda _points: (400, {}, b"too old")
        forwarder = open_forwarder(logs, collector.url, None, told.append)
        forwarder.run_to_end()
        collector.answer = lambda _points: (200, {}, b"")
        append(logs / "log_rank0.json", steps(10, 20))
        forwarder.run_to_end()
        forwarder.close()
    assert times_us(10, 20) == received_us(collector)
    (told_once,) = told  # not for each request
    assert "a collector refused 31 points so far: HTTP status 400" in told_once  # with the epoch
    assert forwarder._exporter.refused >= 31


@pytest.mark.slow
@pytest.mark.parametrize("status", [301, 401, 404])
def test_a_wrong_address_or_token_is_waited_out(logs: Path, status: int) -> None:
    """Somebody may mend it: a proxy that restarts answers so, too."""
    append(logs / "log_rank0.json", steps(0, 10))
    told: list[str] = []
    with HTTPCollector() as collector:
        answers = [status, status]
        collector.answer = lambda _points: (answers.pop() if answers else 200, {}, b"")
        forwarder = open_forwarder(logs, collector.url, None, told.append, DEADLINE_S)
        forwarder.run_to_end()
        forwarder.close()
        assert forwarder._exporter.refused == 0
        assert len(told) == 1
        assert str(status) in told[0]
    assert set(times_us(0, 10)) <= set(received_us(collector))


def test_a_bug_in_the_transport_is_waited_out(logs: Path, counted, monkeypatch) -> None:
    """What nobody foresaw is counted, and the same request is sent again, ever later."""
    monkeypatch.setattr(exporter_module, "FIRST_WAIT_S", 0.01)
    append(logs / "log_rank0.json", steps(0, 10))
    faults = [RuntimeError("never seen before")] * 3
    told: list[str] = []
    with HTTPCollector() as collector:
        forwarder = open_forwarder(logs, collector.url, None, told.append, DEADLINE_S)
        transport = forwarder._exporter._exporter._transport
        send = transport.send

        def fail(request, timeout_s):
            if faults:
                raise faults.pop()
            return send(request, timeout_s)

        monkeypatch.setattr(transport, "send", fail)
        forwarder.run_to_end()
        forwarder.close()
    assert times_us(0, 10) == received_us(collector)
    assert {"backend_failed": 3} == counted()
    assert "never seen before" in told[0]


def test_a_rank_that_cannot_be_encoded_holds_up_no_other(logs: Path, counted, monkeypatch) -> None:
    """Its points are lost and counted; those of the same request that can be sent are sent."""
    append(logs / "a_rank0.json", steps(0, 10))
    append(logs / "b_rank0.json", steps(0, 10))
    encode = Encoder._encode

    def fail(encoder, key, columns):
        if key == ("a", 0):
            raise RuntimeError("never seen before")
        return encode(encoder, key, columns)

    monkeypatch.setattr(Encoder, "_encode", fail)
    with HTTPCollector() as collector:
        forwarder = open_forwarder(logs, collector.url, None)
        forwarder.run_to_end()
        forwarder.close()
    assert times_us(0, 10) == received_us(collector)
    assert counted()["backend_failed"] >= 1


def test_sent_offsets_that_cannot_be_written_are_none(tmp_path: Path) -> None:
    """Without one, and on a full disk, more is sent again, and that is all."""
    for path in (None, str(tmp_path / "missing" / "sent"), str(tmp_path)):
        sent = SentOffsets(path)
        sent.note({(1, 2, 3): 4})
        sent.clear({})
        assert 0 == sent.sent_until(FilePosition(1, 2, 3, 4, 5))
        sent.close()

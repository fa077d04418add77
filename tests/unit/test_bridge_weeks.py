"""Bridges that run for weeks: what they keep, what they write, and what faults do to them."""

from __future__ import annotations

import gc
import json
import threading
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.bridge import otlp_forwarder, sent_offsets
from otel_dllogger.bridge.polling import RetryingPoll
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.logs.tail.fingerprint import FilePosition
from otel_dllogger.metrics.data_points import DataPoints
from otel_dllogger.otlp import exporter as exporter_module
from tests.support.bridge import LOOKS, append, log_line, open_bridge, read_page, steps, value_of
from tests.support.collector import HTTPCollector, free_port
from tests.support.http import ask
from tests.support.otlp_forwarder import START_US, open_forwarder, received_us, times_us

if TYPE_CHECKING:
    from otel_dllogger.bridge.otlp_forwarder import OTLPForwarder

pytestmark = pytest.mark.newest_only

RUNS = 200
AT_ONCE = 20
EXPIRE_S = 900.0


@pytest.fixture
def collector():
    """Return a collector that takes everything."""
    with HTTPCollector() as server:
        yield server


def summary(time_us: int = START_US + 10**6) -> bytes:
    """Return the line that ends a run."""
    return log_line([], {"top1": 1}, time_us=time_us, elapsed_us=10**6)


def turn(forwarder: OTLPForwarder, times: int = LOOKS) -> None:
    """Let a forwarder do what it does when nothing is left to read."""
    for _ in range(times):
        while forwarder._turn():
            pass


def kept(forwarder: OTLPForwarder) -> dict[str, int]:
    """Return how much a forwarder keeps of runs, by where it is."""
    ingest, tailer, exporter = forwarder._ingest, forwarder._tailer, forwarder._exporter
    return {
        "ranks": len(list(forwarder._ranks)),
        "resources": len(exporter._encoder._resources),
        "batches": int(exporter._batch is not None),
        "sources": len(ingest._files),
        "touched": len(ingest._touched),
        "files": len(tailer.files),
        "waiting": len(tailer._waiting),
        "descriptors": len(tailer._open_files),
        "sent": len(forwarder._sent_offsets._ends) + len(forwarder._sent_offsets._figures),
        "ends": len(forwarder._ends) + len(forwarder._figures),
    }


@pytest.mark.slow
def test_short_lived_runs_leave_nothing_behind(tmp_path, collector):
    """Hundreds of runs that come, end and are deleted: nothing of them stays, nothing is lost."""
    logs, checkpoint = tmp_path / "logs", tmp_path / "checkpoint"
    logs.mkdir()
    forwarder = open_forwarder(logs, collector.url, checkpoint, idle_s=EXPIRE_S)
    forwarder._idle_s = -1.0  # a rank has expired as soon as no file is of it
    gc.collect()
    before = sum(type(one) is DataPoints for one in gc.get_objects())
    most = 0
    for first in range(0, RUNS, AT_ONCE):
        paths = [logs / f"run{number}_rank0.json" for number in range(first, first + AT_ONCE)]
        for path in paths:
            append(path, steps(0, 3) + summary())
        turn(forwarder, 1)
        most = max(most, len(list(forwarder._ranks)))
        for path in paths:
            path.unlink()
        turn(forwarder)
    forwarder._checkpoint.write()
    assert AT_ONCE <= most <= 2 * AT_ONCE
    assert dict.fromkeys(kept(forwarder), 0) == kept(forwarder)
    gc.collect()
    assert before == sum(type(one) is DataPoints for one in gc.get_objects())
    assert [] == json.loads(checkpoint.read_bytes())["files"]
    assert {"checkpoint", "logs"} == {path.name for path in tmp_path.iterdir()}
    forwarder.close()
    assert 3 * RUNS == len(collector.named("dl.loss"))
    finished = {one.labels["run"]: one for one in collector.named("dllogger.run_finished")}
    assert {f"run{number}" for number in range(RUNS)} == finished.keys()
    assert {1.0} == {one.value for one in finished.values()}


def test_figures_of_a_deleted_log_are_sent_before_a_checkpoint_forgets_it(tmp_path, collector):
    """The next start has nothing that could send them."""
    log, checkpoint = tmp_path / "logs" / "run_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 3) + summary())
    forwarder = open_forwarder(log.parent, collector.url, checkpoint, idle_s=EXPIRE_S)
    forwarder.poll()
    log.unlink()
    for _ in range(LOOKS):
        forwarder.poll()
    forwarder.close()
    assert [1.0] == collector.values("dllogger.run_finished")
    forwarder = open_forwarder(log.parent, collector.url, checkpoint)
    forwarder.run_to_end()
    forwarder.close()
    assert [1.0] == collector.values("dllogger.run_finished")


def test_a_rank_stays_while_a_file_may_bring_it_back(tmp_path, collector):
    """Fed by another file, however silent that is, or gone for less than --expire."""
    first, second = tmp_path / "run_rank0.json", tmp_path / "run_more_rank0.json"
    for path in (first, second):
        append(path, steps(0, 3))
    forwarder = open_forwarder(tmp_path, collector.url, None, idle_s=EXPIRE_S)
    turn(forwarder)
    ranks = {(rank.run, rank.rank): rank for rank in forwarder._ranks}
    first.unlink()
    turn(forwarder)
    assert ranks == {(rank.run, rank.rank): rank for rank in forwarder._ranks}  # not yet expired
    append(first, steps(3, 5, start_us=START_US + 10**9))
    forwarder._idle_s = -1.0
    turn(forwarder)
    assert ranks == {(rank.run, rank.rank): rank for rank in forwarder._ranks}
    assert 5 == ranks["run", 0].state.steps
    forwarder.close()


def test_a_rank_of_two_files_outlives_one_of_them(tmp_path, collector):
    """Its counters go on with the other's lines."""
    first, second = tmp_path / "logs" / "rank0.json", tmp_path / "logs" / "rank0.log"
    for path, start_us in ((first, START_US), (second, START_US + 10**9)):
        append(path, steps(0, 3, start_us=start_us))
    forwarder = open_forwarder(tmp_path / "logs", collector.url, None, idle_s=EXPIRE_S)
    forwarder._idle_s = -1.0
    turn(forwarder)
    (rank,) = forwarder._ranks
    first.unlink()
    turn(forwarder)
    assert [rank] == list(forwarder._ranks)
    second.unlink()
    turn(forwarder)
    assert [] == list(forwarder._ranks)
    forwarder.close()


def test_the_checkpoint_is_not_written_for_every_line(tmp_path, collector):
    """The sent offsets say what was sent since, and a kill repeats no step and no figure."""
    logs, checkpoint = tmp_path / "logs", tmp_path / "checkpoint"
    for rank in range(5):
        append(logs / f"run_rank{rank}.json", steps(0, 3))
    killed = open_forwarder(logs, collector.url, checkpoint)
    turn(killed)
    written = checkpoint.stat()
    for number in range(3, 43):
        append(logs / "run_rank0.json", steps(number, number + 1))
        turn(killed, 1)
    killed._send_figures(killed._ranks, at_end=True)  # as the clock has it
    append(logs / "run_rank1.json", steps(3, 4))
    turn(killed, 1)
    after = checkpoint.stat()
    assert (written.st_ino, written.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (tmp_path / "checkpoint.sent").stat().st_size < 40 * 200
    figures = len(collector.named("dllogger.steps"))
    for _ in range(2):
        forwarder = open_forwarder(logs, collector.url, checkpoint)
        turn(forwarder)
        forwarder.close()
    for rank, last in enumerate((43, 4, 3, 3, 3)):
        times = [one.time_us for one in collector.named("dl.loss", rank=str(rank))]
        assert times_us(0, last) == times
    sent = [(*one.series, one.time_us) for one in collector.named("dllogger.steps")]
    assert figures == len(sent)
    assert [43.0] == collector.values("dllogger.steps", rank="0")[-1:]
    assert not (tmp_path / "checkpoint.sent").exists()


def test_a_kill_repeats_nothing_however_much_was_sent_since_a_checkpoint(
    tmp_path, collector, monkeypatch
):
    """Several rounds are read again, and each of them was sent."""
    log, checkpoint = tmp_path / "logs" / "run_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 3))
    killed = open_forwarder(log.parent, collector.url, checkpoint)
    turn(killed)
    append(log, steps(3, 400))
    turn(killed)
    append(log, steps(400, 410))
    monkeypatch.setattr(otlp_forwarder, "ROUND_BYTES", 4_096)
    for _ in range(3):  # the first ones are killed amid what is read again
        forwarder = open_forwarder(log.parent, collector.url, checkpoint)
        forwarder._tailer._file_bytes = 4_096
        for _ in range(3):
            forwarder.poll()
        forwarder._checkpoint.write()
    forwarder.run_to_end()
    forwarder.close()
    assert times_us(0, 410) == received_us(collector)
    assert not (tmp_path / "checkpoint.sent").exists()


def test_figures_that_changed_after_they_were_sent_are_sent_again(tmp_path, collector):
    """The last lines of a run came late, and then the bridge was killed."""
    log, checkpoint = tmp_path / "logs" / "run_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 3))
    killed = open_forwarder(log.parent, collector.url, checkpoint)
    turn(killed)
    append(log, steps(3, 5))
    turn(killed)
    append(log, steps(5, 6))
    killed.poll()
    killed._send_figures(killed._ranks, at_end=True)
    append(log, summary())  # of the same quarter minute
    killed.poll()
    forwarder = open_forwarder(log.parent, collector.url, checkpoint)
    forwarder.run_to_end()
    forwarder.close()
    assert 1.0 == collector.values("dllogger.run_finished")[-1]


def test_sent_offsets_stay_small_though_no_checkpoint_can_be_written(tmp_path, monkeypatch):
    """It keeps what the latest note of each file says, whatever a kill has left at its end."""
    monkeypatch.setattr(sent_offsets, "MAX_BYTES", 5_000)
    path = tmp_path / "sent"
    path.write_bytes(b"[[[9, 9, 9, 9]], []]\n[[[1, 2, 3, ")
    (tmp_path / "sent.tmp").write_bytes(b"of a kill\n")
    noting = sent_offsets.SentOffsets(str(path))
    most = 0
    for offset in range(1, 2_000):
        noting.note({(1, 2, 3): offset}, {("run", 0): (offset, 7)})
        most = max(most, path.stat().st_size)
        if offset % 500 == 1:  # killed
            noting.close()
            noting = sent_offsets.SentOffsets(str(path))
            assert offset == noting.sent_until(FilePosition(1, 2, 3, 0, 0))
    assert most < 6_000
    noting.close()
    again = sent_offsets.SentOffsets(str(path))
    assert [1_999, 9, 0] == [
        again.sent_until(FilePosition(*place, 0, 0)) for place in ((1, 2, 3), (9, 9, 9), (1, 2, 4))
    ]
    assert again.has_sent_figures(("run", 0), (1_999, 7))
    assert not again.has_sent_figures(("run", 0), (1_999, 8))
    again.clear({(1, 2, 3): 1_998})  # what is behind that is yet to be read again
    assert path.exists()
    again.clear({(1, 2, 3): 1_999})
    assert [] == list(tmp_path.iterdir())


def test_faults_in_a_row_are_met_with_ever_longer_waits(counted):
    """Whatever it is, it does not spin, and it is over at once when it is over."""
    faults = [ValueError("never seen before")] * 12

    def do():
        if faults:
            raise faults.pop()
        return bool(faults)

    polling = RetryingPoll("a turn", do, 0.25)
    waits_s = [polling.poll() for _ in range(12)]
    assert min(waits_s) >= exporter_module.FIRST_WAIT_S / 2
    assert min(waits_s[7:]) >= exporter_module.LONGEST_WAIT_S / 2
    assert 0.25 == polling.poll()
    assert {"backend_failed": 12} == counted()


def failing(times: int, then, monkeypatch):
    """Return a function that raises so many times, and quickly does what it should after that."""
    monkeypatch.setattr(exporter_module, "FIRST_WAIT_S", 0.001)
    left = [OSError(5, "a disk")] * times

    def scan():
        if left:
            raise left.pop()
        return then()

    return scan


def test_a_look_that_fails_does_not_end_the_bridge(tmp_path, monkeypatch, counted):
    """It is counted; and however the bridge ends, what it read is saved and the port is free."""
    checkpoint = tmp_path / "checkpoint"
    append(tmp_path / "run_rank0.json", steps(0, 10))
    with open_bridge(tmp_path, checkpoint=checkpoint) as bridge:
        discovery = bridge._tailer._finder
        monkeypatch.setattr(discovery, "scan", failing(5, discovery.scan, monkeypatch))
        handle = bridge._ingest.handle

        def stop_after(returned):
            handle(returned)
            bridge.stop()

        monkeypatch.setattr(bridge._ingest, "handle", stop_after)
        bridge.run()
        assert {"backend_failed": 5} == counted()
        assert 0 == len(bridge._tailer._open_files)
        with pytest.raises(OSError, match="refused"):
            ask(bridge.endpoint.port)
    (saved,) = json.loads(checkpoint.read_bytes())["files"]
    assert (tmp_path / "run_rank0.json").stat().st_size == saved["offset"]


def test_an_end_by_an_exception_saves_and_closes(tmp_path, monkeypatch):
    """Even one that no barrier may hold."""
    checkpoint = tmp_path / "checkpoint"
    append(tmp_path / "run_rank0.json", steps(0, 10))
    with open_bridge(tmp_path, checkpoint=checkpoint) as bridge:
        bridge.poll()

        def interrupt():
            raise KeyboardInterrupt

        monkeypatch.setattr(bridge._tailer, "poll", interrupt)
        with pytest.raises(KeyboardInterrupt):
            bridge.run()
        assert 0 == len(bridge._tailer._open_files)
        with pytest.raises(OSError, match="refused"):
            ask(bridge.endpoint.port)
    assert 1 == len(json.loads(checkpoint.read_bytes())["files"])


def test_a_checkpoint_that_raises_stops_no_reading(tmp_path, monkeypatch, counted):
    """The page goes on, and each failure is counted."""
    append(tmp_path / "run_rank0.json", steps(0, 10))
    with open_bridge(tmp_path, checkpoint=tmp_path / "checkpoint") as bridge:

        def fail():
            raise TypeError("no JSON")

        monkeypatch.setattr(bridge._tailer, "commit", fail)
        bridge.poll()
        bridge._checkpoint.hasten()
        bridge.poll()
        assert {"backend_failed": 2} == counted()
        monkeypatch.undo()
        assert 10 == value_of(read_page(bridge), "dllogger_steps_total")


def test_a_look_that_fails_does_not_end_the_forwarder(tmp_path, collector, monkeypatch, counted):
    """Every step comes once, though looks failed before and after lines were read."""
    append(tmp_path / "run_rank0.json", steps(0, 10))
    forwarder = open_forwarder(tmp_path, collector.url, None)
    discovery, ledger = forwarder._tailer._finder, forwarder._tailer._checkpoint
    monkeypatch.setattr(discovery, "scan", failing(3, discovery.scan, monkeypatch))
    births = ledger.save_new_generations
    monkeypatch.setattr(
        ledger, "save_new_generations", lambda batches: failing_births(lambda: births(batches))
    )
    failing_births_left = [OSError(5, "a disk")] * 2

    def failing_births(then):
        if failing_births_left:
            raise failing_births_left.pop()
        then()

    stopping = threading.Event()
    answer = collector.answer
    collector.answer = lambda points: (stopping.set(), answer(points))[1]
    forwarder.run(stopping)
    assert times_us(0, 10) == received_us(collector)
    assert {"backend_failed": 5} == counted()
    assert 0 == len(forwarder._tailer._open_files)


def test_a_file_that_cannot_be_read_for_an_unforeseen_reason_is_read_later(
    tmp_path, collector, monkeypatch
):
    """And the others do not wait for it."""
    for name in ("a", "b", "c"):
        append(tmp_path / f"{name}_rank0.json", steps(0, 10))
    forwarder = open_forwarder(tmp_path, collector.url, None)
    tailer = forwarder._tailer
    read, faults = tailer._read, [RuntimeError("never seen before")] * 2

    def fail(file):
        if faults and "b_rank0" in file.path:
            raise faults.pop()
        return read(file)

    monkeypatch.setattr(tailer, "_read", fail)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            forwarder.poll()
    turn(forwarder)
    forwarder.close()
    assert dict.fromkeys("abc", 10) == {
        name: len(collector.named("dl.loss", run=name)) for name in "abc"
    }


def test_a_port_is_free_again_after_a_bridge(tmp_path):
    """``close`` may come twice, as where an exception ended it."""
    append(tmp_path / "run_rank0.json", steps(0, 1))
    with open_bridge(tmp_path) as bridge:
        bridge.close()
        bridge.close()
    assert free_port()
    assert 0 == DIAGNOSTICS.dropped["backend_failed"]

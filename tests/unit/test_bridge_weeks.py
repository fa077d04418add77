"""Bridges that run for weeks: what they keep, what they write, and what faults do to them."""

from __future__ import annotations

import gc
import json
import threading
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.bridge import journal
from otel_dllogger.bridge import otlp_forwarder as deliveries
from otel_dllogger.bridge.pace import Turns
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.logs.tail.fingerprint import FilePosition
from otel_dllogger.metrics.data_points import Points
from otel_dllogger.otlp import backoff
from tests.support.bridge import LOOKS, append, log_line, open_bridge, read_page, steps, value_of
from tests.support.collector import HTTPCollector, free_port
from tests.support.http import ask
from tests.unit.test_otlp_forwarder import START_US, open_delivery, received_us, times_us

if TYPE_CHECKING:
    from otel_dllogger.bridge.otlp_forwarder import Delivery

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


def turn(delivery: Delivery, times: int = LOOKS) -> None:
    """Let a delivery do what it does when nothing is left to read."""
    for _ in range(times):
        while delivery._turn():
            pass


def kept(delivery: Delivery) -> dict[str, int]:
    """Return how much a delivery keeps of runs, by where it is."""
    feed, tailer, outbox = delivery._feed, delivery._tailer, delivery._outbox
    return {
        "ranks": len(list(delivery._ranks)),
        "encoders": len(outbox._encoders),
        "batches": len(outbox._batches),
        "sources": len(feed._sources),
        "touched": len(feed._touched),
        "files": len(tailer.files),
        "waiting": len(tailer._waiting),
        "descriptors": len(tailer._open_files),
        "journal": len(delivery._journal._ends) + len(delivery._journal._figures),
        "ends": len(delivery._ends) + len(delivery._figures),
    }


def test_short_lived_runs_leave_nothing_behind(tmp_path, collector):
    """Hundreds of runs that come, end and are deleted: nothing of them stays, nothing is lost."""
    logs, checkpoint = tmp_path / "logs", tmp_path / "checkpoint"
    logs.mkdir()
    delivery = open_delivery(logs, collector.url, checkpoint, idle_s=EXPIRE_S)
    delivery._idle_s = -1.0  # a rank has expired as soon as no file is of it
    gc.collect()
    before = sum(type(one) is Points for one in gc.get_objects())
    most = 0
    for first in range(0, RUNS, AT_ONCE):
        paths = [logs / f"run{number}_rank0.json" for number in range(first, first + AT_ONCE)]
        for path in paths:
            append(path, steps(0, 3) + summary())
        turn(delivery, 1)
        most = max(most, len(list(delivery._ranks)))
        for path in paths:
            path.unlink()
        turn(delivery)
    delivery._commits.write()
    assert AT_ONCE <= most <= 2 * AT_ONCE
    assert dict.fromkeys(kept(delivery), 0) == kept(delivery)
    gc.collect()
    assert before == sum(type(one) is Points for one in gc.get_objects())
    assert [] == json.loads(checkpoint.read_bytes())["files"]
    assert {"checkpoint", "logs"} == {path.name for path in tmp_path.iterdir()}
    delivery.close()
    assert 3 * RUNS == len(collector.named("dl.loss"))
    finished = {one.labels["run"]: one for one in collector.named("dllogger.run_finished")}
    assert {f"run{number}" for number in range(RUNS)} == finished.keys()
    assert {1.0} == {one.value for one in finished.values()}


def test_figures_of_a_deleted_log_are_sent_before_a_checkpoint_forgets_it(tmp_path, collector):
    """The next start has nothing that could send them."""
    log, checkpoint = tmp_path / "logs" / "run_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 3) + summary())
    delivery = open_delivery(log.parent, collector.url, checkpoint, idle_s=EXPIRE_S)
    delivery.poll()
    log.unlink()
    for _ in range(LOOKS):
        delivery.poll()
    delivery.close()
    assert [1.0] == collector.values("dllogger.run_finished")
    delivery = open_delivery(log.parent, collector.url, checkpoint)
    delivery.run_to_end()
    delivery.close()
    assert [1.0] == collector.values("dllogger.run_finished")


def test_a_rank_stays_while_a_file_may_bring_it_back(tmp_path, collector):
    """Fed by another file, however silent that is, or gone for less than --expire."""
    first, second = tmp_path / "run_rank0.json", tmp_path / "run_more_rank0.json"
    for path in (first, second):
        append(path, steps(0, 3))
    delivery = open_delivery(tmp_path, collector.url, None, idle_s=EXPIRE_S)
    turn(delivery)
    ranks = {(rank.run, rank.rank): rank for rank in delivery._ranks}
    first.unlink()
    turn(delivery)
    assert ranks == {(rank.run, rank.rank): rank for rank in delivery._ranks}  # not yet expired
    append(first, steps(3, 5, start_us=START_US + 10**9))
    delivery._idle_s = -1.0
    turn(delivery)
    assert ranks == {(rank.run, rank.rank): rank for rank in delivery._ranks}
    assert 5 == ranks["run", 0].state.steps
    delivery.close()


def test_a_rank_of_two_files_outlives_one_of_them(tmp_path, collector):
    """Its counters go on with the other's lines."""
    first, second = tmp_path / "logs" / "rank0.json", tmp_path / "logs" / "rank0.log"
    for path, start_us in ((first, START_US), (second, START_US + 10**9)):
        append(path, steps(0, 3, start_us=start_us))
    delivery = open_delivery(tmp_path / "logs", collector.url, None, idle_s=EXPIRE_S)
    delivery._idle_s = -1.0
    turn(delivery)
    (rank,) = delivery._ranks
    first.unlink()
    turn(delivery)
    assert [rank] == list(delivery._ranks)
    second.unlink()
    turn(delivery)
    assert [] == list(delivery._ranks)
    delivery.close()


def test_the_checkpoint_is_not_written_for_every_line(tmp_path, collector):
    """The journal says what was sent since, and a kill repeats no step and no figure."""
    logs, checkpoint = tmp_path / "logs", tmp_path / "checkpoint"
    for rank in range(5):
        append(logs / f"run_rank{rank}.json", steps(0, 3))
    killed = open_delivery(logs, collector.url, checkpoint)
    turn(killed)
    written = checkpoint.stat()
    for number in range(3, 43):
        append(logs / "run_rank0.json", steps(number, number + 1))
        turn(killed, 1)
    killed._observe(None)  # as the clock has it
    append(logs / "run_rank1.json", steps(3, 4))
    turn(killed, 1)
    after = checkpoint.stat()
    assert (written.st_ino, written.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (tmp_path / "checkpoint.sent").stat().st_size < 40 * 200
    figures = len(collector.named("dllogger.steps"))
    for _ in range(2):
        delivery = open_delivery(logs, collector.url, checkpoint)
        turn(delivery)
        delivery.close()
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
    killed = open_delivery(log.parent, collector.url, checkpoint)
    turn(killed)
    append(log, steps(3, 400))
    turn(killed)
    append(log, steps(400, 410))
    monkeypatch.setattr(deliveries, "ROUND_BYTES", 4_096)
    for _ in range(3):  # the first ones are killed amid what is read again
        delivery = open_delivery(log.parent, collector.url, checkpoint)
        delivery._tailer._file_bytes = 4_096
        for _ in range(3):
            delivery.poll()
        delivery._commits.write()
    delivery.run_to_end()
    delivery.close()
    assert times_us(0, 410) == received_us(collector)
    assert not (tmp_path / "checkpoint.sent").exists()


def test_figures_that_changed_after_they_were_sent_are_sent_again(tmp_path, collector):
    """The last lines of a run came late, and then the bridge was killed."""
    log, checkpoint = tmp_path / "logs" / "run_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 3))
    killed = open_delivery(log.parent, collector.url, checkpoint)
    turn(killed)
    append(log, steps(3, 5))
    turn(killed)
    append(log, steps(5, 6))
    killed.poll()
    killed._observe(None)
    append(log, summary())  # of the same quarter minute
    killed.poll()
    delivery = open_delivery(log.parent, collector.url, checkpoint)
    delivery.run_to_end()
    delivery.close()
    assert 1.0 == collector.values("dllogger.run_finished")[-1]


def test_a_journal_stays_small_though_no_checkpoint_can_be_written(tmp_path, monkeypatch):
    """It keeps what the latest note of each file says, whatever a kill has left at its end."""
    monkeypatch.setattr(journal, "MAX_BYTES", 5_000)
    path = tmp_path / "journal"
    path.write_bytes(b"[[[9, 9, 9, 9]], []]\n[[[1, 2, 3, ")
    (tmp_path / "journal.tmp").write_bytes(b"of a kill\n")
    noting = journal.Journal(str(path))
    most = 0
    for offset in range(1, 2_000):
        noting.note({(1, 2, 3): offset}, {("run", 0): (offset, 7)})
        most = max(most, path.stat().st_size)
        if offset % 500 == 1:  # killed
            noting.close()
            noting = journal.Journal(str(path))
            assert offset == noting.sent_until(FilePosition(1, 2, 3, 0, 0))
    assert most < 6_000
    noting.close()
    again = journal.Journal(str(path))
    assert [1_999, 9, 0] == [
        again.sent_until(FilePosition(*place, 0, 0)) for place in ((1, 2, 3), (9, 9, 9), (1, 2, 4))
    ]
    assert again.has_sent_figures("run", 0, (1_999, 7))
    assert not again.has_sent_figures("run", 0, (1_999, 8))
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

    turns = Turns("a turn", do, 0.25)
    waits_s = [turns.take() for _ in range(12)]
    assert min(waits_s) >= backoff.FIRST_WAIT_S / 2
    assert min(waits_s[7:]) >= backoff.LONGEST_WAIT_S / 2
    assert 0.25 == turns.take()
    assert {"backend_failed": 12} == counted()


def failing(times: int, then, monkeypatch):
    """Return a function that raises so many times, and quickly does what it should after that."""
    monkeypatch.setattr(backoff, "FIRST_WAIT_S", 0.001)
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
        finder = bridge._tailer._finder
        monkeypatch.setattr(finder, "scan", failing(5, finder.scan, monkeypatch))
        feed = bridge._feed.handle

        def stop_after(returned):
            feed(returned)
            bridge.stop()

        monkeypatch.setattr(bridge._feed, "handle", stop_after)
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
        bridge._commits.hasten()
        bridge.poll()
        assert {"backend_failed": 2} == counted()
        monkeypatch.undo()
        assert 10 == value_of(read_page(bridge), "dllogger_steps_total")


def test_a_look_that_fails_does_not_end_the_delivery(tmp_path, collector, monkeypatch, counted):
    """Every step comes once, though looks failed before and after lines were read."""
    append(tmp_path / "run_rank0.json", steps(0, 10))
    delivery = open_delivery(tmp_path, collector.url, None)
    finder, checkpoint = delivery._tailer._finder, delivery._tailer._checkpoint
    monkeypatch.setattr(finder, "scan", failing(3, finder.scan, monkeypatch))
    births = checkpoint.save_new_generations
    monkeypatch.setattr(
        checkpoint, "save_new_generations", lambda batches: failing_births(lambda: births(batches))
    )
    failing_births_left = [OSError(5, "a disk")] * 2

    def failing_births(then):
        if failing_births_left:
            raise failing_births_left.pop()
        then()

    stopping = threading.Event()
    answer = collector.answer
    collector.answer = lambda points: (stopping.set(), answer(points))[1]
    delivery.run(stopping)
    assert times_us(0, 10) == received_us(collector)
    assert {"backend_failed": 5} == counted()
    assert 0 == len(delivery._tailer._open_files)


def test_a_file_that_cannot_be_read_for_an_unforeseen_reason_is_read_later(
    tmp_path, collector, monkeypatch
):
    """And the others do not wait for it."""
    for name in ("a", "b", "c"):
        append(tmp_path / f"{name}_rank0.json", steps(0, 10))
    delivery = open_delivery(tmp_path, collector.url, None)
    tailer = delivery._tailer
    read, faults = tailer._read, [RuntimeError("never seen before")] * 2

    def fail(file):
        if faults and "b_rank0" in file.path:
            raise faults.pop()
        return read(file)

    monkeypatch.setattr(tailer, "_read", fail)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            delivery.poll()
    turn(delivery)
    delivery.close()
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

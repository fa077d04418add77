"""Bridges and jobs that end at any moment: nothing lost, nothing counted twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.support.bridge import (
    END_S,
    BridgeProcess,
    append,
    log_line,
    of_ranks,
    open_bridge,
    read_page,
    steps,
    value_of,
)
from tests.support.command import environment
from tests.support.http import wait_until

pytestmark = pytest.mark.newest_only

KILLS = 8


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_though_much_is_left_to_read(tmp_path, number):
    """In the middle of 200 MB: 0 within two seconds, and the next one goes on from there."""
    folder = tmp_path / "job"
    block = steps(0, 5_000)
    for rank in range(200):
        append(folder / f"log_rank{rank}.json", block)
    options = (folder, "--checkpoint", tmp_path / "checkpoint")
    with BridgeProcess(*options, folder=tmp_path) as bridge:
        before = bridge.wait_for(lambda page: logged(page) > 20_000)
        assert value_of(before, "dllogger_bridge_behind") == 1
        assert bridge.stop(number) < END_S
    with BridgeProcess(*options, folder=tmp_path) as bridge:
        page = bridge.page()
        # All that was read is in the checkpoint, and was not read again.
        assert logged(page) - value_of(page, "dllogger_bridge_lines_total") >= logged(before)
        bridge.stop()


def logged(page):
    """Return how many records are on a page, of all ranks."""
    return sum(value for key, value in page.items() if key[0] == "dllogger_records_total")


def test_signals_that_follow_do_no_harm(tmp_path):
    """A signal every millisecond, until the process is no more, is as good as one."""
    append(tmp_path / "run_rank0.json", steps(0, 1_000))
    checkpoint = tmp_path / "checkpoint"
    with BridgeProcess(tmp_path, "--checkpoint", checkpoint, folder=tmp_path) as bridge:
        bridge.wait_for_value(1_000, "dllogger_records_total", "type=log")

        def has_ended():
            bridge.process.send_signal(random.choice((signal.SIGTERM, signal.SIGINT)))
            return bridge.process.poll() is not None

        wait_until(has_ended)
        assert (0, []) == (bridge.process.returncode, bridge.complaints())
    saved = json.loads(checkpoint.read_bytes())["files"]
    assert [(tmp_path / "run_rank0.json").stat().st_size] == [one["offset"] for one in saved]


def test_a_signal_during_the_start_leaves_no_traceback(tmp_path):
    """Before it can read anything SIGTERM ends it as any program, after that with 0."""
    append(tmp_path / "run_rank0.json", steps(0, 10))
    codes = []
    for number in range(16):
        with BridgeProcess(tmp_path, folder=tmp_path) as bridge:
            if number == 15:
                assert bridge.port
            else:
                with pytest.raises(subprocess.TimeoutExpired):
                    bridge.process.wait(0.05 * number)
            bridge.process.terminate()
            codes.append(bridge.process.wait(20))
            assert "Traceback" not in bridge.errors()
    assert {0, -signal.SIGTERM} >= set(codes)
    assert (-signal.SIGTERM, 0) == (codes[0], codes[-1])


def pieces(content, seed):
    """Split bytes anywhere, as writes of a job and looks of a bridge may meet."""
    chance = random.Random(seed)
    at = 0
    while at < len(content):
        size = chance.randrange(1, 2_000)
        yield content[at : at + size]
        at += size


def job_logs():
    """Return what several files hold: some of one rank, one of several, and one that finishes."""
    start_us = 1_700_000_000_000_000
    metadata = log_line(0, {}, time_us=start_us, kind="METADATA").replace(
        b'"step": 0, "data": {}', b'"metric": "loss", "metadata": {"GOAL": "MINIMIZE"}'
    )
    parameters = log_line("PARAMETER", {"lr": 0.1, "layers": 50}, time_us=start_us)
    end = log_line([], {"accuracy": 0.9}, time_us=start_us + 10**9, elapsed_us=10**9)
    many = []
    for number in range(1_000):
        for rank in range(2, 6):
            time_us = start_us + number * 10_000 + rank
            data = {
                "rank": rank,
                "loss": float("nan") if number % 100 == rank else 1 / (1 + number),
            }
            many.append(log_line([0, number], data, time_us=time_us, elapsed_us=number * 10_000))
    return {
        "job_rank0.json": metadata + parameters + steps(0, 2_000) + b"noise\n{}\n" + end,
        "job_rank1.json": steps(0, 1_500) + b"DLLL {\n" + steps(1_500, 2_000),
        # Of a rank that has a file of its own, too.
        "job_more_rank1.json": steps(0, 500, start_us=start_us + 10**9, other=1),
        "job_of_many.json": b"".join(many),
    }


def test_kills_at_any_moment_change_nothing(tmp_path):
    """Killed again and again while logs grow, the page is as that of one that was not."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    folder, checkpoint = tmp_path / "logs", tmp_path / "checkpoint"
    folder.mkdir()
    contents = job_logs()
    total = sum(map(len, contents.values()))
    options = (folder, "--run", "job")

    def write():
        rest = [(folder / name, pieces(content, seed)) for name, content in contents.items()]
        while rest:
            path, parts = one = chance.choice(rest)
            part = next(parts, None)
            if part is None:
                rest.remove(one)
            else:
                append(path, part)
                time.sleep(0.002)

    writer = threading.Thread(target=write)
    writer.start()
    interrupted = 0
    for _ in range(KILLS):
        with BridgeProcess(
            *options, "--checkpoint", checkpoint, folder=tmp_path, commit_interval_s=0.02
        ) as bridge:
            assert bridge.port
            with pytest.raises(subprocess.TimeoutExpired):
                bridge.process.wait(chance.uniform(0, 0.3))
            interrupted += writer.is_alive()
    writer.join()
    assert interrupted >= 2
    assert total == sum(path.stat().st_size for path in folder.iterdir())
    pages = []
    for more in (("--checkpoint", checkpoint), ()):
        with BridgeProcess(*options, *more, folder=tmp_path) as bridge:
            bridge.wait_for_value(2_001, "dllogger_records_total", "rank=0", "type=log")
            bridge.wait_for_value(2_500, "dllogger_records_total", "rank=1", "type=log")
            bridge.wait_for_value(1_000, "dllogger_records_total", "rank=5", "type=log")
            lines = value_of(bridge.page(), "dllogger_bridge_lines_total")
            pages.append((of_ranks(bridge.page()), lines))
    (killed, lines), (once, all_lines) = pages
    assert lines < all_lines  # or the checkpoint was of no use
    # Of two files of one rank it depends on their order which value is the last one.
    assert without_order(once) == without_order(killed)


def without_order(page):
    """Leave out what the order in which two files of a rank are read decides."""
    return {
        key: value
        for key, value in page.items()
        if "rank=1" not in key or key[0] in ("dllogger_records_total", "dllogger_dropped_total")
    }


def damaged(checkpoint):
    """Yield a name, what a checkpoint holds then, and as what that is counted."""
    raw = checkpoint.read_bytes()
    yield "empty", b"", "checkpoint_corrupt"
    yield "half", raw[: len(raw) // 2], "checkpoint_corrupt"
    yield "zeros", bytes(len(raw)), "checkpoint_corrupt"
    yield "foreign", b'{"format": "another"}', "checkpoint_foreign"
    yield "version", raw.replace(b'"version":1,', b'"version":99,', 1), "checkpoint_version"
    saved = json.loads(raw)
    first = saved["files"][0]["state"]
    ((number, text),) = first["ranks"].items()
    rank = json.loads(text)
    for name, state in {
        "no reader": {"ranks": {}},
        "no ranks": {"reader": first["reader"]},
        "ranks": {**first, "ranks": [1]},
        "list": {**first, "reader": "[]"},
        "number": {**first, "ranks": {"x": text}},
        "text": {**first, "ranks": {number: "{"}},
        "deep": {**first, "ranks": {number: "[" * 100_000}},
        "old": {**first, "ranks": {number: json.dumps({**rank, "store": {}})}},
        "count": {
            **first,
            "ranks": {number: text.replace('"logs":', '"logs":"1","x":')},
        },
        "cell": {**first, "ranks": {number: text.replace('"lr":', '"lr":"1","x":')}},
    }.items():
        files = [{**saved["files"][0], "state": state}, *saved["files"][1:]]
        yield name, json.dumps({**saved, "files": files}).encode(), "checkpoint_entry"


def test_a_damaged_checkpoint_is_counted_and_all_is_read_anew(tmp_path):
    """Whatever stands in it, the page is that of a bridge that never had one."""
    folder, checkpoint = tmp_path / "logs", tmp_path / "checkpoint"
    for rank in (0, 1):
        append(folder / f"job_rank{rank}.json", steps(0, 100))
    with open_bridge(folder, checkpoint=checkpoint) as bridge:
        expected = of_ranks(read_page(bridge))
    for name, content, reason in list(damaged(checkpoint)):
        checkpoint.write_bytes(content)
        with open_bridge(folder, checkpoint=checkpoint) as bridge:
            page = read_page(bridge)
        assert (name, expected) == (name, of_ranks(page))
        counted = value_of(page, "dllogger_bridge_unusual_total", f"reason={reason}")
        assert (name, True) == (name, counted >= 1)
        assert (name, 200) == (name, value_of(page, "dllogger_bridge_lines_total"))


TRAIN = """
import sys, time
from otel_dllogger import JSONStreamBackend, Logger
path, mode, first, last = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
logger = Logger([JSONStreamBackend(1, path, append=mode == "append")])
logger.metadata("loss", {"GOAL": "MINIMIZE"})
for number in range(first, last):
    logger.log((0, number), {"loss": 1 / (1 + number)})
print("logged", flush=True)
time.sleep(600)  # until it is killed
"""


def train(path, mode, first, last):
    """Run a job that logs so many steps, and kill it then."""
    job = [sys.executable, "-c", TRAIN, path, mode, str(first), str(last)]
    with subprocess.Popen(job, env=environment(), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "logged\n"
        process.kill()


@pytest.mark.parametrize("mode", ["append", "write", "new file", "new inode"])
def test_a_job_that_is_killed_and_restarted_is_one_run(tmp_path, mode):
    """It is attempt 2, and its steps go on, though it resumes from an earlier iteration."""
    log = tmp_path / "logs" / "job_rank0.json"
    log.parent.mkdir()
    again = log.with_name("job_more_rank0.json") if mode == "new file" else log
    options = (log.parent, "--run", "job")
    seen, watching = [], threading.Event()
    with BridgeProcess(*options, folder=tmp_path) as bridge:

        def watch():
            while not watching.is_set():
                seen.append(value_of(bridge.page(), "dllogger_steps_total") or 0)

        watcher = threading.Thread(target=watch)
        watcher.start()
        train(log, "write", 0, 500)
        bridge.wait_for_value(500, "dllogger_steps_total", "run=job", "rank=0")
        if mode == "new inode":
            log.rename(log.with_name("job.txt"))  # it still has this inode, so that no other has
            log.with_name("job.txt").unlink()
        train(again, "append" if mode == "append" else "write", 100, 900)
        page = bridge.wait_for_value(1_300, "dllogger_steps_total", "run=job", "rank=0")
        watching.set()
        watcher.join()
        bridge.stop()
    assert value_of(page, "dllogger_rank_info", "run=job", "rank=0", "attempt=2") == 1
    assert value_of(page, "dllogger_records_total", "type=log") == 1_300
    assert value_of(page, "dllogger_iteration") == 899
    assert value_of(page, "dllogger_best") == 1 / 900
    assert sorted(seen) == seen
    assert {0, 500, 1_300} & set(seen)


def test_a_restart_of_the_job_is_seen_by_the_next_bridge_too(tmp_path):
    """Killed right after the log was emptied, it knows of the first attempt all the same."""
    log, checkpoint = tmp_path / "logs" / "job_rank0.json", tmp_path / "checkpoint"
    append(log, steps(0, 100))
    with open_bridge(log, checkpoint=checkpoint) as bridge:
        assert value_of(read_page(bridge), "dllogger_steps_total") == 100
        log.write_bytes(b"noise\n")
        bridge.poll()
        bridge.poll()
        again = steps(50, 60, start_us=1_700_000_000_000_000 + 10**9)
        with open_bridge(log, checkpoint=checkpoint) as after_kill:
            append(log, again)
            page = read_page(after_kill)
    assert value_of(page, "dllogger_steps_total") == 110
    assert value_of(page, "dllogger_rank_info", "attempt=2") == 1


@pytest.mark.parametrize(
    ("firsts", "expected"), [((35,), 42), ((35, 100), 63), ((20,), 42), ((10, 25), 63)]
)
def test_the_first_record_of_a_process_is_one_step(tmp_path, firsts, expected):
    """As on the page of the process: where it goes on tells nothing of steps that it made."""
    log = tmp_path / "job_rank0.json"
    append(log, steps(0, 21))
    for number, first in enumerate(firsts, 1):
        start_us = 1_700_000_000_000_000 + number * 10**9
        append(log, steps(first, first + 21, start_us=start_us))
    with open_bridge(log) as bridge:
        page = read_page(bridge)
    assert value_of(page, "dllogger_steps_total") == expected
    assert value_of(page, "dllogger_iteration") == firsts[-1] + 20
    assert value_of(page, "dllogger_step_seconds_total") == pytest.approx(2 * (1 + len(firsts)))

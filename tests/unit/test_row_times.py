"""Times of files that have none: by the durations that tools write, before the last change."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from otel_dllogger import logs
from otel_dllogger.cli.main import main
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.ranks import LoggedRank
from otel_dllogger.logs.run_start import find_start_us
from otel_dllogger.logs.source import open_log, read_lines

pytestmark = pytest.mark.newest_only

CHANGED_S = 1_700_000_000
PLACES = "made up from their places in the file"

DETECTRON2 = [
    {"eta_seconds": 1.5, "iteration": 20 * n, "time": 0.5, "total_loss": 1.0} for n in (1, 2, 3)
]
LLAMA = [
    {"current_steps": n, "total_steps": 30, "loss": 1.5, "percentage": 1, "elapsed_time": said}
    for n, said in ((10, "0:00:10"), (20, "0:00:20"), (30, "1 day, 0:00:20"))
]
MEGATRON = " iteration {:8d}/ 500 | elapsed time per iteration (ms): {} | lm loss: 2.5E+00 |"
STATE = {
    "log_history": [
        {"epoch": 0.5, "loss": 2.5, "step": 10},
        {"epoch": 0.5, "eval_loss": 2.5, "step": 10},
        {"epoch": 1.0, "loss": 1.5, "step": 30},
        {"epoch": 1.0, "loss": 1.25, "step": 40},
        {"epoch": 1.0, "step": 40, "train_loss": 1.9375, "train_runtime": 36000.0},
    ],
    "global_step": 40,
}


def log_of(tmp_path, name, lines):
    """Write a file that was changed at ``CHANGED_S``, and open it."""
    path = tmp_path / "exp" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    os.utime(path, (CHANGED_S, CHANGED_S))
    log = open_log(str(path))
    log.observe()
    return log


def before_end_s(log):
    """Return how long before the last change each record was, in seconds."""
    items = [item for line in read_lines(log.path) for _, item in log.reader.read(line)]
    records = [item for item in items if isinstance(item, FileRecord)]
    assert all(record.interpolated for record in records)
    return [round(CHANGED_S - record.time_us / 1e6, 6) for record in records]


@pytest.mark.parametrize(
    ("name", "lines", "times"),
    [
        ("metrics.json", map(json.dumps, DETECTRON2), [20, 10, 0]),
        ("trainer_log.jsonl", map(json.dumps, LLAMA), [86410, 86400, 0]),
        (
            "results.csv",
            ["epoch,time,train/loss", "1,100.5,1.5", "2,200.0,1.25", "3,250.5,1.0"],
            [150, 50.5, 0],
        ),
        (
            "train.log",
            [
                "step 0: train loss 4.2500, val loss 4.5000",
                "iter 0: loss 4.2500, time 9000.50ms, mfu -100.00%",
                "iter 10: loss 3.2500, time 1000.50ms, mfu 3.25%",
                "iter 30: loss 3.2500, time 500.00ms, mfu 3.25%",
            ],
            [20.006, 20.005, 10, 0],
        ),
        ("train.log", [MEGATRON.format(10, 1000), MEGATRON.format(30, 500.0)], [10, 0]),
        (
            "train.log",
            [MEGATRON.format(n, 0.25).replace("(ms)", "(s)") for n in (100, 300)],
            [50, 0],
        ),
        (
            "train.log",
            [f"steps: {n} loss: 2.5000 iter time (s): 0.512 samples/sec: 32.125" for n in (10, 20)],
            [5.12, 0],
        ),
        (
            "train.log",
            [
                f"Training epoch 0, iteration {n}/199 | lr: 1.5e-06 | train_step_timing in s: 0.5"
                for n in (9, 19)
            ],
            [5, 0],
        ),
        (
            "train.log",
            [
                f"Train: {e} [  {n}/60 ( 9%)]  Loss: 6.95 (6.96)  Time: 0.500s, 9.5/s  (0.6s, 8/s)"
                for e, n in ((0, 10), (0, 50), (1, 0), (1, 50))
            ],
            [45, 25, 25 - 0.001, 0],
        ),
        (
            "train.log",
            [f"Epoch: [0][{n}/5005]\tTime  0.500 (  0.625)\tLoss 6.95 (6.96)" for n in (10, 20)],
            [5, 0],
        ),
        (
            "train.log",
            [
                f"Epoch: [0]  [ {n}/5005]  loss: 5.95 (5.96)  time: 0.25  data: 0.1"
                for n in (10, 20)
            ],
            [2.5, 0],
        ),
        (
            "trainer_state.json",
            json.dumps(STATE, indent=2).split("\n"),
            [27000, 26999.999, 9000, 0],
        ),
        ("trainer_state.json", [json.dumps(STATE)], [27000, 26999.999, 9000, 0]),
    ],
)
def test_rows_last_as_long_as_they_say(tmp_path, name, lines, times):
    """Up to the last change of the file, however many bytes they have."""
    log = log_of(tmp_path, name, lines)
    found = before_end_s(log)
    assert times == pytest.approx(found[: len(times)], abs=0.0021)
    assert log.reader.context.guesses.keys().isdisjoint({"times"})


def test_rows_of_a_restart_take_as_long_as_those_before(tmp_path):
    """From a checkpoint on, iterations go back by less than they count."""
    rows = [{**DETECTRON2[0], "iteration": n} for n in (5000, 5020, 5040, 5020, 5040)]
    log = log_of(tmp_path, "metrics.json", map(json.dumps, rows))
    assert [40, 30, 20, 10, 0] == before_end_s(log)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("metrics.csv", ["epoch,step,loss", "0,1,0.5", "0,2,0.5"]),
        ("results.csv", ["epoch,train/loss", "1,1.5", "2,1.25"]),
        (
            "trainer_state.json",
            json.dumps({**STATE, "log_history": STATE["log_history"][:4]}, indent=2).split("\n"),
        ),
        ("train.log", [f"Train: 0 [  {n}/60 ( 9%)]  Loss: 6.95 (6.96)" for n in (10, 20)]),
    ],
)
def test_times_that_are_made_up_are_said_to_be(tmp_path, name, lines):
    """Rows that have neither a time nor a duration are kept apart, and in order."""
    log = log_of(tmp_path, name, lines)
    times = before_end_s(log)
    assert sorted(times, reverse=True) == times
    assert len(set(times)) == len(times)
    assert PLACES in log.reader.context.guesses["times"]


def test_lines_with_times_are_not_read_twice(tmp_path, monkeypatch):
    """The first record says that the file has times."""
    log = log_of(
        tmp_path, "metrics.json", [json.dumps({**DETECTRON2[0], "timestamp": CHANGED_S})] * 9
    )
    read = []
    monkeypatch.setattr(
        "otel_dllogger.logs.run_start.parse_line",
        lambda line, context: read.append(line) or [FileRecord(1, 0, 1, {"loss": 1})],
    )
    os.utime(log.path, (CHANGED_S, CHANGED_S + 1))
    assert open_log(log.path).reader.context.run_start_us is None
    assert len(read) == 1


def test_a_number_of_a_step_that_is_none_is_not_read(tmp_path):
    """NaN is not an iteration."""
    assert [] == before_end_s(log_of(tmp_path, "rows.jsonl", ['{"step": NaN, "loss": 1}']))


def test_every_command_says_which_times_are_made_up(tmp_path, capsys):
    """No span and no rate is made of them; durations that are known are told apart."""
    log = log_of(tmp_path, "metrics.csv", ["epoch,step,loss", "0,1,0.5", "0,2,0.5", "0,3,0.5"])
    other = log_of(tmp_path, "metrics.json", map(json.dumps, DETECTRON2))
    assert main(["check", log.path]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert PLACES in said
    assert "steps/s" not in said
    assert ", over " not in said
    assert "no times; changed last at 2023-11-1" in said
    assert main(["backfill", log.path, "--to", "csv", str(tmp_path / "a.csv")]) == 0
    said = capsys.readouterr()
    assert (1, 0) == ((said.out + said.err).count(PLACES), said.err.count("worked out"))
    assert main(["backfill", other.path, "--to", "csv", str(tmp_path / "b.csv")]) == 0
    said = capsys.readouterr()
    assert ("worked out" in said.out + said.err, PLACES in said.out + said.err) == (True, False)
    with pytest.warns(UserWarning, match=PLACES):
        assert len(list(logs.read(log.path))) == 3
    for each, lines in ((log, 4), (other, 3)):
        rank = LoggedRank("exp", 0, "host")
        for line in list(read_lines(each.path))[:lines]:
            for _, item in each.reader.read(line):
                rank.take(item)
        assert (3, 0) == (rank.state.logs, rank.state.step_us)


def test_a_bridge_reads_little_to_find_the_start(tmp_path):
    """The beginning of a long file stands for the whole of it."""
    rows = [{**DETECTRON2[0], "iteration": 100_000 + 20 * n} for n in range(100)]
    path = log_of(tmp_path, "metrics.json", map(json.dumps, rows)).path
    # Whatever the first row is said to have taken is before it.
    whole_s = CHANGED_S - find_start_us(path) / 1e6
    assert whole_s == pytest.approx(50_000 + 990)
    part_s = CHANGED_S - find_start_us(path, most_bytes=1_000) / 1e6
    assert part_s == pytest.approx(whole_s, abs=150)


@pytest.mark.timeout(20)
def test_a_pipe_is_not_read_to_find_the_start(tmp_path):
    """What is read from it is gone."""
    os.mkfifo(tmp_path / "pipe.json")
    assert find_start_us(str(tmp_path / "pipe.json")) is None


def test_rows_that_a_bridge_follows_end_at_the_change_that_brought_them(tmp_path):
    """Those that were there before last as long as they say."""
    log = log_of(tmp_path, "metrics.json", map(json.dumps, DETECTRON2))
    assert [20, 10, 0] == before_end_s(log)
    with Path(log.path).open("a") as file:
        file.write(json.dumps({**DETECTRON2[0], "iteration": 80}) + "\n")
    os.utime(log.path, (CHANGED_S + 7, CHANGED_S + 7))
    log.observe()
    *_, line = read_lines(log.path)
    assert [(CHANGED_S + 7) * 10**6] == [
        item.time_us for _, item in log.reader.read(line) if isinstance(item, FileRecord)
    ]

"""``otel-dllogger check`` of several logs: a line for each rank, and one verdict."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.check import assert_said
from tests.support.command import otel_dllogger
from tests.support.timed_log import TimedLog

pytestmark = pytest.mark.newest_only


def json_log(*, step_s=1.0, loss=0.5, nan_at=-1, start_s=0):
    """Give a log of eight iterations."""
    lines = []
    for step in range(8):
        value = "NaN" if step == nan_at else loss
        second = start_s + step * step_s
        lines.append(
            f'DLLL {{"timestamp": "{1700000000 + second:.6f}", "elapsedtime": "{second:.6f}", '
            f'"type": "LOG", "step": [0, {step}], "data": {{"train.loss": {value}}}}}\n'
        )
    return "".join(lines)


@pytest.fixture
def runs(tmp_path):
    """A folder with the logs of four ranks of a run, the last of which is slow."""
    folder = tmp_path / "runs" / "resnet"
    folder.mkdir(parents=True)
    for rank in range(4):
        log = json_log(step_s=2.5 if rank == 3 else 2.0 + rank / 1e5, nan_at=5 if rank == 2 else -1)
        (folder / f"log_rank{rank}.json").write_text(log)
    return folder


def test_a_folder_has_a_line_for_each_rank(runs, tmp_path):
    """Steps, loss, throughput, NaN and the last record of each rank are shown before all else."""
    done = otel_dllogger("check", "runs", cwd=tmp_path, TZ="UTC", COLUMNS="80")
    table = done.stdout.splitlines()[:5]
    assert table == [
        "  run     rank  steps  loss  throughput   slower  first NaN  last record",
        "  resnet  0     8      0.5   0.5 steps/s  +0%                2023-11-14 22:13",
        "  resnet  1     8      0.5   0.5 steps/s  +0%                2023-11-14 22:13",
        "  resnet  2     8      0.5   0.5 steps/s  +0%     (0, 5)     2023-11-14 22:13",
        "  resnet  3     8      0.5   0.4 steps/s  +25%               2023-11-14 22:13",
    ]
    assert_said(done, 0, "4 files; --details describes each of them", "Nothing is wrong, 1 warning")
    assert "metric" not in done.stdout
    details = otel_dllogger("check", "--details", "runs", cwd=tmp_path)
    assert 4 == details.stdout.count("\nLog runs/resnet/log_rank")


def test_a_straggler_is_called_so_as_the_alert_does(runs, tmp_path):
    """A rank whose steps take more than a quarter longer than the median, of three or more."""
    (runs / "log_rank3.json").write_text(json_log(step_s=4.0))
    done = otel_dllogger("check", "runs", cwd=tmp_path)
    assert_said(done, 0, "0.25 steps/s  +100%, straggler ")
    assert done.stdout.count("straggler") == 1
    for rank in range(2):
        (runs / f"log_rank{rank}.json").unlink()
    two = otel_dllogger("check", "runs", cwd=tmp_path)
    assert_said(two, 0, "0.25 steps/s  +33% ")
    assert "straggler" not in two.stdout


def test_one_verdict_is_for_all(runs, tmp_path):
    """What is wrong is said with its file, once for all files that have it."""
    for rank in range(3):
        with (runs / f"log_rank{rank}.json").open("a") as stream:
            stream.write("wandb: x\n" + "DLLL {\n" * (rank == 1))
    done = otel_dllogger("check", "runs", cwd=tmp_path)
    assert_said(
        done,
        1,
        "  - runs/resnet/log_rank0.json and 2 more: 1 line of Weights & Biases",
        "  - runs/resnet/log_rank1.json: 1 torn: ",
        "1 thing is wrong, 2 warnings.",
    )


def test_files_and_folders_may_be_given_together(runs, tmp_path):
    """The same run of two files is one line; what is not a log in a folder is not a fault."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("hello\n")
    (tmp_path / "again.json").write_text(json_log(start_s=100))
    done = otel_dllogger("check", "notes", "again.json", cwd=tmp_path)
    assert_said(done, 0, "  again  0     8 ", "notes/readme.txt: no line is a record of DLLogger")
    alone = otel_dllogger("check", "notes/readme.txt", cwd=tmp_path)
    assert_said(alone, 1, "no line is a record of DLLogger")


def test_a_merged_log_beside_the_ranks_own_is_said(runs, tmp_path):
    """The same records in two files count twice, although neither file is wrong."""
    merged = "".join(path.read_text() for path in sorted(runs.iterdir())[:2])
    (runs / "merged.json").write_text(merged)
    done = otel_dllogger("check", "runs", cwd=tmp_path)
    assert_said(
        done,
        0,
        "runs/resnet/merged.json holds records of runs/resnet/log_rank0.json, "
        "runs/resnet/log_rank1.json as well: a copy, or a merged log beside",
    )


def test_two_logs_of_one_rank_are_said(tmp_path):
    """Logs of one rank at one time are not from one process after another."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json_log(start_s=0.5 if name == "b" else 0))
    done = otel_dllogger("check", "--run", "r", "a.json", "b.json", cwd=tmp_path)
    assert_said(done, 0, "b.json: same run and rank as another log of that time")


def test_different_trainings_of_one_name_are_said(tmp_path):
    """Lightning calls the first of each project version_0; checkpoints and attempts are one run."""
    for model, start_s in (("a", 0), ("b", 100)):
        folder = tmp_path / model / "lightning_logs" / "version_0"
        folder.mkdir(parents=True)
        (folder / "log.json").write_text(json_log(start_s=start_s))
    done = otel_dllogger("check", ".", cwd=tmp_path, COLUMNS="300")
    advice = "--pattern '{run}/*/*/log.json'"
    said = "b/lightning_logs/version_0/log.json are read as one run, 'version_0', that"
    assert_said(done, 0, said, advice)
    told = otel_dllogger("check", ".", "--pattern", advice.split("'")[1], cwd=tmp_path)
    assert_said(told, 0, "  a    0     8 ", "  b    0     8 ", "All is well.")
    assert_said(otel_dllogger("check", "--run", "r", ".", cwd=tmp_path), 0, "All is well.")
    for name in ("attempt_0", "attempt_1"):
        (tmp_path / "again" / name / "0").mkdir(parents=True)
        log = json_log(start_s=100 if name == "attempt_1" else 0)
        (tmp_path / "again" / name / "0" / "stdout.log").write_text(log)
    assert_said(otel_dllogger("check", "again", cwd=tmp_path), 0, "All is well.")


def test_a_folder_in_which_nothing_is_a_log_is_wrong(tmp_path):
    """Although no single file of it has to be one."""
    (tmp_path / "notes.txt").write_text("hello\n")
    (tmp_path / "rows.jsonl").write_text('{"n": 1, "value": 2.5}\n')
    done = otel_dllogger("check", ".", cwd=tmp_path)
    assert_said(done, 1, "nothing was read: no file of . is a log", "1 thing is wrong, 2 warnings.")


def test_what_is_left_out_is_said(tmp_path):
    """A log that another one repeats is not read, as bridge and backfill do not read it."""
    (tmp_path / "log.json").write_text(json_log())
    (tmp_path / "train.log").write_text("DLL 2023-11-14 22:13:20.000000 - (0, 0) loss : 0.5\n")
    done = otel_dllogger("check", ".", cwd=tmp_path)
    assert_said(done, 0, "Left out, since another log holds the same: train.log\n", "All is well.")


def test_it_says_where_the_time_of_a_run_went(tmp_path):
    """Of all its ranks, from phases and steps that were logged again; and what is not measured."""
    for rank in range(2):
        log = TimedLog(tmp_path / "runs", rank)
        log.wait(40)
        log.step(0)
        log.steps(1, 100)
        log.phase("checkpoint", 20)
        log.event("checkpoint_saved", 100)
        log.steps(101, 120)
        log.start(300)
        log.wait(40)
        log.step(101)
        log.steps(102, 101 + 60)
        log.close()
    words = "6 min 40 s x 2 ranks: Goodput 40.0%: startup 20.0%, checkpoint 5.0%, redone 5.0%"
    done = otel_dllogger("check", "runs", cwd=tmp_path)
    assert_said(
        done,
        0,
        f"Run 'job', {words} (20 steps), down 30.0%\n",
        "  at risk: 60 s of training since the last checkpoint\n",
        "  not measured: waiting for the slowest rank: ",
    )
    assert done.stdout.count("Goodput") == 1
    alone = otel_dllogger("check", "runs/job_rank1.json", cwd=tmp_path)
    assert words.replace("2 ranks", "1 rank") in alone.stdout
    command = f"cat runs/job_rank0.json | {sys.executable} -m otel_dllogger check /dev/stdin"
    piped = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert f"One run, {words.replace('2 ranks', '1 rank')}" in " ".join(piped.stdout.split())

"""Logs as rows of a table: each value once, as it was logged, in the order of time."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import warnings
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

import otel_dllogger.logs
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.logs import LogRow, read, rows
from otel_dllogger.logs.rows import RowReader
from otel_dllogger.logs.source import Source
from otel_dllogger.logs.whole_logs import find_logs
from tests.support.command import uncovered
from tests.support.parsers import DATA

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

START_S = 1_700_000_000
UTC = timezone.utc


def entry(time_s: float, kind: str = "LOG", **fields) -> str:
    """Return a line of DLLogger."""
    head = {"timestamp": f"{START_S + time_s:.6f}", "elapsedtime": f"{time_s:.6f}"}
    return "DLLL " + json.dumps({**head, "datetime": "x", "type": kind, **fields}) + "\n"


def values(*samples: tuple[float, int, float], name: str = "loss") -> str:
    """Return lines for times, iterations and values."""
    return "".join(entry(time_s, step=[0, step], data={name: v}) for time_s, step, v in samples)


def test_a_row_says_all_that_is_known_of_a_value(tmp_path: Path) -> None:
    """The labels are those of the exported series, name and unit are as they were logged."""
    log = tmp_path / "resnet_rank3.json"
    log.write_text(
        entry(0, "METADATA", metric="train.ips", metadata={"unit": "imgs/s", "STAGE": "TRAIN"})
        + entry(20.25, step=[1, 7], data={"train.ips": 1 / 3, "note": "text", "list": [1]})
        + entry(21, step=[1, 7, 2], data={"val.loss": float("nan")})
        + entry(22, step=[1], data={"val.loss": "0.5"})
        + entry(23, step=[], data={"best": 2, "rank": 5})
        + entry(24, step="event", data={"flag": True})
    )

    def at(time_s: float) -> datetime:
        return datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC) + timedelta(seconds=time_s)

    found = list(read(log))
    nan = found.pop(1)
    assert nan[:-1] == (at(21), "resnet", 3, "val", "validation", 1, 7, "val.loss", "")
    assert math.isnan(nan.value)
    assert found == [
        (at(20.25), "resnet", 3, "train", "iteration", 1, 7, "train.ips", "imgs/s", 1 / 3),
        (at(22), "resnet", 3, "val", "epoch", 1, None, "val.loss", "", 0.5),
        (at(23), "resnet", 5, "", "run", None, None, "best", "", 2.0),
        (at(24), "resnet", 3, "", "run", None, None, "flag", "", 1.0),
    ]
    row = found[0]
    assert (LogRow, int, float) == (type(row), type(row.epoch), type(found[2].value))
    assert timedelta(0) == row.time.utcoffset()


def test_a_total_is_not_an_iteration(tmp_path: Path) -> None:
    """Once (iteration, all iterations) is known, rows say what the page says."""
    log = tmp_path / "log.json"
    log.write_text("".join(entry(n, step=[n, 100], data={"loss": n}) for n in range(1, 6)))
    assert [(None, 3), (None, 4), (None, 5)] == [
        (row.epoch, row.iteration) for row in read(log) if row.value >= 3
    ]


def test_parameters_are_rows_if_they_are_numbers(tmp_path: Path) -> None:
    """They have a granularity of their own; text is none, and a secret is none either."""
    log = tmp_path / "run.json"
    parameters = {"lr": 0.1, "model": "r50", "opt": {"decay": "1e-4"}, "pin": 1234, "bad": "nan"}
    log.write_text(entry(0, step="PARAMETER", data=parameters) + values((1, 1, 2.0), name="lr"))
    found = [(row.granularity, row.metric, row.value) for row in read(log)]
    assert found == [
        ("parameter", "lr", 0.1),
        ("parameter", "opt.decay", 1e-4),
        ("iteration", "lr", 2.0),
    ]


def test_metadata_that_come_late_hold_from_there_on(tmp_path: Path) -> None:
    """As the exported series moves, once."""
    log = tmp_path / "run.json"
    log.write_text(
        values((1, 1, 1.0))
        + entry(2, "METADATA", metric="loss", metadata={"unit": "nat", "STAGE": "VAL"})
        + values((3, 2, 1.0))
    )
    assert [("", ""), ("val", "nat")] == [(row.stage, row.unit) for row in read(log)]


def test_rows_of_all_files_are_in_the_order_of_time(tmp_path: Path) -> None:
    """Those of one time are in the order in which they were read."""
    (tmp_path / "a_rank0.json").write_text(values((3, 3, 3.0), (1, 1, 1.0), (5, 5, 5.5)))
    (tmp_path / "a_rank1.json").write_text(values((4, 4, 4.0), (2, 2, 2.0), (5, 5, 5.0)))
    found = [(row.rank, row.iteration, row.value) for row in read(tmp_path)]
    expected = [(0, 1, 1.0), (1, 2, 2.0), (0, 3, 3.0), (1, 4, 4.0), (0, 5, 5.5), (1, 5, 5.0)]
    assert found == expected
    # And the same however paths are given.
    files = [tmp_path / "a_rank1.json", str(tmp_path / "a_rank0.json")]
    assert expected == [(row.rank, row.iteration, row.value) for row in read(*files)]
    glob = tmp_path / "*rank[0-1].json"
    assert expected == [(row.rank, row.iteration, row.value) for row in read(glob)]


def test_what_is_there_twice_counts_once(tmp_path: Path) -> None:
    """A copy adds nothing; what differs in its step or its value is something else."""
    log = tmp_path / "run_rank0.json"
    log.write_text(values((1, 1, 1.0), (1, 2, 1.0), (1, 1, 2.0), (2, 3, float("nan"))))
    shutil.copy(log, tmp_path / "run_rank0.json.1")
    with log.open("a") as file:
        file.write(values((3, 4, 4.0)))
    source = Source([str(tmp_path / "run_rank0.json*")])
    with RowReader(source) as reader:
        reader.run(find_logs(source))
        found = [(row.iteration, row.value) for row in reader.sorted()]
        assert 4 == reader.repeated
    assert found[:3] == [(1, 1.0), (2, 1.0), (1, 2.0)]
    assert [3, 4] == [iteration for iteration, _ in found[3:]]


def test_validation_iterations_of_one_second_are_not_one(tmp_path: Path) -> None:
    """They share epoch, iteration and value, as lines of MMEngine do, whose times are seconds."""
    log = tmp_path / "run.json"
    steps = ([0, 1, 1], [0, 1, 2], [0, 1, 2], "calibration", "evaluation")
    log.write_text("".join(entry(1, step=step, data={"time": 0.1}) for step in steps))
    assert 4 == len(list(read(log)))


def test_records_of_one_time_do_not_fill_the_memory(tmp_path: Path, monkeypatch) -> None:
    """Only so many of them are remembered; a copy of an older one is then a row again."""
    monkeypatch.setattr(rows, "_REMEMBERED", 3)
    log = tmp_path / "run.json"
    log.write_text(values(*((1, step, 0.0) for step in (1, 2, 3, 4, 3, 1))))
    assert [1, 2, 3, 4, 1] == [row.iteration for row in read(log)]


def test_more_than_the_memory_is_sorted_as_well(tmp_path: Path, monkeypatch) -> None:
    """Batches go into the database, and come from it in order."""
    monkeypatch.setattr(rows, "_BATCH_BYTES", 100)
    log = tmp_path / "run.json"
    times_s = [(step * 7919) % 1009 for step in range(1009)]
    log.write_text(values(*((time_s, time_s, time_s / 7) for time_s in times_s)))
    source = Source([str(log)])
    with RowReader(source, memory_bytes=1) as reader:
        reader.run(find_logs(source))
        found = [(row.iteration, row.value) for row in reader.sorted()]
    assert [(time_s, time_s / 7) for time_s in range(1009)] == found


def test_a_time_range_leaves_out_and_counts(tmp_path: Path) -> None:
    """It begins with ``since`` and ends before ``until``."""
    log = tmp_path / "run.json"
    log.write_text(values(*((step, step, 0.0) for step in range(6))))
    source = Source([str(log)])
    since_us, until_us = (1_000_000 * (START_S + second) for second in (2, 4))
    with RowReader(source, since_us=since_us, until_us=until_us) as reader:
        found = reader.run(find_logs(source))
        assert [2, 3] == [row.iteration for row in reader.sorted()]
    assert 4 == found.left_out


def test_names_of_mmengine_are_those_of_its_lines() -> None:
    """Without the stage, which is in the line's header; a name may say a unit by itself."""
    found = list(read(DATA / "mmengine_epoch"))
    assert {"lr", "time", "data_time"} <= {row.metric for row in found}
    assert {("train", "iteration"), ("val", "epoch")} <= {(r.stage, r.granularity) for r in found}
    assert {"s"} == {row.unit for row in found if row.metric == "time"}
    bare = read(DATA / "mmengine_epoch", conventions=False)
    assert {("time", "s"), ("data_time", "s")} == {(r.metric, r.unit) for r in bare if r.unit}


def test_how_logs_are_read_can_be_said(tmp_path: Path) -> None:
    """The run, the names of files and the zone, as for the commands."""
    for number in range(2):
        log = tmp_path / f"log_{number}.log"
        log.write_text("2024/01/01 12:00:00 - mmengine - INFO - Iter(train) [10/60]  loss: 0.5\n")
    found = list(read(tmp_path, run="x", pattern="log_{rank}.log", timezone="+08:00"))
    assert [("x", 0), ("x", 1)] == [(row.run, row.rank) for row in found]
    assert {datetime(2024, 1, 1, 4, tzinfo=UTC)} == {row.time for row in found}
    two = list(read(tmp_path, run="x", pattern=["gpu_{rank}.log", "log_{rank}.log"]))
    assert [0, 1] == [row.rank for row in two]


@pytest.mark.parametrize(
    ("path", "options", "words"),
    [
        ("nowhere", {}, "there is no log at nowhere"),
        (".", {"pattern": "{job}.json"}, "{job}"),
        (".", {"timezone": "Mars"}, "Mars"),
        ("empty", {}, "there is no log at empty"),
        ("notes.txt", {}, "notes.txt: no value was found; otel-dllogger check FILE"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line(
    path: str, options: dict[str, str], words: str, tmp_path: Path, monkeypatch
) -> None:
    """What can be known at once is said at once; the rest with the first row."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("nothing\n")
    found = read(path, **options) if path == "notes.txt" else None
    with pytest.raises(ConfigurationError) as raised:
        read(path, **options) if found is None else next(found)
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_log_that_goes_away_is_one_line(tmp_path: Path) -> None:
    """It was there when the rows were asked for."""
    log = tmp_path / "run.json"
    log.write_text(values((1, 1, 1.0)))
    found = read(log)
    log.unlink()
    with pytest.raises(ConfigurationError, match=r"run.json cannot be read \(No such file"):
        next(found)


def test_a_disk_without_room_is_one_line(tmp_path: Path) -> None:
    """It says where there has to be room."""
    log = tmp_path / "run.json"
    log.write_text(values((1, 1, 1.0)))
    source = Source([str(log)])
    with RowReader(source) as reader:
        reader._database.execute("PRAGMA query_only = 1")
        with pytest.raises(ConfigurationError, match=r"the folder for temporary files .* TMPDIR"):
            reader.run(find_logs(source))


def test_what_is_guessed_or_damaged_is_warned_of(tmp_path: Path) -> None:
    """Each in one line, at the line of code that takes the rows."""
    for number in range(2):
        lines = values((1, 1, float(number)), (2, 2, float(number))) + "DLLL {\n"
        (tmp_path / f"log_{number}.json").write_text(lines)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(read(tmp_path, run="x"))
    shared, damaged = caught
    assert "same run and rank as another log of that time" in str(shared.message)
    assert "pattern='log_{rank}.json'" in str(shared.message)
    assert "lines that gave no record: 2 " in str(damaged.message)
    assert {__file__} == {shared.filename, damaged.filename}


def test_columns_are_the_fields() -> None:
    """As pandas takes them from the first row, and as the files of comma-separated values."""
    assert LogRow._fields == (
        *("time", "run", "rank", "stage", "granularity"),
        *("epoch", "iteration", "metric", "unit", "value"),
    )
    assert ["LogRow", "read"] == otel_dllogger.logs.__all__


@pytest.mark.parametrize("module", ["otel_dllogger", "otel_dllogger.logs"])
def test_nothing_is_loaded_before_it_is_needed(module: str) -> None:
    """Training does not pay for the reading of logs, and a parser not for SQLite."""
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=uncovered(), capture_output=True, check=True, text=True
    )
    loaded = set(done.stdout.split())
    assert set() == loaded & {"sqlite3", "otel_dllogger.logs.rows", "otel_dllogger.logs.source"}
    assert (module == "otel_dllogger.logs") == ("otel_dllogger.logs" in loaded)


def test_phases_and_events_are_rows(tmp_path: Path) -> None:
    """The seconds of phases add up: an inner one is not in the outer one's, nor is a thread's."""
    log = tmp_path / "resnet_rank3.json"
    phase = {"begin": 0.0, "seconds": 3.0, "self_seconds": 3.0, "step": None, "outcome": "ok"}
    log.write_text(
        entry(1, "PHASE", **{**phase, "name": "checkpoint", "step": [1, 7]})
        + entry(2, "PHASE_BEGIN", **{**phase, "name": "validation"})
        + entry(3, step=[1, 7, 0], data={"val.loss": 0.5})
        + entry(4, "PHASE", **{**phase, "name": "validation", "seconds": 9.0})
        + entry(5, "PHASE", **{**phase, "name": "upload"}, overlapped=True)
        + entry(6, "EVENT", name="saved", step=7, data={"file": "a"})
    )
    found = [
        (row.granularity, row.metric, row.epoch, row.iteration, row.unit, row.value)
        for row in read(log)
        if row.metric != "val.loss"
    ]
    assert found == [
        ("phase", "checkpoint", 1.0, 7.0, "s", 3.0),
        ("phase", "validation", None, None, "s", 3.0),
        ("phase_overlapped", "upload", None, None, "s", 3.0),
        ("event", "saved", None, 7.0, "", 1.0),
    ]

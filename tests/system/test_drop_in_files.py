"""The lines and files that DLLogger and TCAP DLLogger write, with their times and metadata."""

from __future__ import annotations

import argparse
import json
import math
import os
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

import otel_dllogger as dllogger
from otel_dllogger import (
    JSONStreamBackend,
    Logger,
    StdOutBackend,
)
from tests.support.drop_in import read_lines, run_script

pytestmark = [pytest.mark.newest_only, pytest.mark.usefixtures("_no_global_logger")]


# JSON lines


def test_json_lines_have_dlloggers_keys_in_dlloggers_order(tmp_path):
    """No line and no key more than DLLogger writes."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    logger.metadata("loss", {"unit": "nat", "GOAL": "MINIMIZE"})
    logger.log("PARAMETER", {"lr": 0.1})
    logger.log((0, 1), {"loss": 1.0})
    logger.log((0, 1), {"hidden": 1.0}, verbosity=2)
    logger.close()
    common = ["timestamp", "datetime", "elapsedtime", "type"]
    assert [list(line) for line in read_lines(path)] == [
        ["timestamp", "elapsedtime", "datetime", "type", "metric", "metadata"],
        [*common, "step", "data"],
        [*common, "step", "data"],
    ]


def test_lines_are_read_back_at_either_offset(tmp_path):
    """Scripts cut 4 or 5 characters off before json.loads."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    logger.metadata("loss", {"unit": "nat"})
    logger.log((0, 1), {"loss": 1.0})
    lines = path.read_text().splitlines()
    assert [line[:5] for line in lines] == ["DLLL ", "DLLL "]
    assert [json.loads(line[4:]) for line in lines] == [json.loads(line[5:]) for line in lines]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ((0, 1), "[0, 1]"),
        ([0, 1], "[0, 1]"),
        ((0,), "[0]"),
        ((0, 1, 2), "[0, 1, 2]"),
        ((), "[]"),
        (7, "7"),
        (0.5, "0.5"),
        ("PARAMETER", '"PARAMETER"'),
        (("Calibration", 3), '["Calibration", 3]'),
        ((np.int64(2), np.int32(3)), "[2, 3]"),
        ((1.0, 2), "[1.0, 2]"),
        ((True, 2), "[true, 2]"),
        (None, "null"),
    ],
    ids=repr,
)
def test_a_step_is_written_as_dllogger_writes_it(tmp_path, step, expected):
    """The text of a step is that of json.dumps, blanks included: scripts grep for it."""
    path = tmp_path / "log.json"
    Logger([JSONStreamBackend(1, path)]).log(step, {"loss": 1.5, "n": 2})
    line = path.read_text()
    assert line[line.index(', "type"') :] == (
        f', "type": "LOG", "step": {expected}, "data": {{"loss":1.5,"n":2}}}}\n'
    )


def test_the_files_of_several_ranks_are_equal_line_by_line(tmp_path):
    """Readers zip the ranks' files and demand equal types and steps, of every line."""
    code = """
import os, sys
import otel_dllogger as dllogger
rank = int(os.environ["RANK"])
dllogger.init([dllogger.JSONStreamBackend(1, f"log_{rank}.json")])
dllogger.metadata("train.loss", {"unit": "nat"})
dllogger.log("PARAMETER", {"rank": rank, "lr": 0.1})
for iteration in range(3):
    dllogger.log((0, iteration), {"train.loss": float("nan") if rank == iteration else 1.0})
dllogger.log((0,), {"val.loss": None if rank else 1.0})
dllogger.log((), {"total": str(rank)})
dllogger.flush()
"""
    for rank in range(3):
        out = run_script(tmp_path, code, RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="3")
        assert out == ("", "", 0)
    files = [read_lines(tmp_path / f"log_{rank}.json") for rank in range(3)]
    kinds = [[(line["type"], line.get("step")) for line in file] for file in files]
    assert kinds[0] == kinds[1] == kinds[2]
    expected = [None, "PARAMETER", [0, 0], [0, 1], [0, 2], [0], []]
    assert [step for _type, step in kinds[0]] == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [({}, [1]), ({"append": False}, [1]), ({"append": True}, [0, 1])],
    ids=["default", "append=False", "append=True"],
)
def test_append(tmp_path, arguments, expected):
    """A file is emptied unless it is to be kept, as with DLLogger's "w" and "a"."""
    path = tmp_path / "log.json"
    for step in range(2):
        with Logger([JSONStreamBackend(1, path, **arguments)]) as logger:
            logger.log(step, {})
    assert [line["step"] for line in read_lines(path)] == expected


def test_nan_and_inf_are_bare_tokens(tmp_path):
    """A diverged loss is written as Python's json reads it back, also as a step."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    logger.log((0, 1), {"loss": math.nan, "up": math.inf, "down": -math.inf, "ok": 1.0})
    logger.log((0, 2), {"deep": {"list": [math.nan, np.float32("nan"), np.array(math.nan)]}})
    logger.log((math.nan, 2), {"loss": np.float64("nan")})
    text = path.read_text()
    assert '"data": {"loss":NaN,"up":Infinity,"down":-Infinity,"ok":1.0}}\n' in text
    assert '"data": {"deep":{"list":[NaN,NaN,NaN]}}}\n' in text
    assert '"step": [NaN, 2], "data": {"loss":NaN}}\n' in text
    assert math.isnan(read_lines(path)[0]["data"]["loss"])


def test_two_json_backends_at_once(tmp_path):
    """Two files get the same lines, each by its own verbosity."""
    paths = [tmp_path / "all.json", tmp_path / "some.json"]
    dllogger.init([JSONStreamBackend(v, p) for v, p in zip((1, 0), paths, strict=True)])
    dllogger.log((0, 1), {"loss": 1.0}, verbosity=1)
    dllogger.log((0,), {"loss": 1.0})
    first, second = [path.read_bytes().splitlines() for path in paths]
    assert [len(first), second] == [2, first[1:]]


@pytest.mark.parametrize("kind", [str, Path], ids=["str", "Path"])
def test_file_names(tmp_path, kind):
    """File names are text or paths."""
    path = tmp_path / "log.json"
    Logger([JSONStreamBackend(1, kind(path))]).log(0, {})
    assert [line["step"] for line in read_lines(path)] == [0]


def test_devnull(counted):
    """Ranks that log nowhere use os.devnull, several times."""
    logger = Logger([JSONStreamBackend(1, os.devnull), JSONStreamBackend(1, Path(os.devnull))])
    logger.log((0, 1), {"loss": 1.0})
    logger.close()
    logger.log((0, 2), {"loss": 1.0})
    assert counted() == {}


# Times


@pytest.mark.parametrize(
    ("tz", "offset"),
    [("UTC", "+00:00"), ("NST3:30", "-03:30"), ("<+0545>-5:45", "+05:45"), ("<-12>12", "-12:00")],
    ids=["UTC", "America/St_Johns", "Asia/Kathmandu", "Etc/GMT+12"],
)
def test_times_in_several_time_zones(tmp_path, tz, offset):
    """A line's datetime has the local offset and is its timestamp, and hooks get it naive."""
    code = """
import sys
import otel_dllogger as dllogger
def prefix_format(timestamp):
    return f"{timestamp!s}\\n"
dllogger.init([
    dllogger.JSONStreamBackend(1, "log.json"),
    dllogger.StdOutBackend(1, prefix_format=prefix_format),
])
dllogger.metadata("loss", {})
dllogger.log((0, 1), {"loss": 1.0})
"""
    out, err, returncode = run_script(tmp_path, code, tz=tz)
    lines = read_lines(tmp_path / "log.json")
    zone = timezone(datetime.fromisoformat(f"2000-01-01T00:00:00{offset}").utcoffset())
    expected = [str(datetime.fromtimestamp(float(line["timestamp"]), zone)) for line in lines]
    assert [line["datetime"] for line in lines] == expected
    assert [line["datetime"][-6:] for line in lines] == [offset, offset]
    assert (err, returncode) == ("", 0)
    assert out.splitlines()[0] + offset == lines[1]["datetime"]


AT_GIVEN_TIMES = """
import json, sys
import otel_dllogger as dllogger
from otel_dllogger.record import Metadata, Record, microseconds
backend = dllogger.JSONStreamBackend(1, "log.json")
for time_us in json.loads(sys.argv[1]):
    record = Record(time_us, 1_500_000, (0, 1), {"loss": 1.0})
    backend.write_record(record)
    backend.log(record.timestamp, record.elapsed_s, (0, 1), {"loss": 1.0})
    backend.write_metadata(Metadata(time_us, 1_500_000, "loss", {}))
"""


def test_the_hour_that_comes_twice(tmp_path):
    """When summer time ends the offset changes from one line to the next."""
    tz = "EST5EDT,M3.2.0,M11.1.0"
    end_us = 1730613600_000000  # 2024-11-03 06:00 UTC
    times_us = [end_us - 500_000, end_us - 1, end_us, end_us + 250_000]
    run_script(tmp_path, AT_GIVEN_TIMES, json.dumps(times_us), tz=tz)
    lines = read_lines(tmp_path / "log.json")
    assert [line["datetime"] for line in lines[::3]] == [
        "2024-11-03 01:59:59.500000-04:00",
        "2024-11-03 01:59:59.999999-04:00",
        "2024-11-03 01:00:00-05:00",
        "2024-11-03 01:00:00.250000-05:00",
    ]
    for first in range(0, len(lines), 3):
        times = [(line["timestamp"], line["datetime"]) for line in lines[first : first + 3]]
        assert times == times[:1] * 3


def test_the_hour_that_is_left_out(tmp_path):
    """When summer time begins the offset changes from one line to the next."""
    begin_us = 1710054000_000000  # 2024-03-10 07:00 UTC
    times_us = [begin_us - 1, begin_us]
    tz = "EST5EDT,M3.2.0,M11.1.0"
    run_script(tmp_path, AT_GIVEN_TIMES, json.dumps(times_us), tz=tz)
    lines = read_lines(tmp_path / "log.json")
    assert [line["datetime"] for line in lines[::3]] == [
        "2024-03-10 01:59:59.999999-05:00",
        "2024-03-10 03:00:00-04:00",
    ]


def test_lines_byte_by_byte(tmp_path):
    """What a reader of DLLogger's files sees, of a whole second and of its fractions."""
    times_us = [1570716916_143421, 1570716916_146970, 1570716916_000000, 1570716916_100000]
    run_script(tmp_path, AT_GIVEN_TIMES, json.dumps(times_us))
    head = 'DLLL {"timestamp": "1570716916.%s", "datetime": "2019-10-10 14:15:16%s+00:00", '
    tail = '"elapsedtime": "1.5", "type": "LOG", "step": [0, 1], "data": {"loss":1.0}}'
    metadata = (
        'DLLL {"timestamp": "1570716916.%s", "elapsedtime": "1.5", "datetime": '
        '"2019-10-10 14:15:16%s+00:00", "type": "METADATA", "metric": "loss", "metadata": {}}'
    )
    fractions = [
        ("143421", ".143421"),
        ("14697", ".146970"),
        ("0", ""),  # as str(float) and str(datetime) have it
        ("1", ".100000"),
    ]
    expected = [line % f for f in fractions for line in (head + tail, head + tail, metadata)]
    assert (tmp_path / "log.json").read_text().splitlines() == expected


# TCAP DLLogger


@pytest.mark.parametrize(
    ("data", "text", "written"),
    [
        ("start training ...", "start training ...", "start training ..."),
        ({"lr": 0.2, "amp": True}, "{'lr': 0.2, 'amp': True}", {"lr": 0.2, "amp": True}),
        (
            argparse.Namespace(lr=0.2, weights=None),
            "{'lr': 0.2, 'weights': None}",
            {"lr": 0.2, "weights": None},
        ),
    ],
    ids=["str", "dict", "Namespace"],
)
def test_info(tmp_path, monkeypatch, capsys, data, text, written):
    """Text, a dict and a Namespace are an INFO line of the file and a line of text."""
    for name, value in (("RANK", "6"), ("WORLD_SIZE", "8"), ("LOCAL_RANK", "2")):
        monkeypatch.setenv(name, value)
    path = tmp_path / "log.json"
    prefix_format = lambda _timestamp: "DLL "  # noqa: E731 - as scripts write it
    dllogger.init([JSONStreamBackend(1, path), StdOutBackend(1, prefix_format=prefix_format)])
    dllogger.info(data)
    line = path.read_text()
    entry = json.loads(line.removeprefix("INFO "))
    assert list(entry) == ["local_rank", "datetime", "type", "data"]
    assert (entry["local_rank"], entry["type"], entry["data"]) == (2, "INFO", written)
    assert datetime.fromisoformat(entry["datetime"]).tzinfo is None
    assert capsys.readouterr().out == f"DLL {text}\n"


def test_metadata_batch(tmp_path, capsys):
    """Several metrics get the same metadata: a line each, in order."""
    path = tmp_path / "log.json"
    dllogger.init([JSONStreamBackend(1, path), StdOutBackend(1, prefix_format=lambda _: "")])
    dllogger.metadata_batch(["train.loss", "val.loss"], {"unit": "nat", "format": ":.1f"})
    dllogger.log((0, 0), {"train.loss": 2, "val.loss": 3})
    described = [(line.get("metric"), line.get("metadata")) for line in read_lines(path)]
    metadata = {"unit": "nat", "format": ":.1f"}
    assert described == [("train.loss", metadata), ("val.loss", metadata), (None, None)]
    assert capsys.readouterr().out == "(0, 0) train.loss : 2.0 nat val.loss : 3.0 nat\n"


# Published logs, replayed

NVIDIA_METADATA = """\
{"metric": "lr", "metadata": {}}
{"metric": "train.loss", "metadata": {"format": ":.5f+00:00", "type": "LOSS"}}
{"metric": "train.compute_ips", "metadata": {"unit": "img/s", "format": ":.2f+00:00"}}
{"metric": "train.total_ips", "metadata": {"unit": "img/s", "format": ":.2f+00:00"}}
{"metric": "train.data_time", "metadata": {"unit": "s", "format": ":.5f"}}
{"metric": "train.compute_time", "metadata": {"unit": "s", "format": ":.5f"}}
{"metric": "val.top1", "metadata": {"unit": "%", "format": ":.2f+00:00", "type": "ACCURACY"}}
{"metric": "val.top5", "metadata": {"unit": "%", "format": ":.2f+00:00", "type": "ACCURACY"}}
{"metric": "val.loss", "metadata": {"format": ":.5f+00:00", "type": "LOSS"}}
{"metric": "val.compute_latency", "metadata": {"unit": "s", "format": ":.5f"}}
"""
TCAP_METADATA = """\
{"metric": "train.loss", "metadata": {"unit": "", "GOAL": "MINIMIZE", "STAGE": "TRAIN"}}
{"metric": "val.loss", "metadata": {"unit": "", "GOAL": "MINIMIZE", "STAGE": "VALID"}}
{"metric": "train.ips", "metadata": {"unit": "imgs/s", "format": ":.3f", "GOAL": "MAXIMIZE"}}
"""
# The metadata of more scripts in NVIDIA's DeepLearningExamples.
SCRIPTS_METADATA = """\
{"metric": "a", "metadata": {"name": null, "unit": null, "format": "0:.5f"}}
{"metric": "b", "metadata": {"name": "b", "format": ":>3.2e", "description": "?"}}
{"metric": "c", "metadata": {"format": ".3f"}}
{"metric": "d", "metadata": {"format": "%.3f", "unit": "x"}}
{"metric": "e", "metadata": {"format": ":5f"}}
{"metric": "f", "metadata": {"format": null, "GOAL": "MIMIMIZE"}}
"""


@pytest.mark.parametrize(
    ("described", "expected", "damaged"),
    [
        (
            NVIDIA_METADATA,
            (
                "lr : 1.25  train.loss : 1.25  train.compute_ips : 1.25 img/s "
                "train.total_ips : 1.25 img/s train.data_time : 1.25000 s "
                "train.compute_time : 1.25000 s val.top1 : 1.25 % val.top5 : 1.25 % "
                "val.loss : 1.25  val.compute_latency : 1.25000 s"
            ),
            6,
        ),
        (TCAP_METADATA, "train.loss : 1.25  val.loss : 1.25  train.ips : 1.250 imgs/s", 0),
        (
            SCRIPTS_METADATA,
            "a : 1.25000 None b : 1.25e+00  c : 1.25  d : 1.25 x e : 1.250000  f : 1.25 ",
            3,
        ),
    ],
    ids=["NVIDIA", "TCAP", "scripts"],
)
def test_published_metadata_is_replayed(tmp_path, capsys, counted, described, expected, damaged):
    """Damaged formats raise nothing: the plain value is printed, and each is counted."""
    path = tmp_path / "log.json"
    entries = [json.loads(line) for line in described.splitlines()]
    dllogger.init([JSONStreamBackend(1, path), StdOutBackend(1, prefix_format=lambda _: "")])
    for entry in entries:
        dllogger.metadata(entry["metric"], entry["metadata"])
    dllogger.log((0, 1), {entry["metric"]: 1.25 for entry in entries})
    assert capsys.readouterr().out == f"(0, 1) {expected}\n"
    assert counted() == ({"format_failed": damaged} if damaged else {})
    lines = read_lines(path)
    kept = [{key: line[key] for key in ("metric", "metadata")} for line in lines[:-1]]
    assert kept == entries


def test_metadata_that_comes_late_or_changes(capsys):
    """Metadata may come after the first log, and later calls add to earlier ones."""
    logger = Logger([StdOutBackend(1, prefix_format=lambda _: "")])
    logger.log(0, {"loss": 1.25})
    logger.metadata("loss", {"unit": "nat"})
    logger.log(1, {"loss": 1.25})
    logger.metadata("loss", {"format": ":.1f"})
    logger.metadata("loss", {})
    logger.log(2, {"loss": 1.25})
    expected = ["0 loss : 1.25 ", "1 loss : 1.25 nat", "2 loss : 1.2 nat"]
    assert capsys.readouterr().out.splitlines() == expected


def test_a_step_hook_of_a_published_script(capsys):
    """The step format that most of NVIDIA's scripts share."""

    def format_step(step):
        if isinstance(step, str):
            return step
        names = ("Epoch", "Iteration", "Validation Iteration")
        return " ".join(f"{name}: {n}" for name, n in zip(names, step, strict=False))

    logger = Logger([StdOutBackend(1, step_format=format_step, prefix_format=lambda _: "")])
    logger.metadata("loss", {"unit": "nat"})
    for step in ("PARAMETER", (0,), (0, 3), (0, 3, 1), ()):
        logger.log(step, {"loss": 130.0})
    assert capsys.readouterr().out.splitlines() == [
        "PARAMETER loss : 130.0 nat",
        "Epoch: 0 loss : 130.0 nat",
        "Epoch: 0 Iteration: 3 loss : 130.0 nat",
        "Epoch: 0 Iteration: 3 Validation Iteration: 1 loss : 130.0 nat",
        " loss : 130.0 nat",
    ]

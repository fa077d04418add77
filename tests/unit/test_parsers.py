"""Lines of other people's logs: the samples record by record, and damage by reason."""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import pickle
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest

from otel_dllogger.diagnostics import HARMLESS, LINE, REASONS
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.logs.parsers.context import MAX_LINE_BYTES, FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import (
    DLLOGGER_JSON,
    DLLOGGER_TEXT,
    MMENGINE_SCALARS,
    MMENGINE_TEXT,
    TCAP_JSON,
    TCAP_TEXT,
    FileRecord,
    conventional_metadata,
)
from otel_dllogger.metrics.naming import MetricMetadata, map_metric, parse_metadata
from otel_dllogger.record import Info, Metadata, step_position
from tests.support.paths import ROOT, TESTS

DATA = TESTS / "data"


def utc_us(*args):
    """Give a time of the UTC zone in microseconds."""
    return round(datetime(*args, tzinfo=timezone.utc).timestamp() * 1e6)


def read(lines, **options):
    """Read lines with a context of their own; give entries and context."""
    context = FileContext(**{"zone": "UTC", **options})
    lines = lines if isinstance(lines, list) else [lines]
    raw = [line if isinstance(line, bytes) else line.encode() for line in lines]
    return [entry for line in raw for entry in parse_line(line, context)], context


def read_one(line, **options):
    """Read a line that holds one record and nothing besides."""
    (record,), context = read(line, **options)
    assert {} == context.skipped
    return record


def read_sample(name, **options):
    path = DATA / name
    options = {"size_bytes": path.stat().st_size, **options}
    return read(path.read_bytes().splitlines(keepends=True), **options)


def log_line(data='{"loss": 0.5}', step="[0, 1]", prefix="DLLL"):
    """Give a LOG line of the 1,700,000,000th second."""
    times = '"timestamp": "1700000000.25", "elapsedtime": "1.5"'
    return f'{prefix} {{{times}, "type": "LOG", "step": {step}, "data": {data}}}'


def tcap_line(data):
    return log_line(json.dumps(data), prefix="TCAPPDLL")


START_US = utc_us(2026, 11, 20, 21, 47, 20)
END_US = utc_us(2026, 11, 20, 21, 47, 28)

# By eye and awk, not by this parser: records, metadata, infos, and what is none.
# A text log's metadata are the units that it shows, each metric's once.
SAMPLES = {
    "nvidia_resnet_log.json": (DLLOGGER_JSON, 39, 13, 0, {}),
    "nvidia_stdout_log.txt": (DLLOGGER_TEXT, 49, 3, 0, {}),
    "tcap_log.json": (TCAP_JSON, 4, 5, 2, {}),
    "tcap_console.log": (TCAP_TEXT, 6, 1, 0, {"not_a_record": 6, "blank": 2}),
    "mmengine_epoch/train.log": (MMENGINE_TEXT, 15, 0, 0, {"not_a_record": 129, "blank": 5}),
    "mmengine_iter/train.log": (MMENGINE_TEXT, 15, 0, 0, {"not_a_record": 126, "blank": 5}),
    "mmengine_epoch/vis_data/scalars.json": (MMENGINE_SCALARS, 9, 0, 0, {}),
    "mmengine_iter/vis_data/scalars.json": (MMENGINE_SCALARS, 9, 0, 0, {}),
}

# The first and the last record of each: rank, step, stage, time, and a value.
ENDS = {
    "nvidia_resnet_log.json": (
        (0, "PARAMETER", None, 1570716916_143421, ("lr", 0.1)),
        (0, (), None, 1570716934_289168, ("val.compute_latency", 0.06592682361602784)),
    ),
    "nvidia_stdout_log.txt": (
        (0, "PARAMETER", None, 1570725774_500902, ("HP1", 17)),
        (0, (1, 9, 2), "val", 1570725774_502388, ("val.loss", 10.454545454545455)),
    ),
    "tcap_log.json": (
        (0, (0, 0), "train", 1724912520_581241, ("train.loss", "4.629472255706787")),
        (0, (0, 0), "train", 1724912535_871063, ("data.shape", "[300, 300]")),
    ),
    "tcap_console.log": (
        (0, (0, 0), "train", 1750297058_907279, ("train.total_time", 2.260704755783081)),
        (1, (0, 0), "train", 1747318810_930607, ("train.ips", 9718.879652425778)),
    ),
    "mmengine_epoch/train.log": (
        (0, (1, 10), "train", START_US + 10**6, ("loss1_global_mean", 1.0038)),
        (0, (3,), "val", START_US + 10**6, ("acc", 0.1012)),
    ),
    "mmengine_iter/train.log": (
        (0, 10, "train", START_US + 4 * 10**6, ("lr", 0.01)),
        (0, (0, 60, 25), "val", END_US, ("acc", 0.0606)),
    ),
    "mmengine_epoch/vis_data/scalars.json": (
        (0, (1, 10), "train", START_US + 8 * 10**6 * 310 // 2195, ("loss", 1.829399287700653)),
        (0, (3,), "val", END_US, ("acc", 0.10122013419866562)),
    ),
    "mmengine_iter/vis_data/scalars.json": (
        (0, 10, "train", START_US + 8 * 10**6 * 298 // 2114, ("loss", 2.011903041601181)),
        (0, (0, 60, None), "val", END_US, ("acc", 0.06062124788761139)),
    ),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_every_record_of_a_sample_is_read(name):
    """Exact counts, each record's format, and rank, step, stage, time of first and last."""
    log_format, records, metadata, infos, skipped = SAMPLES[name]
    entries, context = read_sample(name, run_start_us=START_US, modified_us=END_US)
    kinds = Counter(type(entry) for entry in entries)
    assert (records, metadata, infos) == (kinds[FileRecord], kinds[Metadata], kinds[Info])
    assert skipped == context.skipped
    assert context.size_bytes == context.offset_bytes
    found = [entry for entry in entries if isinstance(entry, FileRecord)]
    assert {log_format} == {record.log_format for record in found}
    for record, (rank, step, stage, time_us, value) in zip(
        (found[0], found[-1]), ENDS[name], strict=True
    ):
        assert (rank, step, stage) == (record.rank, record.step, record.stage)
        assert time_us == record.time_us
        assert value in record.data.items()


@pytest.mark.parametrize(
    ("name", "granularities"),
    [
        ("nvidia_resnet_log.json", {"iteration": 16, "validation": 16, "epoch": 4, "run": 3}),
        ("nvidia_stdout_log.txt", {"iteration": 20, "validation": 24, "epoch": 2, "run": 3}),
        ("tcap_log.json", {"iteration": 4}),
        ("tcap_console.log", {"iteration": 6}),
        ("mmengine_epoch/train.log", {"iteration": 6, "validation": 6, "epoch": 3}),
        ("mmengine_iter/train.log", {"iteration": 6, "validation": 9}),
        ("mmengine_epoch/vis_data/scalars.json", {"iteration": 6, "epoch": 3}),
        ("mmengine_iter/vis_data/scalars.json", {"iteration": 6, "validation": 3}),
    ],
)
def test_the_granularities_of_a_sample_are_those_of_live_logging(name, granularities):
    """Steps mean what ``step_position`` has them mean."""
    records = [e for e in read_sample(name)[0] if isinstance(e, FileRecord)]
    assert granularities == Counter(step_position(r.step).granularity for r in records)


def test_metadata_of_files_are_given():
    """What the files say of their metrics comes before the records, as it was said."""
    entries, _ = read_sample("nvidia_resnet_log.json")
    found = {e.metric: e.metadata for e in entries if isinstance(e, Metadata)}
    assert {} == found["lr"]
    assert {"unit": "img/s", "format": ":.2f+00:00", "type": "THROUGHPUT"} == found["val.total_ips"]
    entries, _ = read_sample("nvidia_stdout_log.txt")
    found = [(e.metric, e.metadata) for e in entries if isinstance(e, Metadata)]
    units = {"speed": "speeds/s", "loss": "nat", "val.loss": "nat"}
    assert [(name, {"unit": unit}) for name, unit in units.items()] == found


def test_infos_of_tcap_have_the_time_of_their_zone():
    """An INFO line has nothing but a naive local datetime."""
    infos = [e for e in read_sample("tcap_log.json", zone="Asia/Shanghai")[0] if type(e) is Info]
    assert [utc_us(2024, 8, 28, 22, 21, 57, 392533), utc_us(2024, 8, 28, 22, 21, 57, 392585)] == [
        info.time_us for info in infos
    ]
    assert "start training ..." == infos[1].data
    assert 0.2 == infos[0].data["lr"]


def test_elapsed_times_begin_at_the_run_where_lines_have_none():
    """Without ``elapsedtime`` it is the distance to the first record, or to the known start."""
    entries, _ = read_sample("nvidia_resnet_log.json")
    assert [0, 3549, 9292] == [entry.elapsed_us for entry in entries[:3]]
    assert 18_145_747 == entries[-1].elapsed_us
    entries, _ = read_sample("nvidia_resnet_log.json", run_start_us=1570716916_000000)
    assert 143_421 == entries[0].elapsed_us
    entries, _ = read_sample("tcap_log.json")
    assert [7, 48, 64, 75, 96, 137, 189, 3188845] == [e.elapsed_us for e in entries[:8]]
    entries, _ = read_sample("tcap_console.log")
    elapsed_us = [e.elapsed_us for e in entries if isinstance(e, FileRecord)]
    assert [0, 174_188, 347_111, 0, 2, 222] == elapsed_us  # the fourth is of an earlier run


MMENGINE_HEAD = "2023/11/14 22:13:20 - mmengine - INFO - "

# One line each: what it is, and what it holds.
LINES = {
    "new DLLogger": (log_line(), (0, 1), {"loss": 0.5}),
    "numeric timestamp": (
        'DLLL {"timestamp": 1700000000.25, "type": "LOG", "step": 3, "data": {}}',
        3,
        {},
    ),
    "no blank": ("DLLL" + log_line()[5:], (0, 1), {"loss": 0.5}),
    "prefix DLL": (log_line(prefix="DLL"), (0, 1), {"loss": 0.5}),
    "carriage return": (log_line() + "\r\n", (0, 1), {"loss": 0.5}),
    "byte order mark": ("\ufeff" + log_line(), (0, 1), {"loss": 0.5}),
    "offset": (
        'DLLL {"datetime": "2023-11-14 23:13:20.25+01:00", "type": "LOG", "step": [], "data": {}}',
        (),
        {},
    ),
    "data that are no dict": (log_line("[1, 2]", "null"), None, [1, 2]),
    "infinity": (log_line('{"a": Infinity, "b": -Infinity}'), (0, 1), {"a": 1e999, "b": -1e999}),
    "beyond 64 bits": (log_line(f'{{"n": {10**25}}}'), (0, 1), {"n": 10**25}),
    "step beyond 64 bits": (log_line(step=f"[0, {10**25}]"), (0, 10**25), {"loss": 0.5}),
    "lone surrogate": (log_line('{"a": "\\ud800"}'), (0, 1), {"a": "\ud800"}),
    "prefix within text": (
        log_line('{"text": "DLLL {\\"type\\": \\"LOG\\"} DLL 2020-01-01 00:00:00 - 1 a : 1"}'),
        (0, 1),
        {"text": 'DLLL {"type": "LOG"} DLL 2020-01-01 00:00:00 - 1 a : 1'},
    ),
    "TCAP": (tcap_line("{'loss': '4.5', 'rank': '-1'}"), (0, 1), {"loss": "4.5", "rank": "-1"}),
    "TCAP with quotes": (
        tcap_line(repr({"a": "it's", "b": 'say "x"', 3: None, "t": (1, 2), "n": [True, -1e-5]})),
        (0, 1),
        {"a": "it's", "b": 'say "x"', 3: None, "t": (1, 2), "n": [True, -1e-5]},
    ),
    "TCAP with inf": (tcap_line("{'a': inf, 'b': -inf}"), (0, 1), {"a": 1e999, "b": -1e999}),
    "TCAP, escapes that JSON reads otherwise": (
        tcap_line("{'a': 'it\\'s', 'b': '\\/', 'c': '\\ud83d\\ude00'}"),
        (0, 1),
        {"a": "it's", "b": "\\/", "c": "\ud83d\ude00"},
    ),
    "TCAP, many brackets": (
        tcap_line(repr({"a": [(None, {})] * 150})),
        (0, 1),
        {"a": [(None, {})] * 150},
    ),
    "TCAP, odd literals": (
        tcap_line("{'a': '\\101\\x41\\u0041\\d\\\n', 'b': (1), 'c': [1, ], 'd': b'\\xff', }"),
        (0, 1),
        {"a": "AAA\\d", "b": 1, "c": [1], "d": b"\xff"},
    ),
    "TCAP, data an object": (log_line(prefix="TCAPPDLL"), (0, 1), {"loss": 0.5}),
    "text": ("DLL 2023-11-14 22:13:20.25 - (0, 1) loss : 0.5 ", (0, 1), {"loss": 0.5}),
    "text, a list": ("DLL 2023-11-14 22:13:20.25 - [0, 1] loss : 5e-1 ", (0, 1), {"loss": 0.5}),
    "text, a word": ("DLL 2023-11-14 22:13:20.25 - event loss : nope ", "event", {"loss": "nope"}),
    "text, a number": ("DLL 2023-11-14 22:13:20.25 - 7 loss : None ", 7, {"loss": None}),
    "text, a float": ("DLL 2023-11-14 22:13:20.25 - 7.5 loss : True ", 7.5, {"loss": True}),
    "text, the run": ("DLL 2023-11-14 22:13:20.25 - () loss : 0.5 ", (), {"loss": 0.5}),
    "text, a summary": ("DLL 2023-11-14 22:13:20.25 - Summary:  loss : 1 ", (), {"loss": 1}),
    "text, no step": ("DLL 2023-11-14 22:13:20.25 -  loss : 1 ", (), {"loss": 1}),
    "text, labels": (
        "DLL 2023-11-14 22:13:20.25 - Training Epoch: 2/9 Training Iteration: 3  loss : 1 ",
        (2, 3),
        {"loss": 1},
    ),
    "text, an iteration": ("DLL 2023-11-14 22:13:20.25 - Iteration: 3  loss : 1 ", 3, {"loss": 1}),
    "text, a validation": (
        "DLL 2023-11-14 22:13:20.25 - Validation Iteration: 3  loss : 1 ",
        (None, None, 3),
        {"loss": 1},
    ),
    "text, values with blanks": (
        "DLL 2023-11-14 22:13:20.25 - PARAMETER arch : res net  shape : [3, 3]  steps: : 5  t : x ",
        "PARAMETER",
        {"arch": "res net", "shape": [3, 3], "steps:": 5, "t": "x"},
    ),
    "text, names with blanks": (
        "DLL 2023-11-14 22:13:20.25 - (1,) total time : 2  learning rate changed : 3 ",
        (1,),
        {"total time": 2, "learning rate changed": 3},
    ),
    "text, a step in brackets": (
        "DLL 2023-11-14 22:13:20.25 - (warm) loss : 0.5 ",
        "(warm)",
        {"loss": 0.5},
    ),
    "text, a number in brackets": (
        "DLL 2023-11-14 22:13:20.25 - (3) loss : 0.5 ",
        "(3)",
        {"loss": 0.5},
    ),
    "text, no parameters": ("DLL 2023-11-14 22:13:20.25 - PARAMETER ", "PARAMETER", {}),
    "text, no data": ("DLL 2023-11-14 22:13:20.25 - (0, 1) ", (0, 1), {}),
    "by hand": (
        "TCAPPDLL 2023-11-14 22:13:20.25 - Iteration: 0 rank: 3 train.loss: 0.5 lr: 1e-3",
        0,
        {"rank": 3, "train.loss": 0.5, "lr": 1e-3},
    ),
    "by hand, the rank alone": (
        "TCAPPDLL 2023-11-14 22:13:20.25 - Epoch: 1 Iteration: 2  rank: 3  train.loss : 0.5 ",
        (1, 2),
        {"rank": 3, "train.loss": 0.5},
    ),
    "by hand, the rank first": (
        "TCAPPDLL 2023-11-14 22:13:20.25 - rank : 3 Epoch: 1 Iteration: 2 train.loss : 0.5",
        (1, 2),
        {"rank": 3, "train.loss": 0.5},
    ),
    "by hand, a rank and no step": (
        "TCAPPDLL 2023-11-14 22:13:20.25 - rank: 0 loss: 0.5 ips: 10",
        None,
        {"rank": 0, "loss": 0.5, "ips": 10},
    ),
    "text, a dict": (
        "DLL 2023-11-14 22:13:20.25 - (0, 1) a : {'x': 1, 'y': (2, None)} b : 2 ",
        (0, 1),
        {"a": {"x": 1, "y": (2, None)}, "b": 2},
    ),
    "text, digits that Python alone reads": (
        "DLL 2023-11-14 22:13:20.25 - (0, 1) a : 1_0 b : \u0663 c : 1_0.5 d : {'x': 1_0}  e : 2 ",
        (0, 1),
        {"a": "1_0", "b": "\u0663", "c": "1_0.5", "d": "{'x': 1_0}", "e": 2},
    ),
    "text, a step of such digits": (
        "DLL 2023-11-14 22:13:20.25 - \u0661 a : 1 ",
        "\u0661",
        {"a": 1},
    ),
    "text, a step with an underscore": (
        "DLL 2023-11-14 22:13:20.25 - 1_0 a : 1 ",
        "1_0",
        {"a": 1},
    ),
    "text, a tuple of such digits": (
        "DLL 2023-11-14 22:13:20.25 - (\u0661,) a : 1 ",
        "(\u0661,)",
        {"a": 1},
    ),
    "text, a pair of such digits": (
        "DLL 2023-11-14 22:13:20.25 - (\u0661, \u0662) a : 1 ",
        "(\u0661,",
        {"\u0662) a": 1},
    ),
    "text, a label with such digits": (
        "DLL 2023-11-14 22:13:20.25 - Epoch: \u0661  a : 1 ",
        "Epoch:",
        {"\u0661  a": 1},
    ),
    "TCAP, digits that Python alone reads": (
        tcap_line("{'a': '1_0', 'b': '\u0663'}"),
        (0, 1),
        {"a": "1_0", "b": "\u0663"},
    ),
    "MMEngine, digits that Python alone reads": (
        f"{MMENGINE_HEAD}Iter(train) [10/60]  loss: \u0663  lr: 1_0  time: 0.1",
        10,
        {"loss": "\u0663", "lr": "1_0", "time": 0.1},
    ),
    "MMEngine, aligned": (
        (
            f"{MMENGINE_HEAD}Epoch(train)  [ 9][010/270]  lr: 1.0e-02 base_lr: 2.0e-02  "
            "eta: 1 day, 0:00:09  time: 0.5  memory: 99  Kitti metric/AP easy: 0.25"
        ),
        (9, 10),
        {
            "lr": 1e-2,
            "base_lr": 2e-2,
            "eta": 86409,
            "time": 0.5,
            "memory": 99,
            "Kitti metric/AP easy": 0.25,
        },
    ),
    "MMEngine, in colour": (
        MMENGINE_HEAD.replace("INFO", "\x1b[4m\x1b[97mINFO\x1b[0m")
        + "Epoch(val) [1][5/5]    accuracy/top1: nan  data_time: 0.1  time: 0.1",
        (1,),
        {"accuracy/top1": float("nan"), "data_time": 0.1, "time": 0.1},
    ),
    "MMEngine, progress of a test": (
        f"{MMENGINE_HEAD}Epoch(test) [ 5/10]    eta: 0:00:01  time: 0.1  ",
        (None, None, 5),
        {"eta": 1, "time": 0.1},
    ),
    "MMEngine, a loader of unknown length": (
        f"{MMENGINE_HEAD}Epoch(train) [2][10/?]    data_time: 0.1  loss: 0.5",
        (2, 10),
        {"data_time": 0.1, "loss": 0.5},
    ),
    "MMEngine, results after such a loader": (
        f"{MMENGINE_HEAD}Epoch(val) [2][?/?]    acc: 0.5",
        (2,),
        {"acc": 0.5},
    ),
    "MMEngine, a test": (
        f"{MMENGINE_HEAD}Iter(test) [10/10]    acc: 0.5  time: 0.1",
        (),
        {"acc": 0.5, "time": 0.1},
    ),
    "MMEngine, progress at the end": (
        f"{MMENGINE_HEAD}Epoch(val) [2][10/10]    eta: 0:00:00  time: 0.1  data_time: 0.1  ",
        (2, None, 10),
        {"eta": 0, "time": 0.1, "data_time": 0.1},
    ),
    "MMEngine, progress without times": (
        f"{MMENGINE_HEAD}Epoch(val) [2][ 5/10]    ",
        (2, None, 5),
        {},
    ),
    "MMEngine, a validation without training": (
        f"{MMENGINE_HEAD}Epoch(val) [2][ 5/10]    eta: soon  time: 0.1  ",
        (2, None, 5),
        {"eta": "soon", "time": 0.1},
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_is_read(name):
    """One record comes of each, with its step, its data and its time."""
    line, step, data = LINES[name]
    record = read_one(line)
    assert repr((step, data)) == repr((record.step, record.data))  # repr: NaN, and types
    assert 1700000000 == record.time_us // 10**6
    assert record.time_us % 10**6 == (0 if record.log_format == MMENGINE_TEXT else 250_000)


def test_data_are_never_evaluated(tmp_path):
    """What is no literal is not read, whatever it would do."""
    evil = f"__import__('pathlib').Path({str(tmp_path / 'hacked')!r}).touch()"
    for data in (evil, f"{{'a': {evil}}}", "{'a': tensor(0.5)}", "{'a'}", "[1]", "{'a': 1", "{}x"):
        entries, context = read(tcap_line(data))
        assert ([], {"unreadable_data": 1}) == (entries, context.skipped)
    assert not (tmp_path / "hacked").exists()


def test_units_of_text_are_metadata_when_they_are_new():
    """A unit is said once, and again when it is another; None is no unit."""
    line = "DLL 2023-11-14 22:13:20 - (0, 1) a : 1 {} b : 2 None c : 3 img/s"
    entries, context = read([line.format("s"), line.format("s"), line.format("ms")])
    found = [(e.metric, e.metadata["unit"]) for e in entries if isinstance(e, Metadata)]
    assert [("a", "s"), ("c", "img/s"), ("a", "ms")] == found
    assert {"a": 1, "b": 2, "c": 3} == entries[-1].data
    assert {"a": "ms", "c": "img/s"} == context.units


def test_units_are_remembered_for_so_many_metrics(monkeypatch):
    """Names by the million fill no memory; those that are known go on."""
    monkeypatch.setattr("otel_dllogger.logs.parsers.text_lines.MAX_UNITS", 1)
    line = "DLL 2023-11-14 22:13:20 - (0, 1) a : 1 {} b : 2 s"
    entries, context = read([line.format("s"), line.format("ms")])
    assert [{"unit": "s"}, {"unit": "ms"}] == [
        entry.metadata for entry in entries if isinstance(entry, Metadata)
    ]
    assert {"a": "ms"} == context.units


def test_values_that_are_text_have_units_as_well():
    """Before a name and one word of unit, everything is the value."""
    pairs = "a : some words s b : none c : [1 2] d : (x) m e : {"
    *metadata, record = read(f"DLL 2023-11-14 22:13:20.25 - PARAMETER {pairs}")[0]
    assert {"a": "some words", "b": "none", "c": "[1 2]", "d": "(x)", "e": "{"} == record.data
    assert {"a": "s", "d": "m"} == {entry.metric: entry.metadata["unit"] for entry in metadata}


def test_text_without_metrics_is_info():
    """What ``info`` prints has no pairs, or is a dict."""
    head = "TCAPPDLL 2024-08-29 06:21:57.5 - "
    entries, _ = read([head + "start training ...", head + "{'lr': 0.2}", head + "epoch done: 5 s"])
    assert ["start training ...", {"lr": 0.2}, "epoch done: 5 s"] == [e.data for e in entries]
    assert [Info] * 3 == [type(entry) for entry in entries]


TEXT = "TCAPPDLL 2025-05-15 14:20:10.93 - Epoch: 0 Iteration: 7  rank : 2  loss : 0.5 s"
MMENGINE = f"{MMENGINE_HEAD}Iter(train) [10/60]  loss: 0.5"


@pytest.mark.parametrize(
    ("line", "records", "skipped"),
    [
        (log_line() + log_line(), 2, {}),
        (log_line() + TEXT + tcap_line("{'a': '1'}") + TEXT + MMENGINE + log_line(), 6, {}),
        ("[GPU0] epoch" + log_line() + "[GPU1] epoch", 1, {"noise": 1}),
        ("Epoch 0 | Steps: 16" + TEXT + "[GPU1] Epoch 0 | Steps: 16", 1, {"noise": 2}),
        (TEXT.removesuffix(" s") + "[GPU1] Epoch 0 | Steps: 16", 1, {"noise": 1}),
        (log_line()[:30] + log_line(), 1, {"torn": 1}),
        (log_line()[:-1] + log_line(), 1, {"torn": 1}),
        (log_line()[:30] + "\0" * 9 + log_line(), 1, {"torn": 1}),
        ("\0" * 4096 + log_line(), 1, {"nul_bytes": 1}),
        (TEXT.removesuffix(" s") + "  lr" + log_line(), 2, {"torn": 1}),
        (TEXT + " lr" + log_line(), 2, {"noise": 1}),
        (MMENGINE + log_line()[:30], 1, {"torn": 1}),
        ("06/19 01:37:36 - mmengine - INFO - Exp name" + TEXT, 1, {"noise": 1}),
        (log_line('{"text": "see DLL 2020-01-01 00:00:00 - 1 a : 1')[:-1], 0, {"torn": 1}),
        (log_line('{"text": "see DLLL {')[:-1], 0, {"torn": 2}),
        ('{"text": "DLLL {\\"type\\": \\"LOG\\"}"}', 0, {"not_a_record": 1}),
        ('"text": "DLLL {"', 0, {"not_a_record": 1}),
        (log_line()[:-1] + ', "x": DLLL {}', 0, {"torn": 1, "unknown_type": 1}),
        # Brackets and quotes within strings end nothing.
        (log_line('{"t": "} ] {"}') + log_line(), 2, {}),
        (log_line('{"t": "\\"}"}') + log_line(), 2, {}),
        (log_line('{"t": "\\\\"}') + log_line(), 2, {}),
        (log_line('{"t": "\\\\\\"]"}') + log_line(), 2, {}),
        # Text within a string that breaks off is not a record; behind one it is.
        ('DLLL {"a": "x ' + TEXT, 0, {"torn": 1}),
        ('DLLL {"a": "x \\" ' + TEXT, 0, {"torn": 1}),
        ('DLLL {"a": "\\"\\" ' + TEXT, 0, {"torn": 1}),
        ('DLLL {"a": 1, ' + TEXT, 1, {"torn": 1}),
        ('DLLL {"a": "b \\"c\\"", ' + TEXT, 1, {"torn": 1}),
        ('DLLL {"a": "x ' + TEXT + '" ' + TEXT, 1, {"torn": 1}),
        # What stands before an object is a marker only if it is spelt as one.
        (log_line(prefix="xxxx"), 0, {"not_a_record": 1}),
        (log_line(prefix="xxxxxxxx"), 0, {"not_a_record": 1}),
        (log_line(prefix="TCAPPDL"), 0, {"not_a_record": 1}),
        (log_line(prefix="info"), 0, {"not_a_record": 1}),
        (log_line(prefix="dlll"), 0, {"not_a_record": 1}),
    ],
)
def test_glued_records_are_separated(line, records, skipped):
    """Every whole record of a line is given; what is torn or noise is counted."""
    entries, context = read(line, modified_us=utc_us(2025, 7, 1))
    assert records == sum(isinstance(entry, FileRecord) for entry in entries)
    assert skipped == context.skipped
    assert sum(skipped.values()) == context.skips
    is_glued = records + skipped.get("torn", 0) + skipped.get("unknown_type", 0) > 1
    assert is_glued == context.glued


# Bad lines, and the reason they are counted by.
BAD = [
    (b"", "blank"),
    (b" \t\r\n", "blank"),
    (b"Traceback (most recent call last):", "not_a_record"),
    (b'{"loss": 1}', "not_a_record"),
    (b'{"step": "1"}', "not_a_record"),
    (b'{"type": "LOG", "step": 1, "data": {}}', "not_a_record"),
    (b'INFO {"a": 1}', "unknown_type"),
    (b'DLLL {"type": "LOG", "st', "torn"),
    (b"DLLL {", "torn"),
    (b"DLLL ", "torn"),
    (b"TCAPPDLL 2025-06-19 01:3", "torn"),
    (b"DLL 2025-06-19 01:37:38.9", "torn"),
    (b"DLL 2025-06-19 01:37:38.9 - ", "torn"),
    (b'{"lr": 0.01, "data_ti', "torn"),
    (b"2026/11/20 21:47:21 - mmengine - INFO - Epoch(train) [2][10", "torn"),
    (b'DLLL {"a": tru, "b": 1}', "malformed"),
    (b'DLLL {"type": "PICTURE"}', "unknown_type"),
    (b'DLLL {"type": "LOG", "step": 1}', "missing_fields"),
    (b'DLLL {"type": "METADATA", "metric": "a"}', "missing_fields"),
    (b'DLLL {"type": "INFO"}', "missing_fields"),
    (b'DLLL {"type": "LOG", "step": 1, "data": {}}', "no_time"),
    (log_line().replace("1700000000.25", "NaN").encode(), "no_time"),
    (log_line().replace("1700000000.25", "1e300").encode(), "no_time"),
    (b"DLL 2025-02-30 01:37:38 - (0, 1) a : 1 ", "no_time"),
    (b"DLL 0001-01-01 00:00:00 - (0, 1) a : 1 ", "no_time"),
    (log_line().replace('"1700000000.25"', '"x", "datetime": "today"').encode(), "no_time"),
    (b"02/30 21:47:21 - mmengine - INFO - Iter(train) [2/10]  loss: 1", "no_time"),
    (tcap_line("{'a': tensor(1)}").encode(), "unreadable_data"),
    (tcap_line("{'a': 1_0}").encode(), "unreadable_data"),
    (tcap_line("{'a': \u0663}").encode(), "unreadable_data"),
    (tcap_line("{'a': '\\U00110000'}").encode(), "unreadable_data"),
    (tcap_line("{[]: 1}").encode(), "unreadable_data"),
    (tcap_line("{'a': ]}").encode(), "unreadable_data"),
    (tcap_line("{'a': (1]}").encode(), "unreadable_data"),
    (tcap_line("{'a': None} b").encode(), "unreadable_data"),
    (tcap_line("{'a': 1, None}").encode(), "unreadable_data"),
    (tcap_line("{'a': {1, 2: None}}").encode(), "unreadable_data"),
    (tcap_line("{'a': 1: None}").encode(), "unreadable_data"),
    (tcap_line("{'a': [1: None]}").encode(), "unreadable_data"),
    (tcap_line("{'a': (,)}").encode(), "unreadable_data"),
    (tcap_line("{'a': 'b' 'c', 1: None}").encode(), "unreadable_data"),
    # What overflows the stack of Python 3.10's own parser.
    (tcap_line("()" * 300_000).encode(), "unreadable_data"),
    (tcap_line("1" + "-1" * 300_000).encode(), "unreadable_data"),
    (log_line('{"a": "\0"}').encode(), "nul_bytes"),
    (b"\0" * 512, "nul_bytes"),
    (TEXT.encode() + b"\0", "nul_bytes"),
    (log_line('{"a": "?"}').encode().replace(b"?", b"\xff"), "invalid_utf8"),
    (TEXT.encode().replace(b"loss", b"lo\xe9s"), "invalid_utf8"),
    (b"DLLL " + b'{"a":' * 100_000, "nested_too_deep"),
    (log_line("[" * 100_000 + "]" * 100_000).encode(), "nested_too_deep"),
    (log_line('{"a": ' + "[" * 101 + "]" * 101 + "}").encode(), "nested_too_deep"),
    (b'{"step": ' * 100_000, "nested_too_deep"),
    (tcap_line("(" * 100_000).encode(), "nested_too_deep"),
    (tcap_line("{'a': " + "(" * 150 + "1," + ",)" * 150 + "}").encode(), "nested_too_deep"),
    (tcap_line("{'a': " * 500 + "1" + "}" * 500).encode(), "nested_too_deep"),
    (log_line(f'{{"a": {"1" * 5_000}}}').encode(), "number_too_long"),
    (tcap_line("{'a': " + "1" * 5_000 + "}").encode(), "number_too_long"),
    (log_line('{"a": "' + "x" * MAX_LINE_BYTES + '"}').encode(), "line_too_long"),
    (b"DLLL {" * 1000, "nested_too_deep"),
    (b"DLLL {[" * 20, "torn"),
]


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[line[:24] for line, _ in BAD])
def test_a_bad_line_is_counted_by_its_reason(line, reason):
    """Nothing is given and nothing raises; a good line before and after is not lost."""
    entries, context = read([log_line(), line, log_line()])
    assert [(0, 1)] * 2 == [entry.step for entry in entries]
    assert {reason} == set(context.skipped)
    assert reason in REASONS[LINE]


def test_what_a_reason_leaves_open_is_said():
    """A report names the type and the field; the next reason has a detail of its own."""
    context = FileContext()
    said = []
    for line in (log_line().replace("LOG", "PICTURE"), log_line().replace("data", "date"), "", "x"):
        parse_line(line.encode(), context)
        said.append(context.detail)
    assert ["unknown type 'PICTURE'", "a LOG line without data", "", ""] == said


def test_every_reason_has_a_line_and_the_harmless_ones_lose_nothing():
    """The table above is whole."""
    assert {*REASONS[LINE]} == {reason for _, reason in BAD} | {"noise"}
    assert {"blank", "not_a_record", "noise"} == HARMLESS


MIX = """
import itertools, json, pathlib, re, sys
from tests.unit.test_parsers import BAD, TEXT, log_line, tcap_line
from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line

good = [log_line().encode(), tcap_line("{'a': '1'}").encode(), TEXT.encode()]
small = [(line, reason) for line, reason in BAD if len(line) < 2_000]
large = [(line, reason) for line, reason in BAD if len(line) >= 2_000]
large.append((b"DLLL {" + b'"a": 1, ' * 1_250_000, "line_too_long"))
hostile = [b"DLLL {" * 150_000, b'DLLL {"' * 140_000, b'DLL 2020-01-01 00:00:00 "' * 40_000,
           b'DLLL {"' + b'DLL 2020-01-01 00:00:00 ' * 40_000, b'"' * 1_000_000, b"DLLL " * 200_000,
           b"{}" * 500_000, b'TCAPPDLL {"' + b"\\\\" * 500_000, b'DLLL {"a": ' + b"[],[" * 200_000]
context = FileContext(zone="UTC")
lines = delivered = 0
pairs = zip(itertools.cycle(small), itertools.cycle(good))
for (bad, reason), line in itertools.islice(pairs, 100_000):
    for each in (bad, line):
        lines += 1
        delivered += sum(hasattr(entry, "step") for entry in parse_line(each, context))
skipped = context.skips
for bad, reason in large * 5:
    before = context.skipped.get(reason, 0)
    parse_line(bad, context)
    assert context.skipped.get(reason, 0) > before, reason
for line in hostile:
    before = context.skips
    parse_line(line, context)
    assert context.skips > before, line[:30]
# Not ru_maxrss: a process inherits that of the one that started it, pytest's own.
status = pathlib.Path("/proc/self/status").read_text()
peak_kib = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
print(json.dumps([lines, delivered, skipped >= 100_000, peak_kib]))
"""


@pytest.mark.newest_only
def test_a_mix_of_200_000_good_and_bad_lines_is_read_in_bounded_memory():
    """Each good line is given, each bad one counted, in less than 256 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MIX], cwd=ROOT, capture_output=True, check=True, text=True
    )
    lines, delivered, all_counted, peak_kib = json.loads(done.stdout)
    assert (200_000, 100_000, True) == (lines, delivered, all_counted)
    assert peak_kib < 256 * 1024


def test_limits_of_the_process_are_no_error():
    """A caller deep in the stack, and a lower limit of digits than Python's own, or none."""
    nested = [
        log_line('{"a": NaN, "b": ' + "[" * 90 + "]" * 90 + "}"),
        tcap_line("{'a': " + "(" * 90 + "1," + ",)" * 90 + "}"),
        tcap_line("{'a': " + "(" * 90 + ")" * 90 + "}"),
    ]
    long = [log_line(f'{{"a": NaN, "b": {"1" * 700}}}'), tcap_line(f"{{'a': {'1' * 700}}}")]
    limits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(640)
        assert {"number_too_long": 2} == read(long)[1].skipped
        sys.set_int_max_str_digits(0)
        longer = [line.replace("1" * 700, "1" * 5_000) for line in long]
        assert {"number_too_long": 2} == read(longer)[1].skipped
        sys.setrecursionlimit(len(inspect.stack(0)) + 60)
        entries, context = read(nested)
    finally:
        sys.setrecursionlimit(limits[0])
        sys.set_int_max_str_digits(limits[1])
    assert 3 == len(entries) + context.skips
    assert context.skipped["nested_too_deep"] >= 1


def test_lines_of_the_cap_are_read_and_longer_ones_not():
    """The cap counts the line's bytes."""
    line = log_line('{"a": "?"}')
    line = line.replace("?", "x" * (MAX_LINE_BYTES - len(line) + 1))
    assert MAX_LINE_BYTES == len(line)
    assert (0, 1) == read_one(line).step
    assert {"line_too_long": 1} == read(line.replace("x", "xx", 1))[1].skipped


@pytest.mark.parametrize(
    ("zone", "local", "utc"),
    [
        ("Europe/Berlin", "2024-07-01 12:00:00", (2024, 7, 1, 10)),
        ("Europe/Berlin", "2024-01-01 12:00:00", (2024, 1, 1, 11)),
        ("+05:30", "2024-01-01 12:00:00", (2024, 1, 1, 6, 30)),
        ("-0800", "2024-01-01 12:00:00", (2024, 1, 1, 20)),
        ("Z", "2024-01-01 12:00:00", (2024, 1, 1, 12)),
        # Clocks go forward at 02:00, and 02:30 is by the clock that was not set: 03:30.
        ("Europe/Berlin", "2024-03-31 02:30:00", (2024, 3, 31, 1, 30)),
        # Clocks go back at 03:00: the first pass.
        ("Europe/Berlin", "2024-10-27 02:30:00", (2024, 10, 27, 0, 30)),
    ],
)
def test_times_are_those_of_the_zone_given(zone, local, utc):
    """A text line's time is read in the zone, summer time and all."""
    assert utc_us(*utc) == read_one(f"DLL {local} - (0, 1) a : 1 ", zone=zone).time_us


def test_an_hour_that_comes_twice_is_told_by_the_line_before():
    """Logs go forward: what would go back by more than a minute is the second pass."""
    clocks = ["02:58:00", "02:59:59", "02:59:30", "02:00:01", "02:00:00", "02:30:00", "02:59:59"]
    lines = [f"DLL 2024-10-27 {clock} - (0, 1) a : 1 " for clock in clocks]
    times = [entry.time_us for entry in read(lines, zone="Europe/Berlin")[0]]
    expected = [(0, 58), (0, 59, 59), (0, 59, 30), (1, 0, 1), (1, 0), (1, 30), (1, 59, 59)]
    assert [utc_us(2024, 10, 27, *clock) for clock in expected] == times
    # JSON lines, which say when they were, tell it as well.
    log = log_line().replace("1700000000.25", "1729992600.0")  # 01:30 UTC
    info = 'INFO {"datetime": "2024-10-27 02:30:01", "type": "INFO", "data": 1}'
    assert utc_us(2024, 10, 27, 1, 30, 1) == (read([log, info], zone="Europe/Berlin")[0][1].time_us)
    # Another run's lines, a day earlier than those before, are of the first pass.
    lines = [
        "DLL 2024-11-28 00:00:00 - (0, 1) a : 1 ",
        "DLL 2024-10-27 02:30:00 - (0, 1) a : 1 ",
    ]
    assert utc_us(2024, 10, 27, 0, 30) == read(lines, zone="Europe/Berlin")[0][1].time_us


def test_times_are_the_machines_where_no_zone_is_given(monkeypatch):
    """The machine's zone is the default."""
    line = "DLL 2024-07-01 12:00:00 - (0, 1) a : 1 "
    try:
        for zone in ("America/New_York", "Asia/Tokyo"):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            expected = datetime(2024, 7, 1, 12, tzinfo=ZoneInfo(zone)).timestamp() * 1e6
            assert expected == read_one(line, zone=None).time_us
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("zone", ["Mars/Base", "", "../etc/passwd", "+25:00", "Europe"])
def test_a_zone_that_is_none_is_refused(zone):
    """The message says what to pass."""
    with pytest.raises(ConfigurationError, match="pass a name of the IANA database"):
        FileContext(zone=zone)


@pytest.mark.parametrize(
    ("date", "changed", "year"),
    [
        ("08/21 02:58:41", (2023, 9, 1), 2023),
        ("08/21 02:58:41", (2023, 8, 21, 2, 58, 42), 2023),
        ("08/21 02:58:41", (2023, 8, 20), 2022),
        ("12/31 23:59:59", (2024, 1, 1, 0, 0, 1), 2023),
        ("01/01 00:00:00", (2024, 1, 1, 0, 0, 1), 2024),
        ("02/29 12:00:00", (2023, 8, 20), 2020),
        ("02/29 12:00:00", (1903, 8, 20), None),  # before the epoch
        ("02/29 12:00:00", (2103, 8, 20), 2096),  # 2100 is no leap year
    ],
)
def test_a_missing_year_is_the_latest_that_is_not_in_the_future(date, changed, year):
    """The year is the file's last change's, or one before."""
    line = f"{date} - mmengine - INFO - Iter(train) [10/60]  loss: 0.5"
    entries, context = read(line, modified_us=utc_us(*changed))
    found = [datetime.fromtimestamp(e.time_us / 1e6, timezone.utc) for e in entries]
    assert ([] if year is None else [year]) == [when.year for when in found]
    assert all(f"{when:%m/%d %H:%M:%S}" == date for when in found)
    assert bool(context.skipped) is (year is None)


def test_a_file_servers_slow_clock_does_not_cost_a_year():
    """A line up to five minutes after the file's change is of the change itself."""
    changed_us = utc_us(2023, 8, 21, 2, 55)
    line = "08/21 02:58:41 - mmengine - INFO - Iter(train) [10/60]  loss: 0.5"
    assert changed_us == read_one(line, modified_us=changed_us).time_us
    new_year_us = utc_us(2023, 12, 31, 23, 59)
    assert new_year_us == (
        read_one(line.replace("08/21 02:58", "01/01 00:00"), modified_us=new_year_us).time_us
    )
    line = line.replace("02:58", "03:58")
    assert utc_us(2022, 8, 21, 3, 58, 41) == read_one(line, modified_us=changed_us).time_us


def test_a_missing_year_is_this_one_where_no_change_is_known():
    """Without a reference it is the present."""
    line = time.strftime("%m/%d %H:%M:%S - mmengine - INFO - Iter(val) [1/1]  a: 1", time.gmtime())
    assert abs(read_one(line).time_us / 1e6 - time.time()) < 60


def rows(*steps):
    return [json.dumps({"loss": 0.5, "iter": step, "step": step}) + "\n" for step in steps]


def test_times_of_scalars_go_evenly_from_the_start_to_the_last_change():
    """Rows of one length are one distance apart; the last is at the change; all are marked."""
    lines = rows(10, 20, 30, 40)
    size = sum(map(len, lines))
    entries, _ = read(lines, run_start_us=10**15, modified_us=10**15 + 800, size_bytes=size)
    assert [10**15 + add for add in (200, 400, 600, 800)] == [e.time_us for e in entries]
    assert [200, 400, 600, 800] == [e.elapsed_us for e in entries]
    assert all(entry.interpolated for entry in entries)
    assert not read_one(log_line()).interpolated


def test_times_of_scalars_go_on_where_the_file_grew():
    """What is added lies between the last row's time and the new change, after a restart too."""
    lines = rows(10, 20, 30, 40)
    size = len(lines[0])
    context = FileContext(run_start_us=10**15, modified_us=10**15 + 400, size_bytes=2 * size)
    times = [parse_line(line.encode(), context)[0].time_us for line in lines[:2]]
    context = FileContext(**json.loads(json.dumps(dataclasses.asdict(context))))
    context.observe(size_bytes=4 * size, modified_us=10**15 + 1400)
    times += [parse_line(line.encode(), context)[0].time_us for line in lines[2:]]
    assert [10**15 + add for add in (200, 400, 900, 1400)] == times


def test_the_state_of_a_file_may_be_told_before_the_first_row():
    """A tailer notes it before every read."""
    lines = rows(10, 20)
    context = FileContext(run_start_us=10**15)
    context.observe(size_bytes=len(lines[0]), modified_us=10**15 + 600)
    assert 10**15 + 600 == parse_line(lines[0].encode(), context)[0].time_us
    context.observe(size_bytes=2 * len(lines[0]), modified_us=10**15 + 700)
    assert 10**15 + 700 == parse_line(lines[1].encode(), context)[0].time_us


def test_times_of_scalars_never_leave_the_file():
    """Without a start, with one after the change, beyond the length: it is the change."""
    changed_us = 10**15
    for options in ({}, {"run_start_us": 2 * 10**15, "size_bytes": 900}, {"run_start_us": 9}):
        entries, _ = read(rows(1, 2), modified_us=changed_us, **options)
        assert [changed_us] * 2 == [entry.time_us for entry in entries]
    before_us = time.time_ns() // 1000
    assert before_us <= read_one(rows(1)).time_us <= time.time_ns() // 1000


def test_a_validation_of_a_run_by_iterations_is_at_its_iteration():
    """Its ``step`` is 0 or the iteration, as ``log_metric_by_epoch`` has it."""
    for step in (0, 20):
        entries, _ = read([*rows(20), json.dumps({"acc": 0.5, "step": step})])
        assert (0, 20, None) == entries[1].step
        assert ("val", {"acc": 0.5}) == (entries[1].stage, entries[1].data)
    assert (7,) == read_one('{"acc": 0.5, "step": 7}').step


def test_glued_and_damaged_rows_of_scalars():
    """Rows on one line are separated, what follows them is counted."""
    row = rows(1)[0].strip()
    entries, context = read([row + row, row + '{"a"', row + " oh", row + "\0", row + "{}"])
    assert [1] * 6 == [entry.step for entry in entries]
    assert {"torn": 1, "noise": 1, "nul_bytes": 1, "not_a_record": 1} == context.skipped


def test_a_diverged_row_of_scalars_is_read():
    """NaN is a bare token there as well."""
    assert "nan" == str(read_one('{"loss": NaN, "iter": 1, "step": 1}').data["loss"])


@pytest.mark.parametrize(
    ("data", "rank"),
    [
        ({"rank": "1_0"}, 7),
        ({"rank": "\u0663"}, 7),
        ({"rank": 3}, 3),
        ({"rank": "3"}, 3),
        ({"rank": -1}, 0),
        ({"rank": 1.5}, 7),
        ({"rank": "one"}, 7),
        ({"loss": 1}, 7),
        ([], 7),
    ],
)
def test_the_rank_is_the_records_or_the_files(data, rank):
    """As in the store: -1 is 0, and what is no whole number is the file's."""
    assert rank == read_one(log_line(json.dumps(data)), rank=7).rank
    if isinstance(data, dict):
        assert rank == read_one(tcap_line(repr(data)), rank=7).rank


def test_the_stage_of_a_summary_is_left_to_its_names():
    """Epochs, runs and parameters hold metrics of all stages."""
    stages = [read_one(log_line(step=step)).stage for step in ("[1]", "[]", '"PARAMETER"', "3")]
    assert [None, None, None, "train"] == stages


def test_numbers_are_converted_no_further():
    """A record of finite numbers passes as it is; text and NaN are converted when asked for."""
    assert read_one(log_line()).numbers_only
    for data in ('{"a": NaN}', '{"a": "1"}', '{"a": null}', "[1]", '{"a": 1e308, "b": 1e308}'):
        record = read_one(log_line(data))
        assert not record.numbers_only
        assert set(record.numbers) <= {"a", "b"}
    assert {"loss": 4.5} == read_one(tcap_line("{'loss': '4.5'}")).numbers


def test_a_context_goes_through_a_checkpoint():
    """All of it is JSON, and a file read in two parts gives what it gives in one."""
    for name in SAMPLES:
        lines = (DATA / name).read_bytes().splitlines(keepends=True)
        whole, end = read_sample(name, run_start_us=START_US, modified_us=END_US)
        context = dataclasses.replace(
            FileContext(zone="UTC", run_start_us=START_US, modified_us=END_US),
            size_bytes=end.size_bytes,
        )
        parts = []
        for number, line in enumerate(lines):
            if number == len(lines) // 2:
                context = FileContext(**json.loads(json.dumps(dataclasses.asdict(context))))
                context = pickle.loads(pickle.dumps(context))
            parts += parse_line(line, context)
        assert end == context
        assert [(e.time_us, e.elapsed_us) for e in whole] == [
            (e.time_us, e.elapsed_us) for e in parts
        ]
        assert [getattr(e, "step", e) for e in whole] == [getattr(e, "step", e) for e in parts]


def test_entries_are_counted_by_format():
    """A report on a file says who wrote it; INFO lines are several writers'."""
    info = 'INFO {"datetime": "2024-08-29 06:21:57.3", "type": "INFO", "data": 1}'
    _, context = read([log_line(), log_line(), tcap_line("{}"), TEXT, MMENGINE, *rows(1), info])
    counts = dict.fromkeys((TCAP_JSON, TCAP_TEXT, MMENGINE_TEXT, MMENGINE_SCALARS, ""), 1)
    assert {DLLOGGER_JSON: 2, **counts} == context.entries


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("train.loss", {"GOAL": "MINIMIZE"}),
        ("loss_cls", {"GOAL": "MINIMIZE"}),
        ("logLoss2", {"GOAL": "MINIMIZE"}),
        ("losses", {"GOAL": "MINIMIZE"}),
        ("dynamic_loss_scale", {}),
        ("loss_weight", {}),
        ("lossless", {}),
        ("train.compute_ips", {"unit": "items/s", "GOAL": "MAXIMIZE"}),
        ("IPS", {"unit": "items/s", "GOAL": "MAXIMIZE"}),
        ("decoder_throughput_total", {"unit": "items/s", "GOAL": "MAXIMIZE"}),
        ("clips", {}),
        ("time", {}),
        ("lr", {}),
    ],
)
def test_names_say_what_files_do_not(name, metadata):
    """Losses are minimized, throughputs maximized and per second, elsewhere nothing is known."""
    assert metadata == conventional_metadata(name, DLLOGGER_JSON)
    assert metadata == conventional_metadata(name, TCAP_TEXT, "train")


def test_conventions_of_mmengine_name_seconds_memory_and_stage():
    """Its names have neither unit nor stage: the first is in its source, the other in a line."""
    for log_format in (MMENGINE_TEXT, MMENGINE_SCALARS):
        for name, unit in {"time": "s", "train/data_time": "s", "eta": "s", "memory": "By"}.items():
            found = conventional_metadata(name, log_format, "train")
            assert "TRAIN" == found["STAGE"]
            assert parse_metadata(found).unit == ("MiBy" if unit == "By" else unit)
    record = read_one(MMENGINE.replace("train", "val").replace("[10", "[60"))
    found = conventional_metadata("loss", record.log_format, record.stage)
    mapped = map_metric("loss", parse_metadata(found))
    assert ("dl_loss", "val", "minimize") == (mapped.prometheus_name, mapped.stage, mapped.goal)


def test_a_files_metadata_go_over_conventions():
    """An explicit NONE holds; what the file leaves out is filled in."""
    usual = conventional_metadata("train.loss", TCAP_JSON)
    assert MetricMetadata("", None, "train") == parse_metadata(
        {**usual, "unit": "", "GOAL": "NONE", "STAGE": "TRAIN"}
    )
    usual = conventional_metadata("train.compute_ips", DLLOGGER_JSON)
    assert MetricMetadata("{image}/s", "maximize") == parse_metadata({**usual, "unit": "img/s"})
    assert "dl_compute_ips_per_second" == (
        map_metric("train.compute_ips", parse_metadata(usual)).prometheus_name
    )


def test_a_line_is_never_longer_to_read_than_its_length_allows():
    """Damage that makes the reader begin anew costs no more than a few looks at the line."""
    for line in (b'DLLL {"' * 100_000, b'DLLL {"' + b"DLL 2020-01-01 00:00:00 " * 40_000):
        start_s = time.process_time()
        read(line)
        assert time.process_time() - start_s < 5.0


def test_importing_the_parsers_loads_none_of_the_metrics():
    """They stand below the logger: neither OpenTelemetry nor a backend comes with them."""
    code = (
        "import sys; import otel_dllogger.record; before = set(sys.modules);"
        "import otel_dllogger.logs.parsers.detect;"
        "print([m for m in set(sys.modules) - before if m.startswith(('opentelemetry', 'otel_d'))])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, env=environment
    )
    assert done.stdout.count("otel_dllogger.logs") == done.stdout.count("'") // 2

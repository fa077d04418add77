"""Lines of other people's logs: the samples record by record, and one line of each kind."""

from __future__ import annotations

from collections import Counter

import pytest

from otel_dllogger.logs.parsers.formats import (
    MMENGINE_TEXT,
    FileRecord,
)
from otel_dllogger.record import Info, Metadata, step_position
from tests.support.parsers import (
    END_US,
    MMENGINE,
    MMENGINE_HEAD,
    SAMPLES,
    START_US,
    TEXT,
    log_line,
    read,
    read_one,
    read_sample,
    tcap_line,
    utc_us,
)

pytestmark = pytest.mark.newest_only

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
        (0, (1, 10), "train", START_US + 26_787, ("loss", 1.829399287700653)),
        (0, (3,), "val", START_US + 49_671, ("acc", 0.10122013419866562)),
    ),
    "mmengine_iter/vis_data/scalars.json": (
        (0, 10, "train", START_US + 7_426, ("loss", 2.011903041601181)),
        (0, (0, 60, None), "val", START_US + 4_030_491, ("acc", 0.06062124788761139)),
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
    "step as text": (log_line(step='"(0, 1)"'), (0, 1), {"loss": 0.5}),
    "step as text, a list": (log_line(step='"[2]"'), (2,), {"loss": 0.5}),
    "step as text, no tuple": (log_line(step='"(a"'), "(a", {"loss": 0.5}),
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
        (9, 2170),
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

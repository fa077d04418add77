"""What launchers, containers and terminals put around a line, and the ranks that it tells."""

from __future__ import annotations

import json

import pytest

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.reader import FileReader
from otel_dllogger.logs.run_identity import RunIdentity
from otel_dllogger.record import Info, Metadata
from tests.support.parsers import log_line, tcap_line

TEXT = "DLL 2023-11-14 22:13:20.250000 - (0, 1) loss : 0.5 "
MMENGINE = "2023/06/23 10:00:00 - mmengine - INFO - Epoch(train) [1][1/9]  lr: 0.1  loss: 0.5"
RECORDS = {"JSON": log_line(), "TCAP": tcap_line("{'loss': 0.5}"), "text": TEXT, "MM": MMENGINE}

TAGS = {
    "[1,3]<stdout>:": 3,
    "[1,3]<stderr>:": 3,
    "[1,3]<stdout>: ": 3,
    "[prterun-node01-1234@1,3]<stdout>: ": 3,
    "Thu Jun  9 09:17:45 2022[1,3]<stdout>:": 3,
    "[3]<stdout>:": 3,
    "3: ": 3,
    " 3: ": 3,
    "  12: ": 12,
    "0003: ": 3,
    "3:": 3,
    "[3] ": 3,
    "[3]:": 3,
    "[1,3:node1:4242]<stdout>:": 3,
    "[1,3][node1:4242]<stdout>: ": 3,
    "[default3]:": 3,
    "[default3]: ": 3,
    "[trainer12]:": 12,
    "[rank3]:": 3,
    "[rank3]: ": 3,
    "[Rank 3]: ": 3,
    "[rank: 3] ": 3,
    "[global_rank 3]: ": 3,
    "0: [1,3]<stdout>:": 3,
    "\x1b[32m[rank3]:\x1b[0m ": 3,
    "": 7,
    "[epoch3]: ": 7,
    "[3] x ": 7,
    "12/30 [": 7,
    "node3: ": 7,
}


def records(lines):
    """Return the ranks and records of the lines of a file of rank 7."""
    reader = FileReader(RunIdentity("run", 7, None))
    return [item for line in lines for item in reader.read(line.encode())], reader.context


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
@pytest.mark.parametrize(("tag", "rank"), TAGS.items(), ids=TAGS)
def test_a_tag_is_the_rank_of_its_line(tag, rank, record):
    """A line of each dialect behind each tag; the next line without one is the file's."""
    items, context = records([tag + record, record])
    ranks = [number for number, item in items if getattr(item, "step", None) is not None]
    assert [rank, 7] == ranks
    assert 0 == sum(context.skipped.get(reason, 0) for reason in ("torn", "malformed"))


def test_what_a_tag_told_is_kept_in_words():
    """For check: once for each rank, and that a local rank is a guess."""
    _, context = records(["[1,3]<stdout>:" + TEXT, "[default2]:" + TEXT, TEXT])
    assert {3: "the tag [1,3]<stdout>:"} == {3: context.ranks_by[3]}
    assert "local rank" in context.ranks_by[2]
    assert "local rank" in context.guesses["rank"]


def test_the_data_win_over_the_tag():
    """TCAP's records name their rank themselves."""
    items, _ = records(["[1,3]<stdout>:" + tcap_line("{'rank': 5, 'loss': 0.5}")])
    assert [5] == [number for number, item in items if hasattr(item, "step")]


def test_metadata_and_infos_have_the_tags_rank():
    """As the records around them."""
    metadata = log_line().replace("LOG", "METADATA").replace('"step"', '"metric"')
    metadata = metadata.replace('"data"', '"metadata"')
    info = 'INFO {"local_rank": 0, "datetime": "2024-01-01 00:00:00", "type": "INFO", "data": "x"}'
    items, _ = records(["[1,3]<stdout>:" + metadata, "[1,3]<stdout>:" + info, info])
    found = [(number, type(item)) for number, item in items]
    assert (3, Metadata) in found
    assert [3, 7] == [number for number, kind in found if kind is Info]


def docker(text, time="2024-05-01T10:00:00.5Z"):
    """Return what Docker's json-file driver makes of text."""
    return json.dumps({"log": text, "stream": "stdout", "time": time})


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_containers_log_is_unwrapped(record):
    """Docker's JSON and Kubernetes' prefix; a tag may be within."""
    head = "2024-05-01T10:00:00.123456789Z stdout F "
    for line in (docker(f"{record}\n"), docker(f"[rank3]:{record}\n"), head + record):
        items, context = records([line])
        assert 1 == sum(hasattr(item, "step") for _, item in items), line
        assert {} == context.skipped


def test_a_line_that_a_container_cut_is_joined():
    """Docker cuts after 16 KiB, Kubernetes says so with P."""
    half = len(TEXT) // 2
    for lines in (
        [docker(TEXT[:half]), docker(f"{TEXT[half:]}\n")],
        [
            f"2024-05-01T10:00:00Z stdout P {TEXT[:half]}",
            f"2024-05-01T10:00:00Z stdout F {TEXT[half:]}",
        ],
    ):
        items, _ = records(lines)
        assert [0.5] == [item.data["loss"] for _, item in items if hasattr(item, "step")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_is_read(encoding):
    """PowerShell's > writes it, with a mark at the beginning and CRLF."""
    text = f"\ufeff{TEXT}\r\nnoise \u00e4\r\n{TEXT}\r\n"
    context, entries = FileContext(), []
    for line in text.encode(encoding).split(b"\n")[:-1]:
        entries += parse_line(line, context)
    assert [{"loss": 0.5}] * 2 == [entry.data for entry in entries]
    assert {"not_a_record": 1} == context.skipped


@pytest.mark.parametrize(
    "line",
    [
        f"Iteration:  23%|##3       | 650/2771 [01:23<04:25,  7.98it/s]{TEXT}",
        f"{TEXT}        \rIteration:  29%|##9   | 800/2771 [01:44<04:07,  7.97it/s]",
        f"{TEXT.strip()}Iteration:  29%|\u2588\u2588   | 800/2771 [01:44<04:07,  7.97it/s]",
        f"\r 12%|#  | 1/8 [00:01<?, ?it/s]{TEXT}",
        f"Epoch 1: 100%|###| 8/8 [00:08<00:00,  1.0it/s, loss=2.3]{log_line()}",
        f"{log_line()}\r 50%|#### | 4/8 [00:04<00:04,  1.0it/s]",
    ],
)
def test_progress_bars_around_a_record_are_not_damage(line):
    """tqdm shares the terminal with the record."""
    context = FileContext()
    (record,) = parse_line(line.encode(), context)
    assert {"loss": 0.5} == record.data
    assert {"noise"} >= {*context.skipped}


@pytest.mark.parametrize(
    "line",
    [
        "{'loss': 2.5, 'epoch': 0.1}",
        "  1%|  | 10/1000 [00:10<16:30,  1.00s/it]{'loss': 2.25, 'grad_norm': nan}",
        ':::MLLOG {"namespace": "", "time_ms": 1, "key": "run_start"}',
        '0: :::MLLOG {"namespace": "", "time_ms": 1, "key": "run_start"}',
        "2024-01-01 12:00:00,000 root INFO {'config': {'lr': 0.1}}",
        '2024-01-01 12:00:02,000 root INFO {"loss": 2.5, "step": 3}',
        'INFO {"a": 1}',
        "{",
        "}",
    ],
)
def test_other_tools_lines_are_not_damage(line):
    """Python's dicts, MLPerf's events, braces of logging."""
    context = FileContext()
    assert [] == parse_line(line.encode(), context)
    assert {"not_a_record": 1} == context.skipped

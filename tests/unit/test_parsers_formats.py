"""Logs of other tools: a sample of each, record by record."""

from __future__ import annotations

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.record import Metadata
from tests.support.parsers import utc_us
from tests.support.paths import ROOT, TESTS

FORMATS = TESTS / "data" / "formats"

# Of each record: rank, step, stage in its header, and some of its values.
SAMPLES = {
    "openmmlab.log": [
        (0, (1, 50), "train", {"loss": 1.25, "eta": 90934, "lr": 1.978e-3}),
        (0, (2, 50), "train", {"loss": 1.0, "loss_cls": math.nan}),
        (0, (2,), "val", {"bbox_mAP": 0.3125}),
    ],
    "openmmlab_iter.log": [
        (0, 4300, "train", {"loss": 1.75, "decode.loss_ce": 1.25}),
        (0, (None, 4300, None), "val", {"mIoU": 0.0625, "IoU.tree": 0.5}),
        (0, 4400, "train", {"lr_generator": 2e-4, "lr_discriminator": 1e-4, "loss_g": 1.25}),
    ],
    "openmmlab.log.json": [
        (0, (1, 50), "train", {"loss": 1.25, "time": 0.5}),
        (0, (1, 100), "train", {"loss": 1.0}),
        (0, (1,), "val", {"accuracy_top-1": 64.5}),
    ],
    "megatron.log": [
        (0, 1, None, {"lm loss": 10.5, "elapsed time per iteration": 250.5, "grad norm": 2.5}),
        (0, (None, 1, None), "val", {"lm loss value": 2.75}),
        (0, (None, 1, None), "test", {"lm loss value": 2.625}),
        (7, 2, None, {"lm loss": 10.25, "consumed samples": 32}),
    ],
    "megatron_deepspeed.log": [(0, 10, None, {"lm loss": 7.5, "samples per second": 32})],
    "megatron_old.log": [
        (0, 100, None, {"lm loss": 7.5, "learning rate": 1.5e-4, "loss scale": 65536}),
        (0, 200, None, {"lm_loss": 7.25, "samples/sec": 32.125, "approx flops per GPU": 50.5}),
        (0, (None, 200, None), "val", {"lm_loss value": 7.125}),
        (0, (None, 300, None), "test", {"lm loss value": 6.5}),
        (0, (None, 200, None), "test", {"lm loss value": 6.25}),
    ],
    "deepspeed.log": [
        (2, 10, None, {"skipped": 1, "lr": 5e-4}),
        (0, 10, None, {"RunningAvgSamplesPerSec": 25.5, "MaxMemAllocated": 38.25}),
        (0, 20, None, {"CurrSamplesPerSec": 23.5}),
        (0, 30, None, {"loss": 2.5, "iter time": 0.512, "samples/sec": 32.125}),
        (0, 40, None, {"skipped": 1, "lr/0": 1e-5, "lr/1": 5e-6}),
    ],
    "nemo.log": [
        (0, (0, 9), None, {"reduced_train_loss": 10.5, "train_step_timing in s": 0.5}),
        (0, (1, 0), None, {"reduced_train_loss": 9.5, "val_loss": 8.5}),
    ],
    "detectron2.log": [
        (0, 19, None, {"eta": 93_600, "total_loss": 2.5, "loss_cls": math.nan, "max_mem": 2000}),
        (0, 39, None, {"total_loss": 2.25, "lr": 1e-4}),
        (0, (None, 39, None), "val", {"bbox/AP": 40.5, "bbox/AP50": 60.5, "bbox/AP75": 45.25}),
    ],
    "paddle.log": [(0, (0, 20), None, {"loss": 2.5, "eta": 600, "ips": 16.5})],
    "fairseq.log": [
        (0, (1, 10), "train", {"loss": 11.5, "wps": 1200.5, "lr": 1.25e-5}),
        (0, (1, 20), "train", {"loss": 11.25, "update": 0.2}),
        (0, (1,), "val", {"loss": 9.25}),
        (0, (1,), "val", {"valid_loss": 9.5}),
        (0, (1,), "train", {"loss": 10.75, "wps": 1200}),
        (0, (1,), "test", {"loss": 9.75}),
    ],
    "timm.log": [
        (0, (0, 50), "train", {"Loss": 6.95, "Time": 0.45, "LR": 1e-5, "throughput": 2275.55}),
        (0, (0, 100), "train", {"Time": 1.5, "throughput": 170, "Data": 0.01}),
    ],
    "pytorch_examples.log": [
        (0, (0, 10), None, {"Time": 0.5, "Loss": 6.95, "Acc@1": 0.39, "Acc@5": 1.17}),
        (0, (0,), "val", {"Acc@1": 6.25, "Acc@5": 18.75}),
        (0, (1, 10), None, {"eta": 600, "img/s": 250.5, "loss": 5.95, "max mem": 2000}),
        (0, (1,), "val", {"Acc@1": 12.5, "Acc@5": 25}),
        (0, (1,), "val", {"EMA Acc@1": 13.5, "EMA Acc@5": 26}),
        (0, (1,), "val", {"Prec@1": 14.5, "Prec@5": 27}),
    ],
    "nanogpt.log": [
        (0, 0, None, {"train loss": 4.25, "val loss": 4.5}),
        (0, 10, None, {"loss": 3.25, "time": 12.5, "mfu": 3.25}),
    ],
    "torchtitan.log": [
        (0, 14, None, {"loss": 3.25, "memory": 9.46, "tps": 7282, "mfu": 0.25}),
        (1, (None, 14, None), "val", {"loss": 3.5, "tps": 10050}),
    ],
    "torchtitan.jsonl": [
        (1, 42, None, {"trainer_throughput/tps_mean": 1250.5}),
        (1, 42, None, {"trainer_loss/loss_mean": 2.5}),
    ],
    "detectron2/metrics.json": [
        (0, 19, None, {"total_loss": 2.5, "loss_cls": 1.5}),
        (0, 39, None, {"total_loss": 2.0, "bbox/AP": 12.5, "bbox/AP-cat": math.nan}),
        (0, 59, None, {"bbox/AP": 13.5}),
    ],
    "lightning/metrics.csv": [
        (0, 49, None, {"lr-Adam": 0.001}),
        (0, (0, 49), None, {"train_loss_step": 2.5}),
        (0, (0, 99, None), None, {"val_acc": 0.625, "val_loss": 1.75}),
        (0, (0,), None, {"train_loss_epoch": 2.0}),
    ],
    "ultralytics/results.csv": [
        (0, (1,), None, {"train/box_loss": 1.25, "val/box_loss": 1.75, "metrics/mAP50(B)": 0.5}),
        (0, (2,), None, {"train/box_loss": 1.0}),
    ],
    "llamafactory/trainer_log.jsonl": [
        (0, (0.5, 10), None, {"loss": 1.5, "lr": 5e-5}),
        (0, (1.0, 20, None), None, {"eval_loss": 1.25}),
    ],
    "transformers/trainer_state.json": [
        (0, (0.5, 10), None, {"loss": 2.25, "grad_norm": math.nan}),
        (0, (0.5, 10, None), None, {"eval_loss": 1.75}),
        (0, (1.0, 20), None, {"loss": 1.25}),
        (0, (), None, {"train_loss": 1.9375}),
    ],
    "unknown/training.jsonl": [
        (0, (0, 10), None, {"loss": 2.5}),
        (3, (None, 20, None), None, {"eval/loss": 2.25}),
        (0, (None, 30, None), "test", {"acc": 0.5}),
    ],
    "unknown/nested.jsonl": [
        (0, 1, None, {"train/loss": 2.5, "train/acc/top1": 0.5}),
        (0, (None, 1, None), None, {"val_loss": 2.25}),
        (1, 2, None, {"loss": math.nan}),
    ],
    "unknown/semicolon.csv": [
        (0, (0, 1), None, {"loss": 2.5}),
        (0, (0, 2), None, {"loss": 2.25}),
    ],
    "unknown/loss.csv": [
        (0, 10, None, {"loss": 2.5}),
        (0, 30, None, {"loss": math.nan}),
    ],
}
NOT_METRICS = {
    *("timestamp", "sum", "weight", "rank", "step", "iteration", "epoch", "total_flos"),
    *("iter", "global_step", "num_updates", "valid_num_updates", "current_steps", "percentage"),
    *("value", "local_rank", "text", ""),
}


def read_sample(name):
    """Return the entries of a sample, and the context after it."""
    path = FORMATS / name
    context = FileContext(
        zone="UTC",
        name="/".join(name.rsplit("/", 1)),
        size_bytes=path.stat().st_size,
        modified_us=10**15,
    )
    lines = path.read_bytes().splitlines(keepends=True)
    entries = []
    for line in lines:
        found = parse_line(line, context)
        entries += [(context.rank, entry) for entry in found]
        context.rank = 0
    return entries, context


@pytest.mark.parametrize("name", SAMPLES)
def test_a_sample_is_read(name):
    """Every record, where it belongs, with its values; nothing is damaged."""
    entries, context = read_sample(name)
    records = [entry for _, entry in entries if isinstance(entry, FileRecord)]
    assert len(SAMPLES[name]) == len(records)
    for (rank, step, stage, values), record in zip(SAMPLES[name], records, strict=True):
        assert (rank, step, stage) == (record.rank, record.step, record.header_stage)
        found = {key: record.data.get(key) for key in values}
        assert repr({k: float(v) for k, v in values.items()}) == repr(
            {k: float(v) for k, v in found.items()}
        )
        assert not NOT_METRICS & (record.data.keys() - {"rank"})
    assert {"not_a_record", "blank"} >= {*context.skipped}
    times = [record.time_us for record in records]
    assert sorted(times) == times


@pytest.mark.parametrize("name", SAMPLES)
def test_every_format_is_in_the_documentation(name):
    """With its name, and a sample in the tests."""
    _, context = read_sample(name)
    table = (ROOT / "docs" / "reference" / "formats.md").read_text()
    for log_format in context.entries:
        assert log_format in table
    assert f"`{name}`" in table


def test_units_in_the_names_and_behind_the_values_are_told():
    """Megatron's in brackets, torchtitan's glued to the number."""
    units = {}
    for name in ("megatron.log", "torchtitan.log"):
        entries, _ = read_sample(name)
        for _, entry in entries:
            if isinstance(entry, Metadata):
                units[entry.metric] = entry.metadata["unit"]
    assert "ms" == units["elapsed time per iteration"]
    assert "TFLOP/s/GPU" == units["throughput per GPU"]
    assert ("GiB", "%") == (units["memory"], units["mfu"])


def test_a_time_is_read_in_any_form():
    """Unix seconds, milliseconds, ISO 8601, or the line's own."""
    entries, _ = read_sample("unknown/training.jsonl")
    expected = [utc_us(2025, 9, 8, 10, 0, 0), utc_us(2025, 9, 8, 10, 0, 10), None]
    times = [entry.time_us for _, entry in entries]
    assert [expected[0], expected[1] + 500_000, expected[1] + 10_500_000] == times
    entries, context = read_sample("unknown/nested.jsonl")
    times = [entry.time_us for _, entry in entries]
    assert [utc_us(2024, 5, 1, 10, 0, second) for second in (1, 2, 3)] == times
    assert "local_rank" in context.guesses["rank"]
    entries, _ = read_sample("torchtitan.log")
    assert utc_us(2026, 5, 18, 16, 4, 46) + 338_000 == entries[-1][1].time_us


def test_a_time_without_a_year_is_in_that_of_the_last_change():
    """Detectron2 and PaddleDetection print month, day and time."""
    entries, _ = read_sample("detectron2.log")
    found = [entry.time_us for _, entry in entries if isinstance(entry, FileRecord)]
    assert [utc_us(2001, 5, 1, 10, 0, second) for second in (2, 12, 22)] == found


def test_lines_without_times_are_kept_apart():
    """Else a database would keep only the last of them."""
    entries, _ = read_sample("pytorch_examples.log")
    records = [entry for _, entry in entries if isinstance(entry, FileRecord)]
    assert all(record.interpolated for record in records)
    assert len(records) == len({record.time_us // 1000 for record in records})


def test_a_line_without_a_time_follows_one_that_has_it():
    """Megatron's validation comes right after its iteration, and that is not a guess."""
    entries, _ = read_sample("megatron.log")
    one, other = [entry for _, entry in entries if isinstance(entry, FileRecord)][:2]
    assert (1_000, False) == (other.time_us - one.time_us, other.interpolated)


def test_a_hosts_name_in_front_is_not_read():
    """pdsh puts it there, with which DeepSpeed starts the nodes."""
    line = (FORMATS / "deepspeed.log").read_bytes().splitlines()[0]
    record = parse_line(b"node-1.a: " + line, FileContext(zone="UTC"))[-1]
    assert (2, 10, 1) == (record.rank, record.step, record.data["skipped"])


def test_a_rank_in_the_head_is_said():
    """DeepSpeed names it behind the time and the source."""
    assert {2: "the tag [Rank 2]", 0: "the tag [Rank 0]"} == read_sample("deepspeed.log")[
        1
    ].ranks_by


@pytest.mark.parametrize("delimiter", [";", "\t", ","])
def test_a_comma_in_a_number_is_not_read(delimiter):
    """It may stand for a point or for thousands: what is not read is said."""
    context, found = FileContext(zone="UTC"), []
    for cells in (("epoch", "loss", "lr"), ("0", '"1,5"', "0.5"), ("1", '"1,25"', "")):
        found += parse_line(delimiter.join(cells).encode(), context)
    assert [{"lr": 0.5}] == [record.data for record in found]
    assert "1,5" in context.guesses["comma"]


@pytest.mark.parametrize(
    "line",
    [
        "Epoch: 1\rstep, epoch",
        "iter 10: done",
        "[2024-05-01 10:00:01,123] [INFO] [logging.py:96:log_dist] [Rank 0] step=10",
        "Training epoch 0, iteration 9/199 |",
        "2024-05-01 10:00:01 | INFO | train_inner | epoch 001:",
    ],
)
def test_text_that_resembles_a_tools_is_no_damage(line):
    """It has no values."""
    context = FileContext(zone="UTC")
    assert [] == parse_line(line.encode(), context)
    assert {"not_a_record": 1} == context.skipped


def test_a_row_without_a_time_takes_that_of_its_iterations():
    """Detectron2's and OpenMMLab's rows say how long an iteration took."""
    entries, _ = read_sample("openmmlab.log.json")
    assert all(entry.interpolated for _, entry in entries)


def test_what_is_guessed_is_said():
    """A row of a tool that is not known; those of known tools are not guesses."""
    _, context = read_sample("unknown/training.jsonl")
    assert "names of their fields" in context.guesses["format"]
    assert {} == read_sample("detectron2/metrics.json")[1].guesses


@pytest.mark.parametrize(
    "line",
    [
        '{"loss": 0.5}',
        '{"step": "x", "loss": 0.5}',
        '{"step": true, "loss": 0.5}',
        '{"step": NaN, "loss": 0.5}',
        '{"step": 1e400, "loss": 0.5}',
        '{"step": 1}',
        '{"step": 1, "text": "x"}',
        "[1, 2]",
        "epoch, step",
        "time,run,rank,stage,granularity,epoch,iteration,metric,unit,value",
        " iteration 1 of 5 | loss 3",
    ],
)
def test_what_does_not_say_where_it_belongs_is_another_tools(line):
    """It is neither a record nor damage."""
    context = FileContext(zone="UTC")
    assert [] == parse_line(line.encode(), context)
    assert {"not_a_record"} >= {*context.skipped}


@pytest.mark.parametrize("key", ["mode", "stage", "split", "phase", "type"])
def test_a_row_may_name_its_stage(key):
    """A type may be that of something else, and is not a metric then."""
    context = FileContext(zone="UTC")
    for word, stage in (("train", "train"), ("Valid", "val"), ("test", "test")):
        line = json.dumps({"step": 1, key: word, "loss": 0.5})
        (record,) = parse_line(line.encode(), context)
        assert (stage, {"loss": 0.5}) == (record.header_stage, record.data)
    (record,) = parse_line(b'{"step": 1, "type": "metric", "loss": 0.5}', context)
    assert (None, {"loss": 0.5}) == (record.header_stage, record.data)


def test_a_row_of_csv_with_other_cells_is_damage():
    """A line that was cut, or that another writer tore."""
    context = FileContext(zone="UTC")
    for line in (b"epoch,step,loss", b"0,1,0.5", b"0,2", b"0,3,0.5,7", b"0,4,0.25"):
        parse_line(line, context)
    assert {"malformed": 2} == context.skipped
    assert [2] == [*context.entries.values()]


def test_a_head_that_comes_again_begins_new_columns():
    """A training that was started again appends to its file."""
    context, found = FileContext(zone="UTC"), []
    for line in (b"epoch,step,loss", b"0,1,0.5", b"epoch,step,lr,loss", b"0,1,0.1,0.25"):
        found += parse_line(line, context)
    assert [{"loss": 0.5}, {"lr": 0.1, "loss": 0.25}] == [record.data for record in found]


@given(
    st.sampled_from(sorted(SAMPLES)),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.binary(max_size=9),
)
def test_damage_raises_nothing(name, at, length, inserted):
    """Bytes that are cut out or put in; each line gives records or is counted."""
    raw = (FORMATS / name).read_bytes()
    at %= len(raw)
    raw = raw[:at] + inserted + raw[at + length % 50 :]
    context = FileContext(zone="UTC", name=name)
    for line in raw.split(b"\n"):
        for entry in parse_line(line, context):
            if isinstance(entry, FileRecord):
                assert all(isinstance(key, str) for key in entry.data)
                assert not any(re.match(r"\d+ ", key) for key in entry.data)

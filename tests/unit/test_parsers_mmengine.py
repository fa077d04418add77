"""MMEngine's lines and rows of all ages, and rows that only look like its own."""

from __future__ import annotations

import json

import pytest

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import MMENGINE_SCALARS
from tests.support.parsers import MMENGINE_HEAD, read, read_one

TENSOR = ("tensor([[40,  1],", "        [ 2, 38]])")


@pytest.mark.parametrize(
    ("line", "step"),
    [
        ("Epoch(test) [5/10]    memory: 8562", (None, None, 5)),
        ("Epoch(test) [5/10]  eta: 0:00:05  time: 0.1", (None, None, 5)),
        ("Epoch(test) [10/10]  acc: 0.5  time: 0.1", ()),
        ("Iter(test) [10/10]  acc: 0.5", ()),
        ("Iter(test) [3/10]  time: 0.5", (None, None, 3)),
    ],
)
def test_progress_of_a_test_is_not_its_result(line, step):
    """Only the last line is the summary of the run."""
    assert step == read_one(MMENGINE_HEAD + line).step


def test_a_metric_that_is_glued_to_the_next_is_read():
    """As releases of early 2023 wrote them."""
    line = "Epoch(val) [3][1/1]  acc/top1: 0.5  acc/mean1: 0.25data_time: 1.5  time: 2"
    expected = {"acc/top1": 0.5, "acc/mean1": 0.25, "data_time": 1.5, "time": 2}
    assert expected == read_one(MMENGINE_HEAD + line).data


def test_what_follows_a_tensor_belongs_to_its_line():
    """The rest has the step, the stage and the time of the line that the tensor broke."""
    first = f"{MMENGINE_HEAD}Epoch(val) [1][5/5]    acc: 87.5  confusion_matrix/result: "
    entries, context = read([first, *TENSOR, "  data_time: 0.5  time: 0.25", "  a: 1  b: 2"])
    assert [{"acc": 87.5}, {"data_time": 0.5, "time": 0.25}] == [entry.data for entry in entries]
    assert 1 == len({(entry.step, entry.stage, entry.time_us) for entry in entries})
    assert {"not_a_record": 3} == context.skipped


def test_another_line_ends_what_a_tensor_broke():
    """The next program's text is not taken for results."""
    first = f"{MMENGINE_HEAD}Epoch(val) [1][5/5]    acc: 87.5  confusion_matrix/result: "
    for other in ("saved", f"{MMENGINE_HEAD}Saving checkpoint at 1 epochs"):
        entries, _ = read([first, TENSOR[0], other, "  data_time: 0.5  time: 0.25"])
        assert [{"acc": 87.5}] == [entry.data for entry in entries]


def test_what_a_tensor_broke_goes_through_a_checkpoint():
    """A reader that continues in the middle of it finds the rest."""
    first = f"{MMENGINE_HEAD}Epoch(val) [1][5/5]    acc: 87.5  confusion_matrix/result: "
    _, context = read([first, *TENSOR])
    state = json.loads(json.dumps({"open_row": context.open_row}))
    (record,) = parse_line(b"  time: 0.25", FileContext(zone="UTC", **state))
    assert ((1,), "val", {"time": 0.25}) == (record.step, record.stage, record.data)


def test_rows_before_0_7_4_have_no_iteration_of_their_own():
    """A row of training has an epoch or a learning rate; its step is the iteration."""
    rows = [
        {"lr": 0.1, "loss": 2.5, "time": 0.5, "epoch": 1, "step": 50},
        {"acc": 0.5, "step": 1},
        {"base_lr": 0.1, "lr": 0.1, "loss": 2.0, "epoch": 2, "step": 100},
    ]
    entries, _ = read([json.dumps(row) for row in rows])
    assert [(1, 50), (1,), (2, 100)] == [entry.step for entry in entries]
    assert ["train", "val", "train"] == [entry.stage for entry in entries]
    by_iteration = [{"generator.lr": 0.1, "loss": 2.5, "step": 50}, {"acc": 0.5, "step": 50}]
    entries, _ = read([json.dumps(row) for row in by_iteration])
    assert [50, (0, 50, None)] == [entry.step for entry in entries]


@pytest.mark.parametrize(
    ("name", "row", "is_read"),
    [
        ("vis_data/scalars.json", {"step": 1, "loss": 1}, True),
        ("vis_data/20230607_213107.json", {"step": 1, "loss": 1}, True),
        ("run/scalars.json", {"step": 1, "loss": 1}, True),
        ("run/scalars.json.1", {"step": 1, "loss": 1}, True),
        ("run/log.json", {"step": 1, "iter": 1, "data_time": 0.1, "time": 0.1}, True),
        ("run/metrics.jsonl", {"step": 1, "loss": 1}, False),
        ("run/metrics.jsonl", {"step": 1, "epoch": 1, "lr": 0.1, "loss": 1}, False),
        ("exp/other.json", {"step": 1000, "lr": 0.1, "batch_size": 32}, False),
        ("", {"step": 10, "epoch": 0, "timestamp": "2025-09-08T10:00:00", "loss": 2.5}, False),
    ],
)
def test_a_row_is_mmengines_by_name_or_by_its_fields(name, row, is_read):
    """Other tools write a step as well."""
    entries, context = read(json.dumps(row), name=name)
    assert is_read == (context.entries == {MMENGINE_SCALARS: 1})
    assert len(entries) == 1


FIRST = f"{MMENGINE_HEAD}Epoch(val) [1][5/5]  acc: 87.5  "


@pytest.mark.parametrize(
    "lines",
    [
        ["cm/a: ", *TENSOR, "  cm/b: ", *TENSOR, "  data_time: 0.5  time: 0.25"],
        ["cm/a: ", *TENSOR, "  iou: 0.5  cm/b: ", *TENSOR, "  time: 0.25"],
        ["a: tensor([[0.1, 0.2],", "        [0.3, 0.4]])  iou: 0.5  time: 0.25"],
        ["a: [[0.1 0.2]", " [0.3 0.4]]  time: 0.25"],
        ["a: tensor([0.1,  0.2])  time: 0.25"],
        ["a: tensor([0.1, 0.2,", "  0.3, nan], device='cuda:0')", "  time: 0.25"],
        ["a: array([[0.1,", "-0.2]],", "dtype=float32)  b: array([1.,", "2.])  time: 0.25"],
        ["a: ", "tensor([1., 2.])", "  b: ", "tensor([1., 2.])  time: 0.25"],
        ["a: {'x': [0.1,", " 0.2]}  time: 0.25"],
        ["mean acc: ", *TENSOR, "  mean iou: ", *TENSOR, "  time: 0.25"],
    ],
)
def test_what_follows_tensors_is_read(lines):
    """However many there are, and whether they begin on a line of their own."""
    first, *rest = lines
    entries, _ = read([FIRST + first, *rest])
    data = {}
    for entry in entries:
        data |= entry.data
    assert (87.5, 0.25) == (data["acc"], data["time"])
    assert 1 == len({(entry.step, entry.stage, entry.time_us) for entry in entries})
    assert [] == read([FIRST + first, *rest, "  a: 1  b: 2"])[0][len(entries) :]


def test_a_tensor_goes_through_a_checkpoint_at_any_line():
    """Its brackets are counted; a checkpoint may be from before they were."""
    before = FileContext(zone="UTC", open_row=[[1], "val", 10**15])
    found = [entry for line in TENSOR for entry in parse_line(line.encode(), before)]
    found += parse_line(b"  time: 0.25", before)
    assert [((1,), {"time": 0.25})] == [(record.step, record.data) for record in found]
    lines = [f"{FIRST}a: tensor([[1,", "2],", "[3,", "4]])  b: ", *TENSOR, "  time: 0.25"]
    for cut in range(1, len(lines)):
        _, context = read(lines[:cut])
        found = []
        context = FileContext(zone="UTC", **json.loads(json.dumps({"open_row": context.open_row})))
        for line in lines[cut:]:
            found += parse_line(line.encode(), context)
        assert [{"time": 0.25}] == [record.data for record in found]


def test_text_ends_a_tensor():
    """A program's line between those of a tensor is none of it."""
    for other in ("saved (1)", "  iou: 0.5", f"{MMENGINE_HEAD}Saving checkpoint at 1 epochs"):
        entries, context = read([f"{FIRST}a: tensor([[1,", other, "  time: 0.25"])
        assert 1 == len(entries)
        assert context.open_row is None


def test_a_number_before_a_name_makes_it_unclear():
    """It may be the value of a name that was lost: neither is exported, and it is counted."""
    entries, context = read(f"{FIRST}5 loss: 0.5  0/acc: 0.25")
    assert [{"acc": 87.5, "0/acc": 0.25}] == [entry.data for entry in entries]
    assert {"unclear_name": 1} == context.skipped


def test_rates_are_one_blank_apart():
    """Those of several optimizers; whatever has no value is left out."""
    entries, _ = read(f"{FIRST}base_lr: 0.1 lr: 0.01  g.lr: 1e-4 d.lr: 2e-4 : x  time: 0.25")
    rates = {"base_lr": 0.1, "lr": 0.01, "g.lr": 1e-4, "d.lr": 2e-4}
    assert {"acc": 87.5, **rates, "time": 0.25} == entries[0].data

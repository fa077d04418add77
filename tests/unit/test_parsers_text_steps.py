"""Steps, stages and ranks at the beginning of printed lines, and what hides a step."""

from __future__ import annotations

import pytest

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.record import Info, Record

HEAD = "DLL 2023-04-02 10:00:01.000000 - "


def read_one(line):
    """Return the line's last entry, which must not count anything."""
    context = FileContext(zone="UTC")
    entry = parse_line(f"{HEAD}{line}".encode(), context)[-1]
    assert {} == context.skipped
    return entry


@pytest.mark.parametrize(
    ("line", "step", "data"),
    [
        ("1/22 loss : 4.0", 1, {"loss": 4.0}),
        ("[1/22] loss : 4.0", 1, {"loss": 4.0}),
        ("E0 I1 loss : 0.5", (0, 1), {"loss": 0.5}),
        ("Ep 0 It 1 loss : 0.5", (0, 1), {"loss": 0.5}),
        ("ep: 0, it: 1, loss: 0.5", (0, 1), {"loss": 0.5}),
        ("(0, 1): loss: 0.5", (0, 1), {"loss": 0.5}),
        ("Epoch [0/90] Step [1/100] loss: 4.0", (0, 1), {"loss": 4.0}),
        ("Epoch [0/90], Step [1/100], Loss: 4.0", (0, 1), {"Loss": 4.0}),
        ("Epoch: [0][10/5005] loss: 3.0", (0, 10), {"loss": 3.0}),
        ("epoch: 0, iteration: 8, loss: 4.0", (0, 8), {"loss": 4.0}),
        ("epoch=0,step=3,loss=0.5,lr=1e-3", (0, 3), {"loss": 0.5, "lr": 1e-3}),
        ("Epoch = 0 Iter = 3 loss = 0.5", (0, 3), {"loss": 0.5}),
        ("[Epoch: 0, Iter: 1] loss: 0.5", (0, 1), {"loss": 0.5}),
        ("[Epoch 0][Iter 1/20] loss: 0.5", (0, 1), {"loss": 0.5}),
        ("epoch 0 step 4/100 loss 4.0", (0, 4), {"loss": 4.0}),
        ("iter 10: loss 3.2, time 12ms", 10, {"loss": 3.2, "time": 12}),
        ("epoch 0 step 4 loss 4.0 s, acc 50.5 %", (0, 4), {"loss": 4.0, "acc": 50.5}),
        ("Epoch: 0 Iteration: 1 a: -Inf", (0, 1), {"a": float("-inf")}),
        ("rank:0/2 (0, 1) loss : 1.5", (0, 1), {"rank": 0, "loss": 1.5}),
        ("[rank:0] (0, 1) loss : 1.5", (0, 1), {"rank": 0, "loss": 1.5}),
        ("(rank 1) Epoch: 0 Iteration: 2 loss: 0.5", (0, 2), {"rank": 1, "loss": 0.5}),
        ("Rank: 1 Epoch: 0 Iteration: 2 loss: 0.5", (0, 2), {"rank": 1, "loss": 0.5}),
        ("Rank 1 Epoch: 0 Iteration: 2 loss: 0.5", (0, 2), {"rank": 1, "loss": 0.5}),
        ("rank=1 | epoch 0 | iter 2 | loss 3", (0, 2), {"rank": 1, "loss": 3}),
        ("epoch 0 iter 2 loss 0.5 (0.6) a 1.5 (2.5)", (0, 2), {"loss": 0.5, "a": 1.5}),
        ("Epoch: 0 Iteration: 1 - loss: 4.0 - acc: 0.5", (0, 1), {"loss": 4.0, "acc": 0.5}),
        ("(0, 1) [rank 1] loss : 0.5", (0, 1), {"rank": 1, "loss": 0.5}),
    ],
)
def test_steps_and_ranks_by_hand_are_read(line, step, data):
    """Totals, brackets, commas, abbreviations and tags."""
    record = read_one(line)
    assert (step, data) == (record.step, record.data)


@pytest.mark.parametrize(
    ("line", "step", "stage", "granularity"),
    [
        ("Validation Epoch: 0  loss : 3.0", (0,), "val", "epoch"),
        ("Training Epoch: 0  loss : 3.5", (0,), "train", "epoch"),
        ("Test Epoch: 0/9, loss: 3.5", (0,), "test", "epoch"),
        ("[val] Epoch: 0 loss: 3.5", (0,), "val", "epoch"),
        ("val | epoch 0 | loss 3.5", (0,), "val", "epoch"),
        ("Validation Epoch: 1 Iteration: 10 loss: 1.25", (1, None, 10), "val", "validation"),
        ("Epoch: 1 Test Iteration: 10 loss: 1.25", (1, None, 10), "test", "validation"),
        ("Training Epoch: 1 Iteration: 10 loss: 1.25", (1, 10), "train", "iteration"),
        ("Epoch: 0 Iteration: 1 Validation Iteration: 2 a : 1", (0, 1, 2), None, "validation"),
        ("My Epoch: 3 loss : 1", (3,), None, "epoch"),
    ],
)
def test_the_word_before_a_label_is_the_stage(line, step, stage, granularity):
    """An iteration of a validation is none of the training."""
    record = read_one(line)
    assert (step, stage, granularity) == (record.step, record.header_stage, record.granularity)


@pytest.mark.parametrize(
    "line",
    [
        "hello (0, 1) loss : 1.5",
        "[gpu0] (0, 1) loss : 1.5  acc : 2",
        "train I1 loss : 0.5",
        "Epoch: 0 I1 loss : 0.5",
        "X0 I1 loss : 0.5",
        "Train Epoch: 1 [640/60000 (1%)] Loss: 2.3",
        "Saving checkpoint at step 3 : 4",
        "Epoch: 0 Iteration: 1,234 loss: 0.5",
        "epoch 1 | iter 1,234 | loss 0.5",
        "Iteration: 1,234 loss: 0.5",
        "(0, 1) [1/2] : 5",
    ],
)
def test_a_name_that_holds_the_step_is_not_exported(line):
    """It would be another name in each line."""
    context = FileContext(zone="UTC")
    assert [] == parse_line(f"{HEAD}{line}".encode(), context)
    assert {"unclear_name": 1} == context.skipped


@pytest.mark.parametrize(
    "line",
    [
        "Info: 3 files loaded in 2.5 s",
        "Epoch: 0 done in 3 minutes",
        "epoch 0 finished in 4.0 s",
        "step 3: 4 files loaded",
        "step 3 of 10.5",
        "Step 3 of 10",
    ],
)
def test_a_sentence_stays_an_info(line):
    """Though it has a step and numbers."""
    assert type(read_one(line)) is Info


@pytest.mark.parametrize(
    "line", ["(1,) I1 loss : 1", "event F1 score : 1", "(0, 1) step1_loss of all : 1"]
)
def test_names_with_digits_are_names(line):
    """DLLogger prints them so."""
    assert isinstance(read_one(line), Record)
    assert [1] == list(read_one(line).data.values())

"""What tools print while they train: lines that are cut, mixed up, very long or rare."""

from __future__ import annotations

import math
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.diagnostics import UNCLEAR_NAME
from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import FileRecord
from tests.support.paths import TESTS

LINES = sorted(
    {
        line
        for path in (TESTS / "data" / "formats").glob("*.log")
        for line in path.read_text().splitlines()
    }
)
MEGATRON = " iteration 1/ 10 | "
TIME = "2024-05-01 10:00:01"
INSERTED = st.text(max_size=6) | st.sampled_from(
    [
        "E-04",
        ".",
        "1,",
        "5 loss: 1",
        " | 5 a: 1 | ",
        ": ",
        "  ",
        "\t",
        "(",
        "[",
        "e",
        "nan",
        "=",
        "%",
    ]
)


def read(*lines):
    """Return the records of lines and the context after them."""
    context = FileContext(zone="UTC", modified_us=10**15)
    found = [entry for line in lines for entry in parse_line(line.encode(), context)]
    return [entry for entry in found if isinstance(entry, FileRecord)], context


def values(line):
    """Return the values of a line's only record."""
    (record,), _ = read(line)
    return record.data


@given(
    st.sampled_from(LINES),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 9), INSERTED), min_size=1, max_size=4),
)
def test_no_line_raises_and_no_number_is_part_of_a_name(line, changes):
    """Whatever is cut out of a tool's line, or put into it."""
    for at, length, inserted in changes:
        line = line[:at] + inserted + line[at + length :]
    for record in read(line)[0]:
        for name in record.data:
            assert not re.match(r"[-+.]?\d+\s", name, re.ASCII)
            assert ": " not in name


@pytest.mark.parametrize("said", ["E-04", "e5", ".", "-", "+", ",", "1,2,3", "[", "0x1"])
def test_what_is_no_number_is_no_number(said):
    """A number without its first digits, and what else resembles one."""
    assert 2.5 == values(f"{MEGATRON}lm loss: 2.5 | learning rate: {said} |")["lm loss"]


@pytest.mark.parametrize("name", ["5 loss", "0.5 loss", "-1 a", "1e-5 lr", "1,000 a", "50% a"])
def test_a_number_before_a_name_makes_it_unclear(name):
    """It may be the value of a name that was lost: neither is exported, and it is counted."""
    (record,), context = read(f"{MEGATRON}{name}: 1.0 | lm loss: 2.5 |")
    assert {"lm loss": 2.5} == record.data
    assert {UNCLEAR_NAME: 1} == context.skipped
    assert {UNCLEAR_NAME: 1} == read(f"{MEGATRON}{name}: 1.0 |")[1].skipped


LONG = {
    "megatron": MEGATRON + "a: 1{}x | b: 2 |",
    "megatron head": "{}[x iteration 1/ 10 | a: 1 |",
    "megatron names": MEGATRON + "a{}b{}: 1 | c: 2 |",
    "megatron plain": MEGATRON + "a b c d e f g h{}x | b 2{}x |",
    "torchtitan": f"{TIME},338 - root - INFO - step: 1  a: 1{{}}9{{}}x: 1",
    "detectron2": "[05/01 10:00:02 d2.utils.events]:  iter: 39  a: 1{}1{}x",
    "paddle": "[05/01 10:00:01] ppdet.engine INFO: Epoch: [0] [ 20/100] a: 1{}1{}x",
    "timm": "Train: 0 [  50/1251 (  4%)]  a: 1s,{}1{}x",
    "examples": "Epoch: [0][  10/5005]\ta 1{}1{}x\tb 1",
    "summary": " * {}Acc@1 1{}1",
    "fairseq": f"{TIME} | INFO | valid | epoch 001 | a 1{{}}x | b {{}}1",
    "openmmlab": f"{TIME},877 - mmdet - INFO - Epoch [1][50/930]\ta: 1{{}}x, b: 1{{}}",
    "deepspeed": f"[{TIME},123] [INFO] [a.py:96:b] [Rank 2] step=10, skipped=1{{}}x, lr=[1{{}}x]",
    "nanogpt": "iter 10: loss 3.25{}x, b 1{}x",
    "mmengine": "2024/05/01 10:00:01 - mmengine - INFO - Epoch(val) [1][5/5]  a: 1{}x  b: 1{}",
}


def seconds(line):
    """Return how long a line takes at least."""
    took = []
    for _ in range(3):
        start = time.process_time()
        parse_line(line, FileContext(zone="UTC"))
        took.append(time.process_time() - start)
    return min(took)


@pytest.mark.parametrize(
    "filling", [" ", "\t ", "1a: ", "a", "1", ", a", "1,", "(", "a ", "lr: x ", "["]
)
@pytest.mark.parametrize("tool", LONG)
def test_the_time_for_a_line_grows_with_its_length(tool, filling):
    """Not with its square: a line may have a mebibyte."""
    short, long = (
        LONG[tool].replace("{}", filling * (length // len(filling))).encode()
        for length in (8_000, 64_000)
    )
    assert seconds(long) < 20 * seconds(short) + 0.005  # its square is 64 times as long


@pytest.mark.parametrize(
    ("logger", "subset", "stage"),
    [
        ("valid", "valid", "val"),
        ("valid", "test", "test"),
        ("test", "test", "test"),
        ("valid1", "valid1", "valid1"),
        ("Dev-clean", "Dev-clean", "dev-clean"),
        ("train", "train", "train subset"),
    ],
)
def test_each_subset_of_a_validation_is_a_stage(logger, subset, stage):
    """fairseq validates several data sets, one after the other."""
    head = f"{TIME} | INFO | {logger} | epoch 001 | "
    (record,), _ = read(f"{head}valid on '{subset}' subset | loss 1.25 | num_updates 20")
    assert (stage, (1,), {"loss": 1.25}) == (record.header_stage, record.step, record.data)


def test_a_subset_is_a_stage_in_json_as_well():
    """It names the logger there."""
    line = f'{TIME} | INFO | test | {{"epoch": 1, "test_loss": "9.5", "test_num_updates": "20"}}'
    (record,), _ = read(line)
    assert ("test", {"test_loss": 9.5}) == (record.header_stage, record.data)


@pytest.mark.parametrize(
    ("said", "stage"),
    [
        ("test loss at iteration 10 |", "test"),
        ("test results at the end of training |", "test"),
        ("test loss at iteration 10 on test set |", "test"),
        ("validation loss at iteration 10 on test set |", "test"),
        ("validation loss at iteration 10 on validation set |", "val"),
        ("validation results at iteration 10 |", "val"),
    ],
)
def test_a_test_is_told_from_a_validation(said, stage):
    """Megatron names it before the loss, or behind the iteration."""
    (record,), _ = read(f" {said} lm loss value: 2.5 |")
    assert stage == record.header_stage


@pytest.mark.parametrize(
    ("said", "time_s", "rate"),
    [
        ("1.500s,  170.00/s  (1.600s,  160.00/s)", 1.5, 170.0),
        ("0.450s, 2275.55/s  (0.625s, 1650.50/s)", 0.45, 2275.55),
        ("9.500s,   17.00/s  (9.600s,   16.00/s)", 9.5, 17.0),
        ("9.500s,    7.00/s (9.600s,    6.00/s)", 9.5, 7.0),
    ],
)
def test_a_rate_of_any_width_is_the_throughput(said, time_s, rate):
    """timm pads it with blanks; the means of both are in brackets."""
    line = f"Train: 0 [  50/1251 (  4%)]  Loss: 6.950 (6.96)  Time: {said}  LR: 1.000e-05"
    expected = {"Loss": 6.95, "Time": time_s, "throughput": rate, "LR": 1e-5}
    assert expected == values(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (" * Prec@1 6.250 Prec@5 18.750", {"Prec@1": 6.25, "Prec@5": 18.75}),
        (" * Acc@1 6.250 Acc@5 18.750 loss 1.5", {"Acc@1": 6.25, "Acc@5": 18.75, "loss": 1.5}),
        ("Test: EMA Acc@1 13.500 Acc@5 25.0", {"EMA Acc@1": 13.5, "EMA Acc@5": 25}),
        ("Test: Acc@1 13.500 Acc@5 25.0", {"Acc@1": 13.5, "Acc@5": 25}),
        (" * Error@1 6.250 Error@5 18.750", {"Error@1": 6.25, "Error@5": 18.75}),
    ],
)
def test_a_summary_belongs_to_the_last_epoch(line, expected):
    """As PyTorch's example printed it at any time; those of averaged weights are kept apart."""
    _, record = read("Epoch: [3][  10/5005]\tLoss 6.9500e+00 (6.9600e+00)", line)[0]
    assert (expected, (3,), "val") == (record.data, record.step, record.header_stage)


def test_rates_of_several_optimizers_are_one_blank_apart():
    """As mmcv 1.x prints them."""
    line = (
        f"{TIME},877 - mmedit - INFO - Iter [100/3000]\tlr_generator: 2.000e-04 "
        "lr_discriminator: 1.000e-04, eta: 1 day, 1:15:34, time: 0.5, loss_g: 1.25"
    )
    rates = {"lr_generator": 2e-4, "lr_discriminator": 1e-4}
    assert {**rates, "eta": 90934, "time": 0.5, "loss_g": 1.25} == values(line)


COPYPASTE = "[05/01 10:00:01 d2.evaluation.testing]: copypaste: "


def test_names_come_before_their_results():
    """Detectron2 prints them on lines of their own, to be copied to a table."""
    records, context = read(
        "[05/01 10:00:01 d2.utils.events]:  iter: 39  total_loss: 2.25",
        f"{COPYPASTE}Task: bbox",
        f"{COPYPASTE}AP,AP50,AP75",
        f"{COPYPASTE}40.5,60.5,nan",
        f"{COPYPASTE}Task: segm",
        f"{COPYPASTE}AP,AP50",
        "another line",
        f"{COPYPASTE}nan,50.5000",
        f"{COPYPASTE}1,2",
    )
    assert [
        "{'total_loss': 2.25}",
        "{'bbox/AP': 40.5, 'bbox/AP50': 60.5, 'bbox/AP75': nan}",
        "{'segm/AP': nan, 'segm/AP50': 50.5}",
    ] == [repr(record.data) for record in records]
    assert [(None, 39, None)] * 2 == [record.step for record in records[1:]]
    assert {"val"} == {record.header_stage for record in records[1:]}
    assert context.open_row is None


@pytest.mark.parametrize("results", ["1,2,3", "1", "x", ",", "-,-", "1,,"])
def test_results_without_their_names_are_not_read(results):
    """Nor those of which there are more or less than names."""
    assert [] == read(f"{COPYPASTE}AP,AP50", f"{COPYPASTE}{results}")[0]


@pytest.mark.parametrize(
    "line",
    [
        "Train: 0 [  50/1251 (  4%)]  Time: 0.5s  Loss:    nan (   nan)  LR: 1.000e-05",
        "Epoch: [0][  10/5005]\tTime  0.500 (  0.625)\tLoss nan (nan)\tAcc@1   0.39 (  0.20)",
        "Epoch: [0][  10/5005]\tTime  0.500 (  0.625)\tLoss    nan (   nan)\tAcc@1   0.39",
        "Epoch: [1]  [ 10/5005]  eta: 0:10:00  lr: 0.1  Loss: nan (5.96)  time: 0.5125",
        " * Acc@1 6.250 Acc@5 18.750 Loss nan",
        " * Acc@1 6.250 Loss -nan",
        f"{MEGATRON}Loss: nan | b: 1 |",
        "[05/01 10:00:02 d2.utils.events]:  iter: 39  Loss: nan  time: 0.5",
    ],
)
def test_a_value_may_be_no_number(line):
    """With its mean in brackets, and padded as numbers are."""
    found = values(line)
    assert math.isnan(found["Loss"])
    assert 2 <= len(found)


def test_a_name_may_have_blanks():
    """Those of metrics that people add to mmcv's."""
    line = f"{TIME},877 - mmdet - INFO - Epoch [1][50/930]\tlr: 1.978e-03, eta: 1 day, 1:15:34, "
    expected = {"lr": 1.978e-3, "eta": 90934, "time": 0.4, "top1 acc": 0.5, "loss": 1.25}
    assert expected == values(f"{line}time: 0.4, top1 acc: 0.5, loss: 1.25")

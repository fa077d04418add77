"""What tools print while they train: lines that are cut, mixed up, very long or rare."""

from __future__ import annotations

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

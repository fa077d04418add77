"""Lines that people print themselves: colons with and without blanks, ``=`` and bars."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.record import Metadata, Record

HEAD = "TCAPPDLL 2025-03-04 09:15:00.844470 - "
STEP = "Epoch: 1 Iteration: 2 "

LINES = {
    f"{STEP}rank:3 train.loss: 0.5 ips: 10 imgs/s": {"rank": 3, "train.loss": 0.5, "ips": 10},
    f"{STEP}rank : 3 train.loss: 0.5 ips : 10 imgs/s": {"rank": 3, "train.loss": 0.5, "ips": 10},
    f"{STEP}rank=3 train.loss=0.5 ips=10": {"rank": 3, "train.loss": 0.5, "ips": 10},
    f"{STEP}rank: 3 train.loss : 0.5 ips=10": {"rank": 3, "train.loss": 0.5, "ips": 10},
    f"{STEP}train.loss = 0.5 ips = 10": {"train.loss": 0.5, "ips": 10},
    "Epoch:1 Iteration:2 rank:3 loss:0.5 ips:10 imgs/s box=1": {
        "rank": 3,
        "loss": 0.5,
        "ips": 10,
        "box": 1,
    },
    "Epoch=1 Iteration=2 loss=0.5 ips=10": {"loss": 0.5, "ips": 10},
    "epoch    1 | iter   2/48 | loss 0.5 | mel loss 1.5 |   10 frames/s | took 2 s": {
        "loss": 0.5,
        "mel loss": 1.5,
        "frames/s": 10,
        "took": 2,
    },
    "epoch 1 | iter 2 | loss: 0.5 | lr=1e-3": {"loss": 0.5, "lr": 1e-3},
    f"{STEP}acc1: 0.5 mAP50: .25 loss: nan": {"acc1": 0.5, "mAP50": 0.25, "loss": float("nan")},
    f"{STEP}loss: -0.5 lr: +1.5e-05 t: None": {"loss": -0.5, "lr": 1.5e-05, "t": None},
}


@pytest.mark.parametrize(("line", "data"), LINES.items(), ids=LINES)
def test_a_line_by_hand_is_read(line, data):
    """Step, rank and values, whatever stands between names and values."""
    context = FileContext()
    record = parse_line(f"{HEAD}{line}".encode(), context)[-1]
    assert (1, 2) == record.step
    assert repr(data) == repr(record.data)
    assert {} == context.skipped


def test_units_are_known():
    """A word behind a value, as DLLogger prints it."""
    *metadata, _ = parse_line(f"{HEAD}{STEP}ips: 10 imgs/s took: 2 s".encode(), FileContext())
    assert {"ips": "imgs/s", "took": "s"} == {one.metric: one.metadata["unit"] for one in metadata}


@pytest.mark.parametrize(
    ("rest", "unit"),
    [
        ("Thu Jun  9 09:17:45 2022", None),
        ("imgs/s and more", "imgs/s"),
        ("bleu", "bleu"),
        ("ms Thu Jun  9", "ms"),
    ],
)
def test_what_follows_the_last_value_is_a_unit_only_if_it_can_be(rest, unit):
    """Another program may go on in the same line."""
    line = f"DLL 2022-06-09 09:17:45.123388 -  e2e_time : 582.5 {rest}"
    *metadata, record = parse_line(line.encode(), FileContext())
    assert {"e2e_time": 582.5} == record.data
    assert ([] if unit is None else [unit]) == [one.metadata["unit"] for one in metadata]


@pytest.mark.parametrize("value", ["129/130", "12:30:00", "3x", "1.2.3"])
def test_a_number_with_more_behind_it_is_text(value):
    """A fraction, a time, a version."""
    line = f"DLL 2022-06-09 09:17:45.123388 - (1, 2) a : {value}"
    (record,) = parse_line(line.encode(), FileContext())
    assert {"a": value} == record.data


@pytest.mark.parametrize(
    "line", [f"{STEP}loss: 0.5 1.5 time : 2", f"{STEP}a : 1 b : 2  3 c : 4", f"{STEP}: 5 a : 1"]
)
def test_a_name_that_cannot_be_told_is_counted(line):
    """It is left out, with the others kept."""
    context = FileContext()
    entries = parse_line(f"{HEAD}{line}".encode(), context)
    names = {name for entry in entries if isinstance(entry, Record) for name in entry.data}
    assert not any(re.match(r"[\d.]+\s", name) for name in names)
    assert context.skipped["unclear_name"]


ALPHABET = "ab1 29:|.=/-\t%(),[]'é"
WORDS = ("Epoch: 1 ", "(0, 1) ", "rank:", " : ", ": ", "loss", "0.5", " imgs/s", "nan", "| ", "=")
WORDS += ("[1/2] ", ", ", "[Epoch 1", "]", " (0.6)", "1,5", "E0 I1 ", "Test Iter 3 ")


@given(st.text(ALPHABET, max_size=60) | st.lists(st.sampled_from(WORDS)).map("".join))
@example("1 a : 2")
@example("a: b : 1")
def test_no_text_gives_a_name_that_is_not_one(text):
    """Neither a number in front of a name, nor a colon and a blank in it."""
    for head in (HEAD, "DLL 2022-06-09 09:17:45.123388 - ", ""):
        for prefix in ("", STEP, "(0, 1) ", "epoch 1 | "):
            for entry in parse_line(f"{head}{prefix}{text}".encode(), FileContext()):
                names = entry.data if isinstance(entry, Record) else ()
                if isinstance(entry, Metadata):
                    names = (entry.metric,)
                for name in names:
                    assert not re.match(r"[-+.]?\d+(?![\dA-Za-z_])", name), (text, name)
                    assert ": " not in name, (text, name)


FIELDS = st.tuples(
    st.sampled_from([" : ", ": ", ":  ", "=", " = "]),
    st.sampled_from(["1", "0.5", "-3", "1e-05", "+.5", "1.", "nan"]),
    st.sampled_from(["", "", "ms", "%", "imgs/s"]),
    st.sampled_from([" ", "  ", "   "]),
)


@given(st.sampled_from([STEP, f"{STEP} ", "(1, 2) "]), st.lists(FIELDS, min_size=1, max_size=5))
@example(f"{STEP} ", [("=", "1", "", " "), (": ", "0.5", "ms", "  "), (" : ", "1.", "", " ")])
def test_separators_units_and_blanks_may_be_mixed(head, fields):
    """Each value has its own name and unit, whatever separates them."""
    line = head
    for n, (sign, value, unit, blanks) in enumerate(fields):
        line += f"m{n}{sign}{value} {unit}".rstrip() + blanks
    *metadata, record = parse_line((HEAD + line).encode(), FileContext(zone="UTC"))
    assert record.step == (1, 2)
    assert {name: repr(float(value)) for name, value in record.data.items()} == {
        f"m{n}": repr(float(value)) for n, (_, value, *_) in enumerate(fields)
    }
    assert {entry.metric: entry.metadata["unit"] for entry in metadata} == {
        f"m{n}": unit for n, (_, _, unit, _) in enumerate(fields) if unit
    }

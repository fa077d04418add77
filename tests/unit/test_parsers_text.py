"""Values, units and names of printed lines that people write in their own ways."""

from __future__ import annotations

import itertools
import time

import pytest

from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.record import Metadata

HEAD = "DLL 2023-04-02 10:00:01.000000 - "
BARS = "epoch 1 | iter 1/48 | loss 2.5 | "


def read(line):
    """Return data and units of a line, and its file."""
    context = FileContext(zone="UTC")
    *metadata, record = parse_line(f"{HEAD}{line}".encode(), context)
    assert all(type(entry) is Metadata for entry in metadata)
    return record.data, {one.metric: one.metadata["unit"] for one in metadata}, context


@pytest.mark.parametrize(
    ("line", "data"),
    [
        ("(0, 1) loss : 0.5  ips : 1,234.5", {"loss": 0.5}),
        ("(0, 1) loss : 0,5  acc : 0.5", {"acc": 0.5}),
        ("(0, 1) ips : 1,234.5 img/s  loss : 0.5", {"loss": 0.5}),
        ("ips : 1,234.5 img/s  loss : 0.5", {"loss": 0.5}),
        ("(0, 1) a : 1.234,5 s b : 1,234,567 c : 2", {"c": 2}),
        ("Epoch: 0 Iteration: 1 ips: 1,234 img/s loss=0,5 acc=1", {"acc": 1}),
        ("epoch 0 step 1 loss 0,5 acc 0.5", {"acc": 0.5}),
        (f"{BARS}5,730 frames/s | lr 0,1", {"loss": 2.5}),
    ],
)
def test_a_comma_in_a_number_is_not_read(line, data):
    """It may stand for a point or for thousands; the other values are right."""
    found, units, context = read(line)
    assert (data, {}, {}) == (found, units, context.skipped)
    assert "are not read, since the comma may stand for a point" in context.guesses["comma"]


@pytest.mark.parametrize(
    ("line", "data", "units"),
    [
        (f"{BARS}took 24.5s", {"loss": 2.5, "took": 24.5}, {"took": "s"}),
        (f"{BARS}mem 10.5GB", {"loss": 2.5, "mem": 10.5}, {"mem": "GB"}),
        (f"{BARS}acc 50% ", {"loss": 2.5, "acc": 50}, {"acc": "%"}),
        (f"{BARS}acc 5.5 (6.5)", {"loss": 2.5, "acc": 5.5}, {}),
        ("Epoch: 0 Iteration: 1 took: 2.5s a: 3x", {"took": 2.5, "a": "3x"}, {"took": "s"}),
        ("(0, 1) loss : 0.5 (0.6)", {"loss": 0.5}, {}),
        (
            "(0, 1) loss : 0.5 (0.6) acc : 1 (2) b : 3 s",
            {"loss": 0.5, "acc": 1, "b": 3},
            {"b": "s"},
        ),
        ("Epoch: 0 Iteration: 1 a.b: 4.0, a.c: 0.5", {"a.b": 4.0, "a.c": 0.5}, {}),
        ("(0, 1) a : 4.0 s, b : 0.5; c : 1", {"a": 4.0, "b": 0.5, "c": 1}, {"a": "s"}),
        (
            "(0, 1) a : 1 [s] b : 2 (img/s) c : 3",
            {"a": 1, "b": 2, "c": 3},
            {"a": "s", "b": "img/s"},
        ),
        ("loss : 0.5 | acc : 0.6", {"loss": 0.5, "acc": 0.6}, {}),
        ("(0, 1) a : 1 m² b : 2 µs", {"a": 1, "b": 2}, {"a": "m²", "b": "µs"}),
    ],
)
def test_units_and_what_is_none(line, data, units):
    """Glued units, means in brackets, commas and bars."""
    found, found_units, context = read(line)
    assert (data, units, {}) == (found, found_units, context.skipped)


@pytest.mark.parametrize(
    ("line", "data"),
    [
        (f"{BARS}top 5 90.5", {"loss": 2.5}),
        (f"{BARS}loss 0.5 of all", {"loss": 2.5}),
        (f"{BARS}x9", {"loss": 2.5}),
        ("(0, 1) acc : 0.5 ± 0.1  b : 3", {"acc": 0.5}),
        ("(0, 1) a : 1 # b : 2", {"a": 1}),
    ],
)
def test_a_value_that_is_not_understood_is_counted(line, data):
    """And no unit begins with a digit or lacks a letter."""
    found, units, context = read(line)
    assert (data, {}, {"unclear_name": 1}) == (found, units, context.skipped)


HEADS = ("", "(0, 1) ", "epoch 1 | iter 2/48 | a", "Epoch: 1 Iteration: 2 a: 1 b: 2 ", "word ")
UNITS = (" ", "1", "a", ":", "|", ",", "a ", "1 ", "a: 1 ", "a : 1 ", "a=1 ", "a 1.5 ", "[", "(1) ")
UNITS += ("epoch 1 ", "| ", "iter 1,", "rank:1 ", "% ", "1,", " : ")


def cpu_s(line):
    """Return the least of a few measurements."""
    least = float("inf")
    for _ in range(3):
        start_s = time.process_time()
        parse_line(line.encode(), FileContext(zone="UTC"))
        least = min(least, time.process_time() - start_s)
    return least


@pytest.mark.parametrize(("head", "unit"), [*itertools.product(HEADS, UNITS)])
def test_time_grows_with_the_length_only(head, unit):
    """Four times as much takes about four times as long, not sixteen."""
    ratios = []
    for tail in (" : 1", "b | loss 1"):
        short, long = (cpu_s(f"{HEAD}{head}{unit * n}{tail}") for n in (2_000, 8_000))
        ratios.append(long / max(short, 1e-3))
    assert max(ratios) < 10

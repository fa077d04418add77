"""Characters, sparklines and numbers of ``watch``."""

from __future__ import annotations

import io
import math
import sys

import pytest
from rich.cells import cell_len

from otel_dllogger.view.numbers import (
    format_age,
    format_excess,
    format_rate,
    format_step,
    format_throughput,
    format_value,
)
from otel_dllogger.view.terminal.characters import ASCII, UNICODE, choose_characters


@pytest.mark.parametrize(
    ("encoding", "variables", "expected"),
    [
        ("utf-8", {}, UNICODE),
        ("utf-8", {"LANG": "en_US.UTF-8", "TERM": "screen"}, UNICODE),
        ("utf-8", {"LC_CTYPE": "C.utf8", "LANG": "C"}, UNICODE),
        ("utf-8", {"LC_ALL": "C", "LANG": "en_US.UTF-8"}, ASCII),
        ("utf-8", {"LANG": "de_DE.ISO-8859-1@euro"}, ASCII),
        ("latin-1", {"LANG": "en_US.UTF-8"}, ASCII),
        ("utf-8", {"LANG": "en_US.UTF-8", "TERM": "linux"}, ASCII),
        ("utf-8", {"LANG": "en_US.UTF-8", "TERM": "dumb"}, ASCII),
    ],
)
def test_blocks_are_for_terminals_that_have_them(monkeypatch, encoding, variables, expected):
    """By the encoding of the output, the locale and TERM."""
    for name in ("LC_ALL", "LC_CTYPE", "LANG", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert choose_characters(io.TextIOWrapper(io.BytesIO(), encoding)) is expected


def test_a_sparkline_has_a_character_for_each_value():
    """From the lowest to the highest level; x is not finite; one level if all are the same."""
    assert UNICODE.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 0, 7) == "▁▂▃▄▅▆▇█"
    assert ASCII.sparkline([0, 7, math.nan, math.inf, -math.inf, 9, -9], 0, 7) == "_#xxx#_"
    assert UNICODE.sparkline([3.0, 3.0], 3.0, 3.0) == "▅▅"
    most = sys.float_info.max
    assert UNICODE.sparkline([-most, 0.0, most], -most, most) == "▁▅█"
    assert UNICODE.sparkline([], 0, 0) == ""


@pytest.mark.parametrize("text", ["short", "a longer name of a run", "名前は長いです" * 3, ""])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 7, 12])
@pytest.mark.parametrize("from_end", [False, True])
def test_text_is_cut_to_cells(text, width, from_end):
    """Characters of East Asia are two cells wide."""
    for characters in (UNICODE, ASCII):
        fitted = characters.fit(text, width, from_end=from_end)
        assert cell_len(fitted) <= width
        assert cell_len(text) > width or fitted == text


def test_hosts_keep_their_ends():
    """In which their names differ."""
    assert UNICODE.fit("cluster-node-0123", 6, from_end=True) == "…-0123"
    assert ASCII.fit("cluster-node-0123", 6) == "clus.."


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (format_value(None), "-"),
        (format_value(0.123456), "0.1235"),
        (format_value(-math.inf), "-Inf"),
        (format_rate(1234.5), "1,234"),
        (format_rate(math.nan), "NaN"),
        (format_throughput(5.0, "imgs/s"), "5 imgs/s"),
        (format_throughput(12.34, "1/s"), "12.3/s"),
        (format_step(None), "-"),
        (format_step(1200.0), "1200"),
        (format_step(0.5), "0.5"),
        (format_step(math.inf), "-"),
        (format_excess(None), "-"),
        (format_excess(0.124), "+12%"),
        (format_excess(-0.001), "+0%"),
        (format_excess(-0.25), "-25%"),
        (format_excess(99.0), "x100"),
        (format_age(None), "-"),
        (format_age(0.04), "0.0s"),
        (format_age(59.96), "59s"),
        (format_age(9.97), "9.9s"),
        (format_age(12.3), "12s"),
        (format_age(125), "2m05s"),
        (format_age(3 * 3600 + 240), "3h04m"),
        (format_age(2.5 * 86400), "2d12h"),
        (format_age(400 * 86400), "400d"),
    ],
)
def test_numbers_are_short(shown, expected):
    """And the same in check and in watch."""
    assert shown == expected

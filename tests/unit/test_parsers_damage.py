"""Lines that are damaged, too long or not of a log: each is counted by its reason."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import time

import pytest

from otel_dllogger.diagnostics import HARMLESS, LINE, REASONS
from otel_dllogger.logs.parsers.context import MAX_LINE_BYTES, FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from tests.support.parsers import BAD, log_line, read, read_one, tcap_line
from tests.support.paths import ROOT

pytestmark = pytest.mark.newest_only


@pytest.mark.parametrize(("line", "reason"), BAD, ids=[line[:24] for line, _ in BAD])
def test_a_bad_line_is_counted_by_its_reason(line, reason):
    """Nothing is given and nothing raises; a good line before and after is not lost."""
    entries, context = read([log_line(), line, log_line()])
    assert [(0, 1)] * 2 == [entry.step for entry in entries]
    assert {reason} == set(context.skipped)
    assert reason in REASONS[LINE]


def test_what_a_reason_leaves_open_is_said():
    """A report names the type and the field; the next reason has a detail of its own."""
    context = FileContext()
    said = []
    for line in (log_line().replace("LOG", "PICTURE"), log_line().replace("data", "date"), "", "x"):
        parse_line(line.encode(), context)
        said.append(context.detail)
    assert ["unknown type 'PICTURE'", "a LOG line without data", "", ""] == said


def test_every_reason_has_a_line_and_the_harmless_ones_lose_nothing():
    """The table above is whole."""
    assert {*REASONS[LINE]} == {reason for _, reason in BAD} | {"noise"}
    assert {"blank", "not_a_record", "noise"} == HARMLESS


def test_an_int_beyond_the_range_of_floats_is_read_beside_floats():
    """They cannot be added up, which is how most lines are found to hold only numbers."""
    line = log_line(f'{{"seed": 1{"0" * 400}, "lr": 0.1}}')
    (record,) = parse_line(line.encode(), FileContext())
    assert record.data == {"seed": 10**400, "lr": 0.1}


MIX = """
import itertools, json, pathlib, re, sys
from tests.support.parsers import BAD, TEXT, log_line, tcap_line
from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line

good = [log_line().encode(), tcap_line("{'a': '1'}").encode(), TEXT.encode()]
small = [(line, reason) for line, reason in BAD if len(line) < 2_000]
large = [(line, reason) for line, reason in BAD if len(line) >= 2_000]
large.append((b"DLLL {" + b'"a": 1, ' * 1_250_000, "line_too_long"))
hostile = [b"DLLL {" * 150_000, b'DLLL {"' * 140_000, b'DLL 2020-01-01 00:00:00 "' * 40_000,
           b'DLLL {"' + b'DLL 2020-01-01 00:00:00 ' * 40_000, b'"' * 1_000_000, b"DLLL " * 200_000,
           b"{}" * 500_000, b'TCAPPDLL {"' + b"\\\\" * 500_000, b'DLLL {"a": ' + b"[],[" * 200_000]
context = FileContext(zone="UTC", name="vis_data/scalars.json")
lines = delivered = 0
pairs = zip(itertools.cycle(small), itertools.cycle(good))
for (bad, reason), line in itertools.islice(pairs, 100_000):
    for each in (bad, line):
        lines += 1
        delivered += sum(hasattr(entry, "step") for entry in parse_line(each, context))
skipped = context.skips
for bad, reason in large * 5:
    before = context.skipped.get(reason, 0)
    parse_line(bad, context)
    assert context.skipped.get(reason, 0) > before, reason
for line in hostile:
    before = context.skips
    parse_line(line, context)
    assert context.skips > before, line[:30]
# Not ru_maxrss: a process inherits that of the one that started it, pytest's own.
status = pathlib.Path("/proc/self/status").read_text()
peak_kib = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
print(json.dumps([lines, delivered, skipped >= 100_000, peak_kib]))
"""


@pytest.mark.slow
@pytest.mark.newest_only
def test_a_mix_of_200_000_good_and_bad_lines_is_read_in_bounded_memory():
    """Each good line is given, each bad one counted, in less than 256 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MIX], cwd=ROOT, capture_output=True, check=True, text=True
    )
    lines, delivered, all_counted, peak_kib = json.loads(done.stdout)
    assert (200_000, 100_000, True) == (lines, delivered, all_counted)
    assert peak_kib < 256 * 1024


def test_limits_of_the_process_are_no_error():
    """A caller deep in the stack, and a lower limit of digits than Python's own, or none."""
    nested = [
        log_line('{"a": NaN, "b": ' + "[" * 90 + "]" * 90 + "}"),
        tcap_line("{'a': " + "(" * 90 + "1," + ",)" * 90 + "}"),
        tcap_line("{'a': " + "(" * 90 + ")" * 90 + "}"),
    ]
    long = [log_line(f'{{"a": NaN, "b": {"1" * 700}}}'), tcap_line(f"{{'a': {'1' * 700}}}")]
    limits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(640)
        assert {"number_too_long": 2} == read(long)[1].skipped
        sys.set_int_max_str_digits(0)
        longer = [line.replace("1" * 700, "1" * 5_000) for line in long]
        assert {"number_too_long": 2} == read(longer)[1].skipped
        sys.setrecursionlimit(len(inspect.stack(0)) + 60)
        entries, context = read(nested)
    finally:
        sys.setrecursionlimit(limits[0])
        sys.set_int_max_str_digits(limits[1])
    assert 3 == len(entries) + context.skips
    assert context.skipped["nested_too_deep"] >= 1


def test_lines_of_the_cap_are_read_and_longer_ones_not():
    """The cap counts the line's bytes."""
    line = log_line('{"a": "?"}')
    line = line.replace("?", "x" * (MAX_LINE_BYTES - len(line) + 1))
    assert MAX_LINE_BYTES == len(line)
    assert (0, 1) == read_one(line).step
    assert {"line_too_long": 1} == read(line.replace("x", "xx", 1))[1].skipped


def test_a_line_is_never_longer_to_read_than_its_length_allows():
    """Damage that makes the reader begin anew costs no more than a few looks at the line."""
    for line in (b'DLLL {"' * 100_000, b'DLLL {"' + b"DLL 2020-01-01 00:00:00 " * 40_000):
        start_s = time.process_time()
        read(line)
        assert time.process_time() - start_s < 5.0

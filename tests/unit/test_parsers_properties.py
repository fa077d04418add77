"""What the package writes is read back as the same record, and nothing at all raises."""

from __future__ import annotations

import ast
import io
import json
import math
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_dllogger import StdOutBackend
from otel_dllogger.diagnostics import LINE, REASONS
from otel_dllogger.logs.parsers.context import FileContext
from otel_dllogger.logs.parsers.detect import parse_line
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.logs.parsers.literals import parse_repr
from otel_dllogger.record import Info, Metadata, Record
from otel_dllogger.values import to_plain
from tests.support.in_memory import in_memory_backend
from tests.support.parsers import DATA, SAMPLES, TEXT, log_line, tcap_line

pytestmark = pytest.mark.newest_only

EXAMPLES = settings(deadline=None, derandomize="CI" in os.environ, max_examples=250)

FIRST_US = 1_000_000_000_000_000  # in the year 2001
LATEST_US = 4_000_000_000_000_000  # in the year 2096

TIMES = st.integers(FIRST_US, LATEST_US)
ELAPSED = st.integers(0, 10**13)
STEPS = (
    st.tuples(st.integers(), st.integers())
    | st.lists(st.integers(-9, 9), max_size=4).map(tuple)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.tuples(st.text(), st.integers())
    | st.none()
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def backend():
    """A backend whose lines stay in memory."""
    return in_memory_backend()


def read_one(line):
    """Read a line that holds one entry and nothing besides."""
    context = FileContext()
    (entry,) = parse_line(line, context)
    assert {} == context.skipped
    return entry


def times_of(entry):
    return entry.time_us, entry.elapsed_us


@pytest.mark.slow
@EXAMPLES
@given(TIMES, ELAPSED, STEPS, st.dictionaries(st.text(), PLAIN, max_size=6) | PLAIN)
@example(FIRST_US, 0, (0, 10**30), {"a": 1.5})
@example(FIRST_US, 99, (0, 1), {"a": float("nan"), "b": float("inf")})
@example(FIRST_US, 100, (0, 1, 2), {"a": 10**25, "\ud800": -(2**63) - 1, "c": 2**64})
@example(FIRST_US, 1, (), {"a": 1e308, "b": 1e308, "rank": 3})
@example(FIRST_US, 1, "PARAMETER", {"text": 'DLLL {"type": "LOG"} INFO {} TCAPPDLL 2020-01-01 0'})
@example(FIRST_US, 1, 0, [[[]]] * 120)
@example(FIRST_US, 1, 0, "{'a': 1}")
def test_a_log_line_of_the_package_is_read_back(backend, time_us, elapsed_us, step, data):
    """Times to the microsecond, step, data with their types, and what they mean as metrics."""
    backend.write_record(Record(time_us, elapsed_us, step, data))
    record = read_one(backend.file.lines.pop())
    assert type(record) is FileRecord
    assert (time_us, elapsed_us) == times_of(record)
    assert repr(step) == repr(record.step)  # NaN is no equal of itself
    assert repr(to_plain(data)) == repr(record.data)
    written = Record(time_us, elapsed_us, step, data)
    assert repr(dict(written.numbers)) == repr(dict(record.numbers))
    assert repr(written.plain) == repr(record.plain)
    assert written.convert()[2] == record.convert()[2]


@pytest.mark.slow
@EXAMPLES
@given(TIMES, ELAPSED, st.text(), st.dictionaries(st.text(), PLAIN, max_size=4))
@example(FIRST_US, 0, "a", {"a": 10**30, "b": -(2**63) - 1})
def test_metadata_and_infos_of_the_package_are_read_back(backend, time_us, elapsed_us, name, data):
    """Also the lines that its JSON backend writes besides; an info has no elapsed time."""
    backend.write_metadata(Metadata(time_us, elapsed_us, name, data))
    assert repr(Metadata(time_us, elapsed_us, name, data)) == repr(
        read_one(backend.file.lines.pop())
    )
    backend.write_info(Info(time_us, elapsed_us, data))
    assert repr(Info(time_us, 0, data)) == repr(read_one(backend.file.lines.pop()))


WORDS = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_./%@+-]{0,12}", fullmatch=True)
NAMES = st.lists(WORDS, min_size=1, max_size=3).map(" ".join) | WORDS.map("{}:".format)
FIGURES = st.integers(-(10**18) + 1, 10**18 - 1) | st.floats() | st.none() | st.booleans()
PRINTED_STEPS = (
    st.lists(st.integers(-9, 10**9), max_size=4).map(tuple)
    | st.integers(0, 10**18 - 1)
    | st.sampled_from(["PARAMETER", "event", "infer", "HPARAMS"])
    | st.tuples(st.sampled_from(["Calibration", "it's"]), st.integers())
)


@pytest.mark.slow
@EXAMPLES
@given(
    TIMES,
    PRINTED_STEPS,
    st.dictionaries(NAMES, st.tuples(FIGURES, WORDS | st.none() | st.just("")), min_size=1),
)
@example(FIRST_US, "event", {"epoch": (3, "s"), "rank": (1, ""), "rank:": (2, None)})
@example(LATEST_US, (), {"a b c": (float("nan"), "img/s"), "d": (None, "None")})
def test_a_printed_line_is_read_back(time_us, step, figures):
    """Times, steps, names with blanks, figures and units of DLLogger's default formats."""
    output = io.StringIO()
    backend = StdOutBackend(1)
    for name, (_, unit) in figures.items():
        backend.write_metadata(Metadata(time_us, 0, name, {} if unit == "" else {"unit": unit}))
    data = {name: figure for name, (figure, _) in figures.items()}
    record = Record(time_us, 0, step, data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", output)
        backend.write_record(record)
    *metadata, found = parse_line(output.getvalue().encode(), FileContext())
    assert time_us == found.time_us
    assert repr(step) == repr(found.step)
    assert repr(data) == repr(found.data)
    units = {name: unit for name, (_, unit) in figures.items() if unit not in ("", None, "None")}
    assert units == {entry.metric: entry.metadata["unit"] for entry in metadata}


# A value that is no equal of itself is NaN.
LITERALS = st.recursive(
    SCALARS.filter(lambda value: value == value) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers() | st.none() | st.tuples(st.text()), inner)
        | st.sets(st.text() | st.integers(), max_size=3)
    ),
    max_leaves=8,
)


@EXAMPLES
@given(LITERALS)
@example({"a": ["it's", 'say "x"', "\\", "\n", "\x7f", "\ud800", "\U0010ffff"]})
@example({"a": 10**30, "b": -(10**30), "c": 5e-324, "d": (), "e": set(), "f": (1,)})
@example({"a": float("inf")})
@example({"a": 10**30})
def test_a_repr_is_read_as_python_reads_it(value):
    """All of ``ast.literal_eval`` but complex numbers; and infinity, which it refuses."""
    text = repr(value)
    found = parse_repr(text)
    assert text == repr(found) or value == found  # a set's order is its own
    if "inf" not in text:
        assert ast.literal_eval(text) == found


@EXAMPLES
@given(st.dictionaries(st.text(), st.text(), max_size=6))
def test_data_of_tcap_are_read_back(data):
    """TCAP DLLogger writes every value as text."""
    record = read_one(tcap_line(str(data)).encode())
    assert data == record.data


LINES = [line for name in SAMPLES for line in (DATA / name).read_bytes().splitlines()]


@st.composite
def damaged(draw):
    """Cut, glue, overwrite and repeat pieces of lines of the samples."""
    pieces = []
    for _ in range(draw(st.integers(1, 3))):
        line = draw(st.sampled_from(LINES))
        begin, end = draw(st.integers(0, len(line))), draw(st.integers(0, len(line)))
        pieces.append(line[begin:end] if begin < end else line)
        pieces.append(draw(st.binary(max_size=3) | st.sampled_from([b"\0", b'"', b"{", b"\\"])))
    return b"".join(pieces)


@pytest.mark.slow
@settings(EXAMPLES, max_examples=1000)
@given(damaged() | st.binary(max_size=200) | st.text().map(str.encode))
def test_nothing_raises_and_nothing_is_lost_silently(line):
    """A line gives entries, or it is counted by a reason of the table."""
    context = FileContext(zone="UTC")
    entries = parse_line(line, context)
    assert entries or context.skips
    assert set(context.skipped) <= REASONS[LINE].keys()
    assert sum(context.skipped.values()) == context.skips
    for entry in entries:
        assert entry.time_us > 0
        if isinstance(entry, FileRecord):
            assert entry.rank >= 0
            entry.convert()


@EXAMPLES
@given(st.lists(st.sampled_from([log_line(), tcap_line("{'a': '1'}"), TEXT]), max_size=9))
def test_however_many_records_are_glued_all_are_given(lines):
    """As many entries as were written, in their order."""
    context = FileContext(zone="UTC")
    entries = parse_line("".join(lines).encode(), context)
    found = [entry for entry in entries if isinstance(entry, FileRecord)]
    expected = [{log_line(): (0, 1), TEXT: (0, 7)}.get(line, (0, 1)) for line in lines]
    assert expected == [record.step for record in found]
    assert ({} if lines else {"blank": 1}) == context.skipped


@EXAMPLES
@given(st.data())
def test_a_line_cut_anywhere_gives_the_record_or_is_counted(data):
    """A JSON record is given whole or not at all."""
    line = log_line('{"loss": 0.5, "text": "a } b"}').encode()
    end = data.draw(st.integers(0, len(line)))
    context = FileContext()
    entries = parse_line(line[:end], context)
    assert (end == len(line)) == bool(entries)
    assert bool(entries) != bool(context.skips)
    if entries:
        assert math.isclose(0.5, entries[0].data["loss"])
    assert json.loads(line[5:])["data"]["text"] == "a } b"

"""The JSON lines: DLLogger's text, byte by byte, and one line for whatever is logged."""

from __future__ import annotations

import json
import math
import os
import threading
from datetime import datetime

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from otel_dllogger import JSONStreamBackend, Logger
from otel_dllogger.backends import json_stream
from otel_dllogger.diagnostics import Diagnostics
from otel_dllogger.record import Info, Metadata, Record
from tests.support.in_memory import in_memory_backend
from tests.support.spoken import SpokenLog

pytestmark = pytest.mark.newest_only

FIRST_US = 1_000_000_000_000_000  # in the year 2001
LATEST_US = 4_000_000_000_000_000  # in the year 2096


@pytest.fixture(scope="module")
def backend():
    """A backend whose lines stay in memory."""
    return in_memory_backend()


def dllogger_times(time_us, elapsed_us):
    """Return an entry's times by DLLogger's own expressions."""
    timestamp = datetime.fromtimestamp(time_us / 1e6)  # noqa: DTZ006 - as DLLogger has it
    return {
        "timestamp": str(timestamp.timestamp()),
        "datetime": str(timestamp.astimezone()),
        "elapsedtime": str(elapsed_us / 1e6),
    }


STEPS = (
    st.tuples(st.integers(), st.integers())
    | st.lists(st.integers(0, 9), max_size=4).map(tuple)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.tuples(st.text(), st.integers())
    | st.none()
)


@given(st.integers(FIRST_US, LATEST_US), st.integers(0, 10**13), STEPS)
@example(1570716916_000000, 0, (0, 1))
@example(1570716916_146970, 7, (0, 1, 2))
@example(1570716916_000001, 99, ())
@example(1570716916_100000, 100, "PARAMETER")
def test_a_log_line_is_dlloggers_but_for_the_blanks_in_data(backend, time_us, elapsed_us, step):
    """Times, keys, order, blanks and the step are those of json.dumps in DLLogger."""
    backend.write_record(Record(time_us, elapsed_us, step, {"loss": 0.5, "n": 2}))
    entry = {**dllogger_times(time_us, elapsed_us), "type": "LOG", "step": step, "data": 0}
    expected = f"DLLL {json.dumps(entry)[:-2]}{{"
    assert backend.file.lines.pop().decode() == expected + '"loss":0.5,"n":2}}\n'


@given(
    st.integers(FIRST_US, LATEST_US),
    st.integers(0, 10**13),
    st.text(),
    st.dictionaries(st.text(), st.none() | st.text() | st.floats() | st.lists(st.integers())),
)
@example(1724912517_392403, 7, "train.loss", {"unit": "", "GOAL": "MINIMIZE", "STAGE": "TRAIN"})
def test_a_metadata_line_is_dlloggers(backend, time_us, elapsed_us, metric, metadata):
    """A METADATA line is json.dumps of DLLogger's dict, in DLLogger's order."""
    backend.write_metadata(Metadata(time_us, elapsed_us, metric, metadata))
    times = dllogger_times(time_us, elapsed_us)
    entry = {
        "timestamp": times["timestamp"],
        "elapsedtime": times["elapsedtime"],
        "datetime": times["datetime"],
        "type": "METADATA",
        "metric": metric,
        "metadata": metadata,
    }
    assert backend.file.lines.pop().decode() == f"DLLL {json.dumps(entry)}\n"


@given(st.integers(FIRST_US, LATEST_US), st.text() | st.dictionaries(st.text(), st.floats()))
def test_an_info_line_is_tcaps(backend, time_us, data):
    """An INFO line has a naive local datetime and no timestamp."""
    backend.write_info(Info(time_us, 0, data))
    timestamp = datetime.fromtimestamp(time_us / 1e6)  # noqa: DTZ006 - as TCAP DLLogger has it
    entry = {"local_rank": 0, "datetime": str(timestamp), "type": "INFO", "data": data}
    assert backend.file.lines.pop().decode() == f"INFO {json.dumps(entry)}\n"


@given(st.lists(st.integers(FIRST_US, FIRST_US + 5_000_000), min_size=2, max_size=6))
def test_times_may_go_back(backend, times_us):
    """What lines of a second share is never used for another, whatever the clock does."""
    for time_us in times_us:
        backend.write_record(Record(time_us, 0, (), {}))
    written = [json.loads(line[5:])["timestamp"] for line in backend.file.lines]
    backend.file.lines.clear()
    assert written == [str(time_us / 1e6) for time_us in times_us]


def test_dlloggers_own_form_of_log_writes_the_same(backend):
    """A subclass that calls super().log gets the line that the Logger would have had."""
    record = Record(1570716916_143421, 123_456, (0, 1), {"loss": 1.0})
    backend.write_record(record)
    backend.log(record.timestamp, record.elapsed_s, (0, 1), {"loss": 1.0})
    metadata = Metadata(1570716916_143421, 123_456, "loss", {"unit": "s"})
    backend.write_metadata(metadata)
    backend.metadata(metadata.timestamp, metadata.elapsed_s, "loss", {"unit": "s"})
    info = Info(1570716916_143421, 123_456, "text")
    backend.write_info(info)
    backend.info(info.timestamp, "text")
    lines, backend.file.lines = backend.file.lines, []
    assert lines[::2] == lines[1::2]


class Strange:
    """An object that nothing can be done with."""

    def __repr__(self):
        raise RuntimeError("no text")


def cycle():
    """Return a list that contains itself."""
    items = [1]
    items.append(items)
    return items


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, {}),
        ({"a": None, "b": True, "c": "text"}, {"a": None, "b": True, "c": "text"}),
        ({"a": np.float32(0.5), "b": np.arange(3)}, {"a": 0.5, "b": [0, 1, 2]}),
        ({"a": {"b": (1, {"c": [2]})}}, {"a": {"b": [1, {"c": [2]}]}}),
        ({1: 2, None: 3, False: 4}, {"1": 2, "null": 3, "false": 4}),
        ({"a": 2**64, "b": -(2**70)}, {"a": 2**64, "b": -(2**70)}),
        ({"a": 10**5000}, {"a": f"{10**5000:#x}"}),
        ({"a": 10**5000, "b": 0.5}, {"a": f"{10**5000:#x}", "b": 0.5}),
        ({"a": "\ud800", "\udfff": 1}, {"a": "\ud800", "\udfff": 1}),
        ({"a": b"\xff", "b": 1j}, {"a": "\\xff", "b": "1j"}),
        ({"a": Strange()}, {"a": "<Strange that cannot be shown>"}),
        ({"a": cycle()}, {"a": [1, "<list: contains itself>"]}),
        ({"two\nlines": "\r\n\u2028"}, {"two\nlines": "\r\n\u2028"}),
        (None, None),
        ("text", "text"),
        ([1, math.inf], [1, math.inf]),
        (Strange(), "<Strange that cannot be shown>"),
    ],
    ids=lambda value: ascii(type(value).__name__),
)
def test_one_line_for_whatever_is_logged(tmp_path, counted, data, expected):
    """Each call is one line of ASCII that Python's json reads; nothing is dropped."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    logger.metadata(data, data)
    logger.info(data)
    logger.log(data, data)
    text = path.read_bytes()
    lines = [json.loads(line[5:]) for line in text.splitlines()]
    assert (text.isascii(), text.count(b"\n"), len(lines)) == (True, 3, 3)
    assert lines[2]["data"] == expected
    assert counted() == {}


@pytest.mark.parametrize(
    "step",
    [10**5000, (10**5000, 1), (1, 10**5000), (10**5000,), {"a": 1}, Strange(), cycle()],
    ids=lambda step: type(step).__name__,
)
def test_one_line_for_whatever_is_a_step(tmp_path, counted, step):
    """A step that cannot be written as a number costs neither the line nor its data."""
    path = tmp_path / "log.json"
    Logger([JSONStreamBackend(1, path)]).log(step, {"loss": 0.5})
    assert [json.loads(line[5:])["data"] for line in path.read_text().splitlines()] == [
        {"loss": 0.5}
    ]
    assert counted() == {}


# Files


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log_{rank}.json", "log_3.json"),
        ("{run}_{rank}.json", "a_b_3.json"),
        ("log_{x}_{}_{.json", "log_{x}_{}_{.json"),
        ("log_{x}_{rank}.json", "log_{x}_3.json"),
    ],
)
@pytest.mark.parametrize("kind", [str, lambda path: path], ids=["str", "Path"])
def test_fields_of_a_file_name(tmp_path, monkeypatch, name, expected, kind):
    """Rank, run and host are filled in, other braces stay, and no field names a folder."""
    for variable, value in (("RANK", "3"), ("WORLD_SIZE", "4"), ("OTEL_DLLOGGER_RUN", "a/b")):
        monkeypatch.setenv(variable, value)
    Logger([JSONStreamBackend(1, kind(tmp_path / name))]).log(0, {})
    assert [path.name for path in tmp_path.iterdir()] == [expected]


@pytest.mark.parametrize(
    ("name", "unknown"),
    [
        ("log_{rnak}.json", "{rnak}"),
        ("{local_rank}_{rank:03}_{run}.json", "{local_rank} and {rank:03}"),
        ("log_{}.json", "{}"),
        ("{run}_{host}_{rank}_{_}.json", "{_}"),
        ("{run}_{host}_{rank}.json", None),
        ("log_{_}{.json", "{_}"),
        ("log_}{.json", None),
    ],
)
def test_an_unknown_field_is_warned_of(tmp_path, caplog, name, unknown):
    """It stays as it is, and the warning names the fields that exist."""
    diagnostics = Diagnostics()
    with pytest.MonkeyPatch.context() as patch, caplog.at_level("WARNING", "otel_dllogger"):
        patch.setattr(json_stream, "DIAGNOSTICS", diagnostics)
        JSONStreamBackend(1, tmp_path / name)
        messages = SpokenLog(caplog, diagnostics).messages
    if unknown is None:
        assert [] == messages
    else:
        (message,) = messages
        assert f"{unknown} in the file name " in message
        assert "the fields are {rank}, {run} and {host}" in message
    assert not diagnostics.dropped or not any(diagnostics.dropped.values())


def test_a_file_name_of_bytes(tmp_path):
    """open() takes bytes, so does this."""
    path = tmp_path / "log.json"
    backend = JSONStreamBackend(1, os.fsencode(path))
    Logger([backend]).log(0, {})
    assert (backend._filename, len(path.read_text().splitlines())) == (os.fsencode(path), 1)


def test_a_folder_that_is_missing_is_an_error_at_once(tmp_path):
    """As with DLLogger's open(), the script learns it where it makes the backend."""
    with pytest.raises(FileNotFoundError):
        JSONStreamBackend(1, tmp_path / "missing" / "log.json")


def test_a_torn_end_is_mended_when_appending(tmp_path, counted):
    """After a kill the next line begins on a line of its own."""
    path = tmp_path / "log.json"
    path.write_text('DLLL {"step": 0}\nDLLL {"st')
    Logger([JSONStreamBackend(1, path, append=True)]).log(1, {})
    lines = path.read_text().splitlines()
    assert lines[:2] == ['DLLL {"step": 0}', 'DLLL {"st']
    assert json.loads(lines[2][5:])["step"] == 1
    assert counted() == {"torn_line": 1}


def test_a_file_that_was_moved_is_made_anew(tmp_path, counted):
    """Within a second of a rotation the lines go to the new file."""
    path = tmp_path / "log.json"
    backend = JSONStreamBackend(1, path)
    backend.write_record(Record(1_000_000, 0, 1, {}))
    path.rename(tmp_path / "old.json")
    backend.write_record(Record(2_000_000, 0, 2, {}))
    steps = [json.loads(p.read_text()[5:])["step"] for p in (tmp_path / "old.json", path)]
    assert (steps, counted()) == ([1, 2], {})


def test_two_backends_on_one_path(tmp_path):
    """Every line lands whole, once for each."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path), JSONStreamBackend(1, str(path))])
    for step in range(3):
        logger.log(step, {})
    logger.close()
    logger.log(3, {})
    steps = [json.loads(line[5:])["step"] for line in path.read_text().splitlines()]
    assert steps == [0, 0, 1, 1, 2, 2, 3, 3]


def test_lines_of_several_threads(tmp_path):
    """No line of any thread is lost or torn, and each thread's are in its order."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])

    def train(rank):
        for iteration in range(200):
            logger.log((rank, iteration), {"loss": 0.5})

    threads = [threading.Thread(target=train, args=(rank,)) for rank in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    steps = [tuple(json.loads(line[5:])["step"]) for line in path.read_text().splitlines()]
    expected = [(rank, iteration) for rank in range(4) for iteration in range(200)]
    assert sorted(steps) == expected
    by_rank = [[step for step in steps if step[0] == rank] for rank in range(4)]
    assert [step for one in by_rank for step in one] == expected


def test_a_dict_that_changes_after_the_call(tmp_path):
    """A line is what was logged at the call, not what the script makes of it later."""
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(1, path)])
    data = {}
    for step in range(3):
        data["step"] = step
        logger.log(step, data)
    data.clear()
    assert [json.loads(line[5:])["data"]["step"] for line in path.read_text().splitlines()] == [
        0,
        1,
        2,
    ]

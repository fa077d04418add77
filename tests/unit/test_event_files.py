"""TensorBoard's event files: samples of their writers, types, damage, and what is not a scalar."""

from __future__ import annotations

import math
import random
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.logs import read
from otel_dllogger.logs.parsers import events
from otel_dllogger.logs.parsers.formats import TENSORBOARD
from otel_dllogger.logs.source import open_log, read_lines
from tests.support.command import COMMAND, assert_user_error, environment, otel_dllogger
from tests.support.event_files import (
    NAME,
    T0,
    VERSION,
    content,
    event,
    frame,
    long_frame,
    number,
    scalars,
    value,
    varint,
)
from tests.support.paths import ROOT, TESTS

pytestmark = pytest.mark.newest_only

SAMPLES = TESTS / "data" / "formats" / "tensorboard"

# Of each run: stage, granularity, epoch, iteration, metric, value, seconds since T0.
ROWS = {
    "runs/Nov28_12-00-00_node1": [
        ("", "iteration", None, 10, "Loss/train", 2.0, 0),
        ("", "iteration", None, 20, "Loss/train", 1.0, 1.5),
        ("", "iteration", None, 30, "Loss/train", 0.6666666865348816, 3),
        ("val", "validation", None, 30, "val/acc", 0.5, 4.25),
        ("", "iteration", None, 40, "Loss/train", math.nan, 5),
    ],
    "version_0": [
        ("train", "iteration", None, 10, "train_loss", 2.0, 10),
        ("train", "iteration", None, 20, "train_loss", 1.0, 20),
        ("train", "iteration", None, 30, "train_loss", 0.6666666865348816, 30),
        ("val", "validation", None, 20, "val_loss", 0.75, 35),
        ("val", "validation", None, 30, "val_loss", 0.75, 45),
    ],
}


def read_all(path):
    """Return the records of a file as (step, data), and what was skipped."""
    log = open_log(str(path))
    records = []
    for line in read_lines(str(path)):
        records += [item for _, item in log.reader.read(line) if hasattr(item, "step")]
    assert set(log.reader.entries) <= {TENSORBOARD}
    return [(record.step, record.data) for record in records], log.reader.skipped


@pytest.fixture
def write(tmp_path):
    """Write an event file, and read it."""

    def write(*frames, begin=VERSION):
        path = tmp_path / NAME
        path.write_bytes(begin + b"".join(frames))
        return read_all(path)

    return write


@pytest.mark.filterwarnings("ignore:.*same run and rank|.*NaN")
@pytest.mark.parametrize("folder", ROWS)
def test_a_sample_is_read(folder):
    """Each value once, where and when it was logged, in the run that its folder names."""
    rows = list(read(SAMPLES / folder))
    found = [(*row[3:8], row.value, row.time.timestamp() - T0) for row in rows]
    assert repr(found) == repr([(*row[:6], float(row[6])) for row in ROWS[folder]])
    run = folder.replace("runs/", "formats/")  # the folder above it; tensorboard is generic
    assert {(row.run, row.rank) for row in rows} == {(run, 0)}


def test_the_two_folders_of_keras_are_one_run():
    """Its epochs are epochs, the folder is the stage, and no file is said to be in the way."""
    rows = list(read(SAMPLES / "keras"))
    assert len(rows) == 28
    found = [row[3:8] for row in rows if row.metric in ("epoch_loss", "batch_loss")]
    assert sorted(found, key=repr) == [
        ("train", "epoch", 0, None, "epoch_loss"),
        ("train", "epoch", 1, None, "epoch_loss"),
        *(("train", "iteration", None, step, "batch_loss") for step in (1, 2, 3, 4)),
        ("val", "epoch", 0, None, "epoch_loss"),
        ("val", "epoch", 1, None, "epoch_loss"),
    ]
    validated = [row[3:7] for row in rows if row.metric == "evaluation_loss_vs_iterations"]
    assert validated == [("val", "validation", None, step) for step in (2, 4)]
    assert {row.run for row in rows} == {"keras"}


@pytest.mark.parametrize("folder", [*ROWS, "keras"])
def test_the_samples_are_in_the_documentation(folder):
    """With the name of the format."""
    table = (ROOT / "docs" / "reference" / "formats.md").read_text()
    assert TENSORBOARD in table
    assert f"`tensorboard/{folder}`" in table


FORMS = [
    (1, 5, "<f", 0.5),
    (2, 6, "<d", 0.1),
    (3, 7, "<i", -3),
    (4, 7, "<B", 200),
    (5, 7, "<h", -300),
    (6, 7, "<b", -3),
    (9, 10, "<q", -(2**40)),
    (10, 11, "<?", True),
    (17, 7, "<H", 60_000),
    (19, 13, "<e", 0.25),
    (22, 16, "<I", 2**32 - 1),
    (23, 17, "<Q", 2**53),
]


@pytest.mark.parametrize(("dtype", "field", "form", "expected"), FORMS)
@pytest.mark.parametrize("is_packed", [True, False])
def test_every_type_of_number_is_read(write, dtype, field, form, expected, is_packed):
    """From the bytes of a tensor, and from its field, packed or not."""
    raw = struct.pack(form, expected)
    bits = int.from_bytes(raw, "little") if form == "<e" else expected
    one = raw if form in ("<f", "<d") else varint(int(bits))
    wire = {"<f": 5, "<d": 1}.get(form, 0)
    in_field = content(field, one) if is_packed else varint(field << 3 | wire) + one
    tensors = (number(1, dtype) + content(4, raw), number(1, dtype) + in_field)
    records, skipped = write(*(event(1, value("a", tensor=one)) for one in tensors))
    assert records == [(1, {"a": float(expected)})] * 2
    assert skipped == {"not_a_record": 1}


def test_bfloat16_is_read(write):
    """As the upper half of a float."""
    tensor = number(1, 14) + content(13, varint(0x3FC0))
    assert write(event(1, value("a", tensor=tensor)))[0] == [(1, {"a": 1.5})]


ONE = number(1, 1) + content(5, struct.pack("<f", 1))
SHAPE = content(2, content(2, number(1, 1)))


@pytest.mark.parametrize("plugin", ["", "scalars"])
@pytest.mark.parametrize("shape", [b"", SHAPE, SHAPE + SHAPE])
def test_a_tensor_of_one_element_is_a_scalar(write, plugin, shape):
    """Whatever its rank; a later value of a tag may be without its plugin."""
    records, _ = write(event(1, value("a", tensor=ONE + shape, plugin=plugin)))
    assert records == [(1, {"a": 1.0})]


@pytest.mark.parametrize(
    "other",
    [
        value("histogram", tensor=number(1, 2) + content(4, bytes(24)), plugin="histograms"),
        value("curve", tensor=ONE, plugin="pr_curves"),
        value("two", tensor=number(1, 1) + content(5, struct.pack("<2f", 1, 2))),
        value("broadcast", tensor=ONE + content(2, content(2, number(1, 2)))),
        value("text", tensor=number(1, 7) + content(8, b"hello"), plugin="text"),
        value("empty", tensor=number(1, 1) + content(2, content(2, number(1, 0)))),
        value("hparams", plugin="hparams"),
        content(1, content(1, b"picture") + content(4, content(4, b"PNG"))),
        content(1, content(1, b"old histogram") + content(5, bytes(64))),
    ],
)
def test_what_is_no_scalar_is_no_damage(write, other):
    """Nor does it keep the scalars of its event from being read."""
    records, skipped = write(event(1, other), event(2, value("a", 0.5), other))
    assert records == [(2, {"a": 0.5})]
    assert skipped == {"not_a_record": 2}


def test_a_graph_is_no_damage(write):
    """Nor is a message of the session's log."""
    _, skipped = write(event(0, rest=content(4, b"graph")), event(0, rest=content(7, b"")))
    assert skipped == {"not_a_record": 3}


def test_a_frame_that_is_too_long_is_left_out(write):
    """A graph may have any size; what follows it is read."""
    graph = long_frame(3_000_000)
    assert write(scalars(0, 1), graph, graph, scalars(1, 3)) == (
        [(step, {"Loss/train": 8 / (1 + step)}) for step in range(2)]
        + [(2, {"Loss/train": pytest.approx(8 / 3)})],
        {"not_a_record": 1},
    )


# Damage


def broken(data: bytes, at: int) -> bytes:
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]


@pytest.mark.parametrize("at", [0, 9, 20, -1], ids=["length", "its CRC", "data", "their CRC"])
def test_a_damaged_event_costs_no_other(write, at):
    """It is counted once, however it is damaged, and its value is not believed."""
    bad = scalars(1, 2)
    records, skipped = write(scalars(0, 1), broken(bad, at % len(bad)), scalars(2, 4))
    assert [step for step, _ in records] == [0, 2, 3]
    assert skipped == {"not_a_record": 1, "malformed": 1}


@pytest.mark.parametrize("left", [1, 11, 12, 30, -1])
def test_the_beginning_of_an_event_at_the_end_is_torn(write, left):
    """The process was killed, or has not written the rest yet."""
    records, skipped = write(scalars(0, 2), scalars(2, 3)[:left])
    assert [step for step, _ in records] == [0, 1]
    assert skipped == {"not_a_record": 1, "torn": 1}


def test_the_beginning_of_a_long_event_is_torn(write):
    """It is not held in memory."""
    _, skipped = write(long_frame(3_000_000)[:2_000_000])
    assert skipped == {"not_a_record": 1, "torn": 1}


def test_nuls_between_events_are_damage(write):
    """As a machine that crashed leaves them behind."""
    records, skipped = write(scalars(0, 1), bytes(1000), scalars(1, 2))
    assert [step for step, _ in records] == [0, 1]
    assert skipped == {"not_a_record": 1, "nul_bytes": 1}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"\xff\xff", "malformed"),
        (content(5, value("a", 1.0)), "no_time"),
        (varint(9) + struct.pack("<d", math.nan) + content(5, value("a", 1.0)), "no_time"),
        (varint(9) + struct.pack("<d", 1e300) + content(5, value("a", 1.0)), "no_time"),
        (content(5, content(1, content(1, b"\xff") + varint(21) + bytes(4))), "invalid_utf8"),
    ],
)
def test_what_cannot_be_read_is_counted(write, payload, reason):
    """The frame is whole, but what it holds makes no sense."""
    assert write(frame(payload)) == ([], {"not_a_record": 1, reason: 1})


@given(st.binary(max_size=300), st.integers(0, 1), st.integers(0, 2**32))
def test_nothing_that_follows_a_header_raises(tmp_path_factory, raw, is_framed, seed):
    """Any bytes, any bytes in a frame, and a real file in which bits are flipped."""
    path = tmp_path_factory.getbasetemp() / NAME
    chance = random.Random(seed)
    (sample,) = (SAMPLES / "keras" / "train").iterdir()
    flipped = bytearray(sample.read_bytes())
    for _ in range(chance.randrange(1, 20)):
        flipped[chance.randrange(78, len(flipped))] ^= 1 << chance.randrange(8)
    for data in (VERSION + (frame(raw) if is_framed else raw), bytes(flipped)):
        path.write_bytes(data + scalars(7, 8))
        _records, skipped = read_all(path)
        assert skipped["not_a_record"] >= 1


# Commands

LINE = f'DLLL {{"timestamp": "{T0}", "type": "LOG", "step": [0], "data": {{"a": 1}}}}\n'


def test_check_names_the_format(tmp_path):
    """And counts events, which are not lines."""
    (tmp_path / NAME).write_bytes(VERSION + scalars(0, 3))
    done = otel_dllogger("check", NAME, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Log {NAME}: {TENSORBOARD}" in done.stdout
    assert "4 events: 3 records, 1 without a scalar" in done.stdout
    assert "All is well." in done.stdout


def test_check_says_that_there_is_no_scalar(tmp_path):
    """The file is not damaged, and not of another tool."""
    (tmp_path / NAME).write_bytes(VERSION)
    done = otel_dllogger("check", NAME, cwd=tmp_path)
    assert "no event holds a scalar" in done.stdout


def test_check_finds_nothing_wrong_with_the_two_folders_of_keras():
    """Train and validation are of one rank and of one time by design."""
    done = otel_dllogger("check", str(SAMPLES / "keras"))
    assert "All is well." in done.stdout


def test_check_reads_a_pipe(tmp_path):
    """A long event is passed over there as well."""
    data = VERSION + long_frame(2_000_000) + scalars(0, 3)
    done = subprocess.run(
        [*COMMAND, "check", "/dev/stdin"],
        input=data,
        env=environment(COLUMNS="250"),
        capture_output=True,
        check=True,
    )
    assert b"4 events: 3 records, 1 without a scalar" in done.stdout


def test_an_event_file_is_not_overwritten(tmp_path):
    """A command whose arguments are swapped must not destroy the log."""
    (tmp_path / NAME).write_bytes(VERSION + scalars(0, 3))
    (tmp_path / "job.json").write_text(LINE)
    done = otel_dllogger("backfill", "job.json", "--to", "csv", NAME, cwd=tmp_path)
    assert_user_error(done, "would be overwritten")
    assert (tmp_path / NAME).read_bytes() == VERSION + scalars(0, 3)


WITHOUT_PROTOBUF = """
import sys
sys.modules["google.protobuf"] = None
from otel_dllogger.cli.main import main
sys.exit(main())
"""


def test_a_missing_package_is_said_once(tmp_path):
    """Not for each file, and the other logs are read."""
    for count in range(3):
        (tmp_path / f"{NAME}{count}").write_bytes(VERSION + scalars(0, 3))
    (tmp_path / "job.json").write_text(LINE)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_PROTOBUF, "backfill", tmp_path, "--to", "csv", "-"],
        env=environment(),
        capture_output=True,
        check=True,
        text=True,
    )
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr.count("pip install 'otel-dllogger[tensorboard]'") == 1
    assert "and 2 more: " in done.stderr


def test_a_package_that_was_installed_since_is_not_missed(tmp_path, monkeypatch):
    """A reader that continues from a checkpoint says no longer that it needs one."""
    (tmp_path / NAME).write_bytes(VERSION + scalars(0, 3))
    reader = open_log(str(tmp_path / NAME)).reader
    with monkeypatch.context() as without:
        without.setattr(events, "_load_messages", lambda: None)
        assert reader.read(VERSION) == []
    assert "package" in reader.context.guesses
    assert len(reader.read(scalars(0, 1))) >= 1
    assert reader.context.guesses == {}

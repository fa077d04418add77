"""Samples as OpenMetrics text: byte for byte, and as a parser reads it."""

from __future__ import annotations

import math
import os
import stat
import struct
import subprocess
import sys
from array import array
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from otel_dllogger.backfill.openmetrics import write_openmetrics
from otel_dllogger.backfill.sorting import Chunk, SeriesName
from otel_dllogger.errors import BackfillError

pytestmark = pytest.mark.newest_only

LABELS = (("rank", "0"), ("run", "a"))
LOSS = SeriesName("dl_loss", LABELS, "gauge", "Last value logged as loss")


def chunk(series: SeriesName, *samples: tuple[int, float]) -> Chunk:
    """Return samples as columns."""
    return Chunk(series, array("q", [s[0] for s in samples]), array("d", [s[1] for s in samples]))


def test_it_is_this_text(tmp_path):
    """Heads as on a metrics page, counters without _total in them, exact times, escapes."""
    path = tmp_path / "run.om"
    odd = SeriesName("dl_loss", (("metric", 'a"b\\c\nd'),), "gauge", "Last value logged as loss")
    seconds = SeriesName(
        "dllogger_step_seconds_total", LABELS, "counter", "Time\nof \\ steps", "seconds"
    )
    chunks = [
        chunk(odd, (1_700_000_000_007, 1.0)),
        chunk(LOSS, (1_700_000_000_000, 0.1), (1_700_000_000_999, -1e-300)),
        chunk(LOSS, (1_700_000_001_000, 1e22)),
        chunk(seconds, (1_700_000_000_000, 3.0)),
        chunk(SeriesName("dllogger_epoch", (), "gauge", "Epoch", "s"), (1_700_000_000_000, 2.0)),
    ]
    assert 6 == write_openmetrics(chunks, path)
    assert path.read_text() == (
        "# HELP dl_loss Last value logged as loss\n"
        "# TYPE dl_loss gauge\n"
        'dl_loss{metric="a\\"b\\\\c\\nd"} 1.0 1700000000.007\n'
        'dl_loss{rank="0",run="a"} 0.1 1700000000.000\n'
        'dl_loss{rank="0",run="a"} -1e-300 1700000000.999\n'
        'dl_loss{rank="0",run="a"} 1e+22 1700000001.000\n'
        "# HELP dllogger_step_seconds Time\\nof \\\\ steps\n"
        "# TYPE dllogger_step_seconds counter\n"
        "# UNIT dllogger_step_seconds seconds\n"
        'dllogger_step_seconds_total{rank="0",run="a"} 3.0 1700000000.000\n'
        "# HELP dllogger_epoch Epoch\n"
        "# TYPE dllogger_epoch gauge\n"
        "dllogger_epoch 2.0 1700000000.000\n"
        "# EOF\n"
    )
    families = list(text_string_to_metric_families(path.read_text()))
    assert ["dl_loss", "dllogger_step_seconds", "dllogger_epoch"] == [f.name for f in families]
    assert 'a"b\\c\nd' == families[0].samples[0].labels["metric"]


SAMPLES = st.dictionaries(
    st.integers(-2000, 2000) | st.integers(1_100_000_000_000, 2_147_000_000_000),
    st.floats(),
    max_size=30,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(samples=SAMPLES)
def test_times_and_values_are_exact(tmp_path_factory, samples):
    """Every bit of both is there, of any finite value and any time."""
    path = tmp_path_factory.getbasetemp() / "exact.om"
    expected = [(time, value) for time, value in sorted(samples.items()) if math.isfinite(value)]
    chunks = [chunk(LOSS, *sorted(samples.items()))] if samples else []
    assert len(expected) == write_openmetrics(chunks, path)
    found = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            _, value, time_s = line.split(" ")
            found.append((int(Decimal(time_s) * 1000), float(value)))
    bits = [(time, struct.pack("<d", value)) for time, value in expected]
    assert bits == [(time, struct.pack("<d", value)) for time, value in found]


def test_every_millisecond_survives_prometheus():
    """It reads a time as a float and cuts off: none of these thirty years is moved by that."""
    for second in range(1_100_000_000, 2_147_483_648, 9_999_991):
        for ms in range(1000):
            assert second * 1000 + ms == int(float(f"{second}.{ms:03d}") * 1000)


def test_what_is_not_finite_is_left_out(tmp_path):
    """promtool would make an ordinary value of it; and no series stands there without one."""
    path = tmp_path / "run.om"
    other = SeriesName("dl_other", LABELS)
    chunks = [
        chunk(LOSS, (1000, math.nan), (2000, 1.5), (3000, math.inf), (4000, 1.7e308)),
        chunk(LOSS, (5000, 1.7e308), (6000, 1.7e308)),  # whose sum is not finite
        chunk(other, (1000, -math.inf), (2000, math.nan)),
    ]
    assert 4 == write_openmetrics(chunks, path)
    assert "dl_other" not in path.read_text()


def test_nothing_is_a_valid_file(tmp_path):
    """No sample at all."""
    path = tmp_path / "run.om"
    assert 0 == write_openmetrics([], path)
    assert "# EOF\n" == path.read_text()


def test_it_is_whole_or_not_there(tmp_path):
    """What stood there stays until the new file is whole; nothing else stays."""
    path = tmp_path / "run.om"
    path.write_text("old")

    def failing():
        yield chunk(LOSS, (1000, 1.0))
        raise BackfillError("the disk of the sorter is full")

    with pytest.raises(BackfillError, match="of the sorter"):
        write_openmetrics(failing(), path)
    assert ("old", [path]) == (path.read_text(), list(tmp_path.iterdir()))
    umask = os.umask(0o027)
    try:
        write_openmetrics([], path)
    finally:
        os.umask(umask)
    assert ("# EOF\n", [path]) == (path.read_text(), list(tmp_path.iterdir()))
    assert 0o640 == stat.S_IMODE(path.stat().st_mode)


WRITE = """
import sys
from array import array
from otel_dllogger.backfill.openmetrics import write_openmetrics
from otel_dllogger.backfill.sorting import Chunk, SeriesName

def chunks():
    for second in range(3):
        series = SeriesName("dl_loss", (), "gauge", "")
        yield Chunk(series, array("q", [1000 * second]), array("d", [1.0]))
        print("wrote", flush=True)
        sys.stdin.readline()

write_openmetrics(chunks(), sys.argv[1])
"""


def test_what_a_kill_leaves_is_removed_by_the_next(tmp_path):
    """But no file that another process still writes, nor one that is not ours by its name."""
    path = tmp_path / "run.om"
    others = [tmp_path / name for name in (".run.om.tmp", ".run.om.x.tmp", ".b.om.abcdefgh.tmp")]
    for other in others:
        other.write_text("somebody's")
    (tmp_path / ".run.om.aaaaaaaa.tmp").symlink_to(others[0])
    command = [sys.executable, "-c", WRITE, path]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as killed:
        assert "wrote\n" == killed.stdout.readline()
        killed.kill()
    assert 5 == len(list(tmp_path.iterdir()))
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as running:
        assert "wrote\n" == running.stdout.readline()
        assert 5 == len(list(tmp_path.iterdir()))  # the killed one's has gone
        write_openmetrics([], path)
        assert "# EOF\n" == path.read_text()
        running.communicate("\n\n\n", 20)
        assert 0 == running.returncode
    assert 3 == path.read_text().count(" 1.0 ")
    assert {path, *others, tmp_path / ".run.om.aaaaaaaa.tmp"} == set(tmp_path.iterdir())


def test_a_link_stays_a_link(tmp_path):
    """The file that it leads to is replaced."""
    target, link = tmp_path / "there" / "run.om", tmp_path / "link"
    target.parent.mkdir()
    target.write_text("old")
    link.symlink_to(target)
    write_openmetrics([], link)
    assert link.is_symlink()
    assert "# EOF\n" == target.read_text()


def test_what_is_no_file_is_written_to(tmp_path):
    """A device is not replaced by a file."""
    assert 1 == write_openmetrics([chunk(LOSS, (1000, 1.0))], "/dev/null")
    with pytest.raises(BackfillError, match=r"^/dev/full cannot be written \(No space left"):
        write_openmetrics([], "/dev/full")


@pytest.mark.parametrize("place", ["gone/run.om", "."])
def test_a_place_that_takes_no_file_is_one_line(tmp_path, place):
    """The error names it and says what to do."""
    path = tmp_path / place
    with pytest.raises(BackfillError, match=r"cannot be written \(.*\): name another") as raised:
        write_openmetrics([], path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)

"""Samples come out by series and time, each time once, whatever fits into memory."""

from __future__ import annotations

import contextlib
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger.backfill.series import SeriesName
from otel_dllogger.backfill.sorting import CHUNK_SAMPLES, SampleSorter
from otel_dllogger.errors import BackfillError
from tests.support.command import uncovered

pytestmark = pytest.mark.newest_only

NAMES = [
    SeriesName(family, (("rank", str(rank)), ("run", "a")))
    for family in ("dl_loss", "dl_a", "dllogger_steps_total")
    for rank in range(3)
]


def drain(sorter: SampleSorter) -> list[tuple[SeriesName, int, float]]:
    """Return every sample in the order in which it comes."""
    return [
        (chunk.series, time_ms, value)
        for chunk in sorter.sorted()
        for time_ms, value in zip(chunk.times_ms, chunk.values, strict=True)
    ]


def as_model(samples: list[tuple[SeriesName, int, float]]) -> list[tuple[SeriesName, int, float]]:
    """Return what must come out, by a plain dict."""
    latest = {(series, time_ms): value for series, time_ms, value in samples}
    ordered = sorted(latest, key=lambda key: (key[0].family, key[0].labels, key[1]))
    return [(series, time_ms, latest[series, time_ms]) for series, time_ms in ordered]


SAMPLES = st.lists(
    st.tuples(
        st.sampled_from(NAMES),
        st.integers(-50, 50) | st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False),
    ),
    max_size=300,
)


@settings(max_examples=300, deadline=None)
@given(samples=SAMPLES, memory_bytes=st.sampled_from((1, 100, 1000, 5000, 1 << 20)))
def test_it_is_a_dict_in_order(tmp_path_factory, samples, memory_bytes):
    """Whatever comes, in memory and in any number of runs, is what a dict would hold."""
    with SampleSorter(tmp_path_factory.getbasetemp(), memory_bytes=memory_bytes) as sorter:
        for series, time_ms, value in samples:
            sorter.append(sorter.series_id(series), time_ms, value)
        assert len(samples) == sorter.samples
        expected = as_model(samples)
        assert expected == drain(sorter)
        assert len(samples) - len(expected) == sorter.duplicates


@settings(max_examples=50, deadline=None)
@given(
    columns=st.lists(st.lists(st.integers(0, 5000), min_size=1, max_size=1500), max_size=6),
    memory_bytes=st.sampled_from((4000, 20_000, 1 << 20)),
)
def test_columns_are_merged_in_portions(tmp_path_factory, columns, memory_bytes):
    """Long overlapping runs of one series, each larger than what is read of it at once."""
    samples = []
    with SampleSorter(tmp_path_factory.getbasetemp(), memory_bytes=memory_bytes) as sorter:
        number = sorter.series_id(NAMES[0])
        for column in columns:
            values = [float(len(samples) + i) for i in range(len(column))]
            sorter.extend(number, column, values)
            samples += zip([NAMES[0]] * len(column), column, values, strict=True)
        assert as_model(samples) == drain(sorter)
        assert len(samples) - len(as_model(samples)) == sorter.duplicates


def test_long_runs_that_overlap_are_one(tmp_path):
    """Two attempts of 200,000 steps over the same hours, then one that follows them."""
    with SampleSorter(tmp_path, memory_bytes=1 << 20) as sorter:
        number = sorter.series_id(NAMES[0])
        for attempt in range(2):
            for i in range(200_000):
                sorter.append(number, 2 * i + attempt * (i % 2), float(attempt))
        sorter.extend(number, range(1_000_000, 1_100_000), [3.0] * 100_000)
        sizes, expected_ms = [], -1
        expected = {2 * i: 0.0 for i in range(200_000)}
        expected.update({2 * i + i % 2: 1.0 for i in range(200_000)})
        expected.update(dict.fromkeys(range(1_000_000, 1_100_000), 3.0))
        found = {}
        for chunk in sorter.sorted():
            sizes.append(len(chunk.times_ms))
            assert expected_ms < chunk.times_ms[0]
            expected_ms = chunk.times_ms[-1]
            found.update(zip(chunk.times_ms, chunk.values, strict=True))
    assert expected == found
    assert 100_000 == sorter.duplicates
    assert max(sizes) <= CHUNK_SAMPLES


def test_the_last_added_wins_before_another_run_follows(tmp_path):
    """A run that begins earlier was added later, and a third one follows both."""
    with SampleSorter(tmp_path, memory_bytes=16 * 10) as sorter:
        number = sorter.series_id(NAMES[0])
        for value, start_ms in enumerate((10, 5, 100)):
            sorter.extend(number, range(start_ms, start_ms + 10), [float(value)] * 10)
        found = {time_ms: value for _, time_ms, value in drain(sorter)}
    assert {**dict.fromkeys(range(5, 15), 1.0), **dict.fromkeys(range(15, 20), 0.0)} == {
        time_ms: value for time_ms, value in found.items() if time_ms < 100
    }
    assert 25 == len(found)


def test_microseconds_are_rounded_down(tmp_path):
    """A millisecond is Prometheus' resolution; within one the last sample wins."""
    with SampleSorter(tmp_path) as sorter:
        sorter.add(NAMES[0], 1_700_000_000_123_999, 1.0)
        sorter.add(NAMES[0], 1_700_000_000_123_001, 2.0)
        sorter.add(NAMES[0], 1_700_000_000_124_000, 3.0)
        expected = [(NAMES[0], 1_700_000_000_123, 2.0), (NAMES[0], 1_700_000_000_124, 3.0)]
        assert expected == drain(sorter)
    assert 1 == sorter.duplicates


def test_what_is_not_finite_comes_out(tmp_path):
    """A NaN takes the place of an earlier value, and its target decides what becomes of it."""
    with SampleSorter(tmp_path, memory_bytes=1) as sorter:
        for time_us, value in ((1000, 1.0), (1500, math.nan), (2000, math.inf)):
            sorter.add(NAMES[0], time_us, value)
        (first, second) = drain(sorter)
    assert math.isnan(first[2])
    assert (NAMES[0], 2, math.inf) == second


def test_help_does_not_make_another_series():
    """Two descriptions of one series are one series."""
    assert SeriesName("a", (), "gauge", "x") == SeriesName("a", (), "counter", "y", "seconds")
    assert 1 == len({SeriesName("a", (), help="x"), SeriesName("a", (), help="y")})
    assert SeriesName("a", ()) != SeriesName("a", (("rank", "0"),))


def open_files() -> list[str]:
    """Return what this process has open; of a file without a name, where it would be."""
    paths = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the one that this listing had open
            paths.append(str(descriptor.readlink()))
    return paths


def test_nothing_stays_on_disk(tmp_path):
    """The spill file has no name, so that not even SIGKILL leaves it."""
    with SampleSorter(tmp_path, memory_bytes=1) as sorter:
        for i in range(100):
            sorter.add(NAMES[i % 3], i * 1000, 1.0)
        assert [] == list(tmp_path.iterdir())
        assert any(path.startswith(f"{tmp_path}/") for path in open_files())
    assert not any(path.startswith(f"{tmp_path}/") for path in open_files())


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    """The error names the folder and what to do."""
    with (
        SampleSorter(tmp_path / "gone", memory_bytes=1) as sorter,
        pytest.raises(BackfillError, match=r"gone does not take .*No such file.*TMPDIR$"),
    ):
        sorter.add(NAMES[0], 1, 1.0)


def test_a_spill_file_that_lost_its_end_is_one_line(tmp_path):
    """What cannot be read back is no sample that is silently missing."""
    with SampleSorter(tmp_path, memory_bytes=1) as sorter:
        for i in range(100):
            sorter.add(NAMES[i % 3], i * 1000, 1.0)
        os.ftruncate(sorter._fd, 1000)
        with pytest.raises(BackfillError, match=r"\(the file has become shorter\)"):
            drain(sorter)


_FULL = """
import resource, signal, sys
from array import array
from otel_dllogger.backfill.sorting import SampleSorter
from otel_dllogger.errors import BackfillError
from otel_dllogger.backfill.series import SeriesName
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with SampleSorter(sys.argv[1], memory_bytes=64_000) as sorter:
    number = sorter.series_id(SeriesName("a", ()))
    try:
        for i in range(100_000):
            sorter.append(number, i, 1.0)
    except BackfillError as error:
        print(error)
"""


def test_a_full_disk_is_one_line(tmp_path):
    """A write that the kernel cuts short and then refuses."""
    done = subprocess.run(
        [sys.executable, "-c", _FULL, tmp_path],
        env=uncovered(),  # coverage.py would find no room for its own file
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"{tmp_path} does not take what exceeds the memory (File too large)" in done.stdout
    assert (1, "") == (done.stdout.count("\n"), done.stderr)


_PEAK = """
import sys
from array import array
from pathlib import Path
from otel_dllogger.backfill.sorting import SampleSorter
from otel_dllogger.backfill.series import SeriesName
folder, series, samples = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with SampleSorter(folder, memory_bytes=16 << 20) as sorter:
    numbers = [sorter.series_id(SeriesName("a", (("rank", str(i)),))) for i in range(series)]
    for i in range(samples):
        for number in numbers:
            sorter.append(number, i, 1.0)
    count = sum(len(chunk.values) for chunk in sorter.sorted())
    assert count == series * samples, count
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1])
"""


@pytest.mark.parametrize(("series", "samples"), [(2, 1_500_000), (50_000, 40)])
def test_memory_is_bounded(tmp_path, series, samples):
    """Few series with many samples, and many with few: neither grows with the samples."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, tmp_path, str(series), str(samples)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""},
    )
    # An interpreter with the package, 16 MiB of samples with what is read of them, the names.
    limit_kib = 60 * 1024 + series * 1.2
    assert int(done.stdout) < limit_kib

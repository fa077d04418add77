"""Samples come out by series and time, each time once, whatever fits into memory."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger.backfill.samples import SampleReader
from otel_dllogger.backfill.sorting import CHUNK_SAMPLES, SLOT_MS, SampleSorter, SeriesName
from otel_dllogger.logs.source import Source
from otel_dllogger.logs.whole_logs import find_logs
from tests.support.command import uncovered

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(samples=SAMPLES, memory_bytes=st.sampled_from((1, 100, 1000, 5000, 1 << 20)))
def test_it_is_a_dict_in_order(samples, memory_bytes):
    """Whatever comes, in memory and in any number of runs, is what a dict would hold."""
    with SampleSorter(memory_bytes=memory_bytes) as sorter:
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
def test_columns_are_merged_in_portions(columns, memory_bytes):
    """Long overlapping runs of one series, each larger than what is read of it at once."""
    samples = []
    with SampleSorter(memory_bytes=memory_bytes) as sorter:
        number = sorter.series_id(NAMES[0])
        for column in columns:
            values = [float(len(samples) + i) for i in range(len(column))]
            sorter.extend(number, column, values)
            samples += zip([NAMES[0]] * len(column), column, values, strict=True)
        assert as_model(samples) == drain(sorter)
        assert len(samples) - len(as_model(samples)) == sorter.duplicates


def test_long_runs_that_overlap_are_one():
    """Two attempts of 200,000 steps over the same hours, then one that follows them."""
    with SampleSorter(memory_bytes=1 << 20) as sorter:
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


def test_the_last_added_wins_before_another_run_follows():
    """A run that begins earlier was added later, and a third one follows both."""
    with SampleSorter(memory_bytes=16 * 10) as sorter:
        number = sorter.series_id(NAMES[0])
        for value, start_ms in enumerate((10, 5, 100)):
            sorter.extend(number, range(start_ms, start_ms + 10), [float(value)] * 10)
        found = {time_ms: value for _, time_ms, value in drain(sorter)}
    assert {**dict.fromkeys(range(5, 15), 1.0), **dict.fromkeys(range(15, 20), 0.0)} == {
        time_ms: value for time_ms, value in found.items() if time_ms < 100
    }
    assert 25 == len(found)


def test_microseconds_are_rounded_down(tmp_path):
    """A millisecond is Prometheus' resolution; within one the last line of a log wins."""
    log = tmp_path / "run_rank0.json"
    with log.open("w") as file:
        for value, time_s in ((1.0, "0.123001"), (2.0, "0.123999"), (3.0, "0.124000")):
            entry = {"timestamp": f"170000000{time_s}", "elapsedtime": time_s, "type": "LOG"}
            entry |= {"step": [0, int(value)], "data": {"loss": value}}
            file.write(f"DLLL {json.dumps(entry)}\n")
    source = Source([str(log)])
    with SampleSorter() as sorter:
        SampleReader(source, sorter).run(find_logs(source))
        losses = [sample[1:] for sample in drain(sorter) if sample[0].family == "dl_loss"]
    assert [(1_700_000_000_123, 2.0), (1_700_000_000_124, 3.0)] == losses
    assert sorter.duplicates


def test_what_is_not_finite_comes_out():
    """A NaN takes the place of an earlier value, and its target decides what becomes of it."""
    with SampleSorter(memory_bytes=1) as sorter:
        number = sorter.series_id(NAMES[0])
        for time_ms, value in ((1, 1.0), (1, math.nan), (2, math.inf)):
            sorter.append(number, time_ms, value)
        (first, second) = drain(sorter)
    assert math.isnan(first[2])
    assert (NAMES[0], 2, math.inf) == second


def test_samples_come_by_periods():
    """Each by series and time; how many samples there are is known by slot."""
    slots = (-2, -1, 0, 1, 5)
    times_ms = [slot * SLOT_MS + ms for slot in slots for ms in (0, 1, SLOT_MS - 1)]
    with SampleSorter(memory_bytes=100) as sorter:
        for name in reversed(NAMES):
            sorter.extend(sorter.series_id(name), times_ms, [1.0] * len(times_ms))
        counts = sorter.samples_by_slot()
        assert dict.fromkeys((slot * SLOT_MS for slot in slots), 3 * len(NAMES)) == counts
        periods = {-2: 1, -1: 0, 0: 0, 1: 7, 5: 1}
        found = [
            (number, [(chunk.series, chunk.times_ms.tolist()) for chunk in chunks])
            for number, chunks in sorter.sorted_by(lambda first_ms: periods[first_ms // SLOT_MS])
        ]
        expected = {0: times_ms[3:9], 1: times_ms[:3] + times_ms[12:], 7: times_ms[9:12]}
        assert [
            (number, [(name, expected[number]) for name in sorted(NAMES)]) for number in (0, 1, 7)
        ] == found
        assert len(NAMES) * len(times_ms) == len(drain(sorter))


def test_help_does_not_make_another_series():
    """Two descriptions of one series are one series."""
    assert SeriesName("a", (), "gauge", "x") == SeriesName("a", (), "counter", "y", "seconds")
    assert 1 == len({SeriesName("a", (), help="x"), SeriesName("a", (), help="y")})
    assert SeriesName("a", ()) != SeriesName("a", (("rank", "0"),))


_SPILL = """
import sys
from otel_dllogger.errors import BackfillError
from otel_dllogger.backfill.sorting import SLOT_MS, SampleSorter, SeriesName

def say(*words):
    print(*words, flush=True)
    sys.stdin.readline()

with SampleSorter(memory_bytes=1) as sorter:
    number = sorter.series_id(SeriesName("a", ()))
    for i in range(20_000):
        sorter.append(number, i * SLOT_MS, float(i))
    say("spilled")
    try:
        chunks = sorter.sorted()
        next(chunks)
        say("sorted")
        chunks.close()
    except BackfillError as error:
        print(error)
say("closed")
"""


@contextlib.contextmanager
def spilling(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a sorter whose folder for temporary files this is, until it has used it."""
    with subprocess.Popen(
        [sys.executable, "-c", _SPILL],
        env={**os.environ, "TMPDIR": str(folder), "SQLITE_TMPDIR": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert "spilled\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


def answer(process: subprocess.Popen[str]) -> str:
    """Have it go on, and return what it says next."""
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def open_files(process: subprocess.Popen[str], folder: Path) -> list[Path]:
    """Return what it has open of a folder; a file without a name counts as well."""
    descriptors = Path(f"/proc/{process.pid}/fd").iterdir()
    return [path for path in descriptors if str(path.readlink()).startswith(f"{folder}/")]


def test_nothing_stays_on_disk(tmp_path):
    """Temporary files have no names, so that not even SIGKILL leaves them."""
    with spilling(tmp_path) as process:
        assert open_files(process, tmp_path)
        assert [] == list(tmp_path.iterdir())
        assert "sorted\n" == answer(process)
        assert [] == list(tmp_path.iterdir())
        assert "closed\n" == answer(process)
        assert [] == open_files(process, tmp_path)


def test_a_temporary_file_that_lost_its_end_is_one_line(tmp_path):
    """What cannot be read back is not silently missing."""
    with spilling(tmp_path) as process:
        (descriptor,) = open_files(process, tmp_path)
        os.truncate(descriptor, 1000)
        error = answer(process)
        assert "closed\n" == process.stdout.readline()
    start = "the folder for temporary files cannot hold what does not fit in memory ("
    assert error.startswith(start)
    assert error.endswith("): make room there, or name another folder with TMPDIR\n")


_FULL = """
import resource, signal, sys
from otel_dllogger.errors import BackfillError
from otel_dllogger.backfill.sorting import SampleSorter, SeriesName
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
with SampleSorter(memory_bytes=64_000) as sorter:
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
        [sys.executable, "-c", _FULL],
        # coverage.py would find no room for its own file
        env={**uncovered(), "TMPDIR": str(tmp_path), "SQLITE_TMPDIR": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(
        "the folder for temporary files cannot hold what does not fit in memory ("
    )
    assert done.stdout.endswith("): make room there, or name another folder with TMPDIR\n")
    assert (1, "") == (done.stdout.count("\n"), done.stderr)
    assert [] == list(tmp_path.iterdir())


_PEAK = """
import sys
from array import array
from pathlib import Path
from otel_dllogger.backfill.sorting import SampleSorter, SeriesName
series, samples = int(sys.argv[1]), int(sys.argv[2])
with SampleSorter(memory_bytes=16 << 20) as sorter:
    numbers = [sorter.series_id(SeriesName("a", (("rank", str(i)),))) for i in range(series)]
    for i in range(samples):
        for number in numbers:
            sorter.append(number, i, 1.0)
    count = sum(len(chunk.values) for chunk in sorter.sorted())
    assert count == series * samples, count
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(peak.split()[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize(("series", "samples"), [(2, 1_500_000), (20_000, 40)])
def test_memory_is_bounded(series, samples):
    """Few series with many samples, and many with few: neither grows with the samples."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(series), str(samples)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""},
    )
    # An interpreter with the package, 16 MiB of samples with what is read of them, the names.
    limit_kib = 72 * 1024 + series * 1.2
    assert int(done.stdout) < limit_kib

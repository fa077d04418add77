"""Following files line by line: half lines, long lines, NUL bytes, and bounds."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from otel_dllogger.diagnostics import FILE, REASONS
from otel_dllogger.logs.tail import open_files
from otel_dllogger.logs.tail.file_state import NUL_VISITS, LineBatch
from otel_dllogger.logs.tail.fingerprint import FilePosition
from otel_dllogger.logs.tail.split_lines import split_lines
from tests.support.tailer import append, counted, lines_of, rounds

pytestmark = pytest.mark.newest_only

# Lines


def test_half_a_line_waits_for_its_newline(logs, follow):
    """However often it is looked at, the beginning of a line is not given."""
    append(logs / "a.log", b"one\ntw")
    tailer = follow(logs)
    assert ({"a.log": [b"one"]}, [("appeared", "a.log")]) == rounds(tailer)
    assert ({}, []) == rounds(tailer, 20)
    append(logs / "a.log", b"o")
    assert {} == lines_of(tailer, 20)
    append(logs / "a.log", b"\n\nthree\r\n\x0b\x0c\x1c\xc2\x85\n")
    assert {"a.log": [b"two", b"", b"three\r", b"\x0b\x0c\x1c\xc2\x85"]} == lines_of(tailer, 3)
    assert {} == counted(tailer)


def test_positions_name_every_line(logs, follow):
    """A position says where a line ends, and the checksum what stands before."""
    text = b"one\ntwo\n\nfour\n"
    append(logs / "a.log", text)
    _appeared, batch = follow(logs).poll()
    ends = (4, 8, 9, 14)
    status = (logs / "a.log").stat()
    expected = [
        FilePosition(status.st_dev, status.st_ino, 1, end, zlib.crc32(text[:end])) for end in ends
    ]
    assert expected == list(batch.positions())
    assert (0, expected[-1]) == (batch.start.offset, batch.end)
    assert batch.file.position == batch.end


def test_a_line_too_long_is_passed_over_and_counted(logs, follow):
    """It is not held, whether it comes at once or in parts, and the next one is whole."""
    tailer = follow(logs, max_line_bytes=3000, file_bytes=1024)
    append(logs / "a.log", b"one\n" + b"x" * 3000 + b"\n" + b"y" * 3001 + b"\nfour\n")
    assert {"a.log": [b"one", b"x" * 3000, b"four"]} == lines_of(tailer, 10)
    assert {"line_too_long": 1} == counted(tailer)
    for _ in range(10):
        append(logs / "a.log", b"z" * 1000)
        assert {} == lines_of(tailer)
    append(logs / "a.log", b"z\nfive\n")
    assert {"a.log": [b"five"]} == lines_of(tailer, 5)
    assert {"line_too_long": 2} == counted(tailer)


def test_long_lines_among_short_ones_keep_positions_right(logs, follow):
    """A batch ends where a line is passed over, so offsets can be added up."""
    text = b"".join(b"%d" % i + b"x" * (100 if i % 3 == 0 else 5) + b"\n" for i in range(10))
    append(logs / "a.log", text)
    batches = [
        item for item in follow(logs, max_line_bytes=50).poll() if isinstance(item, LineBatch)
    ]
    assert 3 == len(batches)
    for batch in batches:
        for line, position in zip(batch.lines, batch.positions(), strict=True):
            assert text[: position.offset].endswith(b"\n" + line + b"\n")
            assert zlib.crc32(text[: position.offset]) == position.checksum


def test_a_line_too_long_is_passed_over_across_a_restart(logs, follow, tmp_path):
    """That we are within such a line is in the checkpoint."""
    append(logs / "a.log", b"x" * 2000)
    tailer = follow(logs, max_line_bytes=100, checkpoint=tmp_path / "saved")
    assert {} == lines_of(tailer, 3)
    append(logs / "a.log", b"\none\n" + b"y" * 2000)
    assert {"a.log": [b"one"]} == lines_of(tailer, 3)
    tailer.commit()
    append(logs / "a.log", b"yyy\ntwo\n")
    tailer = follow(logs, max_line_bytes=100, checkpoint=tmp_path / "saved")
    assert {"a.log": [b"two"]} == lines_of(tailer, 3)


@pytest.mark.parametrize("size", [1, 7, 1024, 5000])
def test_lines_are_the_same_whatever_is_read_at_once(size):
    """Splitting does not depend on where a read ends."""
    text = b"".join(b"%d" % i * (i % 40) + b"\n" for i in range(400))
    whole = [line for line in text.split(b"\n")[:-1] if len(line) <= 60]
    lines, start, skipping = [], 0, False
    while start < len(text):
        want = size
        while True:
            data = text[start : start + want]
            found = split_lines(data, max_line_bytes=60, full=len(data) == want, skipping=skipping)
            if found.taken:
                break
            want += size
        lines.extend(line for block in found.blocks for line in block.lines)
        start, skipping = start + found.taken, found.skipping
    assert whole == lines


# NUL bytes


def test_nuls_that_are_filled_later_cost_nothing(logs, follow):
    """A network file system may show the new size before the new bytes."""
    append(logs / "a.log", b"one\n\0\0\0\0three\n")
    tailer = follow(logs)
    assert {"a.log": [b"one"]} == lines_of(tailer, NUL_VISITS)
    with (logs / "a.log").open("r+b") as file:
        file.seek(4)
        file.write(b"two\n")
    assert {"a.log": [b"two", b"three"]} == lines_of(tailer, 3)
    assert {} == counted(tailer)


@pytest.mark.parametrize("visits", [NUL_VISITS - 1, NUL_VISITS])
def test_every_nul_is_waited_for(logs, follow, visits):
    """That one was seen often says nothing of the next one."""
    append(logs / "a.log", b"\0ne\nt\0o\n")
    tailer = follow(logs)
    assert {} == lines_of(tailer, visits)
    with (logs / "a.log").open("r+b") as file:
        file.write(b"o")
    assert {"a.log": [b"one"]} == lines_of(tailer, NUL_VISITS)
    with (logs / "a.log").open("r+b") as file:
        file.write(b"one\ntw")
    assert {"a.log": [b"two"]} == lines_of(tailer, 3)
    assert {} == counted(tailer)


def test_nuls_that_stay_are_passed_over(logs, follow):
    """They stand where a machine crashed, or a writer went on after its file was emptied."""
    append(logs / "a.log", b"\0" * 100 + b"one\ntw\0o\nthree\n")
    tailer = follow(logs)
    assert {"a.log": [b"one", b"tw\0o", b"three"]} == lines_of(tailer, 3 * NUL_VISITS)
    assert {"nul_filled": 1} == counted(tailer)
    append(logs / "a.log", b"\0" * 5000)
    assert {} == lines_of(tailer, 3 * NUL_VISITS)


def test_a_writer_that_does_not_append_leaves_a_hole(logs, follow):
    """After copytruncate such a writer goes on at its old offset: 64 GiB take no time."""
    file = (logs / "a.log").open("wb", buffering=0)
    file.write(b"before\n")
    tailer = follow(logs)
    assert {"a.log": [b"before"]} == lines_of(tailer)
    os.truncate(logs / "a.log", 0)
    file.seek(1 << 36)
    file.write(b"after\n")
    file.close()
    lines, changes = rounds(tailer, 4 * NUL_VISITS)
    assert ({"a.log": [b"after"]}, [("restarted", "a.log")]) == (lines, changes)
    assert {"rewritten": 1} | {"nul_filled": tailer.counts["nul_filled"]} == counted(tailer)
    append(logs / "a.log", b"more\n")
    assert {"a.log": [b"more"]} == lines_of(tailer)


# Bounds


def test_a_fast_file_does_not_starve_others(logs, follow):
    """Each file gets its share of a round, and who waited comes first."""
    append(logs / "fast.log", b"x" * 99 + b"\n" + b"y" * 99 + b"\n" * 100_000)
    for i in range(20):
        append(logs / f"slow{i}.log", b"1\n" * 512)
    tailer = follow(logs, file_bytes=1024, round_bytes=4096)
    seen = []
    for _ in range(8):
        append(logs / "fast.log", b"z" * 9999 + b"\n")
        items = [item for item in tailer.poll() if isinstance(item, LineBatch)]
        assert sum(item.end.offset - item.start.offset for item in items) <= 5 * 1024
        seen.extend(item.path for item in items)
        assert tailer.behind
    assert 20 == len({path for path in seen if "slow" in path})


def test_few_descriptors_serve_many_files(logs, follow):
    """All is read with four of them, and closing gives them back."""
    for i in range(100):
        append(logs / f"{i}.log", b"1\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    tailer = follow(logs, max_open=4)
    for _ in range(3):
        assert 100 == len(lines_of(tailer))
        assert (4, before + 4) == (
            len(tailer._open_files),
            len(list(Path("/proc/self/fd").iterdir())),
        )
        for i in range(100):
            append(logs / f"{i}.log", b"1\n")
    tailer.close()
    assert before == len(list(Path("/proc/self/fd").iterdir()))
    assert {} == counted(tailer)


def test_the_descriptor_not_used_for_longest_is_closed(logs, follow):
    """A file that grows keeps its descriptor, and with it what a deletion leaves unread."""
    names = ("a.log", "b.log", "c.log")
    tailer = follow(*(logs / name for name in names), max_open=2)
    for name in ("a.log", "b.log", "a.log", "c.log"):
        append(logs / name, b"1\n")
        assert {name: [b"1"]} == lines_of(tailer)
        lines_of(tailer, 3)
    append(logs / "a.log", b"2\n")
    append(logs / "b.log", b"2\n")
    (logs / "a.log").unlink()
    (logs / "b.log").unlink()
    assert {"a.log": [b"2"]} == lines_of(tailer, 6)


def test_a_process_out_of_descriptors_goes_on(logs, follow, monkeypatch):
    """It gives some back, and reads the rest in the next rounds."""
    for i in range(10):
        append(logs / f"{i}.log", b"1\n")
    limit = [4]
    real_open = open_files.open_regular
    tailer = follow(logs)

    def open_regular(path, key):
        if len(tailer._open_files) >= limit[0]:
            raise OSError(24, "Too many open files")
        return real_open(path, key)

    monkeypatch.setattr("otel_dllogger.logs.tail.open_files.open_regular", open_regular)
    assert 10 == len(lines_of(tailer, 10))
    assert 0 < tailer.counts["descriptor_limit"]


def test_files_beyond_the_limit_are_counted(logs, follow):
    """Memory is bounded by the number of files."""
    for i in range(10):
        append(logs / f"{i}.log", b"1\n")
    tailer = follow(logs, max_files=4)
    assert 4 == len(lines_of(tailer, 3))
    assert {"file_limit": 6} == counted(tailer)


def test_an_error_of_the_disk_is_counted_and_passes(logs, follow, monkeypatch):
    """A stale handle of a network file system is opened anew."""
    append(logs / "a.log", b"1\n")
    tailer = follow(logs)
    lines_of(tailer)
    append(logs / "a.log", b"2\n")

    def fail(*_arguments):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pread", fail)
        assert ({}, []) == rounds(tailer, 3)
        assert 0 == len(tailer._open_files)
    assert {"a.log": [b"2"]} == lines_of(tailer)
    assert {"unreadable": 1} == counted(tailer)


def test_every_reason_exists_from_the_start(logs, follow):
    """So that rates of the counters work."""
    assert dict.fromkeys(REASONS[FILE], 0) == follow(logs).counts

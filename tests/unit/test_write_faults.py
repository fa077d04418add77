"""Disks that refuse, fill up and get room again: what is written, and what is counted."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger.backends import append_file
from otel_dllogger.backends.append_file import AppendFile
from otel_dllogger.diagnostics import DIAGNOSTICS
from tests.support.http import wait_until
from tests.support.paths import TESTS
from tests.support.write_faults import (
    DEADLINE_S,
    REFUSALS,
    FailingDisk,
    dropped,
    line_of,
    lines_in,
    logger_on,
    losses_in,
)

pytestmark = pytest.mark.newest_only

SCRIPTS = TESTS / "scripts"
WRITES = 200


def write_all(path, plan, count=WRITES):
    """Write lines to a disk that fails by plan, close, and return what came of it."""
    path.unlink(missing_ok=True)
    with dropped("disk_full") as lost, dropped("torn_line") as torn:
        file = AppendFile(path, append=True, write=FailingDisk(plan))
        for number in range(count):
            file.write_line(line_of(number))
        file.close()
    return (*lines_in(path), lost[0], torn[0])


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("fault", REFUSALS)
def test_every_write_may_fail(fault, length, tmp_path):
    """Whichever write fails, and how often in a row: all lines are there, whole and in order."""
    expected = ([line_of(number) for number in range(WRITES)], b"", 0, 0)
    for first in range(WRITES - length):
        plan = dict.fromkeys(range(first, first + length), REFUSALS[fault])
        assert expected == write_all(tmp_path / "log", plan), first


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "EFBIG", "0 bytes"])
@pytest.mark.parametrize("first", range(0, 20, 3))
def test_a_disk_that_stays_full_is_counted(fault, first, tmp_path):
    """What is on the disk and what is counted as dropped are together what was logged."""
    plan = dict.fromkeys(range(first, 10_000), REFUSALS[fault])
    expected = ([line_of(number) for number in range(first)], b"", WRITES - first, 0)
    assert expected == write_all(tmp_path / "log", plan)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=150)
@given(
    st.dictionaries(st.integers(0, 120), st.sampled_from(sorted(REFUSALS)), max_size=80),
    st.tuples(st.integers(0, 100), st.integers(0, 100), st.sampled_from(["ENOSPC", "0 bytes"])),
    st.sampled_from([60, 300, 1 << 20]),
)
def test_any_mix_of_faults_keeps_the_account(tmp_path_factory, plan, outage, most_bytes):
    """Written and dropped are together what was logged, in order, within bounded memory."""
    path = tmp_path_factory.mktemp("faults") / "log"
    first, length, why = outage
    plan = dict.fromkeys(range(first, first + length), why) | plan
    kept_bytes = []
    with pytest.MonkeyPatch.context() as patch, dropped("disk_full") as lost:
        patch.setattr(append_file, "MAX_PENDING_BYTES", most_bytes)
        disk = FailingDisk({number: REFUSALS[name] for number, name in plan.items()})
        file = AppendFile(path, append=True, write=disk)
        for number in range(100):
            file.write_line(line_of(number))
            kept_bytes.append(sum(map(len, file._pending)))
            assert kept_bytes[-1] == file._pending_bytes
        file.close()
    lines, rest = lines_in(path)
    whole = [line for line in lines if line in ALL_LINES]
    torn = [line for line in lines if line not in ALL_LINES]
    assert sorted(set(whole)) == whole
    assert 100 == len(whole) + lost[0]
    assert most_bytes + 50 >= max(kept_bytes)
    # A descriptor that goes in the middle of a line leaves that line's beginning, no more.
    begun = [name for name in plan.values() if name == "EBADF"]
    assert len(begun) >= len(torn)
    if not lost[0]:
        assert b"" == rest


ALL_LINES = {line_of(number) for number in range(WRITES)}


@pytest.mark.slow
def test_one_call_does_not_pay_for_a_long_outage(tmp_path):
    """What 2,000 refused lines left behind is written over several calls, in order."""
    disk = FailingDisk(dict.fromkeys(range(100_000), REFUSALS["ENOSPC"]))
    file = AppendFile(tmp_path / "log", append=True, write=disk)
    for number in range(2000):
        file.write_line(line_of(number))
    disk.plan, disk.writes = {}, 0
    file.write_line(line_of(2000))
    expected = append_file.MAX_WRITES_A_CALL
    assert expected == disk.writes
    file.flush()
    assert ([line_of(number) for number in range(2001)], b"") == lines_in(tmp_path / "log")


def test_a_line_larger_than_the_bound_is_kept(tmp_path, monkeypatch):
    """The last line is kept whatever its size: a bound must not silence every line."""
    monkeypatch.setattr(append_file, "MAX_PENDING_BYTES", 10)
    disk = FailingDisk({0: REFUSALS["EIO"], 1: REFUSALS["EIO"], 2: REFUSALS["EIO"]})
    file = AppendFile(tmp_path / "log", append=True, write=disk)
    file.write_line(b"a" * 100 + b"\n")
    file.write_line(b"b" * 100 + b"\n")
    file.close()
    assert ([b"a" * 100 + b"\n", b"b" * 100 + b"\n"], b"") == lines_in(tmp_path / "log")


def test_an_exception_out_of_a_signal_handler_leaves_the_file_usable(tmp_path):
    """Ctrl-C in the middle of a write ends that call, not the log: its line comes with the next."""

    class Interrupted(FailingDisk):
        def __call__(self, fd, data):
            if self.writes in (1, 3):
                self.writes += 1
                raise KeyboardInterrupt
            return super().__call__(fd, data)

    file = AppendFile(tmp_path / "log", append=True, write=Interrupted({}))
    for number in range(6):
        with suppress(KeyboardInterrupt):
            file.write_line(line_of(number))
    file.close()
    assert ([line_of(number) for number in range(6)], b"") == lines_in(tmp_path / "log")


def test_a_closed_file_counts_the_line_it_cut(tmp_path):
    """A line that the disk took half of is dropped at close, and its tear mended later."""
    disk = FailingDisk({0: 0.5, **dict.fromkeys(range(1, 9), REFUSALS["ENOSPC"])})
    with dropped("disk_full") as lost, dropped("torn_line") as torn:
        file = AppendFile(tmp_path / "log", append=True, write=disk)
        file.write_line(line_of(5))
        file.close()
        disk.plan = {}
        file.write_line(line_of(6))
        file.close()
    half = line_of(5)[: len(line_of(5)) // 2] + b"\n"
    assert ([half, line_of(6)], b"", [1], [1]) == (*lines_in(tmp_path / "log"), lost, torn)


def test_dev_full_never_raises():
    """A real device that is always full: nothing raises, and all is counted at close."""
    with dropped("disk_full") as lost:
        logger, backend = logger_on("/dev/full")
        for number in range(50):
            logger.log((0, number), {"loss": 0.5})
        logger.close()
    assert [50] == lost
    assert backend.file.closed


def test_dev_null_takes_everything():
    """os.devnull is what some ranks log to, and two may at once."""
    with dropped("disk_full") as lost, dropped("backend_failed") as failed:
        for append in (True, False):
            logger, _ = logger_on(os.devnull, append=append)
            logger.log((), {"loss": 0.5})
            logger.close()
    assert ([0], [0]) == (lost, failed)


def test_a_limit_on_file_size_never_raises(tmp_path):
    """RLIMIT_FSIZE gives EFBIG: what fits is whole, the rest counted, and more fits later."""
    result = subprocess.run(
        [sys.executable, SCRIPTS / "file_size_limit.py", tmp_path / "log"],
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    kept, lost = json.loads(result.stdout)
    expected = list(range(200))
    assert expected == losses_in(tmp_path / "log")
    assert (True, 0) == (0 < kept < 200, lost)


@contextmanager
def small_disk(path, size):
    """Mount a tmpfs of a few pages; None where we may not."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        yield None
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def test_a_full_disk_that_gets_room_again(tmp_path):
    """On a real full disk lines wait, and follow in order once there is room."""
    with small_disk(tmp_path / "disk", "64k") as disk:
        if disk is None:  # RLIMIT_FSIZE, above, shows the same with any user
            return
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * (40 << 10))
        logger, _ = logger_on(disk / "log")
        for number in range(500):
            logger.log((0, number), {"loss": number})
        while_full = (disk / "log").stat().st_size
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        logger.close()
        assert list(range(500)) == losses_in(disk / "log")
        assert while_full < (disk / "log").stat().st_size


def test_no_room_for_the_file_itself(tmp_path):
    """A disk without room for one more file is waited for as well."""
    with small_disk(tmp_path / "disk", "64k,nr_inodes=2") as disk:
        if disk is None:
            return
        (disk / "ballast").touch()
        logger, backend = logger_on(disk / "log")
        logger.log((0, 1), {"loss": 1})
        assert backend.file.closed
        (disk / "ballast").unlink()
        logger.log((0, 2), {"loss": 2})
        assert [1, 2] == losses_in(disk / "log")
        logger.close()


def test_a_full_disk_is_healed_while_threads_write(tmp_path):
    """Faults at random writes under 8 threads: every line once, whole, each thread's in order."""
    dice = random.Random(1)
    faults = [REFUSALS[name] for name in REFUSALS if name != "EBADF"]
    plan = {number: dice.choice(faults) for number in range(0, 4000, 3)}
    file = AppendFile(tmp_path / "log", append=True, write=FailingDisk(plan))

    def write(thread):
        for number in range(200):
            file.write_line(b"%d %d\n" % (thread, number))

    threads = [threading.Thread(target=write, args=(one,)) for one in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    file.close()
    wait_until(lambda: not any(thread.is_alive() for thread in threads))
    lines, rest = lines_in(tmp_path / "log")
    found = [tuple(map(int, line.split())) for line in lines]
    for thread in range(8):
        assert list(range(200)) == [number for one, number in found if one == thread]
    assert (b"", 1600) == (rest, len(found))


def test_a_flush_completes_a_line_that_was_cut(tmp_path):
    """The rest of the last line does not wait for another line, nor for the end."""
    path = tmp_path / "log"
    file = AppendFile(path, append=True, write=FailingDisk({0: 0.5, 1: REFUSALS["ENOSPC"]}))
    file.write_line(b"first\n")
    assert b"fir" == path.read_bytes()
    file.flush()
    assert b"first\n" == path.read_bytes()
    file.close()
    assert 0 == sum(DIAGNOSTICS.dropped.values())

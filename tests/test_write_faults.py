"""Disks that refuse, files that move away, descriptors that are not ours any more."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger import JSONStreamBackend, Logger
from otel_dllogger.backends import append_file
from otel_dllogger.backends.append_file import AppendFile
from otel_dllogger.faults import FAULTS
from tests._http import wait_until

SCRIPTS = Path(__file__).parent / "scripts"
WRITES = 200
DEADLINE_S = 60

REFUSALS = {
    "ENOSPC": OSError(errno.ENOSPC, "No space left on device"),
    "EIO": OSError(errno.EIO, "Input/output error"),
    "EFBIG": OSError(errno.EFBIG, "File too large"),
    "EDQUOT": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "EINTR": InterruptedError(errno.EINTR, "Interrupted system call"),
    "EBADF": OSError(errno.EBADF, "Bad file descriptor"),
    "0 bytes": 0,
    "1 byte": 1,
    "half": 0.5,
    "all but the newline": -1,
}


class FailingDisk:
    """Write to the real file, except for the writes that a plan (number -> fault) names."""

    def __init__(self, plan) -> None:
        self.plan = plan
        self.writes = 0

    def __call__(self, fd, data):
        fault = self.plan.get(self.writes)
        self.writes += 1
        if fault is None:
            return os.write(fd, data)
        if isinstance(fault, OSError):
            if fault.errno == errno.EBADF:
                os.close(fd)
            raise fault
        size = int(len(data) * fault) if isinstance(fault, float) else fault
        return os.write(fd, data[: size if size >= 0 else len(data) + size])


class InterruptedDisk(FailingDisk):
    """Write to the real file; at the end of some writes, by number from 1, a handler raises."""

    def __init__(self, *interrupted) -> None:
        super().__init__({})
        self.interrupted = interrupted

    def __call__(self, fd, data):
        written = super().__call__(fd, data)
        if self.writes in self.interrupted:
            raise KeyboardInterrupt
        return written


@contextmanager
def dropped(reason):
    """Collect how many of a reason are dropped within the block."""
    before = FAULTS.dropped[reason]
    counted = []
    yield counted
    counted.append(FAULTS.dropped[reason] - before)


def line_of(number):
    """Make a line of a length of its own."""
    return b"%06d %s\n" % (number, b"x" * (number * 7 % 40))


def lines_in(path):
    """Read the whole lines of a file, and what comes after the last newline."""
    *lines, rest = Path(path).read_bytes().split(b"\n")
    return [line + b"\n" for line in lines], rest


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


def logger_on(path, **options):
    """Make a Logger with a JSON file alone, as a training script does."""
    backend = JSONStreamBackend(1, path, **options)
    return Logger([backend]), backend


def losses_in(path):
    """Read the losses of a log back, as the scripts of others do; a bad line fails."""
    return [json.loads(line[5:])["data"]["loss"] for line in Path(path).read_text().splitlines()]


def next_second(backend):
    """Let the backend believe that its second is over, so that it looks after its file."""
    backend._second.start_us = 0


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


@pytest.mark.parametrize("how", ["unlinked", "renamed", "replaced", "copied and truncated"])
def test_a_rotated_file_is_followed(how, tmp_path):
    """After a rotation the next second's lines are in the file that has the name."""
    path = tmp_path / "log"
    logger, backend = logger_on(path)
    logger.log((0, 0), {"loss": 0})
    with dropped("file_replaced") as replaced:
        if how == "unlinked":
            path.unlink()
        elif how == "renamed":
            path.rename(tmp_path / "log.1")
        elif how == "replaced":
            other = tmp_path / "other"
            other.write_bytes(b'DLLL {"data": {"loss": 7}}\nDLLL {"torn')
            other.replace(path)
        else:
            shutil.copy(path, tmp_path / "log.1")
            os.truncate(path, 0)
        next_second(backend)
        logger.log((0, 1), {"loss": 1})
        logger.log((0, 2), {"loss": 2})
    logger.close()
    text = path.read_text()
    if how == "replaced":
        assert text.startswith('DLLL {"data": {"loss": 7}}\nDLLL {"torn\n')
        path.write_text(text[len('DLLL {"data": {"loss": 7}}\nDLLL {"torn\n') :])
    assert [1, 2] == losses_in(path)
    assert [1 if how in ("unlinked", "replaced") else 0] == replaced  # lines that are nowhere


def test_a_link_is_followed_to_where_it_points_now(tmp_path):
    """A symbolic link stays the name: once it points elsewhere, lines go elsewhere."""
    (tmp_path / "log").symlink_to(tmp_path / "first")
    logger, backend = logger_on(tmp_path / "log")
    logger.log((0, 0), {"loss": 0})
    (tmp_path / "log").unlink()
    (tmp_path / "log").symlink_to(tmp_path / "second")
    next_second(backend)
    logger.log((0, 1), {"loss": 1})
    logger.close()
    assert ([0], [1]) == (losses_in(tmp_path / "first"), losses_in(tmp_path / "second"))


def test_a_half_written_line_is_whole_in_the_new_file(tmp_path):
    """A line that the disk took half of before a rotation is written anew, as a whole."""
    path = tmp_path / "log"
    disk = FailingDisk({0: 0.5, 1: REFUSALS["ENOSPC"], 2: REFUSALS["ENOSPC"]})
    file = AppendFile(path, append=True, write=disk)
    file.write_line(line_of(5))
    path.rename(tmp_path / "log.1")
    file.check_path()
    file.write_line(line_of(6))
    file.close()
    assert ([line_of(5), line_of(6)], b"") == lines_in(path)


def test_a_removed_folder_loses_nothing_once_it_is_back(tmp_path):
    """Lines wait while there is no folder, and those of the second before are counted."""
    folder = tmp_path / "logs"
    folder.mkdir()
    logger, backend = logger_on(folder / "log")
    logger.log((0, 0), {"loss": 0})
    shutil.rmtree(folder)
    with dropped("file_replaced") as lost:
        next_second(backend)
        logger.log((0, 1), {"loss": 1})
        folder.mkdir()
        next_second(backend)
        logger.log((0, 2), {"loss": 2})
        logger.close()
    assert ([1, 2], [1]) == (losses_in(folder / "log"), lost)


def test_a_closed_file_in_a_removed_folder_waits(tmp_path):
    """Late lines wait for the folder of a file that was closed."""
    folder = tmp_path / "logs"
    folder.mkdir()
    logger, _ = logger_on(folder / "log")
    logger.close()
    shutil.rmtree(folder)
    logger.log((0, 1), {"loss": 1})
    folder.mkdir()
    logger.log((0, 2), {"loss": 2})
    assert [1, 2] == losses_in(folder / "log")
    logger.close()


def test_a_descriptor_closed_by_somebody_else(tmp_path):
    """os.close of our number costs no line."""
    logger, backend = logger_on(tmp_path / "log")
    for number in range(5):
        logger.log((0, number), {"loss": number})
        os.close(backend.file.fileno())
    logger.log((0, 5), {"loss": 5})
    logger.close()
    assert list(range(6)) == losses_in(tmp_path / "log")


def test_a_descriptor_that_is_another_file_by_now(tmp_path):
    """A number that somebody closed and got again is left alone from the next line on."""
    logger, backend = logger_on(tmp_path / "log")
    logger.log((0, 0), {"loss": 0})
    number = backend.file.fileno()
    with (tmp_path / "theirs").open("wb", buffering=0) as theirs:
        os.dup2(theirs.fileno(), number, inheritable=False)
        logger.log((0, 1), {"loss": 1})
        logger.close()
        os.write(number, b"still open")
        os.close(number)
    assert b"still open" == (tmp_path / "theirs").read_bytes()
    assert [0, 1] == losses_in(tmp_path / "log")


def test_a_line_after_close_still_lands(tmp_path):
    """atexit may run in any order: a late line opens the file again."""
    logger, backend = logger_on(tmp_path / "log")
    logger.log((0, 0), {"loss": 0})
    logger.close()
    logger.close()
    logger.log((0, 1), {"loss": 1})
    logger.flush()
    backend.file.close()
    backend.file.write(json.dumps({"data": {"loss": 2}}).join(("DLLL ", "\n")))
    assert [0, 1, 2] == losses_in(tmp_path / "log")
    backend.file.close()


def test_a_file_nobody_holds_is_given_back(tmp_path):
    """A backend that is forgotten keeps neither its descriptor nor its lock."""
    backend = JSONStreamBackend(1, tmp_path / "log")
    number = backend.file.fileno()
    del backend
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)


def test_a_fifo_gets_every_line(tmp_path):
    """A reader at the other end of a FIFO gets lines larger than its buffer whole."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    received = []
    end = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # there before the writer, which does not wait
    os.set_blocking(end, True)
    file = AppendFile(path, append=False)

    def read():
        with os.fdopen(end, "rb") as stream:
            received.extend(stream.read().split(b"\n"))

    reader = threading.Thread(target=read)
    reader.start()
    lines = [bytes([65 + number]) * 200_000 for number in range(5)]
    for line in lines:
        file.write_line(line + b"\n")
    file.close()
    reader.join(DEADLINE_S)
    assert [*lines, b""] == received
    assert not file.regular


def test_a_fifo_whose_reader_went_never_raises(tmp_path):
    """EPIPE is a refusal like any other: lines wait for the next reader."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = AppendFile(path, append=True)
    os.close(reader)
    file.write_line(b"1\n")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file.write_line(b"2\n")
    assert b"1\n2\n" == os.read(reader, 100)
    file.close()
    os.close(reader)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (".", IsADirectoryError),
        ("missing/log", FileNotFoundError),
        ("file/log", NotADirectoryError),
    ],
)
def test_a_path_that_cannot_be_is_refused_at_once(name, error, tmp_path):
    """A wrong path raises where the backend is made, as DLLogger's open does."""
    (tmp_path / "file").touch()
    with pytest.raises(error):
        (tmp_path / name).write_text("")
    with pytest.raises(error):
        JSONStreamBackend(1, tmp_path / name)


def test_a_file_that_may_not_be_written_is_refused(tmp_path):
    """A user without the right to write learns so where the backend is made."""
    path = tmp_path / "log"
    path.touch()
    path.chmod(stat.S_IRUSR)
    code = """
import os, sys
import otel_dllogger.encoding  # later, the modules may be out of reach
from otel_dllogger import JSONStreamBackend
if os.geteuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    JSONStreamBackend(1, sys.argv[1])
except PermissionError as error:
    print(type(error).__name__)
"""
    with ExitStack() as stack:
        for folder in path.parents:  # the folders of pytest are its user's alone
            mode = folder.stat().st_mode
            if not mode & stat.S_IXOTH:
                stack.callback(folder.chmod, stat.S_IMODE(mode))
                folder.chmod(mode | stat.S_IXOTH)
        result = subprocess.run(
            [sys.executable, "-c", code, path],
            check=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
        )
    assert "PermissionError\n" == result.stdout


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
    assert 0 == sum(FAULTS.dropped.values())


@pytest.mark.parametrize("kind", ["fifo", "folder", "link to nowhere"])
def test_what_is_not_a_file_in_the_place_of_a_log_is_not_waited_for(kind, tmp_path):
    """Lines wait in memory, and log() does not, until a file can have the name again."""
    path = tmp_path / "log"
    logger, backend = logger_on(path)
    logger.log((0, 0), {"loss": 0})
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "nowhere" / "log")
    with dropped("file_replaced") as lost:
        next_second(backend)
        logger.log((0, 1), {"loss": 1})
        logger.log((0, 2), {"loss": 2})
        path.rmdir() if kind == "folder" else path.unlink()
        logger.log((0, 3), {"loss": 3})
        logger.close()
    assert ([1, 2, 3], [1]) == (losses_in(path), lost)


def test_half_a_line_that_somebody_closed_is_written_anew(tmp_path):
    """A child mends the torn end of the file; its parent's line is then whole after the child's."""
    path = tmp_path / "log"
    file = AppendFile(path, append=True, write=FailingDisk({0: 0.5, 1: REFUSALS["ENOSPC"]}))
    file.write_line(line_of(5))
    child = AppendFile(path, append=True)
    child.write_line(line_of(6))
    child.close()
    file.write_line(line_of(7))
    file.close()
    half, *lines = path.read_bytes().split(b"\n")
    assert line_of(5).startswith(half)
    assert [line_of(6), line_of(5), line_of(7)] == [line + b"\n" for line in lines[:-1]]


def test_lines_that_go_with_a_deleted_file_are_counted_at_the_end_too(tmp_path):
    """A file that is deleted in the last second of a process took lines with it."""
    path = tmp_path / "log"
    logger, _ = logger_on(path)
    with dropped("file_replaced") as lost:
        for number in range(3):
            logger.log((0, number), {"loss": number})
        path.unlink()
        logger.close()
    assert [3] == lost
    assert not path.exists()


def test_a_file_at_the_same_place_is_not_taken_for_ours(tmp_path):
    """A descriptor of a user's that stands where ours stood gets none of our lines."""
    logger, backend = logger_on(tmp_path / "log")
    logger.log((0, 0), {"loss": 0})
    number = backend.file.fileno()
    with (tmp_path / "theirs").open("wb", buffering=0) as theirs:
        theirs.write(b"y" * (tmp_path / "log").stat().st_size)
        before = (tmp_path / "theirs").read_bytes()
        os.dup2(theirs.fileno(), number, inheritable=False)
        logger.log((0, 1), {"loss": 1})
        logger.close()
        os.close(number)
    assert before == (tmp_path / "theirs").read_bytes()
    assert [0, 1] == losses_in(tmp_path / "log")


def test_a_rotation_is_noticed_where_no_step_is_logged(tmp_path):
    """info() and metadata() look for the file as well."""
    logger, _ = logger_on(tmp_path / "log")
    logger.info("first")
    (tmp_path / "log").rename(tmp_path / "log.1")
    logger.info("second")
    logger.close()
    assert "first" in (tmp_path / "log.1").read_text()
    assert "second" in (tmp_path / "log").read_text()


def test_a_line_to_a_pipe_does_not_come_twice(tmp_path):
    """A signal handler that raises after the write ends that call; its line was written."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    file = AppendFile(path, append=True, write=InterruptedDisk(2, 4))
    for number in range(6):
        with suppress(KeyboardInterrupt):
            file.write_line(line_of(number))
    file.close()
    received = os.read(reader, 65536)
    os.close(reader)
    assert b"".join(line_of(number) for number in range(6)) == received


@pytest.mark.parametrize(
    "remove", [os.unlink, lambda path: path.rename(f"{path}.1")], ids=["deleted", "moved"]
)
def test_an_interrupted_line_does_not_come_again_in_a_new_file(tmp_path, remove):
    """It was written, and the file then deleted or moved: the next one begins without it."""
    path = tmp_path / "log"
    file = AppendFile(path, append=True, write=InterruptedDisk(2))
    file.write_line(line_of(0))
    with suppress(KeyboardInterrupt):
        file.write_line(line_of(1))
    remove(path)
    file.check_path()
    file.write_line(line_of(2))
    file.close()
    assert line_of(2) == path.read_bytes()


@pytest.mark.parametrize("moment", range(1, 4))
def test_a_second_interruption_leaves_open_whether_a_line_is_written(tmp_path, moment):
    """A handler raises while it is found out what another one hid: the line comes once."""

    class Line(bytes):
        lengths = 0  # that are asked for until a handler raises

        def __len__(self):
            Line.lengths -= 1
            if Line.lengths == 0:
                raise KeyboardInterrupt
            return super().__len__()

    path = tmp_path / "log"
    file = AppendFile(path, append=True, write=InterruptedDisk(1))
    with suppress(KeyboardInterrupt):
        file.write_line(Line(line_of(0)))
    Line.lengths = moment
    for number in (1, 2):
        with suppress(KeyboardInterrupt):
            file.write_line(line_of(number))
    file.close()
    assert b"".join(map(line_of, range(3))) == path.read_bytes()

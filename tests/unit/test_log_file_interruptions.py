"""Writes that a signal handler interrupts: the line is in the file once, wherever it goes."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import contextmanager, suppress

import pytest

from otel_dllogger import diagnostics
from otel_dllogger.backends import append_file
from otel_dllogger.backends.append_file import AppendFile
from tests.support.write_faults import REFUSALS, FailingDisk, InterruptedDisk, dropped, line_of


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
    """The line was written, and its file then deleted or moved: the new file lacks it."""
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
    """A second handler raises while the effect of the first is sorted out: one line, once."""

    class Line(bytes):
        lengths = 0  # calls of len() until a handler raises

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


class ClosedDisk:
    """A disk whose second write is interrupted, by a handler that closes the descriptor.

    Args:
        share: The share of the line that is written before.
        also: What else happens then.
    """

    def __init__(self, share=1.0, also=None) -> None:
        self.share, self.also, self.writes = share, also, 0

    def __call__(self, fd, data):
        self.writes += 1
        if self.writes != 2:
            return os.write(fd, data)
        os.write(fd, data[: round(len(data) * self.share)])
        os.close(fd)
        if self.also:
            self.also()
        raise KeyboardInterrupt


def write_three_lines(path, disk):
    """Write three lines to a file, the second one interrupted."""
    file = AppendFile(path, append=True, write=disk)
    for number in range(3):
        with suppress(KeyboardInterrupt):
            file.write_line(line_of(number))
    file.close()


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_line_comes_once_if_the_descriptor_is_closed_too(tmp_path, share):
    """Only the file can tell whether the line was written, and it is opened again."""
    path = tmp_path / "log"
    write_three_lines(path, ClosedDisk(share))
    lines = [line_of(number) for number in range(3)]
    if share == 0.5:  # torn, which a reader leaves out
        lines.insert(1, line_of(1)[: round(len(line_of(1)) * share)] + b"\n")
    assert b"".join(lines) == path.read_bytes()


def test_a_line_between_those_of_another_writer_is_found(tmp_path):
    """Another rank wrote to the file before the interrupted line, and after it."""
    path = tmp_path / "log"
    other = AppendFile(path, append=True)
    disk = ClosedDisk(also=lambda: other.write_line(line_of(8)))
    file = AppendFile(path, append=True, write=disk)
    file.write_line(line_of(0))
    other.write_line(line_of(7))
    with suppress(KeyboardInterrupt):
        file.write_line(line_of(1))
    file.write_line(line_of(2))
    file.close()
    other.close()
    assert b"".join(line_of(number) for number in (0, 7, 1, 8, 2)) == path.read_bytes()


def test_a_closed_file_that_also_moved_leaves_no_second_copy(tmp_path):
    """The interrupted line is in the file that moved: nothing tells, and the new one lacks it."""
    path = tmp_path / "log"
    write_three_lines(path, ClosedDisk(also=lambda: path.rename(tmp_path / "log.1")))
    assert line_of(0) + line_of(1) == (tmp_path / "log.1").read_bytes()
    assert line_of(2) == path.read_bytes()


def test_a_closed_pipe_gets_no_second_copy(tmp_path):
    """A pipe keeps nothing that could be looked at."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    write_three_lines(path, ClosedDisk())
    received = os.read(reader, 65536)
    os.close(reader)
    assert b"".join(map(line_of, range(3))) == received


def closed(_folder, fd):
    """Let other code close the descriptor."""
    os.close(fd)


def stolen(folder, fd):
    """Let the number of the descriptor become another file's."""
    theirs = os.open(folder / "theirs", os.O_WRONLY | os.O_CREAT, 0o666)
    os.dup2(theirs, fd)
    os.close(theirs)


def moved(folder, _fd):
    """Rotate the file."""
    (folder / "log").rename(folder / "log.1")


FAULTS = {
    "none": (None, {}),
    "closed": (closed, {}),
    "stolen": (stolen, {}),
    "moved": (moved, {}),
    "full": (None, {1: REFUSALS["ENOSPC"]}),
    "short": (None, {1: REFUSALS["half"], 2: REFUSALS["1 byte"]}),
    "closed and full": (closed, {1: REFUSALS["ENOSPC"]}),
    "moved and full": (moved, {1: REFUSALS["ENOSPC"]}),
    "closed within a write": (None, {1: REFUSALS["EBADF"]}),
}


_OURS = {append_file.__file__, diagnostics.__file__}


class Struck:
    """A block in which a signal comes at the N-th call that the file makes, or at its return.

    These are the moments at which Python runs signal handlers.
    """

    def __init__(self, moment) -> None:
        self.moments = moment

    def __enter__(self):
        gc.disable()  # files of other tests
        sys.setprofile(self._at_event)
        return self

    def __exit__(self, *_error):
        sys.setprofile(None)
        gc.enable()

    def _at_event(self, frame, event, _argument):
        ours = _OURS & {frame.f_code.co_filename, frame.f_back.f_code.co_filename}
        if ours and event in ("call", "c_return"):
            self.moments -= 1
            if self.moments == 0:
                signal.raise_signal(signal.SIGUSR1)


def late(_signum, _frame):
    """Handle a signal as scripts with a time limit do."""
    raise TimeoutError("too late")


@pytest.mark.parametrize("raises", [False, True], ids=["logs", "raises"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_signal_at_any_moment_leaves_each_line_once(tmp_path, fault, raises):
    """A handler logs or raises at each call within a call, whatever the file meets meanwhile."""
    files = []  # one for each moment, of which the handler uses the last
    handler = late if raises else lambda *_: files[-1].write_line(line_of(9))
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        for moment in range(1, 1000):
            folder = tmp_path / str(moment)
            folder.mkdir()
            if not strike_at(moment, folder, fault, files):
                break
            written = check_lines(folder)
            if raises:  # the line of the call that did not return may be there or not
                written.discard(line_of(1))
            assert written == {line_of(number) for number in (0, 2, 3, *([] if raises else [1, 9]))}
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert moment > 10


def strike_at(moment, folder, fault, files):
    """Write four lines, the second with a fault and a signal; return whether there was one."""
    harm, plan = FAULTS[fault]
    files.append(file := AppendFile(folder / "log", append=True, write=FailingDisk(plan)))
    file.write_line(line_of(0))
    descriptor = file.fileno()
    if harm:
        harm(folder, descriptor)
    with suppress(TimeoutError), Struck(moment) as struck:
        file.check_path()
        file.write_line(line_of(1))
    for number in (2, 3):
        file.check_path()
        file.write_line(line_of(number))
    file.close()
    if harm is stolen:
        os.close(descriptor)
    return struck.moments <= 0


def check_lines(folder):
    """Return the whole lines in a log and what was rotated of it, after a check of the rest."""
    known = {line_of(number) for number in range(10)}
    lines = [
        line for path in folder.glob("log*") for line in path.read_bytes().splitlines(keepends=True)
    ]
    whole = [line for line in lines if line in known]
    assert len(whole) == len(set(whole))
    assert all(line_of(1).startswith(line.rstrip(b"\n")) for line in lines if line not in known)
    assert all(path.stat().st_size == 0 for path in folder.glob("theirs"))
    return set(whole)


@contextmanager
def on_signal(handler):
    """Install a signal handler for a while."""
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("raises", [False, True], ids=["logs", "raises"])
@pytest.mark.parametrize("full", [False, True], ids=["room", "full"])
def test_a_signal_while_a_file_is_closed_costs_no_line_uncounted(tmp_path, full, raises):
    """Each line is in the file, or was counted as lost when the file was closed; never both."""
    files = []

    def log(*_):
        files[-1].write_line(line_of(9))

    with on_signal(late if raises else log):
        for moment in range(1, 1000):
            path = tmp_path / str(moment)
            disk = FailingDisk(dict.fromkeys(range(1, 1000), REFUSALS["ENOSPC"]) if full else {})
            files.append(file := AppendFile(path, append=True, write=disk))
            file.write_line(line_of(0))
            file.write_line(line_of(1))
            with dropped("disk_full") as lost:
                with suppress(TimeoutError), Struck(moment) as struck:
                    file.close()
                disk.plan = {}
                written_before = disk.writes
                file.write_line(line_of(2))
                assert disk.writes > written_before  # in the kernel on return
                file.close()
            if struck.moments > 0:
                break
            lines = path.read_bytes().splitlines(keepends=True)
            expected = [line_of(number) for number in (0, 1, 2, *([] if raises else [9]))]
            assert sorted(set(lines)) == sorted(lines)
            assert set(lines) <= set(expected)
            assert len(lines) + lost[0] == len(expected)
    assert moment > 5


@pytest.mark.parametrize("returns", [False, True], ids=["in the handler", "after it"])
@pytest.mark.parametrize("fault", [{}, {1: REFUSALS["ENOSPC"]}], ids=["room", "full"])
@pytest.mark.parametrize("close", [False, True], ids=["write", "close"])
def test_a_child_forked_by_a_signal_handler_logs_on(tmp_path, fault, close, returns):
    """Its own lines are in the file at once; the line of the call that forked is its parent's."""
    children = []

    def fork(*_):
        children.append(os.fork())
        if not children[-1] and not returns:
            finish_child()

    def finish_child():
        sys.setprofile(None)
        disk.plan = {}
        code = 1
        try:
            file.write_line(line_of(8))
            code = 0 if line_of(8) in path.read_bytes() else 2
            file.write_line(line_of(9))
        finally:
            os._exit(code)

    with on_signal(fork):
        for moment in range(2, 1000):  # at the first one, no line was handed over yet
            path = tmp_path / str(moment)
            disk = FailingDisk(fault)
            file = AppendFile(path, append=True, write=disk)
            file.write_line(line_of(0))
            if close:
                file.write_line(line_of(1))
            with Struck(moment) as struck:
                if close:
                    file.close()
                else:
                    file.write_line(line_of(1))
            if children and not children[-1]:
                finish_child()
            if struck.moments > 0:
                break
            assert os.waitstatus_to_exitcode(os.waitpid(children[-1], 0)[1]) == 0
            file.write_line(line_of(2))
            file.close()
            lines = path.read_bytes().splitlines(keepends=True)
            assert sorted(lines) == [line_of(number) for number in (0, 1, 2, 8, 9)]
    assert moment > 5

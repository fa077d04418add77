"""The file of lines itself: opening, sharing, mending, closing."""

from __future__ import annotations

import fcntl
import gc
import os
import stat
import subprocess
import sys
import time

import pytest

import otel_dllogger as dllogger
from otel_dllogger.backends import append_file
from otel_dllogger.backends.append_file import AppendFile
from otel_dllogger.backends.open_files import close_append_file, open_append_file
from otel_dllogger.diagnostics import DIAGNOSTICS
from tests.support.command import assert_forked_child_answers
from tests.support.write_faults import losses_in

pytestmark = pytest.mark.newest_only

FOREIGN_LOCK = """
import fcntl, sys
with open(sys.argv[1], "rb") as file:
    fcntl.flock(file, {"shared": fcntl.LOCK_SH, "exclusive": fcntl.LOCK_EX}[sys.argv[2]])
    print("locked", flush=True)
    sys.stdin.read()
"""

LONG_LINE = """
import sys
from otel_dllogger.backends.append_file import AppendFile
line = b"x" * int(sys.argv[2]) + b"\\n"
AppendFile(sys.argv[1], append=True).write_line(line)
"""


@pytest.fixture
def lock(tmp_path):
    """Lock the file of the test in another process, until the end of the test."""
    held = []

    def take(kind):
        (tmp_path / "log").touch()
        process = subprocess.Popen(
            [sys.executable, "-c", FOREIGN_LOCK, tmp_path / "log", kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        held.append(process)
        assert b"locked\n" == process.stdout.readline()

    yield take
    for process in held:
        process.communicate(timeout=20)


def test_a_line_is_in_the_file_on_return(tmp_path):
    """Nothing is held back, and a descriptor is there for whoever asks."""
    file = AppendFile(tmp_path / "log", append=False)
    file.write_line(b"1\n")
    assert b"1\n" == (tmp_path / "log").read_bytes()
    assert (str(tmp_path / "log"), False) == (file.name, file.closed)
    assert stat.S_ISREG(os.fstat(file.fileno()).st_mode)
    assert 3 == file.write("2é\n")
    file.close()
    assert ("1\n2é\n", True, -1) == ((tmp_path / "log").read_text(), file.closed, file.fileno())


@pytest.mark.parametrize(("append", "expected"), [(True, b"old\nnew\n"), (False, b"new\n")])
def test_a_file_is_emptied_or_kept(append, expected, tmp_path):
    """append=False empties the file, as DLLogger does."""
    (tmp_path / "log").write_bytes(b"old\n")
    file = AppendFile(tmp_path / "log", append=append)
    file.write_line(b"new\n")
    file.close()
    assert expected == (tmp_path / "log").read_bytes()


@pytest.mark.parametrize(
    ("content", "expected", "torn"),
    [(b"", b"", 0), (b"1\n", b"1\n", 0), (b"1\n2", b"1\n2\n", 1), (b"\n", b"\n", 0)],
)
def test_a_torn_end_is_mended_at_once(content, expected, torn, tmp_path):
    """A file that ends in half a line gets its newline when it is opened, and that is counted."""
    (tmp_path / "log").write_bytes(content)
    AppendFile(tmp_path / "log", append=True).close()
    assert (expected, torn) == ((tmp_path / "log").read_bytes(), DIAGNOSTICS.dropped["torn_line"])


def test_a_torn_end_is_mended_while_others_write(tmp_path, lock):
    """With another writer alive, a tear that stays one for a while is mended as well."""
    lock("shared")
    (tmp_path / "log").write_bytes(b"1\n2")
    AppendFile(tmp_path / "log", append=True).close()
    assert b"1\n2\n" == (tmp_path / "log").read_bytes()


@pytest.mark.slow
def test_a_line_that_is_being_written_is_no_tear(tmp_path):
    """However long another process takes for its line, who opens the file adds nothing to it."""
    path, size = tmp_path / "log", 300_000_000
    begun, deadline_s = 0, time.monotonic() + 60
    while not 0 < begun < size and time.monotonic() < deadline_s:  # until it was in the middle
        path.unlink(missing_ok=True)
        with subprocess.Popen([sys.executable, "-c", LONG_LINE, path, str(size)]) as writer:
            while not (path.exists() and path.stat().st_size) and writer.poll() is None:
                pass
            begun = path.stat().st_size
            AppendFile(path, append=True).close()
        assert (0, size + 1) == (writer.returncode, path.stat().st_size)
    path.unlink()  # nobody should keep files of this size
    assert (True, 0) == (0 < begun < size, DIAGNOSTICS.dropped["torn_line"])


def test_a_file_that_may_not_be_read_is_appended_to(tmp_path, monkeypatch):
    """Where the end cannot be looked at, lines are written all the same."""
    (tmp_path / "log").write_bytes(b"1\n")
    opened = os.open

    def refuse(path, flags, *mode):
        if not flags & os.O_WRONLY:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", refuse)
    file = AppendFile(tmp_path / "log", append=True)
    file.write_line(b"2\n")
    file.close()
    assert b"1\n2\n" == (tmp_path / "log").read_bytes()


def test_a_file_that_another_process_writes_is_not_emptied(tmp_path, lock, caplog):
    """Somebody else's lock keeps the lines, and a warning says what to do."""
    lock("shared")
    (tmp_path / "log").write_bytes(b"theirs\n")
    file = AppendFile(tmp_path / "log", append=False)
    file.write_line(b"ours\n")
    file.close()
    assert b"theirs\nours\n" == (tmp_path / "log").read_bytes()
    (message,) = caplog.messages
    assert "log_rank{rank}.json" in message


@pytest.mark.slow
def test_an_exclusive_lock_of_somebody_else_does_not_block(tmp_path, lock):
    """A program that keeps an exclusive lock for ever costs a second at the start, no line."""
    lock("exclusive")
    start_s = time.monotonic()
    file = AppendFile(tmp_path / "log", append=True)
    assert time.monotonic() - start_s < append_file._LOCK_WAIT_S + 10
    file.write_line(b"1\n")
    file.close()
    assert b"1\n" == (tmp_path / "log").read_bytes()


def test_a_file_system_without_locks_will_do(tmp_path, monkeypatch):
    """Where flock is not supported, files are opened and emptied as without it."""

    def refuse(fd, operation):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / "log").write_bytes(b"old\n")
    file = AppendFile(tmp_path / "log", append=False)
    file.write_line(b"new\n")
    file.close()
    assert b"new\n" == (tmp_path / "log").read_bytes()


def test_one_path_is_one_file(tmp_path, caplog):
    """Two backends on one path share a file, under whatever name, and are told."""
    (tmp_path / "link").symlink_to(tmp_path / "log")
    first = open_append_file(tmp_path / "log", append=False)
    first.write_line(b"1\n")
    second = open_append_file(str(tmp_path / "link"), append=False)
    assert first is second
    second.write_line(b"2\n")
    assert b"1\n2\n" == (tmp_path / "log").read_bytes()
    (message,) = caplog.messages
    assert str(tmp_path / "log") in message
    first.close()


def test_a_closed_path_is_opened_afresh(tmp_path):
    """A second run in one process begins with an empty file, as in DLLogger."""
    first = open_append_file(tmp_path / "log", append=False)
    first.write_line(b"1\n")
    first.close()
    second = open_append_file(tmp_path / "log", append=False)
    assert (True, b"") == (first is not second, (tmp_path / "log").read_bytes())
    second.close()


def test_a_forgotten_path_is_opened_afresh(tmp_path):
    """The registry keeps no file alive, nor its lock."""
    open_append_file(tmp_path / "log", append=False).write_line(b"1\n")
    gc.collect()
    file = open_append_file(tmp_path / "log", append=False)
    assert b"" == (tmp_path / "log").read_bytes()
    file.close()


class User:
    """Anything that writes to a file."""


def test_a_shared_file_is_closed_with_its_last_user(tmp_path):
    """Who opens the path meanwhile, to begin afresh, keeps the lines of those that still log."""
    path = tmp_path / "log"
    first, second, third = (User() for _ in range(3))
    file = open_append_file(path, append=False, user=first)
    assert open_append_file(path, append=False, user=second) is file
    file.write_line(b"1\n")
    for _ in range(2):  # a second close of the same user is none of another one's
        close_append_file(file, first)
    assert open_append_file(path, append=False, user=third) is file
    file.write_line(b"2\n")
    close_append_file(file, second)
    assert not file.closed
    close_append_file(file, third)
    assert (True, b"1\n2\n") == (file.closed, path.read_bytes())


def test_a_user_that_is_gone_keeps_no_file_open(tmp_path):
    """A backend that nobody closed does not count."""
    first, second = User(), User()
    file = open_append_file(tmp_path / "log", append=False, user=first)
    open_append_file(tmp_path / "log", append=False, user=second)
    del second
    gc.collect()
    close_append_file(file, first)
    assert file.closed


def test_backends_that_share_a_file_close_it_together(tmp_path):
    """The first Logger to close leaves the other one's lines safe from a third."""
    path = tmp_path / "log.json"
    first, second = (dllogger.Logger([dllogger.JSONStreamBackend(1, path)]) for _ in range(2))
    first.log((0, 0), {"loss": 0})
    second.log((0, 1), {"loss": 1})
    first.close()
    third = dllogger.Logger([dllogger.JSONStreamBackend(1, path)])
    third.log((0, 2), {"loss": 2})
    second.close()
    third.close()
    assert losses_in(path) == [0, 1, 2]


def test_devices_are_not_shared(tmp_path):
    """/dev/null is nobody's file."""
    first = open_append_file(os.devnull, append=False)
    second = open_append_file(os.devnull, append=False)
    assert (True, False) == (first is not second, first.regular)
    first.close()
    second.close()


@pytest.mark.parametrize("path", [None, 3.5, ["log"]], ids=str)
def test_what_is_no_path_is_refused(path):
    """A path of the wrong type is a TypeError, at once."""
    with pytest.raises(TypeError):
        AppendFile(path, append=True)


def test_a_forked_child_keeps_its_parents_pipe(tmp_path):
    """Its lines go to the reader that the parent has, wherever the path leads by now."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    assert_forked_child_answers(f"""
from otel_dllogger.backends.append_file import AppendFile

reader = os.open({str(path)!r}, os.O_RDONLY | os.O_NONBLOCK)
file = AppendFile({str(path)!r}, append=True)
os.unlink({str(path)!r})

def beside():
    with file._lock:
        hold()

def answers():
    file.write_line(b"of the child\\n")
    return os.read(reader, 100) == b"of the child\\n" and not os.path.exists({str(path)!r})
""")

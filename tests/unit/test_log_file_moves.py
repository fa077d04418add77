"""Log files that move away, vanish or are not ours any more, and places that are not files."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from contextlib import ExitStack

import pytest

from otel_dllogger import JSONStreamBackend
from otel_dllogger.backends.append_file import AppendFile
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


def next_second(backend):
    """Let the backend believe that its second is over, so that it looks after its file."""
    backend._second.start_us = 0


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
import otel_dllogger.json_encoding  # later, the modules may be out of reach
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

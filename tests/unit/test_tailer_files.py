"""Following files that are rotated, emptied or deleted, and which files are followed at all."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.logs.tail import open_files
from otel_dllogger.logs.tail.file_state import FileEvent, LineBatch
from otel_dllogger.logs.tail.fingerprint import FileKey
from otel_dllogger.logs.tail.tailer import MISSING_ROUNDS, Tailer
from tests.support.tailer import append, counted, lines_of, rounds

pytestmark = pytest.mark.newest_only

# Files that change


@pytest.mark.parametrize("text", [b"", b"new\n", b"1\n" * 50, b"1\n" * 5000])
def test_copytruncate_begins_a_generation(logs, follow, text):
    """A file that was emptied is read from 0, shorter or longer than it was."""
    append(logs / "a.log", b"0\n" * 100)
    tailer = follow(logs)
    first = tailer.poll()[1]
    os.truncate(logs / "a.log", 0)
    append(logs / "a.log", text)
    items = tailer.poll()
    assert [("restarted", 2)] == [(i.kind, i.generation) for i in items if isinstance(i, FileEvent)]
    lines = [line for item in items if isinstance(item, LineBatch) for line in item.lines]
    assert text.split(b"\n")[:-1] == lines
    assert {"truncated" if len(text) < 200 else "rewritten": 1} == counted(tailer)
    assert not {first.end} & {p for i in items if isinstance(i, LineBatch) for p in i.positions()}


def test_a_rewrite_of_equal_length_and_tail_is_seen(logs, follow):
    """The first bytes tell it, where those before the offset are the same."""
    append(logs / "a.log", b"first\n" + b"same\n" * 1000)
    tailer = follow(logs)
    lines_of(tailer)
    append(logs / "b.log", b"other\n" + b"same\n" * 1001)
    with (logs / "a.log").open("r+b") as file:
        file.write((logs / "b.log").read_bytes())
    (logs / "b.log").unlink()
    assert 1002 == len(lines_of(tailer)["a.log"])
    assert 1 == tailer.counts["rewritten"]


def test_a_rewrite_with_the_same_head_is_seen(logs, follow):
    """The bytes before the offset tell it, where the first KiB is the same."""
    append(logs / "a.log", b"same\n" * 1000 + b"last\n")
    tailer = follow(logs)
    lines_of(tailer)
    (logs / "a.log").write_bytes(b"same\n" * 1000 + b"LAST\nmore\n")
    assert 1002 == len(lines_of(tailer)["a.log"])


def test_a_rewrite_within_one_tick_of_the_clock_is_seen(logs, follow):
    """The same size and time may hide other bytes, if they came right after we looked."""
    append(logs / "a.log", b"one\n")
    status = (logs / "a.log").stat()
    tailer = follow(logs)
    assert {"a.log": [b"one"]} == lines_of(tailer)
    (logs / "a.log").write_bytes(b"two\n")
    os.utime(logs / "a.log", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert {"a.log": [b"two"]} == lines_of(tailer)
    lines_of(tailer, 3)
    append(logs / "a.log", b"half")
    status = (logs / "a.log").stat()
    assert {} == lines_of(tailer)
    (logs / "a.log").write_bytes(b"two\nhal\n")
    os.utime(logs / "a.log", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert {"a.log": [b"hal"]} == lines_of(tailer)


def test_times_that_go_back_change_nothing(logs, follow):
    """Only that a time is another one counts: clocks are wrong at times."""
    append(logs / "a.log", b"one\n")
    tailer = follow(logs)
    lines_of(tailer, 3)
    append(logs / "a.log", b"two\n")
    os.utime(logs / "a.log", ns=(0, 0))
    assert {"a.log": [b"two"]} == lines_of(tailer, 3)
    append(logs / "a.log", b"three\n")
    os.utime(logs / "a.log", ns=(1 << 62, 1 << 62))
    assert {"a.log": [b"three"]} == lines_of(tailer, 3)
    assert {} == counted(tailer)


@pytest.mark.parametrize("max_open", [1, 256])
@pytest.mark.parametrize("old", ["a.log.1", "a.1.log"])
def test_rotation_loses_nothing_and_gives_nothing_twice(logs, follow, old, max_open):
    """The rest of the old file comes first, whether or not its new name is followed."""
    append(logs / "b.log", b"b\n")
    append(logs / "a.log", b"one\n")
    tailer = follow(logs, max_open=max_open)
    lines_of(tailer, 3)
    append(logs / "a.log", b"two\n")
    (logs / "a.log").rename(logs / old)
    append(logs / "a.log", b"one\n")
    append(logs / "b.log", b"bb\n")
    names = [Path(i.path).name for i in tailer.poll() if isinstance(i, LineBatch)]
    assert [old, "a.log"] == [name for name in names if name != "b.log"]
    append(logs / old, b"three\n")  # its writer has not noticed yet
    assert {old: [b"three"]} == lines_of(tailer, 3)
    (logs / old).rename(logs / "a.log.2")
    append(logs / "a.log.2", b"four\n")
    assert {"a.log.2": [b"four"]} == lines_of(tailer, 3)
    assert {} == counted(tailer)


def test_rotation_while_nobody_looks(logs, follow, tmp_path):
    """The rest of the old file is found by the checkpoint's inode."""
    append(logs / "a.log", b"one\n")
    tailer = follow(logs / "a.log", checkpoint=tmp_path / "saved")
    lines_of(tailer)
    tailer.commit()
    tailer.close()
    append(logs / "a.log", b"two\n")
    (logs / "a.log").rename(logs / "a.log.1")
    append(logs / "a.log", b"one\n")
    tailer = follow(logs / "a.log", checkpoint=tmp_path / "saved")
    assert {"a.log": [b"one"], "a.log.1": [b"two"]} == lines_of(tailer, 3)


def test_another_content_under_a_name_that_nobody_asked_for(logs):
    """A rotated file is read to its end; what somebody puts in its place is not."""
    append(logs / "a.log", b"one\n")
    with Tailer([logs]) as tailer:
        lines_of(tailer)
        (logs / "a.log").rename(logs / "a.log.1")
        assert ({}, []) == rounds(tailer, 3)
        (logs / "a.log.1").write_bytes(b"something else\n")
        assert ({}, [("gone", "a.log.1")]) == rounds(tailer, 3)
        (logs / "a.log.1").rename(logs / "a.log")
        assert {"a.log": [b"something else"]} == lines_of(tailer, 3)
        assert {"rewritten": 1} == counted(tailer)
    assert 0 == len(tailer._open_files)


def test_a_file_that_is_renamed_between_being_found_and_opened(logs, follow, monkeypatch):
    """It is read by its new name in the next round."""
    append(logs / "a.log", b"one\n")
    tailer = follow(logs)
    scan = tailer._finder.scan

    def scan_too_early():
        found = scan()
        (logs / "a.log").rename(logs / "b.log")
        append(logs / "a.log", b"two\n")
        return found

    monkeypatch.setattr(tailer._finder, "scan", scan_too_early)
    assert ({}, []) == rounds(tailer)
    monkeypatch.undo()
    assert {"a.log": [b"two"], "b.log": [b"one"]} == lines_of(tailer, 3)
    assert {} == counted(tailer)


def reuse(path, new, text):
    """Delete a file and make another one until that has the same inode."""
    inode = path.stat().st_ino
    path.unlink()
    for attempt in range(200):
        candidate = new.with_name(f"attempt{attempt}")
        append(candidate, text)
        if candidate.stat().st_ino == inode:
            candidate.rename(new)
            return
    pytest.skip("this file system does not give inodes again")


@pytest.mark.parametrize("name", ["a.log", "b.log"])
@pytest.mark.parametrize("text", [b"one\n", b"one\ntwo\n", b"2\n"])
def test_an_inode_that_is_given_again_is_another_file(logs, follow, name, text):
    """Even with the same beginning, where the file system numbers an inode's lives."""
    append(logs / "a.log", b"one\n")
    append(logs / "z.log", b"z\n")
    tailer = follow(logs, max_open=1)
    lines_of(tailer, 3)
    append(logs / "z.log", b"z\n")
    lines_of(tailer, 3)  # now z.log is the one that is open
    reuse(logs / "a.log", logs / name, text)
    if open_files.inode_version(os.open(logs / name, os.O_RDONLY)) is None:
        pytest.skip("this file system does not number them")
    assert {name: text.split(b"\n")[:-1]} == lines_of(tailer, 3)
    assert {"inode_reused": 1} == counted(tailer)


@pytest.mark.parametrize("text", [b"one\n", b"2\n3\n"])
def test_an_inode_that_is_given_again_without_a_version(logs, follow, monkeypatch, text):
    """Its content tells it: other bytes are another file; equal ones cannot be known."""
    monkeypatch.setattr("otel_dllogger.logs.tail.open_files.inode_version", lambda fd: None)
    append(logs / "a.log", b"one\n")
    append(logs / "z.log", b"z\n")
    tailer = follow(logs, max_open=1)
    lines_of(tailer, 3)
    append(logs / "z.log", b"z\n")
    lines_of(tailer, 3)
    reuse(logs / "a.log", logs / "a.log", text)
    assert ({} if text == b"one\n" else {"a.log": [b"2", b"3"]}) == lines_of(tailer, 3)


def test_equal_first_lines_are_two_files(logs, follow):
    """Content alone does not identify a file."""
    for name in ("a.log", "b.log"):
        append(logs / name, b"the same\n")
    tailer = follow(logs)
    assert {"a.log": [b"the same"], "b.log": [b"the same"]} == lines_of(tailer)
    append(logs / "b.log", b"more\n")
    assert {"b.log": [b"more"]} == lines_of(tailer, 3)


def test_a_deleted_file_is_read_to_its_end(logs, follow):
    """The open descriptor still has what was behind, in as many rounds as it takes."""
    lines = [b"line %d" % i for i in range(2000)]
    append(logs / "a.log", b"\n".join(lines) + b"\nhalf")
    tailer = follow(logs, file_bytes=1024)
    got = lines_of(tailer)["a.log"]
    (logs / "a.log").unlink()
    more, changes = rounds(tailer, 100)
    assert lines == got + more["a.log"]
    assert [("gone", "a.log")] == changes
    assert {"partial_line_lost": 1} == counted(tailer)
    assert (0, []) == (len(tailer._open_files), tailer.files)


def test_the_last_lines_of_a_file_that_is_then_deleted(logs, follow):
    """What was written after we looked last, and at rest by then, is read as well."""
    append(logs / "a.log", b"one\n")
    tailer = follow(logs)
    lines_of(tailer, 5)
    append(logs / "a.log", b"two\n")
    (logs / "a.log").unlink()
    assert ({"a.log": [b"two"]}, [("gone", "a.log")]) == rounds(tailer, 6)
    assert {} == counted(tailer)


def test_what_nobody_has_open_is_lost_and_counted(logs, follow):
    """With more files than descriptors, a deleted one may go with what was not read."""
    append(logs / "a.log", b"".join(b"%04d\n" % i for i in range(1000)))
    append(logs / "z.log", b"z\n")
    tailer = follow(logs, file_bytes=1024, max_open=1)
    lines_of(tailer)
    tailer._open_files.shrink(0)
    (logs / "a.log").unlink()
    assert [("gone", "a.log")] == rounds(tailer, MISSING_ROUNDS + 1)[1]
    assert {"unread_lost": 1} == counted(tailer)


def test_another_name_is_followed_only_if_something_tells_the_file(logs, follow, monkeypatch):
    """Nothing was read of it, it is not open, and the inode may be anybody's by now."""
    monkeypatch.setattr("otel_dllogger.logs.tail.open_files.inode_version", lambda fd: None)
    append(logs / "a.log", b"half")
    tailer = follow(logs)
    lines_of(tailer, 3)
    tailer._open_files.shrink(0)
    (logs / "a.log").rename(logs / "a.data")
    append(logs / "a.data", b" a line\n")
    assert ({}, [("gone", "a.log")]) == rounds(tailer, 6)


def test_a_file_that_is_missed_once_is_not_gone(logs, follow):
    """Who looks through a folder while a file is renamed may see neither name."""
    append(logs / "a.log", b"one\n")
    tailer = follow(logs)
    lines_of(tailer)
    (logs / "a.log").rename(logs.parent / "a.log")
    for _ in range(MISSING_ROUNDS):
        assert ({}, []) == rounds(tailer)
    (logs.parent / "a.log").rename(logs / "a.log")
    append(logs / "a.log", b"two\n")
    assert ({"a.log": [b"two"]}, []) == rounds(tailer, 5)


# What is followed


def test_files_that_come_late_are_found(logs, follow):
    """A file, a folder and a glob may be there only later."""
    tailer = follow(logs / "a.log", logs / "sub", logs / "*" / "x?.out")
    assert ({}, []) == rounds(tailer, 3)
    assert {"path_missing": 2} == counted(tailer)
    (logs / "sub" / "deep").mkdir(parents=True)
    append(logs / "a.log", b"a\n")
    append(logs / "sub" / "deep" / "b.jsonl", b"b\n")
    append(logs / "sub" / "x1.out", b"x\n")
    append(logs / "sub" / "deep" / "x1.out", b"no\n")
    assert {"a.log": [b"a"], "b.jsonl": [b"b"], "x1.out": [b"x"]} == lines_of(tailer)


def test_only_the_names_of_logs_are_followed_in_a_folder(logs, follow):
    """Hidden names and others are left out, at any depth."""
    (logs / ".hidden").mkdir()
    (logs / "sub").mkdir()
    names = ("a.json", "b.jsonl", "c.log", "d.txt", "sub/e.log")
    for name in (*names, "f.py", ".g.log", ".hidden/h.log", "log", "i.log.gz"):
        append(logs / name, b"1\n")
    assert {Path(name).name for name in names} == set(lines_of(follow(logs)))
    assert {"f.py"} == set(lines_of(follow(logs, names=["*.py"])))
    everything = {"a.json", "b.jsonl", "c.log", "d.txt", "f.py", "log", "i.log.gz"}
    assert everything == set(lines_of(follow(logs / "*")))
    assert everything | {"e.log"} == set(lines_of(follow(logs / "**")))
    assert {"c.log", "e.log"} == set(lines_of(follow(logs / "**" / "*.log")))
    assert {".g.log", "h.log"} == set(lines_of(follow(logs / ".g*", logs / ".h*" / "*.log")))


def test_a_glob_looks_only_where_files_can_match(logs, follow, monkeypatch):
    """A folder whose name does not match is never listed, nor is what lies too deep."""
    for folder in ("a1/logs/deep", "a2/other", "b1/logs"):
        (logs / folder).mkdir(parents=True)
    append(logs / "a1" / "logs" / "r.out", b"1\n")
    listed = []
    scandir = os.scandir

    def note(path):
        listed.append(str(Path(path).relative_to(logs)))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", note)
    assert {"r.out": [b"1"]} == lines_of(follow(logs / "a*" / "logs" / "*.out"))
    assert {".", "a1", "a2", "a1/logs"} == set(listed)


def test_a_hostile_glob_takes_no_longer_than_others(logs, follow):
    """The time does not grow with the ways in which a path could match."""
    tailer = follow(logs / Path(*("**", "a") * 20) / ("*a" * 20 + "b"))
    start_s = time.process_time()
    assert not tailer.covers(str(logs / Path(*"a" * 60) / ("a" * 60)))
    assert time.process_time() - start_s < 1
    assert tailer.covers(str(logs / Path(*"a" * 60) / ("a" * 60 + "b")))


def test_a_name_with_brackets_is_a_name_if_it_is_there(logs, follow):
    """A glob is one only where no such file exists."""
    append(logs / "run[1].log", b"1\n")
    append(logs / "run1.log", b"2\n")
    assert {"run[1].log": [b"1"]} == lines_of(follow(logs / "run[1].log"))
    assert {"run1.log": [b"2"]} == lines_of(follow(logs / "run[12].log"))


def test_two_names_of_one_file_are_one_file(logs, follow):
    """Hard links, and paths that name a file twice, give its lines once."""
    append(logs / "a.log", b"one\n")
    os.link(logs / "a.log", logs / "b.log")
    tailer = follow(logs, logs / "a.log", logs / "*.log")
    assert {"a.log": [b"one"]} == lines_of(tailer, 5)
    assert {"hard_link": 1} == counted(tailer)
    (logs / "a.log").unlink()
    append(logs / "b.log", b"two\n")
    assert ({"b.log": [b"two"]}, []) == rounds(tailer, 5)


def test_links_that_leave_the_folder_are_refused(logs, follow, tmp_path):
    """A link within it is followed, once; one out of it is counted."""
    outside = tmp_path / "outside"
    outside.mkdir()
    append(outside / "secret.log", b"secret\n")
    append(logs / "a.data", b"one\n")
    (logs / "a.log").symlink_to("a.data")
    (logs / "b.log").symlink_to(outside / "secret.log")
    (logs / "c").symlink_to(outside)
    (logs / "d.log").symlink_to("../logs/../outside/secret.log")
    (logs / "e.log").symlink_to("nowhere")
    (logs / "f.log").symlink_to("f.log")
    (logs / "g").symlink_to(".")
    (logs / "h.log").symlink_to("i.log")
    append(logs / "i.log", b"two\n")
    tailer = follow(logs)
    assert {"a.data": [b"one"], "i.log": [b"two"]} == lines_of(tailer, 3)
    assert {"link_outside": 3, "link_broken": 2} == counted(tailer)
    (tmp_path / "linked").symlink_to(logs)
    tailer = follow(tmp_path / "linked")
    assert {"a.data": [b"one"], "i.log": [b"two"]} == lines_of(tailer, 3)
    assert {"link_outside": 3, "link_broken": 2} == counted(tailer)
    (logs / "a.log").unlink()
    (logs / "a.log").symlink_to(outside / "secret.log")
    assert {} == lines_of(tailer, 3)


def test_a_link_that_was_asked_for_is_followed_wherever_it_leads(logs, follow, tmp_path):
    """As ``latest.log`` leads to the newest run, and to the next one later."""
    for run in ("1", "2"):
        append(tmp_path / f"run{run}.log", run.encode() + b"\n")
    (logs / "latest.log").symlink_to(tmp_path / "run1.log")
    tailer = follow(logs / "latest.log")
    assert {"run1.log": [b"1"]} == lines_of(tailer, 3)
    (logs / "latest.log").unlink()
    (logs / "latest.log").symlink_to(tmp_path / "run2.log")
    append(tmp_path / "run1.log", b"the end\n")
    assert {"run1.log": [b"the end"], "run2.log": [b"2"]} == lines_of(tailer, 3)


def test_what_is_no_file_is_never_opened(logs, follow):
    """Pipes, sockets and folders with the name of a log are left alone."""
    os.mkfifo(logs / "a.log")
    (logs / "b.log").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        old = Path.cwd()
        os.chdir(logs)
        try:
            listener.bind("c.log")
        finally:
            os.chdir(old)
        append(logs / "d.log", b"1\n")
        tailer = follow(logs, logs / "a.log")
        assert {"d.log": [b"1"]} == lines_of(tailer, 5)
    assert {"not_regular": 2} == counted(tailer)


def test_a_pipe_in_the_place_of_a_file_does_not_block(logs):
    """Between being found and being opened a file may become anything."""
    append(logs / "a.log", b"1\n")
    status = (logs / "a.log").stat()
    key = FileKey(status.st_dev, status.st_ino)
    (logs / "a.log").rename(logs / "b.log")
    os.mkfifo(logs / "a.log")
    append(logs / "c.log", b"1\n")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for name in ("a.log", "c.log"):
        with pytest.raises(FileNotFoundError):
            open_files.open_regular(str(logs / name), key)
    (logs / "a.log").unlink()
    (logs / "a.log").symlink_to("b.log")
    with pytest.raises(OSError, match="symbolic links"):
        open_files.open_regular(str(logs / "a.log"), key)
    assert before == len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def nobody():
    """Return a switch to a user who is not root: root may read everything."""
    if os.geteuid():
        yield lambda: None
        return
    yield lambda: os.seteuid(65534)
    os.seteuid(0)


def open_up(path):
    """Let everybody come as far as a path."""
    for folder in (path, *path.parents):
        if folder.stat().st_uid == os.geteuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)


@pytest.mark.parametrize("what", ["a.log", "."])
def test_permission_that_is_taken_and_given_back(logs, follow, nobody, what):
    """A file or folder that may not be read is neither gone nor read twice."""
    append(logs / "a.log", b"one\n")
    (logs / "a.log").chmod(0o644)
    open_up(logs)
    modes = {"a.log": 0o644, ".": 0o755}
    tailer = follow(logs)
    lines_of(tailer, 3)
    tailer._open_files.shrink(0)
    append(logs / "a.log", b"two\n")
    (logs / what).chmod(0)
    nobody()
    assert ({}, []) == rounds(tailer, 10)
    assert {"permission_denied": 1} == counted(tailer)
    if os.getuid() == 0:
        os.seteuid(0)
    (logs / what).chmod(modes[what])
    nobody()
    assert ({"a.log": [b"two"]}, []) == rounds(tailer, 3)


def test_a_new_file_that_may_not_be_read_yet(logs, follow, nobody):
    """It appears once it may be."""
    append(logs / "a.log", b"one\n")
    (logs / "a.log").chmod(0)
    open_up(logs)
    tailer = follow(logs)
    nobody()
    assert ({}, []) == rounds(tailer, 5)
    if os.getuid() == 0:
        os.seteuid(0)
    (logs / "a.log").chmod(0o644)
    nobody()
    assert ({"a.log": [b"one"]}, [("appeared", "a.log")]) == rounds(tailer)


@pytest.mark.parametrize(
    ("paths", "options"),
    [
        ([], {}),
        ([""], {}),
        (["a\0b"], {}),
        (["a"], {"max_line_bytes": 0}),
        (["a"], {"file_bytes": 1023}),
        (["a"], {"max_open": 0}),
    ],
)
def test_what_cannot_mean_anything_is_said(paths, options):
    """An argument that makes no sense is an error with the next step."""
    with pytest.raises(ConfigurationError, match=r"name a file|pass"):
        Tailer(paths, **options)

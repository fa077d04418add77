"""Following files across restarts: what a checkpoint holds, and a kill at any moment."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otel_dllogger.logs.tail.file_state import LineBatch
from tests.support.paths import TESTS
from tests.support.tailer import append, counted, lines_of, rounds

pytestmark = pytest.mark.newest_only

SCRIPTS = TESTS / "scripts"


# Checkpoints


def test_a_restart_goes_on_after_the_last_commit(logs, follow, tmp_path):
    """What was committed does not come again; what was not comes at equal positions."""
    saved = tmp_path / "saved"
    append(logs / "a.log", b"one\n")
    tailer = follow(logs, checkpoint=saved)
    _appeared, first = tailer.poll()
    first.file.state["format"] = "json"
    assert tailer.commit()
    append(logs / "a.log", b"two\n")
    (second,) = tailer.poll()
    first.file.state["format"] = "not committed"
    tailer.close()
    append(logs / "a.log", b"three\n")
    appeared, again = follow(logs, checkpoint=saved).poll()
    assert ("appeared", {"format": "json"}) == (appeared.kind, appeared.file.state)
    assert [b"two", b"three"] == again.lines
    assert list(second.positions()) == list(again.positions())[:1]


def test_a_new_generation_begins_with_an_empty_state(logs, follow):
    """What the caller knew of the old content says nothing of the new one."""
    append(logs / "a.log", b"one\n")
    tailer = follow(logs)
    file = tailer.poll()[1].file
    file.state["format"] = "json"
    (logs / "a.log").write_bytes(b"2\n")
    restarted, _lines = tailer.poll()
    assert ("restarted", {}) == (restarted.kind, restarted.file.state)


def test_no_two_contents_have_one_position(logs, follow, tmp_path):
    """A file is emptied twice between a commit and a kill, and keeps its first line."""
    saved = tmp_path / "saved"
    append(logs / "a.log", b"zero\n")
    tailer = follow(logs, checkpoint=saved)
    lines_of(tailer)
    tailer.commit()
    positions = []
    for text in (b"header\n1\n", b"header\n2\n"):
        (logs / "a.log").write_bytes(text)
        items = tailer.poll()
        positions += [p for item in items if isinstance(item, LineBatch) for p in item.positions()]
    tailer.close()
    (logs / "a.log").write_bytes(b"header\n3\n")
    items = follow(logs, checkpoint=saved).poll()
    after = [p for item in items if isinstance(item, LineBatch) for p in item.positions()]
    assert 2 == len(after)
    assert 6 == len({*positions, *after})


def test_the_checkpoint_is_not_followed(logs, follow):
    """Not even in a watched folder with the name of a log."""
    append(logs / "a.log", b"one\n")
    tailer = follow(logs, logs / "*", checkpoint=logs / "saved.json")
    for _ in range(4):
        tailer.poll()
        tailer.commit()
    assert ["a.log"] == [Path(file.path).name for file in tailer.files]


def test_a_commit_without_news_writes_nothing(logs, follow, tmp_path):
    """The disk has rest while no file grows."""
    append(logs / "a.log", b"one\n")
    tailer = follow(logs, checkpoint=tmp_path / "saved")
    lines_of(tailer)
    assert tailer.commit()
    inode = (tmp_path / "saved").stat().st_ino
    tailer.poll()
    assert tailer.commit()
    assert inode == (tmp_path / "saved").stat().st_ino


def test_a_file_that_is_gone_leaves_the_checkpoint(logs, follow, tmp_path):
    """It does not grow for ever."""
    append(logs / "a.log", b"one\n")
    tailer = follow(logs, checkpoint=tmp_path / "saved")
    lines_of(tailer, 3)
    tailer.commit()
    assert 1 == len(json.loads((tmp_path / "saved").read_bytes())["files"])
    (logs / "a.log").unlink()
    assert ({}, [("gone", "a.log")]) == rounds(tailer, 6)
    tailer.commit()
    assert [] == json.loads((tmp_path / "saved").read_bytes())["files"]


def test_a_commit_that_fails_is_made_up_for(logs, follow, tmp_path):
    """A full disk does not stop the lines, and the next commit saves all of them."""
    append(logs / "a.log", b"one\n")
    full = [True]

    def sync(fd):
        if full[0]:
            raise OSError(28, "No space left on device")

    tailer = follow(logs, checkpoint=tmp_path / "saved", sync=sync)
    assert {"a.log": [b"one"]} == lines_of(tailer)
    assert not tailer.commit()
    full[0] = False
    assert tailer.commit()
    assert {} == lines_of(follow(logs, checkpoint=tmp_path / "saved"))


def test_a_wrong_checkpoint_reads_from_the_start(logs, follow, tmp_path):
    """It is counted, and no crash."""
    (tmp_path / "saved").write_bytes(b"{")
    append(logs / "a.log", b"one\n")
    tailer = follow(logs, checkpoint=tmp_path / "saved")
    assert {"a.log": [b"one"]} == lines_of(tailer)
    assert {"checkpoint_corrupt": 1} == counted(tailer)
    assert tailer.commit()
    assert {} == lines_of(follow(logs, checkpoint=tmp_path / "saved"))


def test_a_checkpoint_leads_to_no_other_file(logs, follow, tmp_path):
    """Who can write it cannot have files read that nobody asked to follow."""
    append(tmp_path / "secret.log", b"secret\n")
    append(logs / "a.log", b"one\n")
    tailer = follow(tmp_path, checkpoint=tmp_path / "saved")
    lines_of(tailer)
    tailer.commit()
    append(tmp_path / "secret.log", b"more\n")
    tailer = follow(logs, checkpoint=tmp_path / "saved")
    assert {} == lines_of(tailer, 5)
    assert {"checkpoint_entry": 1} == counted(tailer)
    saved = json.loads((tmp_path / "saved").read_bytes())
    for entry in saved["files"]:
        entry["origin"] = str(logs / "b.log")
    (tmp_path / "saved").write_text(json.dumps(saved))
    tailer = follow(logs, checkpoint=tmp_path / "saved")
    assert {"a.log": [b"one"]} != lines_of(tailer, 5)
    assert ["a.log"] == [Path(file.path).name for file in tailer.files]


# Processes


@pytest.mark.slow
def test_sigkill_at_any_moment(logs, tmp_path):
    """Twelve kills: every line comes; twice only since the last commit, and recognisably."""
    out = tmp_path / "out"
    writer = subprocess.Popen(
        [sys.executable, SCRIPTS / "follow_grow.py", logs, "8"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    command = [sys.executable, SCRIPTS / "follow_until_killed.py", logs, tmp_path / "saved", out]
    try:
        for kill in range(12):
            with subprocess.Popen(command) as process:
                wait_for_lines(out, kill + 1, 0)
                # It is killed while the files still grow, however slow the machine is; and
                # they do not grow by the time that it takes, or there would be no end.
                lines = 30 + 41 * kill
                writer.stdin.write(f"{lines * 4 // 8}\n")
                writer.stdin.flush()
                wait_for_lines(out, kill + 1, lines)
                process.send_signal(signal.SIGKILL)
        counts = json.loads(writer.communicate(timeout=60)[0])
    finally:
        writer.kill()
        writer.wait()
    total = sum(counts)
    with subprocess.Popen(command) as process:
        wanted = {b"rank %d line %d" % (i, n) for i in range(8) for n in range(counts[i])}
        deadline_s = time.monotonic() + 60
        while {line for _position, line in delivered(out)} != wanted:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        process.kill()
    seen, last = {}, {}
    known = set()
    since_commit, again, twice = set(), set(), 0
    for event in out.read_bytes().split(b"\n")[:-1]:
        if event == b"started":
            again |= since_commit
            since_commit, last = set(), {}
        elif event == b"committed":
            again -= since_commit
            since_commit = set()
        else:
            *position, rank, number = parse(event)
            position = tuple(position)
            if position in seen:
                twice += 1
                assert seen[position] == (rank, number)
                assert position in again
            else:
                assert (rank, number) not in known
            seen[position] = (rank, number)
            known.add((rank, number))
            assert last.get(position[:3], -1) < number  # in order
            last[position[:3]] = number
            since_commit.add(position)
    commits = out.read_bytes().count(b"committed")
    print(f"{total} lines, {twice} twice, {commits} commits")
    assert total == len(seen)
    assert twice
    assert commits


def parse(event):
    """Return a line's position, rank and number."""
    *position, _rank, rank, _line, number = event.split()
    return (*map(int, position), int(rank), int(number))


def delivered(out):
    for event in out.read_bytes().split(b"\n")[:-1]:
        if event not in (b"started", b"committed"):
            yield event.rsplit(b" ", 4)[0], b" ".join(event.rsplit(b" ", 4)[1:])


def wait_for_lines(out, starts, count):
    """Wait until the process has started and delivered some lines."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        events = out.read_bytes().split(b"\n") if out.exists() else []
        if events.count(b"started") >= starts:
            begun = len(events) - 1 - events[::-1].index(b"started")
            if len(events) - begun > count + 1 or not count:
                return
        time.sleep(0.005)
    raise AssertionError("no lines came")

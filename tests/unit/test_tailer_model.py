"""Any sequence of what writers, rotation and kills do: each line once, or known to be twice."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from otel_dllogger.logs.tail.file_state import LineBatch
from otel_dllogger.logs.tail.fingerprint import FileKey
from otel_dllogger.logs.tail.open_files import inode_version
from otel_dllogger.logs.tail.tailer import Tailer

pytestmark = pytest.mark.newest_only

FOLLOWED = ("a.log", "b.log", "c.1.log")
ASIDE = ("a.log.1", "b.log.1")
HEADER = b"the same first line"
REUSED = {True: 0, False: 0}
MANY = 16  # descriptors: more than there are files


@dataclasses.dataclass
class Content:
    """Hold what is in a file since it was made or emptied, and who each line is."""

    lines: list[bytes] = dataclasses.field(default_factory=list)
    names: list[int] = dataclasses.field(default_factory=list)
    partial: bytes = b""

    def whole(self) -> bytes:
        return b"".join(line + b"\n" for line in self.lines)

    def count(self, offset: int) -> int:
        """Return how many lines end at an offset or before."""
        assert offset == 0 or self.whole()[offset - 1 : offset] == b"\n"
        return self.whole()[:offset].count(b"\n")


@dataclasses.dataclass(eq=False)
class Inode:
    """Hold one life of an inode: from its making to its last name."""

    key: FileKey
    content: Content


class FollowModel(RuleBasedStateMachine):
    """Do to real files what happens to them, and say what must be read next.

    A line must come with the next poll if it is whole by then and its file is reachable:
    by a followed name, by another name once it was followed, or by an open descriptor.
    """

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="follow-"))
        self.logs = self.folder / "logs"
        self.logs.mkdir()
        self.inodes: dict[str, Inode] = {}  # by name
        self.deleted: list[Inode] = []
        self.reads: dict[int, tuple[Inode, Content]] = {}  # what a generation number means
        self.progress: dict[int, int] = {}  # how far each generation was delivered
        self.committed: dict[int, int] = {}
        self.seen: dict[object, int] = {}  # who had which position
        self.delivered: set[int] = set()
        self.since_commit: set[int] = set()
        self.again: set[int] = set()  # delivered before the kill, after the last commit
        self.next_name = 0
        self.tailer = None

    @initialize(max_open=st.sampled_from((1, 2, MANY)), file_bytes=st.sampled_from((1024, 1 << 18)))
    def start(self, max_open, file_bytes):
        self.max_open, self.file_bytes = max_open, file_bytes
        self.open_follower()

    def open_follower(self):
        self.tailer = Tailer(
            [self.logs],
            checkpoint=self.folder / "checkpoint",
            max_open=self.max_open,
            file_bytes=self.file_bytes,
            sync=lambda fd: None,
        )
        # What the checkpoint says is what was delivered by the last commit, neither more nor less.
        for file in self.tailer.files:
            assert self.committed.get(file.generation, 0) == file.fingerprint.offset

    def teardown(self):
        try:
            if self.tailer is not None:
                self.poll()
                self.poll()
                assert len(list(Path("/proc/self/fd").iterdir())) < 200
        finally:
            if self.tailer is not None:
                self.tailer.close()
            shutil.rmtree(self.folder)

    # What writers do.

    def new_lines(self, content, count, padding):
        text = b""
        for _ in range(count):
            name = self.next_name = self.next_name + 1
            content.lines.append(content.partial + b"%d:%b:%d" % (name, b"x" * padding, name))
            content.names.append(name)
            text += content.lines[-1][len(content.partial) :] + b"\n"
            content.partial = b""
        return text

    def write(self, name, text):
        with (self.logs / name).open("ab", buffering=0) as file:
            file.write(text)
            status = os.fstat(file.fileno())
        return FileKey(status.st_dev, status.st_ino)

    def make(self, name, *, header):
        content = Content()
        text = b""
        if header and VERSIONED:
            self.next_name += 1
            content.lines.append(HEADER)
            content.names.append(self.next_name)
            text = HEADER + b"\n"
        key = self.write(name, text)
        inode = self.inodes[name] = Inode(key, content)
        return inode

    @rule(
        name=st.sampled_from(FOLLOWED + ASIDE),
        header=st.booleans(),
        count=st.integers(0, 4),
        padding=st.sampled_from((0, 10, 600, 1500)),
    )
    def append(self, name, header, count, padding):
        inode = self.inodes.get(name)
        if inode is None:
            if name in ASIDE:
                return
            inode = self.make(name, header=header)
        self.write(name, self.new_lines(inode.content, count, padding))

    @rule(name=st.sampled_from(FOLLOWED + ASIDE), part=st.sampled_from((b"half ", b"{\r", b"\xff")))
    def append_half_a_line(self, name, part):
        if name in self.inodes:
            self.inodes[name].content.partial += part
            self.write(name, part)

    # What happens to files.

    @rule(name=st.sampled_from(FOLLOWED), to=st.sampled_from(FOLLOWED + ASIDE))
    def rename(self, name, to):
        self.move(name, to)

    @rule(name=st.sampled_from(ASIDE), to=st.sampled_from(FOLLOWED + ASIDE))
    def rename_back(self, name, to):
        self.move(name, to)

    def move(self, name, to):
        if name in self.inodes and name != to:
            if to in self.inodes:
                self.deleted.append(self.inodes[to])
            self.inodes[to] = self.inodes.pop(name)
            (self.logs / name).rename(self.logs / to)

    @rule(name=st.sampled_from(FOLLOWED), count=st.integers(0, 2))
    def rotate(self, name, count):
        if name in self.inodes:
            self.move(name, ASIDE[0])
            self.append(name, True, count, 0)

    @rule(
        name=st.sampled_from(FOLLOWED + ASIDE),
        header=st.booleans(),
        longer=st.booleans(),
        count=st.integers(0, 3),
    )
    def truncate(self, name, header, longer, count):
        """Empty a file, and maybe let it grow beyond what it was, before anybody looks."""
        inode = self.inodes.get(name)
        if inode is None:
            return
        size = (self.logs / name).stat().st_size
        os.truncate(self.logs / name, 0)
        content = inode.content = Content()
        if header and VERSIONED:
            self.next_name += 1
            content.lines.append(HEADER)
            content.names.append(self.next_name)
            self.write(name, HEADER + b"\n")
        self.write(name, self.new_lines(content, count, 10))
        if longer:
            self.write(name, self.new_lines(content, 1, size))

    @rule(name=st.sampled_from(FOLLOWED + ASIDE))
    def delete(self, name):
        if name in self.inodes:
            self.deleted.append(self.inodes.pop(name))
            (self.logs / name).unlink()

    @rule(name=st.sampled_from(FOLLOWED), to=st.sampled_from(FOLLOWED), count=st.integers(0, 3))
    def delete_and_recreate(self, name, to, count):
        if name in self.inodes and to not in set(self.inodes) - {name}:
            old = self.inodes[name]
            self.delete(name)
            self.append(to, True, count, 10)
            REUSED[self.inodes[to].key == old.key] += 1

    # What the tailer does.

    def same(self, file, inode):
        """Tell whether a file still holds what the tailer read of it."""
        known = self.reads.get(file.generation)
        if known is None:  # nothing was ever read of it
            return file.fingerprint.offset == 0
        if known[0] is not inode:
            return False
        size = max(file.fingerprint.offset, file.fingerprint.head_bytes)
        return inode.content.whole()[:size] == known[1].whole()[:size] and (
            size <= len(inode.content.whole())
        )

    def expected(self):
        """Return the lines that must come, by inode, and those that may."""
        files = {file.key: file for file in self.tailer.files}
        must, may = {}, {}
        for name, inode in self.inodes.items():
            content = inode.content
            file = files.get(inode.key)
            same = file is not None and self.same(file, inode)
            if not same and name in ASIDE:
                continue
            done = content.count(file.fingerprint.offset) if same else 0
            if same and file.generation in self.reads:
                # Equal bytes from 0 on in the same inode are, for all that can be known,
                # the lines that were read before.
                for i, line in enumerate(self.reads[file.generation][1].lines):
                    if content.lines[i : i + 1] != [line]:
                        break
                    content.names[i] = self.reads[file.generation][1].names[i]
            # Where inodes have no version, only an open descriptor tells what is under
            # another name before anything was read of it.
            unsure = name in ASIDE and file.version is None and not file.fingerprint.offset
            (may if unsure else must)[inode.key] = (inode, content, done)
        for inode in self.deleted:
            file = files.get(inode.key)
            if file is None or inode.key in must:
                continue
            known = self.reads.get(file.generation)
            if self.tailer._open_files.get(inode.key) is None or (
                inode not in self.polled if known is None else known[0] is not inode
            ):
                continue
            same = self.same(file, inode)
            if same or file.path == file.found_path:
                done = inode.content.count(file.fingerprint.offset) if same else 0
                place = must if self.max_open == MANY else may
                place[inode.key] = (inode, inode.content, done)
        return must, may

    polled: tuple[Inode, ...] = ()

    @rule()
    def poll(self):
        must, may = self.expected()
        got: dict[FileKey, list[tuple[bytes, object]]] = {}
        while True:
            for item in self.tailer.poll():
                if isinstance(item, LineBatch):
                    lines = zip(item.lines, item.positions(), strict=True)
                    key = FileKey(item.start.device, item.start.inode)
                    got.setdefault(key, []).extend(lines)
                    self.progress[item.end.generation] = item.end.offset
                    assert list(item.positions())[-1] == item.end
            if not self.tailer.behind:
                break
        assert len(self.tailer._open_files) <= self.max_open
        for key, (_inode, content, done) in must.items():
            lines = got.get(key, [])
            assert content.lines[done:] == [line for line, _position in lines]
        for key, lines in got.items():
            inode, content, done = must.get(key) or may[key]
            texts = [line for line, _position in lines]
            assert texts == content.lines[done : done + len(texts)]
            names = content.names[done : done + len(texts)]
            for name, (_line, position) in zip(names, lines, strict=True):
                self.deliver(name, position)
            if lines:
                generation = lines[0][1].generation
                known = self.reads.get(generation)
                assert known is None or known[0] is inode
                copy = Content(list(content.lines), list(content.names))
                self.reads[generation] = (inode, copy)
        self.polled = tuple(self.inodes.values())
        self.deleted = [inode for inode in self.deleted if inode.key in self.keys()]

    def keys(self):
        return {file.key for file in self.tailer.files}

    def deliver(self, name, position):
        """Take a line: twice only after a kill, and then at the position it had."""
        if name in self.delivered:
            assert name in self.again, "a line came twice, and no kill explains it"
            assert self.seen.get(position) == name, "a line came twice at another position"
        else:
            assert position not in self.seen, "another line came at this position"
        self.seen[position] = name
        self.delivered.add(name)
        self.since_commit.add(name)

    @rule()
    def commit(self):
        assert self.tailer.commit()
        self.again -= self.since_commit
        self.since_commit.clear()
        self.committed = dict(self.progress)

    @rule()
    def kill(self):
        """Lose all that is not on the disk."""
        self.tailer.close()
        self.again |= self.since_commit
        self.since_commit.clear()
        self.progress = dict(self.committed)
        self.open_follower()
        self.polled = ()

    @rule()
    def restart(self):
        self.poll()
        self.commit()
        self.kill()


def is_versioned():
    with tempfile.TemporaryFile() as file:
        return inode_version(file.fileno()) is not None


# Where nothing tells two lives of an inode apart, files with the same beginning may be one.
VERSIONED = is_versioned()


@pytest.mark.slow
@pytest.mark.newest_only
def test_no_sequence_loses_a_line_or_gives_one_twice():
    """1,000 sequences of what happens to files: what is readable comes, once."""
    run_state_machine_as_test(
        FollowModel,
        settings=settings(
            max_examples=1_000,
            stateful_step_count=30,
            deadline=None,
            derandomize="CI" in os.environ,
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(f"inodes given again at once: {REUSED[True]} of {sum(REUSED.values())}")

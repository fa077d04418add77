"""Files that others write, or may have damaged: whatever is in them, nothing of ours ends."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import zlib
from array import array
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from otel_dllogger import identity
from otel_dllogger.backfill.installed import Installed
from otel_dllogger.backfill.prometheus import DataFolder, read_meta
from otel_dllogger.backfill.sorting import Chunk, SeriesName
from otel_dllogger.bridge.sent_offsets import SentOffsets
from otel_dllogger.http import service_discovery
from otel_dllogger.http.service_discovery import DiscoveryFile, sweep_stale
from otel_dllogger.identity import Topology, host_name, read_process
from otel_dllogger.logs.tail.anomalies import FileAnomalies
from otel_dllogger.logs.tail.checkpoint import CheckpointFile
from otel_dllogger.logs.tail.fingerprint import FilePosition

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

PREFIX = "__meta_dllogger_"
HUGE_BYTES = 100_000_000
ADDRESS = "127.0.0.1:9464"

# As a test of one example changes nothing that the next would see.
MANY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def dumped(tree: Any) -> bytes:
    """Return JSON with the tokens that Python's own writes beside JSON's."""
    return json.dumps(tree).encode()


numbers = st.sampled_from(
    [0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, float("inf"), -float("inf"), float("nan"), 0.5]
)
scalars = numbers | st.none() | st.booleans() | st.text(max_size=5) | st.just("\ud800\0")
trees = st.recursive(
    scalars,
    lambda some: (
        st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=5), some, max_size=3)
    ),
    max_leaves=6,
)
RAW = [
    b"",
    b"\0" * 100,
    b"\xff\xfe",
    b"[" * 60_000,
    b'[{"labels":' * 9_000,
    b"9" * 6_000,
    b"[" + b"9" * 6_000 + b"]",
    b'"\\ud800"',
    b"-Infinity",
    b"[[NaN, 1, 1, Infinity]]\n[[1, 1, 1, -1e999]]",
]
contents = st.sampled_from(RAW) | st.binary(max_size=60) | trees.map(dumped)


def own_name(rank: int = 7) -> str:
    return f"dllogger_r_{rank}_{host_name()}.json"


def announce(folder: Path) -> Path:
    """Start a rank, and check that it is announced."""
    rank = Topology("own", 0, 0, 1, 1, host_name(), os.getpid())
    file = DiscoveryFile(folder, rank, address=ADDRESS)
    assert [ADDRESS] == json.loads(file.path.read_bytes())[0]["targets"]
    return file.path


def of_a_dead_process() -> dict[str, Any]:
    """Return the labels of a rank of this host whose process has ended."""
    pid = os.fork()
    if not pid:
        os._exit(0)
    os.waitpid(pid, 0)
    owner = {"host": host_name(), "pid_namespace": service_discovery._pid_namespace(), "start": ""}
    return {f"{PREFIX}{name}": value for name, value in {**owner, "pid": str(pid)}.items()}


@pytest.fixture(scope="module")
def dead() -> dict[str, Any]:
    """Labels of a rank that is dead."""
    return of_a_dead_process()


@pytest.mark.slow
@MANY
@given(
    content=contents, mark=contents, label=st.sampled_from(["host", "pid", "start"]), value=trees
)
@example(content=b"", mark=b"", label="pid", value=float("inf"))
@example(content=b"", mark=b"", label="pid", value=True)
def test_no_discovery_file_keeps_a_rank_from_starting(
    tmp_path_factory, dead, counted, content, mark, label, value
):
    """Neither foreign content, nor one damaged label, nor a mark; and the rank is announced."""
    folder = tmp_path_factory.mktemp("discovery")
    group = {"targets": value, "labels": {**dead, f"{PREFIX}{label}": value}}
    files = {
        own_name(7): content,
        f"{own_name(7)}.dead": mark,
        own_name(8): dumped([group]),
        own_name(9): dumped([{"targets": value, "labels": dead}]),
        f"{own_name(9)}.dead": mark,
    }
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    announce(folder)
    sweep_stale(folder)
    assert {} == counted()
    # Of all these, only what says whose it is was anybody's to remove.
    assert (folder / own_name(7)).read_bytes() == content
    if not isinstance(value, str):
        assert (folder / own_name(8)).exists()
    assert not (folder / own_name(9)).exists()


def make_odd(path: Path, kind: str) -> None:
    """Put something at a path that is not a small file."""
    if kind == "huge":
        with path.open("wb") as file:
            file.truncate(HUGE_BYTES)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))  # the whole one may be too long
    elif kind == "link to itself":
        path.symlink_to(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "unreadable":
        path.write_bytes(b"[]")
        path.chmod(0)


ODD = ["huge", "folder", "pipe", "socket", "link to itself", "link to a device", "unreadable"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_a_file_is_survived(tmp_path, dead, counted, kind, monkeypatch):
    """In the discovery folder, beside a dead rank's file, as a checkpoint and as a journal."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "discovery"
    folder.mkdir()
    make_odd(folder / own_name(1), kind)
    content = dumped([{"targets": ["a:1"], "labels": dead}])
    (folder / own_name(2)).write_bytes(content)
    make_odd(folder / f"{own_name(2)}.dead", kind)
    (folder / os.fsdecode(b"dllogger_\xff\n_" + own_name(3).encode())).write_bytes(content)
    announce(folder)
    sweep_stale(folder)
    assert not (folder / own_name(2)).exists()
    assert os.path.lexists(folder / own_name(1))

    make_odd(tmp_path / "state", kind)
    make_odd(tmp_path / "state.sent", kind)
    assert () == CheckpointFile(tmp_path / "state", anomalies=FileAnomalies()).read().files
    journal = SentOffsets(str(tmp_path / "state.sent"))
    assert 0 == journal.sent_until(FilePosition(1, 1, 1, 0, 0))
    journal.close()

    block = tmp_path / "01BX5ZZKBKACTAV9WEVGEMMVRZ"
    block.mkdir()
    make_odd(block / "meta.json", kind)
    assert read_meta(block) is None
    assert {} == counted()


def test_a_mark_of_the_future_is_made_anew(tmp_path, dead):
    """Else a dead rank's file would stay until then."""
    path = tmp_path / own_name(2)
    path.write_bytes(content := dumped([{"targets": ["a:1"], "labels": dead}]))
    mark = tmp_path / f"{path.name}.dead"
    mark.write_bytes(content)
    os.utime(mark, (4e9, 4e9))
    sweep_stale(tmp_path, grace_s=service_discovery.GRACE_S)
    assert mark.stat().st_mtime < 4e9


def test_an_error_of_the_sweep_keeps_no_rank_from_being_announced(tmp_path, monkeypatch, caplog):
    """Not even one that nobody has thought of."""

    def fail(*_: object) -> None:
        raise ArithmeticError("unforeseen")

    (tmp_path / own_name(2)).write_bytes(b"[]")
    monkeypatch.setattr(service_discovery, "_read", fail)
    announce(tmp_path)
    assert "unforeseen" in caplog.text


@MANY
@given(st.lists(contents, max_size=3), trees, st.integers(0, 3))
@example([b"[[[1, 1, 1, Infinity]], []]"], None, 0)
def test_a_journal_is_read_whatever_it_says(tmp_path_factory, lines, value, field):
    """A line that is not one of its own is left out, and what stands beside it counts."""
    path = tmp_path_factory.mktemp("journal") / "state.sent"
    entry: list[Any] = [5, 6, 7, 8]
    entry[field] = value
    path.write_bytes(
        b"\n".join([*lines, dumped([[entry], []]), b"[[[1, 2, 3, 44]], []]", b"[[[1, 2"])
    )
    assert 44 == SentOffsets(str(path)).sent_until(FilePosition(1, 2, 3, 0, 0))


CHECKPOINT_ENTRY = {
    "path": "/a",
    "origin": "/a",
    "device": 1,
    "inode": 2,
    "version": None,
    "generation": 1,
    "offset": 0,
    "checksum": 0,
    "head": "",
    "head_bytes": 0,
    "tail": "",
    "tail_bytes": 0,
    "skipping": False,
    "state": {},
}


@MANY
@given(contents, trees, st.sampled_from(sorted(CHECKPOINT_ENTRY)))
def test_a_checkpoint_is_read_whatever_it_says(tmp_path_factory, content, value, field):
    """It is nothing, or entries that can be gone on from."""
    path = tmp_path_factory.mktemp("checkpoint") / "state"
    saved = {
        "format": "otel_dllogger.follow",
        "version": 1,
        "next_generation": 2,
        "files": [CHECKPOINT_ENTRY, {**CHECKPOINT_ENTRY, "inode": 3, field: value}, value],
    }
    for raw in (content, dumped(saved), dumped({**saved, "files": value})):
        path.write_bytes(raw)
        for file in CheckpointFile(path, anomalies=FileAnomalies()).read().files:
            assert file.generation < 2


@MANY
@given(contents, trees)
def test_a_block_is_read_whatever_it_says(tmp_path_factory, content, value):
    """It is one whose times are known, or none."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "wal").mkdir()
    block = folder / "01BX5ZZKBKACTAV9WEVGEMMVRZ"
    block.mkdir()
    for raw in (content, dumped({"minTime": value, "maxTime": value}), dumped(value)):
        (block / "meta.json").write_bytes(raw)
        for first_ms, end_ms in DataFolder(folder).blocks().values():
            assert (type(first_ms), type(end_ms)) == (int, int)


DAMAGE = [
    b"",
    b"x",
    zlib.compress(b""),
    zlib.compress(b"123"),
    zlib.compress(array("q", [2**62] * 9).tobytes()),
    7,
    "t",
]


@pytest.mark.parametrize("damage", DAMAGE, ids=str)
def test_damaged_times_are_an_error_of_the_database(tmp_path, damage):
    """Which the command says in a line, as for a database that is none."""
    chunk = Chunk(SeriesName("dl_loss", ()), array("q", [0, 2**40]), array("d", [1.0, 2.0]))
    installed = Installed(tmp_path / "installed")
    installed.begin([(0, 2**50)])
    installed.add(chunk)
    assert installed.missing(chunk) is None
    installed._database.execute("UPDATE installed SET times = ?", (damage,))
    with contextlib.suppress(sqlite3.Error):
        assert installed.missing(chunk)
    installed.close()


@MANY
@given(contents)
@example(b"1 (a) S")
@example(b"1 (a) S 9 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 " + b"9" * 5000)
@example(b"btime")
@example(b"btime inf")
def test_proc_may_say_anything(monkeypatch, content):
    """As in a sandbox, or in a system that is not Linux."""
    monkeypatch.setattr(identity, "_read_proc", lambda _name: content)
    read_process(1)
    assert identity.detect_topology({"RANK": "0"}).run
    assert identity.detect_topology({}).run

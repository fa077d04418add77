"""The checkpoint: whole or not at all, and nothing that stands there instead is believed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from otel_dllogger.logs.tail.anomalies import FileAnomalies
from otel_dllogger.logs.tail.checkpoint import FORMAT, CheckpointFile, set_entry
from otel_dllogger.logs.tail.file_state import TailedFile
from otel_dllogger.logs.tail.fingerprint import FileKey, Fingerprint, digest

pytestmark = pytest.mark.newest_only

FIELDS = {
    "key": FileKey(65024, (1 << 64) - 1),
    "version": 7,
    "path": "/logs/é \udcff/%41 train.log.1",
    "found_path": "/logs/é \udcff/%41 train.log",
    "generation": 3,
    "fingerprint": Fingerprint(2000, 0xFFFFFFFF, 1024, digest(b"head"), 1024, digest(b"tail")),
    "skipping": True,
    "state": {"format": "json", "nested": [1, 2.5, None]},
}
OTHER = {**FIELDS, "key": FileKey(1, 1)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.json"


def read(path):
    """Return the next generation, the fields of the files, and what was counted."""
    anomalies = FileAnomalies()
    saved = CheckpointFile(path, anomalies=anomalies).read()
    files = [{name: getattr(file, name) for name in FIELDS} for file in saved.files]
    counts = {reason: count for reason, count in anomalies.counts.items() if count}
    return saved.next_generation, files, counts


def entry(fields):
    """Return a file of a checkpoint as it is saved."""
    file = TailedFile(fields["key"], fields["path"], fields["generation"])
    for name, value in fields.items():
        setattr(file, name, value)
    set_entry(file)
    return file.saved


def write(path, *files, next_generation=9):
    return CheckpointFile(path, anomalies=FileAnomalies()).write(next_generation, map(entry, files))


def test_what_is_written_is_read(path):
    """Paths that are no text, the largest numbers and the caller's state come back."""
    other = {
        **FIELDS,
        "key": FileKey(0, 1),
        "version": None,
        "fingerprint": Fingerprint(),
        "skipping": False,
    }
    assert write(path, FIELDS, other)
    assert (9, [FIELDS, other], {}) == read(path)
    saved = json.loads(path.read_bytes())
    assert (FORMAT, 1) == (saved["format"], saved["version"])


def test_no_checkpoint_is_nothing_unusual(path):
    """The first start counts nothing."""
    assert (1, [], {}) == read(path)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "checkpoint_corrupt"),
        (b"\0" * 4096, "checkpoint_corrupt"),
        (b'{"format":"otel_dllogger.follow","version":1,"files":[', "checkpoint_corrupt"),
        (b"[" * 100_000, "checkpoint_corrupt"),
        (b'{"format":"otel_dllogger.follow","version":1}', "checkpoint_corrupt"),
        (
            b'{"format":"otel_dllogger.follow","version":1,"next_generation":-1,"files":[]}',
            "checkpoint_corrupt",
        ),
        (
            b'{"format":"otel_dllogger.follow","version":1,"next_generation":true,"files":[]}',
            "checkpoint_corrupt",
        ),
        (b"[]", "checkpoint_foreign"),
        (b'{"version":1,"files":[]}', "checkpoint_foreign"),
        (b'{"format":"otel_dllogger.follow","version":2,"files":{}}', "checkpoint_version"),
        (b'{"format":"otel_dllogger.follow"}', "checkpoint_version"),
    ],
)
def test_what_is_no_checkpoint_is_counted(path, raw, reason):
    """Anything else is counted, and reading begins anew."""
    path.write_bytes(raw)
    assert (1, [], {reason: 1}) == read(path)


def test_what_is_no_file_is_counted(path):
    """A pipe is not waited for, and a folder is not read."""
    os.mkfifo(path)
    assert (1, [], {"checkpoint_unreadable": 1}) == read(path)
    path.unlink()
    path.mkdir()
    assert (1, [], {"checkpoint_unreadable": 1}) == read(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "train.log"},
        {"path": "/a%00b"},
        {"path": 1},
        {"device": -1},
        {"device": None},
        {"inode": 1.5},
        {"version": "7"},
        {"generation": 9},
        {"offset": -1},
        {"offset": 10},
        {"checksum": 1 << 32},
        {"head_bytes": 2000},
        {"head": "00"},
        {"head": ""},
        {"head": 5},
        {"tail": "zz" * 16},
        {"tail_bytes": 0},
        {"skipping": 1},
        {"state": []},
        {"state": {"deep": json.loads("[" * 500 + "]" * 500)}},
    ],
    ids=lambda wrong: str(wrong)[:20],
)
def test_a_wrong_entry_is_left_out(path, wrong):
    """One entry that makes no sense does not cost the others."""
    write(path, FIELDS, OTHER)
    saved = json.loads(path.read_bytes())
    saved["files"][0].update(wrong)
    saved["files"].append(saved["files"][1])
    saved["files"].append("not an entry")
    path.write_text(json.dumps(saved))
    assert (9, [OTHER], {"checkpoint_entry": 3}) == read(path)


@pytest.mark.parametrize("missing", ["path", "origin", "device", "offset", "state", "skipping"])
def test_an_entry_without_a_field_is_left_out(path, missing):
    """What an entry does not say is not guessed."""
    write(path, FIELDS)
    saved = json.loads(path.read_bytes())
    del saved["files"][0][missing]
    path.write_text(json.dumps(saved))
    assert (9, [], {"checkpoint_entry": 1}) == read(path)


def test_a_failed_write_keeps_what_was_saved(path):
    """An error before the rename leaves the old checkpoint, and is counted."""
    write(path, FIELDS)

    def fail(fd):
        raise OSError(28, "No space left on device")

    anomalies = FileAnomalies()
    checkpoint = CheckpointFile(path, anomalies=anomalies, sync=fail)
    assert not checkpoint.write(10, [])
    assert 1 == anomalies.counts["checkpoint_failed"]
    assert (9, [FIELDS], {}) == read(path)
    gone = CheckpointFile(path.parent / "nowhere" / "checkpoint", anomalies=anomalies)
    assert not gone.write(10, [])
    assert 2 == anomalies.counts["checkpoint_failed"]


def test_the_file_then_its_name_is_synced(path, monkeypatch):
    """The bytes are on the disk before the name leads to them, and the name thereafter."""
    done = []
    replace = os.replace

    def note_replace(source, target):
        done.append("rename")
        replace(source, target)

    def sync(fd):
        done.append(Path(f"/proc/self/fd/{fd}").readlink().name)

    monkeypatch.setattr(os, "replace", note_replace)
    assert CheckpointFile(path, anomalies=FileAnomalies(), sync=sync).write(1, [])
    assert ["checkpoint.json.tmp", "rename", path.parent.name] == done
    assert [path] == list(path.parent.iterdir())


def test_a_link_is_not_written_through(path):
    """Somebody's link at the temporary name does not send our bytes elsewhere."""
    elsewhere = path.parent / "elsewhere"
    elsewhere.write_bytes(b"mine")
    (path.parent / "checkpoint.json.tmp").symlink_to(elsewhere)
    assert not write(path, FIELDS)
    assert b"mine" == elsewhere.read_bytes()

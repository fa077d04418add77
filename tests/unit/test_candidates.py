"""Files of a folder that may be logs: their first lines decide, and are read once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_dllogger.logs.tail import candidates
from otel_dllogger.logs.tail.anomalies import FileAnomalies
from otel_dllogger.logs.tail.candidates import HEAD_BYTES, is_settings
from otel_dllogger.logs.tail.find_files import FileFinder
from tests.support.check import assert_said

pytestmark = pytest.mark.newest_only

RECORD = (
    b'DLLL {"timestamp": "1700000000.0", "datetime": "2023-11-14 22:13:20", '
    b'"elapsedtime": "1.0", "type": "LOG", "step": [0, 1], "data": {"train.loss": 2.5}}\n'
)
NOISE = b"NCCL INFO Bootstrap : Using eth0\n"
ROW = b'{"step": 1000, "lr": 0.1, "batch_size": 32}\n'


@pytest.fixture
def anomalies():
    return FileAnomalies()


@pytest.fixture
def found(tmp_path, anomalies):
    """Search the folder, or globs below it; each call is another scan of one finder."""
    finders = {}

    def found(*names):
        if names not in finders:
            paths = [str(tmp_path / name) for name in names or ("",)]
            finders[names] = FileFinder(paths, anomalies=anomalies)
        files = finders[names].scan().files.values()
        anomalies.end_round()
        return sorted(os.path.relpath(file.path, tmp_path) for file in files)

    return found


@pytest.fixture
def opened(monkeypatch):
    """The names of the files whose heads were read."""
    names = []
    open_regular = candidates.open_regular

    def note(path, key):
        names.append(Path(path).name)
        return open_regular(path, key)

    monkeypatch.setattr(candidates, "open_regular", note)
    return names


@pytest.mark.parametrize("name", ["slurm-4242.out", "job.err", "results.csv", "stdout", "0"])
@pytest.mark.parametrize(
    ("content", "is_log"),
    [
        (RECORD, True),
        (NOISE * 100 + RECORD, True),
        (b"\xff\xfe" + RECORD.decode().encode("utf-16-le"), True),
        (b"", False),
        (NOISE, False),
        (b"\x7fELF\x02\0" + RECORD, False),
        (b"\x7fELF\x02\0\n" + RECORD, False),
        (NOISE * (HEAD_BYTES // len(NOISE) + 1) + RECORD, False),
    ],
    ids=["record", "late", "UTF-16", "empty", "noise", "NUL", "NUL before", "too late"],
)
def test_the_first_lines_of_a_candidate_decide(name, content, is_log, tmp_path, found):
    """A record among the first 64 KiB makes a log of it; a NUL makes it another file."""
    (tmp_path / name).write_bytes(content)
    assert [name] * is_log == found()


@pytest.mark.parametrize("name", ["model.pt", "notes.md", "slurm-4242.out.gz", ".out", ".stdout"])
def test_other_names_are_never_opened(name, tmp_path, found, opened):
    """Whatever they hold."""
    (tmp_path / name).write_bytes(RECORD)
    assert ([], []) == (found(), opened)


def test_a_candidate_is_read_when_it_changes_and_at_no_other_scan(tmp_path, found, opened):
    """A log is a log from its first record on; what is none is looked at again as it grows."""
    path = tmp_path / "stdout"
    path.touch()
    (tmp_path / "LICENSE").write_bytes(NOISE)
    assert ([], [], ["LICENSE"]) == (found(), found(), opened)  # an empty file is not opened
    path.write_bytes(NOISE)
    assert ([], [], ["LICENSE", "stdout"]) == (found(), found(), opened)
    with path.open("ab") as file:
        file.write(RECORD)
    assert (["stdout"], ["LICENSE", "stdout", "stdout"]) == (found(), opened)
    with path.open("ab") as file:
        file.write(RECORD)
    assert (["stdout"], 3) == (found(), len(opened))


def test_a_whole_head_without_a_record_is_final(tmp_path, found, opened):
    """A file that grows behind it is not read again; one that was emptied is."""
    path = tmp_path / "stdout"
    path.write_bytes(NOISE * HEAD_BYTES)
    assert [] == found()
    with path.open("ab") as file:
        file.write(RECORD)
    assert ([], ["stdout"]) == (found(), opened)
    path.write_bytes(RECORD)
    assert ["stdout"] == found()


def test_another_file_under_the_name_is_looked_at(tmp_path, found):
    """What was found is true of one file, not of its name."""
    path = tmp_path / "stdout"
    path.write_bytes(RECORD)
    assert ["stdout"] == found()
    (tmp_path / "new.tmp").write_bytes(NOISE)
    (tmp_path / "new.tmp").rename(path)
    assert [] == found()


def test_no_more_than_a_head_is_read(tmp_path, found, monkeypatch):
    """Of a file of any size, with lines of any length."""
    with (tmp_path / "core").open("wb") as file:
        file.write(b"x" * HEAD_BYTES)
        file.truncate(1 << 40)
    read = []
    parse_line = candidates.parse_line
    monkeypatch.setattr(
        candidates,
        "parse_line",
        lambda line, context: read.append(line) or parse_line(line, context),
    )
    assert [] == found()
    assert HEAD_BYTES == sum(map(len, read))


def test_a_candidate_that_may_not_be_read_is_counted(tmp_path, found, anomalies, monkeypatch):
    """And looked at again, since a change of permissions is not a change of the file."""

    def refuse(path, _key):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "stdout").write_bytes(RECORD)
    with monkeypatch.context() as patch:
        patch.setattr(candidates, "open_regular", refuse)
        assert ([], []) == (found(), found())
    assert 1 == anomalies.counts["permission_denied"]
    assert ["stdout"] == found()


SETTINGS = [
    "hparams.json",
    "config.json",
    "model_config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "args.json",
    "training_args.json",
    "training_args_2.json",
    "opts.json",
    "package.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "preds.json",
    "predictions_val.json",
    "results.json",
    "results_5.json",
]
LOGS = ["trainer_state.json", "metrics.json", "scalars.json", "results.log.json", "config.jsonl"]


def test_settings_and_results_are_left_out_of_a_folder(tmp_path, found):
    """They are not logs, though a line may look like a row of a log."""
    for name in (*SETTINGS, *LOGS):
        (tmp_path / name).write_bytes(ROW)
    assert sorted(LOGS) == found() == found("**/*.json*") == found("**")
    assert SETTINGS == [name for name in (*SETTINGS, *LOGS) if is_settings(name)]


def test_settings_that_are_named_are_read(tmp_path, found):
    """Also where a wildcard names the folder."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_bytes(ROW)
    assert ["a/config.json"] == found("a/config.json") == found("*/config.json")


def test_a_log_that_is_named_as_settings_are_is_a_log(tmp_path, found):
    """``JSONStreamBackend(1, "results.json")``: DLLogger's own lines leave no doubt."""
    (tmp_path / "results.json").write_bytes(RECORD)
    assert ["results.json"] == found()


def test_a_link_follows_the_same_rules(tmp_path, found):
    """Its own name or that of its target may say that it is a log."""
    for name, content in (("a.data", NOISE), ("b.bin", NOISE), ("c.dat", RECORD)):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "a.log").symlink_to("a.data")
    (tmp_path / "latest").symlink_to("b.bin")
    (tmp_path / "stdout").symlink_to("c.dat")
    assert ["a.data", "c.dat"] == found()


def test_check_names_what_is_no_log(check):
    """Settings are neither damaged nor well; a log with their name is a log."""
    done = check(b'{\n  "lr": 0.1\n}\n', "config.json")
    assert_said(done, 1, "config.json holds settings or results, as its name says")
    assert "torn" not in done.stdout
    assert_said(check(RECORD, "results.json"), 0, "DLLogger JSON lines")

"""What can never be a log is refused at once where a command would wait for its records."""

from __future__ import annotations

import gzip
import sys

import pytest

from otel_dllogger.errors import ConfigurationError
from otel_dllogger.logs.not_logs import refuse_not_logs
from tests.support.command import assert_user_error, otel_dllogger
from tests.support.paths import ROOT

EVENTS = ROOT / "tests/data/formats/tensorboard"
RECORD = 'DLLL {"timestamp": "1", "type": "LOG", "step": 1, "data": {"loss": 1.0}}\n'


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty.json", b""),
        ("text.log", b"starting\n"),
        ("power failure.json", b"\0" * 100 + RECORD.encode()),
        ("windows.log", RECORD.encode("utf-16")),
        ("events.out.tfevents.1", next(EVENTS.rglob("*tfevents*")).read_bytes()),
    ],
)
def test_what_may_be_a_log_is_none_of_it(tmp_path, name, content):
    """Nor is what is not there yet, or a folder or glob."""
    path = tmp_path / name
    path.write_bytes(content)
    (tmp_path / "model.pt").write_bytes(b"PK\3\4\0\0")
    refuse_not_logs([str(path)])
    refuse_not_logs([str(path), str(tmp_path / "model.pt")])  # the shell's runs/*
    for more in (tmp_path, tmp_path / "*", tmp_path / "later.json"):
        refuse_not_logs([str(more), str(tmp_path / "model.pt")])


def test_files_that_are_all_no_logs_are_refused(tmp_path):
    """In one line, which says what the first is."""
    (tmp_path / "model.pt").write_bytes(b"PK\3\4\0\0")
    (tmp_path / "log.json.gz").write_bytes(gzip.compress(RECORD.encode()))
    names = [str(tmp_path / "log.json.gz"), str(tmp_path / "model.pt")]
    with pytest.raises(ConfigurationError, match=r"gz is compressed; unpack it first$"):
        refuse_not_logs(names[:1])
    with pytest.raises(ConfigurationError, match=r"unpack it first; none of 2 files is a log$"):
        refuse_not_logs(names)
    with pytest.raises(ConfigurationError, match="/dev/null is a device, not a log"):
        refuse_not_logs(["/dev/null"])


@pytest.mark.parametrize(
    "arguments",
    [["watch"], ["view", "--listen", "127.0.0.1:0"], ["report"], ["bridge", "--listen", "0"]],
    ids=lambda arguments: arguments[0],
)
def test_commands_refuse_a_binary_file(arguments):
    """Each that would wait for its records for ever, and the report."""
    done = otel_dllogger(*arguments, sys.executable)
    assert_user_error(done, f"{sys.executable} is a binary file, not a log; pass the log itself")


def test_a_backfill_of_nothing_is_not_told_as_a_success(tmp_path):
    """It says why there is nothing, and does not count what it wrote."""
    (tmp_path / "train.py").write_text("print('hello')\n")
    for command in (["backfill", "train.py", "--to", "csv", "-"], ["report", "train.py"]):
        done = otel_dllogger(*command, cwd=tmp_path)
        assert 1 == done.returncode
        assert "0 rows" not in done.stderr
        assert "no line is a record" in done.stderr
        assert "nothing was written: no value was found" in done.stderr

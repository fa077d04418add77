"""The folder in which ranks announce themselves if nobody names one, and who may write there."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest

from otel_dllogger import PrometheusBackend, settings
from otel_dllogger.http.discovery_folder import (
    DiscoveryFolder,
    GivenBy,
    folder_to_write,
    folders_to_read,
    is_readable,
)

NAME = f"otel-dllogger-{os.geteuid()}"


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """An XDG_RUNTIME_DIR, and a folder for temporary files, of this test alone."""
    folder = tmp_path / "runtime"
    folder.mkdir(mode=0o700)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    return folder


def mode_of(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_argument_comes_first_then_the_variable_then_the_default(runtime, monkeypatch):
    """As for every setting; a relative path stays one."""
    assert (runtime / "otel-dllogger", GivenBy.DEFAULT) == folder_to_write(None)
    monkeypatch.setenv(settings.DISCOVERY_DIR, "of/all")
    assert (Path("of/all"), GivenBy.VARIABLE) == folder_to_write(None)
    assert (Path("mine"), GivenBy.ARGUMENT) == folder_to_write("mine")
    assert (Path("mine"), GivenBy.ARGUMENT) == folder_to_write(Path("mine"))


def test_none_turns_the_file_off(runtime, monkeypatch):
    """As an argument and as the variable; an argument still overrides the variable."""
    assert folder_to_write("none") is None
    assert folder_to_write(Path("none")) is None
    monkeypatch.setenv(settings.DISCOVERY_DIR, "None")
    assert folder_to_write(None) is None
    assert (Path("mine"), GivenBy.ARGUMENT) == folder_to_write("mine")
    assert [] == folders_to_read()
    assert [] == list(runtime.iterdir())


def another_users(folder):
    """Return a folder of another user."""
    if os.geteuid() != 0:
        return Path("/")
    folder.mkdir()
    os.chown(folder, 4242, 4242)
    return folder


@pytest.mark.parametrize("kind", ["unset", "missing", "relative", "file", "another user's", "link"])
def test_without_a_runtime_folder_it_is_below_tmp(runtime, monkeypatch, tmp_path, kind):
    """Slurm hands down the login node's, ssh without PAM has none, sudo keeps the user's."""
    (tmp_path / "file").touch()
    values = {
        "missing": "/run/user/4242424",
        "relative": ".",
        "file": str(tmp_path / "file"),
        "another user's": str(another_users(tmp_path / "other")),
    }
    if kind == "unset":
        monkeypatch.delenv("XDG_RUNTIME_DIR")
    elif kind == "link":
        (tmp_path / "elsewhere").mkdir()
        (runtime / "otel-dllogger").symlink_to(tmp_path / "elsewhere")
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", values[kind])
    assert (tmp_path / "tmp" / NAME, GivenBy.DEFAULT) == folder_to_write(None)
    assert 0o755 == mode_of(tmp_path / "tmp" / NAME)


@pytest.mark.parametrize("umask", [0o077, 0o002, 0o022])
def test_a_prometheus_of_another_user_may_read_it(runtime, umask):
    """Whatever the umask, and if the user made the folder for Compose before."""
    before = os.umask(umask)
    try:
        (runtime / "otel-dllogger").mkdir()
        for _twice in range(2):
            folder = folder_to_write(None)
            assert (runtime / "otel-dllogger", GivenBy.DEFAULT) == folder
            assert 0o755 == mode_of(folder.path)
            folder.path.rmdir()
    finally:
        os.umask(before)


def test_what_others_may_write_to_is_neither_written_nor_read(monkeypatch, runtime, tmp_path):
    """They would choose what Prometheus scrapes. In a private folder, a mode says nothing."""
    own = runtime / "otel-dllogger"
    own.mkdir()
    own.chmod(0o777)
    assert is_readable(DiscoveryFolder(own, GivenBy.DEFAULT))
    runtime.chmod(0o755)
    assert not is_readable(DiscoveryFolder(own, GivenBy.DEFAULT))
    assert (tmp_path / "tmp" / NAME, GivenBy.DEFAULT) == folder_to_write(None)
    assert is_readable(DiscoveryFolder(own, GivenBy.VARIABLE))  # the user's own choice
    theirs = DiscoveryFolder(another_users(tmp_path / "theirs"), GivenBy.DEFAULT)
    assert not is_readable(theirs)
    (tmp_path / "link").symlink_to(tmp_path / "tmp" / NAME)
    assert not is_readable(DiscoveryFolder(tmp_path / "link", GivenBy.DEFAULT))


def test_a_reader_looks_wherever_a_writer_may_have_written(runtime, monkeypatch, tmp_path):
    """A login with an XDG_RUNTIME_DIR finds the ranks of a job without one, and the reverse."""
    with_one = [folder.path for folder in folders_to_read()]
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    without = [folder.path for folder in folders_to_read()]
    assert [runtime / "otel-dllogger", tmp_path / "tmp" / NAME, Path("/tmp", NAME)] == with_one[:3]
    systemds = Path(f"/run/user/{os.geteuid()}/otel-dllogger")
    assert [tmp_path / "tmp" / NAME, Path("/tmp", NAME), systemds] == without
    monkeypatch.setenv(settings.DISCOVERY_DIR, "/of/all")
    assert [(Path("/of/all"), GivenBy.VARIABLE)] == folders_to_read()


@pytest.fixture
def taken(runtime):
    """A default folder in which a file of this rank cannot take its place."""
    backend = PrometheusBackend(1, port=0, run="r", rank=0)
    (file,) = (runtime / "otel-dllogger").iterdir()
    backend.close()
    assert not file.exists()
    file.mkdir()
    return file.parent


def test_a_default_that_cannot_be_written_is_no_loss(taken, caplog, counted):
    """An alert would fire for every rank: nothing is counted, and only who wants it is told."""
    caplog.set_level(logging.INFO)
    backend = PrometheusBackend(1, port=0, run="r", rank=0)
    backend.close()
    said = [one.levelname for one in caplog.records if str(taken) in one.message]
    assert (["INFO"], {}, []) == (said, counted(), backend.problems)


def test_a_folder_of_the_variable_that_cannot_be_written_is_said(
    taken, caplog, counted, monkeypatch
):
    """Someone wanted it; the next step names what they set."""
    monkeypatch.setenv(settings.DISCOVERY_DIR, str(taken))
    backend = PrometheusBackend(1, port=0, run="r", rank=0)
    backend.close()
    (problem,) = backend.problems
    step = f"set {settings.DISCOVERY_DIR} to a folder that can be written, or 'none' for no file"
    assert (step, "") == (problem.step, problem.argument)
    assert {"discovery": 1} == counted()
    assert [step in one.message for one in caplog.records if one.levelname == "WARNING"] == [True]

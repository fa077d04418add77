"""Files that are replaced whole or not at all, and read without waiting."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from otel_dllogger.runtime.files import read_regular, replacing

pytestmark = pytest.mark.newest_only


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    return path


@pytest.fixture
def temporary(tmp_path):
    return tmp_path / "file.tmp"


def open_files():
    return len([*Path("/proc/self/fd").iterdir()])


def names(path):
    return sorted(one.name for one in path.parent.iterdir())


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_new_content_is_there_at_the_end(path, temporary, mode):
    """Not before, and with the permissions that were asked for."""
    temporary.write_bytes(b"what a kill has left, which is longer")
    umask = os.umask(0o077)
    try:
        with replacing(path, temporary, mode=mode) as file:
            file.write(b"new")
            file.flush()
            assert path.read_bytes() == b"old"
    finally:
        os.umask(umask)
    assert (path.read_bytes(), names(path)) == (b"new", ["file"])
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("where", ["write", "sync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_error_leaves_the_old_content_and_nothing_else(
    path, temporary, where, error, monkeypatch
):
    """Whatever fails, and whatever it is raised by."""

    def fail(*_):
        raise error

    if where == "replace":
        monkeypatch.setattr(os, "replace", fail)

    def replace():
        with replacing(path, temporary, sync=fail if where == "sync" else None) as file:
            file.write(b"new")
            if where == "write":
                fail()

    with pytest.raises(type(error)):
        replace()
    assert (path.read_bytes(), names(path)) == (b"old", ["file"])


@pytest.mark.parametrize("kind", ["link", "pipe", "file"])
def test_what_is_not_ours_is_not_written_to(path, temporary, kind):
    """Neither through a link, nor into a pipe, nor over what must not be there; it stays."""
    elsewhere = path.with_name("elsewhere")
    elsewhere.write_bytes(b"mine")
    if kind == "link":
        temporary.symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(temporary)
    else:
        temporary.write_bytes(b"mine")
    with (
        pytest.raises(OSError),
        replacing(path, temporary, exclusive=kind == "file") as file,
    ):
        file.write(b"new")
    assert (path.read_bytes(), elsewhere.read_bytes()) == (b"old", b"mine")
    assert names(path) == ["elsewhere", "file", "file.tmp"]


def test_an_open_file_is_closed(path, temporary):
    """Also after an error."""
    for error in (None, ValueError()):
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT)
        try:
            with replacing(path, temporary, descriptor=descriptor) as file:
                file.write(b"new")
                if error is not None:
                    raise error
        except ValueError:
            pass
        with pytest.raises(OSError):
            os.fstat(descriptor)
    assert (path.read_bytes(), names(path)) == (b"new", ["file"])


def test_only_small_regular_files_are_read(path):
    """A link where it may lead somewhere; nothing that would be waited for."""
    link, pipe = path.with_name("link"), path.with_name("pipe")
    link.symlink_to(path)
    os.mkfifo(pipe)
    assert read_regular(path, max_bytes=3) == read_regular(link) == b"old"
    for what, options in (
        (path, {"max_bytes": 2}),
        (link, {"follow": False}),
        (pipe, {}),
        (path.parent, {}),
        (path.with_name("missing"), {}),
    ):
        before = open_files()
        with pytest.raises(OSError):
            read_regular(what, **options)
        assert before == open_files()

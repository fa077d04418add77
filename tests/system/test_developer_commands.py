"""What ``make`` starts beside the tests: the usage of the benchmarks, what installs programs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

ABSENT = "no-such-program"


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the benchmarks with arguments, from the repository."""
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_benchmarks_say_what_can_be_measured() -> None:
    """Their help names the tables, and so does the refusal of any other."""
    done = benchmarks("--help")
    assert 0 == done.returncode
    tables = ("log-call", "otlp", "backfill", "live-page")
    assert all(table in done.stdout for table in tables)
    for wrong in ("nope", "--fast"):
        done = benchmarks(wrong)
        assert (2, "") == (done.returncode, done.stdout)
        assert wrong in done.stderr
        assert "Traceback" not in done.stderr
        assert "usage: python -m benchmarks" in done.stderr


@pytest.mark.parametrize(
    ("environment", "is_left_out"),
    [
        ("exit 1", True),
        ("trap 'exit 1' INT; echo installing; kill -INT 0; exit 1", False),
        ("kill -KILL $$", False),
    ],
    ids=["no build", "Ctrl-C", "killed"],
)
def test_pytorch_is_left_out_only_where_there_is_none(
    tmp_path: Path, environment: str, is_left_out: bool
) -> None:
    """Not where its installation was interrupted: the next call begins it again."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints/torch.txt", "scripts/environment"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/bash\nmkdir -p .venv-torch/bin\n{environment}\n")
        path.chmod(0o755)
    done = subprocess.run(
        ["make", ".venv-torch/.done", "TORCH_REQUIRED="],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},  # without the options of a make that runs the tests
        start_new_session=True,  # Ctrl-C goes to the whole group
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert is_left_out == ("\nmake: no PyTorch for this Python" in f"\n{done.stdout}")
    assert is_left_out == (done.returncode == 0)
    assert is_left_out == (tmp_path / ".venv-torch/.done").exists()
    assert is_left_out != (tmp_path / ".venv-torch/bin").exists()


@pytest.fixture
def install_missing(tmp_path: Path):
    """Run the script with an ``apt-get`` that only notes how it was called."""
    calls = tmp_path / "calls"
    apt = tmp_path / "apt-get"
    apt.write_text(f"#!/bin/sh\necho \"$@\" >> '{calls}'\n")
    apt.chmod(0o755)

    def run(**variables: str) -> tuple[subprocess.CompletedProcess[str], str]:
        done = subprocess.run(
            [ROOT / "scripts/install-missing", "sh", ABSENT],
            env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        return done, calls.read_text() if calls.exists() else ""

    return run


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs anything")
def test_root_is_told_what_is_installed_and_how_to_avoid_it(install_missing) -> None:
    """Before it happens: it changes the whole machine."""
    done, calls = install_missing()
    assert 0 == done.returncode
    (line,) = done.stderr.splitlines()
    assert f"installing {ABSENT} on this machine with apt, since you are root" in line
    assert "NO_INSTALL=1" in line
    assert calls.rstrip().endswith(ABSENT)


def test_who_does_not_want_it_is_told_what_to_install(install_missing) -> None:
    """As everybody is who is not root."""
    done, calls = install_missing(NO_INSTALL="1")
    assert (1, "") == (done.returncode, calls)
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"missing: {ABSENT}; to install: sudo apt-get install {ABSENT}")

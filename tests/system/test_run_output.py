"""What ``otel-dllogger run`` prints of itself, and that no script depends on it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.command import COMMAND, TIMEOUT_S, environment, otel_dllogger

if TYPE_CHECKING:
    from pathlib import Path


def broken_pipe() -> int:
    """Return a pipe to write to that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


@pytest.mark.parametrize("kind", ["closed", "full", "broken"])
def test_a_script_runs_where_nothing_can_be_printed(tmp_path: Path, kind: str) -> None:
    """Neither a warning nor the page's address keeps it from running, or changes how it ends."""
    (tmp_path / "train.py").write_text("print('ran', flush=True)")
    redirection = {"closed": "2>&-", "full": "2>/dev/full", "broken": ""}[kind]
    stderr = broken_pipe() if kind == "broken" else None
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", *COMMAND, "run", "--port", "0", "train.py"],
        cwd=tmp_path,
        env=environment(OTEL_DLLOGGER_UNKNOWN="1", OTEL_DLLOGGER_DISCOVERY_DIR="/proc/x"),
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if stderr is not None:
        os.close(stderr)
    assert (0, "ran\n") == (done.returncode, done.stdout)


def printed(folder: Path, *options: str, **variables: str) -> list[str]:
    """Return what a run prints of itself after the line with the page's address."""
    (folder / "train.py").write_text("print('ran')")
    done = otel_dllogger("run", "--port", "0", *options, "train.py", cwd=folder, **variables)
    assert (0, "ran\n") == (done.returncode, done.stdout)
    address, *others = done.stderr.splitlines()
    assert address.startswith("otel-dllogger: metrics of rank 0")
    return others


def test_it_says_where_ranks_announce_themselves(tmp_path: Path) -> None:
    """In the folder that was asked for, or else in the default one."""
    here = "otel-dllogger: announced to Prometheus in "
    assert [f"{here}announced"] == printed(tmp_path, "--discovery-dir", "announced")
    assert [f"{here}{tmp_path}/otel-dllogger"] == printed(tmp_path, XDG_RUNTIME_DIR=str(tmp_path))
    assert [] == printed(tmp_path, "--discovery-dir", "none")
    assert [] == printed(tmp_path, OTEL_DLLOGGER_DISCOVERY_DIR="none")


def test_it_says_that_no_default_folder_can_be_written(tmp_path: Path) -> None:
    """Whether that is known before the file is written, or only then."""
    said = (
        "otel-dllogger: not announced to Prometheus, since no folder for it can be written; set "
        "OTEL_DLLOGGER_DISCOVERY_DIR to one, or to none"
    )
    for is_own in (False, True):
        (tmp_path / "sitecustomize.py").write_text(
            "import pathlib\n"
            "from otel_dllogger.http import discovery_folder\n"
            "discovery_folder._defaults = lambda _: [pathlib.Path('/proc/x')]\n"
            f"discovery_folder._is_own = lambda *_, **__: {is_own}\n"
        )
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        assert [said] == printed(tmp_path, PYTHONPATH=path)

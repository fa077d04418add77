"""What ``otel-dllogger run`` prints of itself, and that no script depends on it."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.command import COMMAND, TIMEOUT_S, environment

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

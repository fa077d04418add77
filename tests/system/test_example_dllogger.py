"""The example that knows nothing of this package takes only a time that it can train for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.command import otel_dllogger
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = str(ROOT / "examples" / "train_dllogger.py")


@pytest.mark.parametrize("seconds", ["nan", "-1", "0", "inf"])
def test_a_time_that_is_none_is_refused(tmp_path: Path, seconds: str) -> None:
    """Before the training, in the words of argparse."""
    done = otel_dllogger("run", "-q", "--port", "0", EXAMPLE, f"--seconds={seconds}", cwd=tmp_path)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert f"argument --seconds: {seconds!r} is not a time; pass seconds, more than 0" in last


def test_a_time_that_is_over_at_once_is_one_step(tmp_path: Path) -> None:
    """There is a loss to tell at the end."""
    done = otel_dllogger("run", "-q", "--port", "0", EXAMPLE, "--seconds=1e-9", cwd=tmp_path)
    assert (0, "") == (done.returncode, done.stderr)
    end = json.loads((tmp_path / "log.json").read_text().splitlines()[-1].removeprefix("DLLL "))
    assert ([], 1) == (end["step"], end["data"]["epochs"])

"""Foreign code may call any public function at any moment: it neither hangs nor loses a line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests._command import uncovered

SCRIPTS = Path(__file__).parent / "scripts"
DEADLINE_S = 120


@pytest.mark.parametrize("how", ["signal", "logging", "del", "value"])
def test_foreign_code_calls_every_function_with_every_backend(how, tmp_path):
    """Handlers, finalizers and values call while a scrape and the main thread are in the same."""
    result = subprocess.run(
        [sys.executable, SCRIPTS / "reenter.py", how, tmp_path, "20"],
        capture_output=True,
        text=True,
        env=uncovered(),
        timeout=DEADLINE_S,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    logged, foreign = json.loads(result.stdout)
    lines = [json.loads(line[5:]) for line in (tmp_path / "log").read_text().splitlines()]
    numbers = [line["data"]["number"] for line in lines if line["type"] == "LOG"]
    assert list(range(logged)) == sorted(numbers)
    assert foreign > 0

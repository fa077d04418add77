"""A rank that waits in a collective operation of PyTorch for another one that is stopped."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from otel_dllogger.cli.stacks.py_spy import find_program
from tests.support.command import otel_dllogger, uncovered
from tests.support.http import wait_until
from tests.support.paths import TESTS

DEADLINE_S = 120


@pytest.fixture
def ranks(tmp_path):
    """Start both ranks, and kill them at the end."""
    shared = uncovered() | {"OTEL_DLLOGGER_RUN": "gloo", "WORLD_SIZE": "2"}
    command = [sys.executable, TESTS / "scripts" / "gloo_rank.py", tmp_path]
    started = [subprocess.Popen(command, env=shared | {"RANK": str(rank)}) for rank in range(2)]
    yield started
    for rank in started:
        rank.send_signal(signal.SIGKILL)
        rank.wait()


def test_the_stacks_name_the_operation(ranks, tmp_path):
    """From inside, and from outside for both, as soon as one of them hangs."""
    stacks, log = tmp_path / "rank0.json.stacks", tmp_path / "rank0.json"
    wait_until(lambda: log.exists() and '"EVENT"' in log.read_text(), DEADLINE_S)
    written = stacks.read_text()
    assert "run gloo, rank 0, " in written
    assert "last step [0, 4], open phases: none" in written
    assert "distributed_c10d.py" in written
    assert " in all_reduce\n" in written
    assert "gloo_rank.py" in written
    (event,) = [line for line in log.read_text().splitlines() if '"EVENT"' in line]
    assert json.loads(event[5:])["step"] == [0, 4]

    if find_program() is None:
        pytest.skip("py-spy is not installed")
    done = otel_dllogger("stacks", "gloo", "--discovery-dir", str(tmp_path))
    waiting, stopped = sorted(done.stdout.splitlines())
    assert waiting.startswith("rank 0: all_reduce (gloo_rank.py:")
    assert stopped.startswith("rank 1: stopped by a signal or a debugger, in gloo_rank.py:")
    assert (waiting + stopped).count(" train_step") == 2

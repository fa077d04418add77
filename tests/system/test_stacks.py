"""The command ``stacks``, with py-spy and real ranks that stand somewhere."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.command import otel_dllogger, uncovered
from tests.support.paths import TESTS

pytestmark = pytest.mark.newest_only

SCRIPT = TESTS / "scripts" / "stuck_rank.py"
RUN = "4242"


@contextmanager
def ranks_at(folder, places, world_size):
    """Start a rank for each place, and kill all of them when the block ends."""
    shared = uncovered() | {"OTEL_DLLOGGER_RUN": RUN, "WORLD_SIZE": str(world_size)}
    ranks = [
        subprocess.Popen(
            [sys.executable, SCRIPT, folder, place],
            stdout=subprocess.PIPE,
            env=shared | {"RANK": str(rank)},
            text=True,
        )
        for rank, place in enumerate(places)
    ]
    try:
        assert [rank.stdout.readline() for rank in ranks] == ["ready\n"] * len(ranks)
        yield [rank.pid for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()


@pytest.fixture
def stacks(tmp_path):
    """Return a function that runs the command on the ranks of this test's folder."""
    folder = tmp_path / "discovery"
    folder.mkdir()

    def run(*arguments):
        done = otel_dllogger("stacks", "--discovery-dir", str(folder), *arguments)
        return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()

    run.folder = folder
    return run


def test_the_odd_rank_of_a_run(stacks):
    """One of four holds the GIL, so that its page does not answer; two more are elsewhere."""
    places = ["train_step", "train_step", "next_batch", "train_step"]
    with ranks_at(stacks.folder, places, world_size=6) as pids:
        status, told, noted = stacks(RUN)
        assert status == 0
        assert [line.split(":")[0] for line in told] == ["rank 2", "ranks 0-1, 3"]
        assert told[0].endswith(" next_batch")
        assert told[1].endswith(" wait")
        (line,) = noted
        assert line.startswith("otel-dllogger: 2 ranks of run 4242 are not known here")
        status, told, _ = stacks(str(pids[2]), "--full", "--native")
        assert status == 0
        assert told[0].startswith(f"rank 2 of run 4242 (process {pids[2]}): stuck_rank.py:")
        # How many depends on the symbols that the interpreter has.
        _, without_native, _ = stacks(str(pids[2]), "--full")
        assert len(told) > len(without_native)
        assert "  thread otel-dllogger-http" in told


def test_ranks_that_end(stacks):
    """They are not looked for once they are gone."""
    with ranks_at(stacks.folder, ["train_step"], world_size=1) as (pid,):
        assert stacks(RUN)[0] == 0
    status, _, (line,) = stacks(RUN)
    assert status == 2
    assert f"there is no process {RUN} here" in line or "does not run Python" in line
    status, _, (line,) = stacks(str(pid))
    assert status == 2
    assert f"there is no process {pid} here; it has ended" in line


def test_a_thread_of_the_kernel(stacks):
    """It runs no Python, whoever asks."""
    comm = Path("/proc/2/comm")
    if not comm.exists() or comm.read_text() != "kthreadd\n":
        pytest.skip("a container shows none")
    status, _, (line,) = stacks("2")
    assert status == 2
    assert line.endswith("process 2 is a thread of the kernel, which does not run Python")


@pytest.mark.parametrize("target", ["\u0663", "1" * 5_000])
def test_a_number_that_is_not_a_pid(stacks, target):
    """It is a name, be it in digits that no command shows."""
    status, _, (line,) = stacks(target)
    assert status == 2
    assert "no run '" in line


def test_a_run_of_another_host(stacks):
    """Its ranks are announced here, in a folder that hosts share."""
    with ranks_at(stacks.folder, ["train_step"], world_size=1):
        (file,) = stacks.folder.glob("*.json")
        (stacks.folder / "dllogger_other_0.json").write_text(
            file.read_text().replace(f'"{RUN}"', '"other"').replace('_host": "', '_host": "not')
        )
        status, _, (line,) = stacks("other")
        assert status == 2
        assert "no rank of run other can be looked at from here: 1 rank on not" in line
        status, _, (line,) = stacks("neither")
        assert status == 2
        assert f"no run 'neither' on this host: the runs here are {RUN}" in line


def test_without_py_spy(stacks, monkeypatch):
    """The line names the extra."""
    from otel_dllogger.cli.main import main  # noqa: PLC0415

    monkeypatch.setattr("otel_dllogger.cli.stacks.command.find_program", lambda: None)
    noted = []
    monkeypatch.setattr("otel_dllogger.cli.main.note", noted.append)
    assert main(["stacks", "1"]) == 2
    (line,) = noted
    assert line.startswith("this needs py-spy: pip install 'otel-dllogger[stacks]', or")

"""Four ranks that save, validate, are killed and go on: their log against their stop watches."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.command import otel_dllogger
from tests.support.http import wait_until
from tests.support.paths import TESTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

SCRIPT = TESTS / "scripts" / "stopwatch_rank.py"
RANKS, STEPS, KILLED_AT = 4, 80, 50
GAP_S = 1.0
TOLERANCE = 2.0
"""Percent of the time of all ranks."""


@contextlib.contextmanager
def barrier(path: Path) -> Iterator[str]:
    """Serve a barrier: each rank is answered once all have sent a byte."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with contextlib.ExitStack() as stack, contextlib.suppress(OSError):  # ranks are killed
                ranks = [stack.enter_context(server.accept()[0]) for _ in range(RANKS)]
                while all(rank.recv(1) for rank in ranks):
                    for rank in ranks:
                        rank.sendall(b"x")

        thread = threading.Thread(target=serve)
        thread.start()
        yield str(path)
        thread.join(20)
        assert not thread.is_alive()


def start(folder: Path, path: str, attempt: int) -> list[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "WORLD_SIZE": str(RANKS),
        "OTEL_DLLOGGER_RUN": "watched",
        "TORCHELASTIC_RESTART_COUNT": str(attempt),
        "OTEL_DLLOGGER_DISCOVERY_DIR": str(folder / "discovery"),
    }
    return [
        subprocess.Popen(
            [sys.executable, SCRIPT, folder, path, str(STEPS)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(RANKS)
    ]


def watch(folder: Path, rank: int, attempt: int) -> dict[str, Any]:
    return json.loads((folder / f"watch_rank{rank}_{attempt}.json").read_bytes())


def has_made(folder: Path, step: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        return bool(watch(folder, 0, 0)["step"] >= step)
    return False


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a training that was killed once, and went on."""
    folder = tmp_path_factory.mktemp("watched")
    (folder / "logs").mkdir()
    with barrier(folder / "barrier0") as path:
        ranks = start(folder, path, 0)
        try:
            wait_until(lambda: has_made(folder, KILLED_AT))
        finally:
            for rank in ranks:  # as a launcher does when one of them is lost
                rank.kill()
            for rank in ranks:
                rank.wait()
    threading.Event().wait(GAP_S)
    with barrier(folder / "barrier1") as path:
        assert [rank.wait(60) for rank in start(folder, path, 1)] == [0] * RANKS
    return folder


def truth(folder: Path) -> dict[str, float]:
    """Return what the stop watches say, in percent of the time of all ranks."""
    attempts = [[watch(folder, rank, attempt) for rank in range(RANKS)] for attempt in range(2)]
    watches = [one for ranks in attempts for one in ranks]
    by_rank = list(zip(*attempts, strict=True))
    wall_s = max(one["end"] for one in watches) - min(one["start"] for one in watches)
    ran_s = sum(one["end"] - one["start"] for one in watches)

    def of(name: str) -> float:
        return sum(one.get(name, 0.0) for one in watches)

    needed_s = min(sum(one["communication"] for one in both) for both in by_rank)
    lost = [{name: one[name] - one["saved"][name] for name in one["saved"]} for one in attempts[0]]
    redone_s = sum(one["train"] for one in lost) + RANKS * min(one["communication"] for one in lost)
    parts = {name: of(name) for name in ("startup", "restore", "data_wait", "validation")}
    parts |= {
        "checkpoint": of("checkpoint"),
        "wait for checkpoint": of("blocked"),
        "wait for the slowest": of("communication") - RANKS * needed_s,
        "redone": redone_s,
        "productive": of("train") + RANKS * needed_s - redone_s,
        "down": RANKS * wall_s - ran_s,
    }
    return {name: 100 * part_s / (RANKS * wall_s) for name, part_s in parts.items()}


def test_the_report_says_what_the_stop_watches_say(folder: Path) -> None:
    """Each part within two percent of all time; together they are all of it."""
    done = otel_dllogger("report", "logs", "--format", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)["runs"]
    found = {part["name"]: part["percent"] for part in run["goodput"]["parts"]}
    expected = truth(folder)
    assert sum(found.values()) == pytest.approx(100)
    assert {name: found.get(name, 0.0) for name in {**expected, **found}} == pytest.approx(
        {name: expected.get(name, 0.0) for name in {**expected, **found}}, abs=TOLERANCE
    )
    assert min(expected.values()) > TOLERANCE / 2, "a part that is too small shows nothing"

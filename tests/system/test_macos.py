"""What runs on macOS, where there is no ``/proc``: on Linux, in processes that look like there."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.command import COMMAND, TIMEOUT_S
from tests.support.http import ask, wait_until
from tests.support.stand_ins import as_on_macos

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from typing_extensions import Self

pytestmark = [pytest.mark.newest_only, pytest.mark.portable]

RUN = "digits"
STEPS = 20
TRAIN = """
import os, sys
import otel_dllogger as dllogger
from otel_dllogger.backends.prometheus import PrometheusBackend
assert sys.platform == "darwin" and not os.path.exists("/proc")
page = PrometheusBackend(dllogger.Verbosity.VERBOSE, port=0, discovery_dir="discovery")
lines = dllogger.JSONStreamBackend(dllogger.Verbosity.VERBOSE, "logs/{run}_rank{rank}.json")
dllogger.init([lines, page])
dllogger.metadata("loss", {"GOAL": "MINIMIZE", "STAGE": "TRAIN"})
for step in range(20):
    dllogger.log((0, step), {"loss": 1 / (1 + step)})
print(page.url, flush=True)
if sys.stdin.read() == "finish":
    dllogger.log((), {"loss": 0.05})
    dllogger.shutdown()
"""


class Training:
    """Two ranks, as torchrun starts them."""

    def __init__(self, folder: Path) -> None:
        (folder / "discovery").mkdir()
        (folder / "logs").mkdir()
        self.folder = folder
        self.ranks = []
        for rank in ("0", "1"):
            variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
            command = [sys.executable, "-c", TRAIN]
            self.ranks.append(
                subprocess.Popen(
                    command,
                    cwd=folder,
                    env={**as_on_macos(), **variables, "OTEL_DLLOGGER_RUN": RUN},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        self.pages = [rank.stdout.readline().strip() for rank in self.ranks]
        assert all(self.pages), self.ranks[0].communicate()[1] + self.ranks[1].communicate()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        for rank in self.ranks:
            rank.kill()
            rank.communicate()

    def finish(self) -> list[tuple[str, int]]:
        """End all ranks as a script does that has trained to its end."""
        said = [rank.communicate("finish", timeout=TIMEOUT_S)[1] for rank in self.ranks]
        return [(text, rank.returncode) for text, rank in zip(said, self.ranks, strict=True)]


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    with Training(tmp_path) as training:
        yield training


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env={**as_on_macos(), "COLUMNS": "250", "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def test_ranks_log_serve_and_finish(training, tmp_path):
    """The JSON lines and the pages of all ranks, their announcements, and a clean end."""
    for rank, page in enumerate(training.pages):
        body = ask(int(re.search(r":(\d+)/", page)[1])).body.decode()
        (sample,) = (line for line in body.splitlines() if line.startswith("dl_loss{"))
        assert f'rank="{rank}",run="{RUN}"' in sample
        assert sample.endswith(" 0.05")
    assert len([*(tmp_path / "discovery").glob("*.json")]) == 2
    assert training.finish() == [("", 0), ("", 0)]
    assert [*(tmp_path / "discovery").glob("*.json")] == []
    for rank in range(2):
        lines = (tmp_path / "logs" / f"{RUN}_rank{rank}.json").read_text().splitlines()
        steps = [json.loads(line[5:])["step"] for line in lines if '"LOG"' in line]
        assert steps == [*([0, step] for step in range(STEPS)), []]


def test_a_rank_that_is_told_to_end_says_so(training, tmp_path):
    """SIGTERM ends the process as ever, and takes its announcement away."""
    training.ranks[0].send_signal(signal.SIGTERM)
    assert training.ranks[0].wait(TIMEOUT_S) == -signal.SIGTERM
    (left,) = (tmp_path / "discovery").glob("*.json")
    assert json.loads(left.read_text())[0]["labels"]["__meta_dllogger_rank"] == "1"


def test_check_and_watch_read_pages_and_logs(training, tmp_path):
    """Both describe both ranks, while they train and when they have finished."""
    for targets in (training.pages, ["logs"]):
        done = command(tmp_path, "check", *targets)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert RUN in done.stdout
    assert training.finish() == [("", 0), ("", 0)]
    done = command(tmp_path, "watch", "logs", "--until-finished")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(rf"{RUN}.*finished", done.stdout)


def test_the_live_page_the_report_and_backfill_have_the_run(training, tmp_path):
    """What a browser gets from ``view``, and the files of ``report`` and ``backfill``."""
    view = subprocess.Popen(
        [*COMMAND, "view", "logs", "--listen", "127.0.0.1:0"],
        cwd=tmp_path,
        env=as_on_macos(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    port = int(re.search(r"http://\S+:(\d+)/", view.stdout.readline())[1])

    def is_shown():
        try:
            return b"<!doctype html>" in ask(port, "/").body.lower()
        except ConnectionError:  # until it serves; if it has ended, what it said is looked at
            return view.poll() is not None

    try:
        wait_until(is_shown)
    finally:
        view.terminate()
        _said, errors = view.communicate(timeout=TIMEOUT_S)
    assert (errors, view.returncode) == ("", 0)
    training.finish()
    done = command(tmp_path, "report", "logs", "--format", "json", "-o", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"][0]["name"] == RUN
    done = command(tmp_path, "backfill", "logs", "--to", "openmetrics", "past.om")
    assert done.returncode == 0, done.stderr
    assert f'run="{RUN}"' in (tmp_path / "past.om").read_text()


@pytest.mark.parametrize("world_size", ["1", "2"])
def test_a_guessed_run_is_said_to_be_one(tmp_path, world_size):
    """Of several ranks, the process that started this one may not be that of the others."""
    script = "from otel_dllogger.identity import detect_topology; print(detect_topology().run)"
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": world_size}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**as_on_macos(), **variables},
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    assert re.fullmatch(r"python-\S+-\d+\n", done.stdout)
    guesses = "OTEL_DLLOGGER_RUN to the same name on all ranks" in done.stderr
    assert guesses == (world_size == "2")
    assert done.stderr.count("\n") == (world_size == "2")

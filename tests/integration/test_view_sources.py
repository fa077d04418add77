"""The model of runs, filled from the pages of real ranks and from their logs."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend, Verbosity
from otel_dllogger.logs.source import Source
from otel_dllogger.metrics import health
from otel_dllogger.view.assessment import assess
from otel_dllogger.view.model import Model
from otel_dllogger.view.plain import plain_run
from otel_dllogger.view.targets import find_targets
from tests.support.command import COMMAND
from tests.support.prometheus import wait_for
from tests.support.rank import Rank

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

RUN = "e2e"
METADATA = {"unit": "s", "STAGE": "TRAIN"}
RECORDS = [
    ((0, 0), {"train.loss": 3.0, "train.step_time": 0.5, "train.ips": 100.0}),
    ((0, 1), {"train.loss": math.nan, "train.step_time": 0.5, "train.ips": 110.0}),
    ((0, 2), {"train.loss": 2.0, "train.step_time": 0.5, "train.ips": 120.0}),
]


class Watched:
    """A model and its sources, polled by the test."""

    def __init__(self, *targets: object, run: str | None = None) -> None:
        self.model = Model()
        # A page has no goals by convention.
        source = Source([str(target) for target in targets], run, conventions=False)
        self.sources = find_targets(source).open(self.model)

    def poll(self) -> None:
        for source in self.sources:
            if hasattr(source, "_due_s"):
                source._due_s = 0.0  # the test's own pace
            while source.poll():
                pass

    def rank(self, number: int = 0):
        return self.model.runs[RUN].ranks[number]

    def states(self) -> dict[int, str]:
        run = self.model.runs.get(RUN)
        if run is None:
            return {}
        return {each.rank.number: each.state for each in assess(run, time.time()).ranks}

    def close(self) -> None:
        for source in self.sources:
            source.close()


@pytest.fixture
def watching() -> Iterator:
    opened: list[Watched] = []

    def open_it(*targets: object, **options: str) -> Watched:
        opened.append(Watched(*targets, **options))
        return opened[-1]

    yield open_it
    for each in opened:
        each.close()


@pytest.fixture
def start() -> Iterator:
    started: list[Rank] = []

    def start_them(folder: Path, *numbers: int) -> list[Rank]:
        ranks = [Rank(folder, rank=number, world_size=2, run=RUN) for number in numbers]
        started.extend(ranks)
        for rank in ranks:
            rank.wait_started()
        return ranks

    yield start_them
    for rank in started:
        rank.process.kill()
        rank.process.wait()
        rank.process.stdin.close()
        rank.process.stdout.close()


def test_a_page_and_a_log_say_the_same(tmp_path: Path, start, watching) -> None:
    """Names, labels and numbers of one run are the same, wherever they were read."""
    (rank,) = start(tmp_path, 0)
    page = watching(f"127.0.0.1:{rank.port}")
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(Verbosity.VERBOSE, str(path))])
    rank.call("metadata", "train.step_time", METADATA)
    logger.metadata("train.step_time", METADATA)
    for step, data in RECORDS:
        rank.call("log", list(step), data)
        logger.log(step, data)
        page.poll()
    logger.flush()
    log = watching(path, run=RUN)
    log.poll()
    seen, read = page.rank(), log.rank()
    assert set(seen.series) == set(read.series)
    assert page.model.runs[RUN].metrics() == log.model.runs[RUN].metrics()
    for metric, series in read.series.items():
        columns, others = series.history.columns(), seen.series[metric].history.columns()
        assert columns.x.tolist() == others.x.tolist() == [0, 1, 2]
        assert columns.nonfinite.tolist() == others.nonfinite.tolist()
        assert columns.mean.tolist() == pytest.approx(others.mean.tolist(), nan_ok=True)
    assert seen.nonfinite == read.nonfinite
    assert seen.best == read.best
    assert (seen.steps, seen.iteration, seen.epoch) == (read.steps, read.iteration, read.epoch)


def test_a_rank_that_is_killed_vanishes_and_comes_back(tmp_path: Path, start, watching) -> None:
    """It is gone while nothing answers, and a new attempt afterwards."""
    first, second = start(tmp_path, 0, 1)
    watched = watching(tmp_path / "discovery")
    for rank in (first, second):
        rank.call("log", [0, 5], {"train.loss": 1.0})
    watched.poll()
    assert watched.states() == {0: health.TRAINING, 1: health.TRAINING}
    second.process.kill()
    second.process.wait()
    watched.poll()
    watched.poll()
    assert watched.states() == {0: health.TRAINING, 1: health.VANISHED}
    words = [found.words for found in assess(watched.model.runs[RUN], time.time()).findings]
    assert any(text.startswith(f"Rank 1 of run {RUN} on ") for text in words), words
    (again,) = start(tmp_path, 1)
    again.call("log", [0, 3], {"train.loss": 2.0})
    watched.poll()
    assert watched.states() == {0: health.TRAINING, 1: health.TRAINING}
    rank = watched.rank(1)
    assert len(rank.starts) == 2
    (series,) = rank.series.values()
    assert series.history.columns().segment.tolist() == [0, 2]  # a process, and steps done again


def test_a_rank_that_ends_is_not_gone(tmp_path: Path, start, watching) -> None:
    """One that finishes says so; one that takes its page away has not vanished."""
    (rank,) = start(tmp_path, 0)
    watched = watching(tmp_path / "discovery")
    rank.call("log", [0, 0], {"train.loss": 1.0})
    watched.poll()
    watched.poll()
    rank.process.stdin.close()  # it lingers until it was read once more

    def has_ended() -> str:
        watched.poll()
        return watched.states()[0]

    wait_for(has_ended, lambda state: state == health.FINISHED)
    assert rank.process.wait(30) == 0


@pytest.mark.parametrize(
    ("number", "states"),
    [
        (signal.SIGTERM, {health.UNFINISHED, health.TERMINATED}),
        (signal.SIGKILL, {health.VANISHED}),
    ],
)
def test_a_rank_that_takes_its_announcement_back_has_not_vanished(
    tmp_path: Path, watching, number: signal.Signals, states: set[str]
) -> None:
    """It is found by its port as well, which does not answer any more when it is asked again."""
    rank = Rank(tmp_path, run=RUN, linger_s=0)
    rank.wait_started()
    try:
        watched = watching(tmp_path / "discovery", f"127.0.0.1:{rank.port}")
        rank.call("log", [0, 0], {"train.loss": 1.0})
        watched.poll()
        assert {0: health.TRAINING} == watched.states()
        rank.process.send_signal(number)
        rank.process.wait(30)
        for _ in range(4):
            watched.poll()
            assert watched.states()[0] in {health.TRAINING, *states}
        assert watched.states()[0] in states
    finally:
        rank.process.kill()
        rank.process.wait()
        rank.process.stdin.close()
        rank.process.stdout.close()


def test_ranks_of_this_machine_are_found_wherever_they_announced_themselves(
    tmp_path: Path, start, watching, monkeypatch
) -> None:
    """A job without an XDG_RUNTIME_DIR, by a login with one; by its port as well, it is one."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (killed, alive) = start(tmp_path, 1, 2)
    killed.process.kill()
    killed.process.wait()
    (tmp_path / "discovery").rename(tmp_path / "tmp" / f"otel-dllogger-{os.geteuid()}")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    backend = PrometheusBackend(1, run=RUN, rank=0)  # on the first usual port that is free
    logger = Logger([backend])
    logger.log((0, 0), {"train.loss": 1.0})
    alive.call("log", [0, 0], {"train.loss": 1.0})
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    watched = watching()
    watched.poll()
    assert {0: health.TRAINING, 2: health.TRAINING} == watched.states()
    (source,) = watched.sources
    assert f"http://127.0.0.1:{killed.port}/metrics" not in source._pages  # it died before
    assert 1 == sum(page.url == backend.url for page in source._pages.values())
    alive.process.kill()
    alive.process.wait()
    for _twice in range(2):
        watched.poll()
    assert {0: health.TRAINING, 2: health.VANISHED} == watched.states()
    logger.close()


def test_everybody_who_looks_sees_the_end(tmp_path: Path, start, watching) -> None:
    """A rank waits for each of those who read its page regularly, not for the first of them."""
    (rank,) = start(tmp_path, 0)
    page = f"127.0.0.1:{rank.port}"
    rank.call("log", [0, 0], {"train.loss": 1.0})
    watched = watching(page)
    command = [*COMMAND, "watch", page, "--until-finished", "--interval", "1s"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        for _ in range(3):
            watched.poll()
            assert RUN in other.stdout.readline()
        rank.process.stdin.close()

        def have_ended() -> tuple[str, int | None]:
            watched.poll()
            return watched.states()[0], other.poll()

        wait_for(have_ended, lambda found: found[1] is not None and found[0] != health.TRAINING)
        assert have_ended() == (health.FINISHED, 0)


def test_a_page_that_is_read_late(tmp_path: Path, start, watching) -> None:
    """Places are by what the rank counted, and its best value is that of all its steps."""
    (rank,) = start(tmp_path, 0)
    rank.call("metadata", "train.loss", {"GOAL": "MINIMIZE"})
    for epoch in range(3):
        for iteration in range(5):
            rank.call("log", [epoch, iteration], {"train.loss": 9.0 - epoch if epoch < 2 else 8.5})
    watched = watching(f"127.0.0.1:{rank.port}")
    watched.poll()
    (series,) = watched.rank().series.values()
    assert series.history.columns().x.tolist() == [14]
    run = plain_run(assess(watched.model.runs[RUN], time.time()))
    (best,) = run["best"]
    assert (best["value"], best["x"]) == (8.0, None)
    rank.call("log", [3, 0], {"train.loss": 7.0})
    watched.poll()
    (best,) = plain_run(assess(watched.model.runs[RUN], time.time()))["best"]
    assert (best["value"], best["x"]) == (7.0, 15)


def test_a_value_that_stays_the_same_is_there_in_each_epoch(
    tmp_path: Path, start, watching
) -> None:
    """Otherwise it looks as if nobody validated any more."""
    (rank,) = start(tmp_path, 0)
    watched = watching(f"127.0.0.1:{rank.port}")
    for epoch in range(4):
        rank.call("log", [epoch, 0], {"train.loss": 1.0})
        watched.poll()
        rank.call("log", [epoch], {"val.acc": 0.5})
        watched.poll()
    counts = {metric.metric: one.history.count for metric, one in watched.rank().series.items()}
    assert counts["val.acc"] == 4


def test_a_rank_that_is_stopped_is_quiet(tmp_path: Path, start, watching) -> None:
    """Its page does not answer either, but nobody knows whether it is gone for good."""
    (rank,) = start(tmp_path, 0)
    watched = watching(f"http://127.0.0.1:{rank.port}")
    for step in range(3):
        rank.call("log", [0, step], {"train.loss": 1.0})
    watched.poll()
    os.kill(rank.process.pid, signal.SIGSTOP)
    try:
        later = time.time() + 20.0
        states = [each.state for each in assess(watched.model.runs[RUN], later).ranks]
        assert states == [health.QUIET]
    finally:
        os.kill(rank.process.pid, signal.SIGCONT)


def test_a_log_and_the_page_of_its_rank_are_one_rank(tmp_path: Path, start, watching) -> None:
    """The history is the log's, the process is the page's, and nothing is there twice."""
    (rank,) = start(tmp_path, 0)
    path = tmp_path / "log.json"
    logger = Logger([JSONStreamBackend(Verbosity.VERBOSE, str(path))])
    watched = watching(path, f"127.0.0.1:{rank.port}", run=RUN)
    for step, data in RECORDS:
        logger.log(step, data)
        rank.call("log", list(step), data)
        watched.poll()
    read = watched.rank()
    assert read.pid == str(rank.process.pid)
    for series in read.series.values():
        assert series.history.count == 3
    assert len(read.starts) == 1
    rank.process.kill()
    rank.process.wait()
    watched.poll()
    watched.poll()
    assert watched.states() == {0: health.VANISHED}

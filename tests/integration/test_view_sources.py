"""The model of runs, filled from the pages of real ranks and from their logs."""

from __future__ import annotations

import math
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from otel_dllogger import JSONStreamBackend, Logger, Verbosity
from otel_dllogger.logs.source import Source
from otel_dllogger.metrics import health
from otel_dllogger.view.assessment import assess
from otel_dllogger.view.model import Model
from otel_dllogger.view.targets import find_targets
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
        self.sources = find_targets(source, None).open(self.model)

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

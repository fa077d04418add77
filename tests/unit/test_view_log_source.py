"""The model of runs, filled from logs: what they hold, in its order, then what is added."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.logs.source import Source
from otel_dllogger.view.assessment import assess_past
from otel_dllogger.view.facts import note
from otel_dllogger.view.log_source import LogSource
from otel_dllogger.view.model import Model
from tests.support.bridge import append, log_line, steps

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

START_US = 1_700_000_000_000_000


def read(*paths: Path, **options) -> tuple[Model, LogSource]:
    model = Model()
    source = LogSource(Source([str(path) for path in paths], **options), model)
    poll(source)
    return model, source


def poll(source: LogSource) -> None:
    while source.poll():
        pass
    source.poll()


def only_rank(model: Model):
    (run,) = model.runs.values()
    (rank,) = run
    return rank


def history_of(rank, metric: str):
    (found,) = [series for key, series in rank.series.items() if key.metric == metric]
    return found.history


def test_a_log_that_grows(tmp_path: Path) -> None:
    """All that it holds is there, then what is added, and nothing twice."""
    path = tmp_path / "run" / "log.json"
    append(path, steps(0, 50))
    model, source = read(path)
    rank = only_rank(model)
    assert history_of(rank, "loss").count == 50
    assert (rank.iteration, rank.records) == (49, 50)
    revision = model.revision
    poll(source)
    assert model.revision == revision
    append(path, steps(50, 60))
    poll(source)
    assert history_of(rank, "loss").count == 60
    assert rank.iteration == 59
    assert model.revision > revision
    read_bytes, all_bytes = source.progress
    assert read_bytes == all_bytes == path.stat().st_size
    source.close()


def test_attempts_in_one_file(tmp_path: Path) -> None:
    """A process that continued from a checkpoint is a segment of its own."""
    path = tmp_path / "log.json"
    append(path, steps(0, 30))
    append(path, steps(20, 40, start_us=START_US + 600_000_000))
    model, source = read(path)
    rank = only_rank(model)
    assert [start.attempt for start in rank.starts] == [1, 2]
    columns = history_of(rank, "loss").columns()
    assert len(set(columns.segment.tolist())) == 2
    assert columns.x.tolist() == [*range(30), *range(20, 40)]
    source.close()


def test_long_logs_of_one_rank_are_read_one_after_the_other(tmp_path: Path) -> None:
    """The log of the second attempt comes behind that of the first, however long both are."""
    paths = []
    for number, first in enumerate((0, 5_000)):
        path = tmp_path / "run" / f"log.{2 - number}.json"
        start_us = START_US + number * 3_600_000_000
        append(path, steps(first, first + 6_000, start_us=start_us, more="x" * 200))
        os.utime(path, (1_700_000_000 + number * 3_600,) * 2)
        paths.append(path)
    model, source = read(*reversed(paths), run="r")
    rank = only_rank(model)
    columns = history_of(rank, "loss").columns()
    assert (columns.segment[1:] >= columns.segment[:-1]).all()
    assert [start.attempt for start in rank.starts] == [1, 2]
    source.close()


def test_metadata_that_comes_late_renames_the_series(tmp_path: Path) -> None:
    """Its history goes on under the name that Prometheus shows by then."""
    path = tmp_path / "log.json"
    append(path, log_line([0, 0], {"cost": 1.0}, time_us=START_US))
    metadata = {"unit": "s", "STAGE": "VAL", "GOAL": "MINIMIZE"}
    line = {"metric": "cost", "metadata": metadata, "type": "METADATA"}
    times = {"timestamp": "1700000001.0", "elapsedtime": "1.0"}
    append(path, b"DLLL " + json.dumps({**times, **line}).encode() + b"\n")
    append(path, log_line([0, 1], {"cost": 2.0}, time_us=START_US + 2_000_000))
    model, source = read(path)
    ((metric, series),) = only_rank(model).series.items()
    assert (metric.name, metric.stage, series.traits.goal) == ("dl_cost_seconds", "val", "minimize")
    assert series.traits.unit == "s"
    assert series.history.count == 2
    source.close()


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    """They are counted as in dllogger_nonfinite_total, and the first one is remembered."""
    path = tmp_path / "log.json"
    for number, loss in enumerate([1.0, float("nan"), float("inf"), 2.0]):
        append(path, log_line([0, number], {"loss": loss}, time_us=START_US + number * 1_000_000))
    model, source = read(path)
    rank = only_rank(model)
    assert sum(rank.nonfinite.values()) == 2
    assert history_of(rank, "loss").first_nonfinite.x == 1
    assert assess_past(model.runs[rank.run]).ranks[0].nonfinite == 2
    source.close()


def test_a_rank_in_the_data_is_a_rank(tmp_path: Path) -> None:
    """One file of several ranks, and parameters in words as well as in numbers."""
    path = tmp_path / "log.json"
    append(path, log_line("PARAMETER", {"lr": 0.1, "model": "resnet"}, time_us=START_US))
    for number in range(3):
        line = log_line([0, 0], {"rank": number, "loss": 1.0}, time_us=START_US + 1_000_000)
        append(path, line)
    model, source = read(path)
    (run,) = model.runs.values()
    assert list(run.ranks) == [0, 1, 2]
    assert run.ranks[0].parameters == {"lr": 0.1, "model": "resnet"}
    assert all(len(rank.series) == 1 for rank in run)
    source.close()


def test_epochs_alone(tmp_path: Path) -> None:
    """A log with a record per epoch has its epochs on the axis."""
    path = tmp_path / "log.json"
    for epoch in range(5):
        append(path, log_line([epoch], {"loss": 1.0}, time_us=START_US + epoch * 60_000_000))
    model, source = read(path)
    assert history_of(only_rank(model), "loss").columns().x.tolist() == [0, 1, 2, 3, 4]
    source.close()


def test_a_log_replaces_what_its_page_said_before(tmp_path: Path) -> None:
    """A page that is read first has the same start to the second only, and the same values."""
    path = tmp_path / "run" / "log.json"
    append(path, steps(0, 50))
    known, _source = read(path)
    expected = only_rank(known)
    model = Model()
    rank = model.rank("run", 0)
    note(rank, "dllogger_run_start_timestamp_seconds", {}, (expected.start_s or 0.0) - 0.5)
    rank.axis.follow(None, 30.0, 31.0)
    labels = {"metric": "loss", "granularity": "iteration"}
    model.series(rank, "dl_loss", labels).history.append(1.0, (30.0, 0.0, 0))
    rank.leave_trail(0.0)
    source = LogSource(Source([str(path)]), model)
    poll(source)
    assert only_rank(model) is rank
    assert list(rank.starts) == list(expected.starts)
    assert history_of(rank, "loss").count == 50
    assert (rank.axis.segment, len(rank.trail)) == (0, len(expected.trail))

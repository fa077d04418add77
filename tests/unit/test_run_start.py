"""When a run started, for files whose rows have no time."""

from __future__ import annotations

import json
import os

import pytest

from otel_dllogger.logs.run_start import find_start_us
from tests.support.parsers import utc_us

ROWS = "".join(
    json.dumps({"lr": 0.1, "loss": 1.0, "time": 0.5, "iter": i, "step": i}) + "\n" for i in (10, 20)
)
HEAD = "2023/06/23 10:00:00 - mmengine - INFO - \n"
CHANGED_S = 1_800_000_000


@pytest.fixture
def scalars(tmp_path):
    """Return a file of MMEngine in a folder without a date, which was copied years later."""
    path = tmp_path / "exp" / "vis_data" / "scalars.json"
    path.parent.mkdir(parents=True)
    path.write_text(ROWS)
    os.utime(path, (CHANGED_S, CHANGED_S))
    return path


def test_a_dated_twin_says_it(scalars):
    """The same rows stand in a file that is named after the start."""
    (scalars.parent / "20230607_213107.json").write_text(ROWS)
    assert utc_us(2023, 6, 7, 21, 31, 7) == find_start_us(str(scalars), zone="UTC")


@pytest.mark.parametrize(
    ("name", "text", "start"),
    [
        ("20230607_213107.log", "", (2023, 6, 7, 21, 31, 7)),
        ("train.log", HEAD, (2023, 6, 23, 10, 0, 0)),
        ("train.log", f"noise\n{HEAD}", (2023, 6, 23, 10, 0, 0)),
    ],
)
def test_a_text_log_beside_says_it(scalars, name, text, start):
    """By its name, or by its first line with a time."""
    (scalars.parents[1] / name).write_text(text)
    assert utc_us(*start) == find_start_us(str(scalars), zone="UTC")


def test_the_rows_durations_before_the_last_change_say_it_else(scalars):
    """Nothing else is known: twenty iterations of half a second."""
    (scalars.parents[1] / "other.log").write_text("no time\n")
    assert (CHANGED_S - 10) * 10**6 == find_start_us(str(scalars), zone="UTC")


@pytest.mark.parametrize("text", ["", "{}\n", "[1]\n", "not JSON\n", '{"iter": 1, "time": "x"}\n'])
def test_rows_without_durations_say_nothing(scalars, text):
    """It is not guessed."""
    scalars.write_text(text)
    assert find_start_us(str(scalars), zone="UTC") is None


def test_other_files_have_their_own_times(scalars):
    """A text log beside is of no interest to a log of DLLogger."""
    log = scalars.parents[1] / "log.json"
    log.write_text("")
    (scalars.parents[1] / "train.log").write_text(HEAD)
    assert find_start_us(str(log), zone="UTC") is None
    assert find_start_us("/nowhere/vis_data/scalars.json") is None

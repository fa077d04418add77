"""The output folder of Transformers: each checkpoint repeats the history, which counts once."""

from __future__ import annotations

import json
import warnings

import pytest

from otel_dllogger import logs
from tests.support.bridge import open_bridge, read_page, value_of
from tests.support.check import assert_said
from tests.support.command import otel_dllogger
from tests.support.paths import TESTS

pytestmark = pytest.mark.newest_only

STATE = json.loads((TESTS / "data" / "formats" / "transformers" / "trainer_state.json").read_text())


@pytest.fixture
def output(tmp_path):
    """Two checkpoints, the final state and the results, as the Trainer's example scripts write."""
    folder = tmp_path / "bert-out"
    for at in (10, 20):
        rows = [row for row in STATE["log_history"] if row["step"] <= at and "loss" in row]
        write(folder / f"checkpoint-{at}" / "trainer_state.json", {**STATE, "log_history": rows})
    write(folder / "trainer_state.json", STATE)
    for name in ("all", "train", "eval"):
        write(folder / f"{name}_results.json", {"epoch": 1.0, "eval_loss": 1.75})
    return folder


def write(path, document):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n")


def test_check_finds_nothing_but_what_the_training_did(output):
    """The files whose rows were all known are neither empty nor of another rank."""
    done = otel_dllogger("check", "bert-out", cwd=output.parent)
    assert_said(
        done, 0, "Log bert-out/checkpoint-20/trainer_state.json", "Nothing is wrong, 2 warnings"
    )
    assert "'grad_norm' was NaN" in done.stdout
    assert "times are made up" in done.stdout
    assert "Left out" not in done.stdout


def test_backfill_reads_each_step_once(output):
    """It has nothing to say about files either."""
    done = otel_dllogger("backfill", str(output), "--to", "csv", "-")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 11)
    for words in ("same run and rank", "no record holds", "JSON document"):
        assert words not in done.stderr


def test_a_notebook_and_a_bridge_read_each_step_once(output):
    """In whatever order they find the files."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        rows = list(logs.read(str(output)))
    losses = [(row.iteration, row.value) for row in rows if row.metric == "loss"]
    assert losses == [(10, 2.25), (20, 1.25)]
    assert not any("same run and rank" in str(each.message) for each in said)
    with open_bridge(output) as bridge:
        page = read_page(bridge)
    assert value_of(page, "dl_loss", "run=bert-out", "granularity=iteration") == 1.25
    assert value_of(page, "dllogger_records_total", "type=log") == 4

"""The same training in an event file and in the framework's own log: it counts once."""

from __future__ import annotations

import json

import pytest

from otel_dllogger.logs.source import Source
from otel_dllogger.logs.whole_logs import find_logs
from tests.support.bridge import append, open_bridge, read_page, value_of
from tests.support.event_files import NAME, VERSION, scalars
from tests.support.paths import TESTS

pytestmark = pytest.mark.newest_only

FORMATS = TESTS / "data" / "formats"
STATE = (FORMATS / "transformers" / "trainer_state.json").read_bytes()
LIGHTNING = (FORMATS / "lightning" / "metrics.csv").read_bytes()
SCALARS = (TESTS / "data" / "mmengine_epoch" / "vis_data" / "scalars.json").read_bytes()
EVENTS = VERSION + scalars(0, 3)

# The event file's folder, the framework's own log, and what is in that.
TWINS = [
    ("lightning_logs/version_0", "lightning_logs/version_0/metrics.csv", LIGHTNING),
    ("exp", "exp/results.csv", (FORMATS / "ultralytics" / "results.csv").read_bytes()),
    ("output", "output/metrics.json", (FORMATS / "detectron2" / "metrics.json").read_bytes()),
    ("20250101_000000/vis_data", "20250101_000000/vis_data/scalars.json", SCALARS),
    ("20250101_000000/vis_data", "20250101_000000/vis_data/20250101_000000.json", SCALARS),
    ("work/tf_logs", "work/20250101.log.json", (FORMATS / "openmmlab.log.json").read_bytes()),
    ("bert/runs/Nov28_host", "bert/trainer_state.json", STATE),
    ("bert/runs/Nov28_host", "bert/checkpoint-20/trainer_state.json", STATE),
]


def found(folder):
    return [log.path.removeprefix(f"{folder}/") for log in find_logs(Source([str(folder)]))]


@pytest.mark.parametrize(("folder", "twin", "content"), TWINS)
def test_the_own_log_of_a_framework_is_read_instead(tmp_path, folder, twin, content):
    """It has the epochs too. Alone, either is read."""
    path = f"{folder}/{NAME}"
    append(tmp_path / path, EVENTS)
    assert found(tmp_path) == [path]
    append(tmp_path / twin, content)
    assert found(tmp_path) == [twin]
    assert [log.path for log in find_logs(Source([str(tmp_path / path)]))] == [str(tmp_path / path)]
    with open_bridge(tmp_path) as bridge:
        page = read_page(bridge)
    assert not any("dl_loss_train" in key and "metric=Loss/train" in key for key in page)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", json.dumps({"accuracy": 0.9}).encode()),
        ("metrics.csv", b"name,score\na,1\n"),
        ("results.csv", b""),
        ("trainer_state.json", STATE),
        ("other.csv", LIGHTNING),
    ],
)
def test_a_file_without_steps_or_elsewhere_is_no_reason(tmp_path, name, content):
    """A result may have such a name."""
    append(tmp_path / "exp" / NAME, EVENTS)
    append(tmp_path / "exp" / name, content)
    assert f"exp/{NAME}" in found(tmp_path)


def test_what_was_read_first_is_read_on(tmp_path):
    """Lightning writes its table later than its first events; a restart changes nothing."""
    logs, checkpoint = tmp_path / "version_0", tmp_path / "checkpoint"
    append(logs / NAME, EVENTS)
    for steps in (6, 9):
        with open_bridge(logs, checkpoint=checkpoint) as bridge:
            read_page(bridge)
            append(logs / "metrics.csv", LIGHTNING)
            append(logs / NAME, scalars(steps - 3, steps))
            page = read_page(bridge)
        assert value_of(page, "dllogger_records_total", "rank=0", "type=log") == steps


def test_the_table_that_was_read_first_is_read_on(tmp_path):
    """The event file that comes later is left out."""
    append(tmp_path / "metrics.csv", LIGHTNING)
    with open_bridge(tmp_path) as bridge:
        before = read_page(bridge)
        append(tmp_path / NAME, EVENTS)
        after = read_page(bridge)
    name = "dllogger_records_total"
    assert value_of(after, name, "rank=0", "type=log") == 4
    assert value_of(before, name, "rank=0", "type=log") == 4

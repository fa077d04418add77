"""What series are called, and what becomes of metadata that comes after the first export."""

from __future__ import annotations

import pytest

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.identity import Topology
from otel_dllogger.metrics.data_points import DataPoints
from otel_dllogger.metrics.exported_store import ExportedStore
from otel_dllogger.metrics.exposition import StorePage
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.metrics.text_format import format_series
from otel_dllogger.record import Metadata, Record, SeriesMetadata

TOPOLOGY = Topology("r", 1, 0, 2, 1, "h", 1)


def test_all_that_is_exported_has_the_same_labels():
    """One place builds the labels of a series; the page and a data point have what it says."""
    store = SeriesStore(run="r", rank=1, start_us=0)
    store.take(Metadata(0, 0, "train.loss", {"GOAL": "MINIMIZE", "unit": "s"}))
    record = Record(0, 0, (3,), {"train.loss": 1.0})
    state = store.take(record)
    exported = ExportedStore(store, TOPOLOGY)
    labels = exported.series_labels("train.loss", "1", "epoch")
    assert labels == {
        "run": "r",
        "rank": "1",
        "granularity": "epoch",
        "metric": "train.loss",
        "stage": "train",
        "goal": "minimize",
        "kind": "duration",
    }
    points = DataPoints(exported, start_us=0, of_process=True)
    ((series, _value),) = points.logged(record, state)
    assert series.describe().attributes == labels
    line = format_series("dl_loss_seconds", sorted(labels.items()))
    assert f"\n{line} 1.0\n" in StorePage().render([exported], "")[1].decode()


@pytest.mark.parametrize(
    ("first", "late", "move"),
    [
        (
            {},
            {"unit": "s"},
            'from dl_loss{kind="loss"} to dl_loss_seconds{kind="duration"}',
        ),
        ({}, {"STAGE": "VAL"}, 'from dl_loss to dl_loss{stage="val"}'),
        (
            {"STAGE": "TRAIN"},
            {"STAGE": "VAL"},
            'from dl_loss{stage="train"} to dl_loss{stage="val"}',
        ),
        ({"STAGE": "VAL"}, {"GOAL": "MINIMIZE"}, 'from dl_loss to dl_loss{goal="minimize"}'),
        (
            {},
            {"unit": "s", "STAGE": "a\nb"},
            'from dl_loss{kind="loss"} to dl_loss_seconds{stage="a',
        ),
        ({}, {"unit": "bleu"}, 'from dl_loss to dl_loss{unit="bleu"}'),
        ({"unit": "s"}, {"unit": "s", "format": ":.3f"}, None),
    ],
)
def test_a_late_move_is_said_as_what_it_is(first, late, move, caplog, monkeypatch):
    """Name and labels that change are in the warning; where neither does, there is none."""
    monkeypatch.setattr(DIAGNOSTICS, "_warned_at", {})
    store = SeriesStore(run="r", rank=0, start_us=0)
    store.take(Metadata(0, 0, "loss", first))
    store.take(Record(0, 0, (0, 1), {"loss": 1.0}))
    exported = ExportedStore(store, TOPOLOGY)
    before = exported.mapped("loss")
    store.take(Metadata(0, 0, "loss", late))
    moved = exported.apply_late_metadata()
    assert moved == ([] if exported.mapped("loss") == before else ["loss"])
    said = [one.message for one in caplog.records]
    assert len(said) == (move is not None)
    assert move is None or f"its series moves {move}" in said[0]
    assert "\n" not in "".join(said)


def test_metadata_before_the_first_export_is_not_late(caplog):
    """Nothing moves and nothing is said where nothing was exported yet."""
    store = SeriesStore(run="r", rank=0, start_us=0)
    exported = ExportedStore(store, TOPOLOGY)
    store.take(SeriesMetadata("loss", "loss", {"unit": "s"}))
    assert [] == exported.apply_late_metadata()
    assert "dl_loss_seconds" == exported.mapped("loss").prometheus_name
    assert [] == caplog.messages == exported.apply_late_metadata()


def test_late_metadata_moves_a_metric_once(caplog):
    """Who exports it is told which one moved; a second change is the log's alone."""
    store = SeriesStore(run="r", rank=0, start_us=0)
    exported = ExportedStore(store, TOPOLOGY)
    for name in ("loss", "time", "lr"):
        exported.mapped(name)
    store.take(SeriesMetadata("loss", "loss", {"unit": "s"}))
    store.take(SeriesMetadata("time", "time", {"unit": "{annotation}", "GOAL": "MINIMIZE"}))
    assert ["loss", "time"] == sorted(exported.apply_late_metadata())
    assert "dl_loss_seconds" == exported.mapped("loss").prometheus_name
    assert ("dl_time", "minimize") == (
        exported.mapped("time").prometheus_name,
        exported.mapped("time").goal,
    )
    store.take(SeriesMetadata("loss", "loss", {"unit": "ms"}))
    assert [] == exported.apply_late_metadata()
    assert "dl_loss_seconds" == exported.mapped("loss").prometheus_name
    late, again = caplog.messages  # of each kind one in a minute
    assert "came after its first export" in late
    assert "'loss' changed again" in again
    assert "stays dl_loss_seconds" in again


def test_metadata_that_changes_back_moves_nothing(caplog):
    """What is exported already as it should be stays without a word."""
    store = SeriesStore(run="r", rank=0, start_us=0)
    exported = ExportedStore(store, TOPOLOGY)
    exported.mapped("loss")
    store.take(SeriesMetadata("loss", "loss", {"unit": "s"}))
    store.take(SeriesMetadata("loss", "loss", {"unit": ""}))
    assert [] == exported.apply_late_metadata() == caplog.messages

"""What is said of metadata that comes after a metric's first export."""

from __future__ import annotations

import pytest

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.metrics.decided_names import Names
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.record import Metadata, Record


@pytest.mark.parametrize(
    ("first", "late", "move"),
    [
        ({}, {"unit": "s"}, "from dl_loss to dl_loss_seconds"),
        ({}, {"STAGE": "VAL"}, 'from dl_loss to dl_loss{stage="val"}'),
        (
            {"STAGE": "TRAIN"},
            {"STAGE": "VAL"},
            'from dl_loss{stage="train"} to dl_loss{stage="val"}',
        ),
        ({"STAGE": "VAL"}, {"GOAL": "MINIMIZE"}, 'from dl_loss to dl_loss{goal="minimize"}'),
        ({}, {"unit": "s", "STAGE": "a\nb"}, 'from dl_loss to dl_loss_seconds{stage="a'),
        ({}, {"unit": "bleu"}, None),
        ({"unit": "s"}, {"unit": "s", "format": ":.3f"}, None),
    ],
)
def test_a_late_move_is_said_as_what_it_is(first, late, move, caplog, monkeypatch):
    """Name and labels that change are in the warning; where neither does, there is none."""
    monkeypatch.setattr(DIAGNOSTICS, "_warned_at", {})
    store = SeriesStore(run="r", rank=0, start_us=0)
    store.write_metadata(Metadata(0, 0, "loss", first))
    store.record(Record(0, 0, (0, 1), {"loss": 1.0}))
    names = Names(store)
    before = names.mapped("loss")
    store.write_metadata(Metadata(0, 0, "loss", late))
    moved = names.take_changes()
    assert moved == ([] if names.mapped("loss") == before else ["loss"])
    said = [one.message for one in caplog.records]
    assert len(said) == (move is not None)
    assert move is None or f"its series moves {move}" in said[0]
    assert "\n" not in "".join(said)

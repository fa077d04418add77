"""The backend that is made at the first record, and what came before that."""

from __future__ import annotations

from otel_dllogger import Logger
from otel_dllogger.cli.run.first_record import AtFirstRecord
from otel_dllogger.testing import RecordingBackend


def test_everything_is_passed_on_in_order_once_there_is_a_record():
    """Phases and events as well: what took the startup is known before the first step is."""
    made = []

    def make():
        made.append(RecordingBackend())
        return made[0]

    logger = Logger([AtFirstRecord(1, make)])
    with logger.phase("restore"):
        logger.event("checkpoint_restored")
    logger.metadata("loss", {"GOAL": "MINIMIZE"})
    logger.info("text")
    assert not made
    logger.log((0, 1), {"loss": 1.0})
    with logger.phase("checkpoint"):
        logger.event("checkpoint_saved")
    (backend,) = made
    assert [phase.name for phase in backend.phases] == ["restore", "checkpoint"]
    assert [event.name for event in backend.events] == ["checkpoint_restored", "checkpoint_saved"]
    assert (backend.values("loss"), len(backend.infos)) == ([1.0], 1)
    assert [one.name for one in backend.metadata_calls] == ["loss"]

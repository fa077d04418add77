"""One value of a log, as a row of a table."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - part of the row's type, which readers may ask for
from typing import NamedTuple

PARAMETER = "parameter"
"""The granularity of a hyper-parameter, which belongs to no step."""

PHASE, OVERLAPPED_PHASE, EVENT = "phase", "phase_overlapped", "event"
"""The granularities of phases, those of other threads, and events."""


class LogRow(NamedTuple):
    """One value that was logged.

    Run, rank, stage, granularity and metric are the labels of the series that it is exported as.

    Attributes:
        time: When it was logged, in UTC.
        run: The run.
        rank: The rank.
        stage: ``train``, ``val``, ``test``, ``infer`` or another one; empty if none is known.
        granularity: ``iteration``, ``epoch``, ``validation`` or ``run``: the kind of step that
            logged it; ``parameter`` for a hyper-parameter; ``phase`` for a phase that ended,
            ``phase_overlapped`` for one of another thread, ``event`` for an event.
        epoch: The epoch in its step, None if that contains none.
        iteration: The iteration in its step, None if that contains none.
        metric: The name as it was logged; of a phase or an event, its name.
        unit: The unit, as the metadata say or by convention; empty if none is known.
        value: The value, which may be NaN or infinite; of a phase, its seconds without inner
            phases, so that those of a rank add up; of an event, 1.
    """

    time: datetime
    run: str
    rank: int
    stage: str
    granularity: str
    epoch: float | None
    iteration: float | None
    metric: str
    unit: str
    value: float

"""One value of a log, as a row of a table."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - part of the row's type, which readers may ask for
from typing import NamedTuple

PARAMETER = "parameter"
"""The granularity of a hyper-parameter, which belongs to no step."""


class LogRow(NamedTuple):
    """One value that was logged.

    Run, rank, stage, granularity and metric are the labels of the series that it is exported as.

    Attributes:
        time: When it was logged, in UTC.
        run: The run.
        rank: The rank.
        stage: ``train``, ``val``, ``test``, ``infer`` or another one; empty if none is known.
        granularity: ``iteration``, ``epoch``, ``validation`` or ``run``: the kind of step that
            logged it; ``parameter`` for a hyper-parameter.
        epoch: The epoch in its step, None if that contains none.
        iteration: The iteration in its step, None if that contains none.
        metric: The name as it was logged.
        unit: The unit, as the metadata say or by convention; empty if none is known.
        value: The value, which may be NaN or infinite.
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

"""The order of rows: who needs help is first, and rows do not jump."""

from __future__ import annotations

import math

import pytest

from otel_dllogger.cli.main import watch
from otel_dllogger.metrics import health
from otel_dllogger.view.assessment import RankStatus
from otel_dllogger.view.model import Model
from otel_dllogger.view.table import Row
from otel_dllogger.view.terminal.order import RENEWED_S, SORTS, SteadyOrder


class Rows:
    """The rows of three ranks, which a test changes."""

    def __init__(self):
        model = Model()
        self.status = [
            RankStatus(model.rank("r", number), health.TRAINING, 1.0) for number in range(3)
        ]
        self.loss = [1.0, 1.0, 1.0]
        self.speed = [1.0, 1.0, 1.0]

    def order(self, steady, now_s):
        """Return the numbers of the ranks as they are shown."""
        rows = [Row(*each, [], []) for each in zip(self.status, self.loss, self.speed, strict=True)]
        return [row.status.rank.number for row in steady.apply(rows, now_s)]


@pytest.mark.parametrize(
    "change",
    [
        {"state": health.STALLED},
        {"state": health.QUIET},
        {"nonfinite": 1},
        {"is_straggler": True, "slow_ratio": 0.5},
    ],
)
def test_a_rank_that_becomes_worse_moves_up_at_once_and_stays_for_a_while(change):
    """Once it is well again, it goes back with the others."""
    rows, steady = Rows(), SteadyOrder("need")
    assert rows.order(steady, 0.0) == [0, 1, 2]
    before = {name: getattr(rows.status[2], name) for name in change}
    for name, value in change.items():
        setattr(rows.status[2], name, value)
    assert rows.order(steady, 1.0) == [2, 0, 1]
    for name, value in before.items():
        setattr(rows.status[2], name, value)
    assert rows.order(steady, RENEWED_S - 0.1) == [2, 0, 1]
    assert rows.order(steady, RENEWED_S) == [0, 1, 2]


def test_the_order_of_stragglers_changes_now_and_then_only():
    """How slow each of them is changes all the time."""
    rows, steady = Rows(), SteadyOrder("need")
    for status, ratio in zip(rows.status, (0.3, 0.5, 0.4), strict=True):
        status.is_straggler, status.slow_ratio = True, ratio
    assert rows.order(steady, 0.0) == [1, 2, 0]
    rows.status[0].slow_ratio = 0.9
    assert rows.order(steady, 5.0) == [1, 2, 0]
    assert rows.order(steady, RENEWED_S) == [0, 1, 2]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        ("rank", [0, 1, 2]),
        ("loss", [2, 1, 0]),
        ("throughput", [1, 2, 0]),
        ("step-time", [2, 0, 1]),
        ("age", [0, 2, 1]),
    ],
)
def test_ranks_are_sorted_by_what_was_asked_for(sort, expected):
    """The worst first: NaN before the highest loss, the lowest throughput, the longest step."""
    rows = Rows()
    rows.loss, rows.speed = [1.0, 3.0, math.nan], [math.nan, 1.0, 2.0]
    for status, step_s, age_s in zip(rows.status, (2.0, None, 3.0), (9.0, 1.0, 5.0), strict=True):
        status.step_s, status.age_s = step_s, age_s
    steady = SteadyOrder(sort)
    assert rows.order(steady, 0.0) == expected
    rows.loss, rows.speed = [5.0, 1.0, 1.0], [0.1, 9.0, 9.0]
    assert rows.order(steady, 1.0) == expected
    assert set(SORTS) == {"need", "rank", "loss", "throughput", "step-time", "age"}


def test_the_command_offers_these_sorts():
    """Its options are read without the packages that draw."""
    (option,) = (each for each in watch.params if each.name == "sort")
    assert tuple(option.type.choices) == tuple(SORTS)

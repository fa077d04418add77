"""When the package's own figures are observed, by any clock."""

from __future__ import annotations

import pytest

from otel_dllogger.metrics.internal import OBSERVATION_INTERVAL_US, ObservationSchedule

SECOND_US = 1_000_000


def test_nothing_is_due_where_nothing_happened():
    """Neither before the first event, nor after an observation, however much time passes."""
    schedule = ObservationSchedule()
    assert not schedule.is_due(10**18)
    assert schedule.take() is None
    schedule.note(0)
    assert 15 * SECOND_US == schedule.take()
    assert not schedule.is_due(10**18)


@pytest.mark.parametrize(
    ("time_s", "due_s"), [(0, 15), (14.999999, 15), (15, 30), (29, 30), (-1, 0), (-15, 0)]
)
def test_it_is_the_end_of_the_quarter_minute_of_the_first_event(time_s, due_s):
    """Events after it change nothing, be they earlier, as where a clock was set back."""
    schedule = ObservationSchedule()
    for moved_us in (0, 60 * SECOND_US, -60 * SECOND_US):
        schedule.note(int(time_s * SECOND_US) + moved_us)
    assert due_s * SECOND_US == schedule.due_us
    assert not schedule.is_due(due_s * SECOND_US)  # a record of that time is still in it
    assert schedule.is_due(due_s * SECOND_US + 1)


def test_one_observation_for_each_quarter_minute_with_events():
    """Of a run that logs every second, with a pause."""
    schedule, observed_us = ObservationSchedule(), []
    for second in (*range(40), *range(100, 110)):
        if schedule.is_due(second * SECOND_US):
            observed_us.append(schedule.take())
        schedule.note(second * SECOND_US)
    observed_us.append(schedule.take())
    assert [OBSERVATION_INTERVAL_US * number for number in (1, 2, 3, 7, 8)] == observed_us

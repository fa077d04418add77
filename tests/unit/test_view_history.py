"""The history of a series: bounded, without an average that hides a spike."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger.view.history import MAX_BUCKETS, History, Room

pytestmark = pytest.mark.newest_only

VALUES = st.one_of(
    st.floats(width=32, allow_nan=True, allow_infinity=True),
    st.integers(-(10**400), 10**400),
)


def small_room(buckets: int) -> Room:
    room = Room()
    room.buckets = buckets
    return room


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), min_size=1, max_size=1_500),
    st.sampled_from([4, 8, 64]),
)
def test_nothing_is_lost_by_merging(values: list[float], buckets: int) -> None:
    """Counts, extremes, mean and last value are those of all values, however few buckets."""
    history = History(small_room(buckets))
    for number, value in enumerate(values):
        history.append(value, (float(number), 100.0 + number, 0))
    columns = history.columns()
    known = [value for value in values if math.isfinite(value)]
    assert len(columns.x) <= buckets
    assert int(columns.finite.sum()) == len(known)
    assert int(columns.nonfinite.sum()) == len(values) - len(known) == history.nonfinite
    assert columns.x[-1] == len(values) - 1
    assert np.all(np.diff(columns.x) > 0)
    assert columns.last[-1] == np.float32(values[-1]) or math.isnan(values[-1])
    if known:
        assert np.nanmin(columns.least) == np.float32(min(known))
        assert np.nanmax(columns.greatest) == np.float32(max(known))
        assert history.least.value == min(known)
        assert history.greatest.value == max(known)
        weights = columns.finite.astype(float)
        mean = np.nansum(columns.mean.astype(float) * weights) / weights.sum()
        scale = max(map(abs, known))
        assert mean == pytest.approx(math.fsum(known) / len(known), abs=1e-4 * scale + 1e-30)


@settings(deadline=None)  # the machine may be busy
@given(st.lists(VALUES, min_size=1, max_size=40))
def test_any_number_can_be_appended(values: list[float]) -> None:
    """Ints beyond a float's range, too: a log may hold them."""
    history = History(small_room(4))
    for number, value in enumerate(values):
        history.append(value, (number, number, 0))
    assert history.count == len(values)
    assert int(history.columns().finite.sum()) + history.nonfinite == len(values)


def test_a_million_values_take_no_more_room_than_the_buckets() -> None:
    """A spike among them is still there, exactly, and where it was."""
    history = History(Room())
    for number in range(1_000_000):
        history.append(1.0 if number != 654_321 else 99.0, (float(number), 0.5 * number, 0))
    columns = history.columns()
    assert MAX_BUCKETS // 2 <= len(columns.x) <= MAX_BUCKETS
    assert columns.greatest.max() == 99.0
    at = int(columns.greatest.argmax())
    assert columns.x[at - 1] < 654_321 <= columns.x[at]
    assert history.greatest == (99.0, 654_321.0, 0.5 * 654_321)


def test_buckets_stay_where_they_are() -> None:
    """Old places on the axis are a subset of what they were: a curve does not jump about."""
    history = History(small_room(64))
    before: set[float] = set()
    for number in range(1_000):
        history.append(float(number), (float(number), 0.0, 0))
        places = set(history.columns().x[:-1].tolist())
        new = places - before
        assert len(new) <= 1 or before == set()
        before = places


def test_a_bucket_has_values_of_one_attempt_only() -> None:
    """Segments are kept apart, so that a line does not run from one into the other."""
    history = History(small_room(16))
    for segment in range(3):
        for number in range(100):
            history.append(float(segment), (float(number), 0.0, segment))
    columns = history.columns()
    assert set(columns.segment.tolist()) == {0, 1, 2}
    for segment in range(3):
        assert set(columns.mean[columns.segment == segment].tolist()) == {float(segment)}


def test_more_attempts_than_buckets_are_merged_nevertheless() -> None:
    """The room holds, even if each attempt logged one value only."""
    history = History(small_room(16))
    for segment in range(500):
        history.append(1.0, (5.0, 0.0, segment))
    columns = history.columns()
    assert len(columns.x) <= 16
    assert int(columns.finite.sum()) == 500


def test_first_nonfinite_is_remembered() -> None:
    """With the step, which people look for in the log."""
    history = History(Room())
    for number, value in enumerate([1.0, math.inf, math.nan, 2.0]):
        history.append(value, (10.0 * number, 1.0, 0))
    assert history.first_nonfinite == (math.inf, 10.0, 1.0)
    assert history.nonfinite == 2
    assert history.last == 2.0


def test_the_room_is_shared_by_all_series() -> None:
    """However many series there are, their buckets together stay within the budget."""
    room = Room()
    halved = [room.admit() for _ in range(64 * 20 * 8)]
    assert sum(halved) == 3
    assert room.buckets == MAX_BUCKETS // 8
    history = History(small_room(64))
    for number in range(64):
        history.append(1.0, (number, 0.0, 0))
    history._room.buckets = 8
    history.shrink()
    assert len(history.columns().x) <= 9  # and one that is not full

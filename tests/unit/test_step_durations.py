"""How long steps took, in the buckets of Prometheus and of OpenTelemetry."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View

from otel_dllogger.metrics.rank_state import RankState
from otel_dllogger.metrics.step_durations import (
    BOUNDS_US,
    MAX_BUCKETS,
    MAX_SCALE,
    ClassicDurations,
    ExponentialDurations,
    StepDurations,
    UnrecordedDurations,
    bucket_index,
)
from otel_dllogger.record import Phase


def observed(kind: type[StepDurations], *intervals: tuple[int, float]) -> Any:
    durations = kind()
    for interval_us, steps in intervals:
        durations.observe(interval_us, steps)
    return durations


def advanced(kind: type[StepDurations], *places: tuple[int | None, float, int]) -> Any:
    """Return what a rank that logs these epochs, iterations and times keeps."""
    state = RankState(0, 0, None, kind())
    for epoch, iteration, elapsed_us in places:
        state.advance(epoch, iteration, elapsed_us)
    return state.durations


def test_the_bounds_reach_from_a_millisecond_to_ten_minutes() -> None:
    """No two of them are more than two and a half apart, and a rank has few enough of them."""
    assert (BOUNDS_US[0], BOUNDS_US[-1]) == (1_000, 600_000_000)
    assert max(high / low for low, high in itertools.pairwise(BOUNDS_US)) == 2.5
    assert ClassicDurations.series == len(ClassicDurations().counts) + 2 == 22


@pytest.mark.parametrize(
    ("duration_us", "bucket"),
    [(1, 0), (1_000, 0), (1_001, 1), (600_000_000, 18), (600_000_001, 19), (10**15, 19)],
)
def test_a_bound_belongs_to_its_bucket(duration_us: int, bucket: int) -> None:
    """As Prometheus defines ``le``."""
    assert observed(ClassicDurations, (duration_us, 1)).counts[bucket] == 1


def test_the_steps_of_one_record_all_count_with_their_share() -> None:
    """Ten iterations in a second are ten steps of a tenth, and add up to the second."""
    durations = advanced(ClassicDurations, (0, 0, 5), (0, 10, 1_000_005))
    assert durations.counts[BOUNDS_US.index(100_000)] == sum(durations.counts) == 10
    assert durations.sum_us == 1_000_000


def test_a_record_of_the_same_iteration_is_not_a_step() -> None:
    """Nor is the first one, nor one whose clock is not later: another Logger's."""
    places = ((0, 3, 100), (0, 3, 200), (None, 3, 300), (0, 4, 100), (0, 5, 100))
    assert sum(advanced(ClassicDurations, *places).counts) == 0


def test_a_phase_is_not_a_part_of_a_step_but_a_stall_is() -> None:
    """A checkpoint of a minute between two steps of a second leaves them a second each."""
    state = RankState(0, 0, None, ClassicDurations())
    second_us = 1_000_000
    for number in range(10):
        state.advance(0, number, number * second_us)
    checkpoint = Phase(0, 69 * second_us, "checkpoint", 60 * second_us, 60 * second_us)
    state.phases.take(checkpoint, has_series=True)
    state.advance(0, 10, 70 * second_us)
    state.advance(0, 11, 101 * second_us)
    durations = state.durations
    assert isinstance(durations, ClassicDurations)
    found = {
        bound: count for bound, count in zip(BOUNDS_US, durations.counts[:-1], strict=True) if count
    }
    assert found == {second_us: 10, 60 * second_us: 1}
    assert durations.sum_us == state.step_us == 41 * second_us


@pytest.mark.parametrize("kind", [ClassicDurations, ExponentialDurations])
def test_an_interval_that_a_phase_fills_is_not_a_step(kind: type[StepDurations]) -> None:
    """Nothing is left for a step, and nothing has no logarithm."""
    state = RankState(0, 0, None, kind())
    state.advance(0, 0, 0)
    validation = Phase(0, 500, "validation", 500, 500)
    state.phases.take(validation, has_series=True)
    state.advance(0, 1, 500)
    assert kind().to_plain() == state.durations.to_plain()  # type: ignore[union-attr]


@pytest.mark.parametrize("steps", [0.25, 1, 1.5, 2**2000, float("inf"), 1e300])
@pytest.mark.parametrize("kind", [ClassicDurations, ExponentialDurations, UnrecordedDurations])
def test_any_distance_between_iterations_counts(kind: type[StepDurations], steps: float) -> None:
    """A fraction is a step, and so is a jump."""
    durations = observed(kind, (1_000_000, steps))
    match durations:
        case ClassicDurations():
            counted = sum(durations.counts)
        case ExponentialDurations():
            counted = durations.point().steps
        case _:
            counted = len(list(durations.take()))
    assert counted == 1


STRIDES = {
    "a jump": ([1, 1, 10**6, 1], 4),
    "one at first": ([2**30, 1], 2),
    "back after it, over the same distance": ([1, 1, 10**6, 10**6, 1], 5),
    "several": ([1, 10**6, 1, 1, 10**7, 1, 10**5], 7),
    "a long way, but not a jump": ([1, 1, 1_000], 1_002),
    "another distance from now on": ([1, 1, 5_000, 5_000, 5_000, 5_000], 10_004),
    "jumps beyond all that a training makes": ([2**40] * 5, 5),
    "fractions": ([0.25, 0.25, 300], 302),
}


@pytest.mark.parametrize("case", STRIDES)
@pytest.mark.parametrize("kind", [ClassicDurations, ExponentialDurations, UnrecordedDurations])
def test_an_iteration_that_jumps_counts_once(kind: type[StepDurations], case: str) -> None:
    """What counts is what is usual, also after a checkpoint in the middle."""
    strides, expected = STRIDES[case]
    durations: Any = kind()
    for stride in strides:
        durations.observe(1_000_000, stride)
        restored: Any = kind()
        restored.load_plain(json.loads(json.dumps(durations.to_plain())))
        durations = durations if kind is UnrecordedDurations else restored
    match durations:
        case ClassicDurations():
            assert sum(durations.counts) == expected
        case ExponentialDurations():
            assert durations.point().steps == expected
        case _:
            assert len(list(durations.take())) == expected


DURATIONS_US = st.lists(st.integers(1, 10**13) | st.integers(900_000, 1_100_000), min_size=1)


@settings(deadline=None, max_examples=100)
@example(durations_us=[10**6])  # a power of two
@example(durations_us=[1_000_000 << power for power in range(12)])
@example(durations_us=[1, 10**13])
@given(durations_us=DURATIONS_US)
def test_exponential_buckets_are_those_of_the_sdk(durations_us: list[int]) -> None:
    """Scale, offset, counts and extremes, after any durations in any order."""
    aggregation = ExponentialBucketHistogramAggregation(max_size=MAX_BUCKETS)
    reader = InMemoryMetricReader()
    view = View(instrument_name="*", aggregation=aggregation)
    provider = MeterProvider(metric_readers=[reader], views=[view], shutdown_on_exit=False)
    histogram = provider.get_meter("test").create_histogram("duration")
    durations = ExponentialDurations()
    for duration_us in durations_us:
        durations.observe(duration_us, 1)
        histogram.record(duration_us / 1e6)
    data = reader.get_metrics_data()
    assert data is not None
    ((expected,),) = (
        metric.data.data_points for metric in data.resource_metrics[0].scope_metrics[0].metrics
    )
    found = durations.point()
    assert found is not None
    assert found.scale == expected.scale
    assert found.steps == expected.count == len(durations_us)
    assert (found.least_s, found.most_s) == (expected.min, expected.max)
    assert found.sum_s == pytest.approx(expected.sum)
    assert buckets(found.offset, found.counts) == buckets(
        expected.positive.offset, expected.positive.bucket_counts
    )
    assert len(found.counts) <= MAX_BUCKETS


@pytest.mark.parametrize("scale", [0, 1, 7, MAX_SCALE])
@pytest.mark.parametrize("power", range(-20, 44))
def test_a_power_of_two_is_the_upper_bound_of_its_bucket(power: int, scale: int) -> None:
    """Exactly, and what is above it is in the next one."""
    assert bucket_index(2.0**power, scale) == (power << scale) - 1
    assert bucket_index(2.0**power * 1.0000001, scale) == power << scale


@pytest.mark.parametrize(("width", "scale"), [(160, MAX_SCALE), (161, MAX_SCALE - 1)])
def test_the_resolution_is_halved_for_the_161st_bucket(width: int, scale: int) -> None:
    """Not before, since the limit is how many there may be."""
    first_us = 10**12
    first = bucket_index(first_us / 1e6, MAX_SCALE)
    last_us = next(
        last_us
        for last_us in range(first_us, 2 * first_us, 10_000)
        if bucket_index(last_us / 1e6, MAX_SCALE) == first + width - 1
    )
    point = observed(ExponentialDurations, (first_us, 1), (last_us, 1)).point()
    assert point.scale == scale
    assert len(point.counts) == (width if scale == MAX_SCALE else 81)


def buckets(offset: int, counts: Any) -> dict[int, int]:
    return {offset + number: count for number, count in enumerate(counts) if count}


@pytest.mark.parametrize("kind", [ClassicDurations, ExponentialDurations])
def test_it_goes_on_after_a_checkpoint(kind: Any) -> None:
    """A bridge that is started again counts as if it had not ended."""
    before = [(number * 7_919 + 1, 1 + number % 3) for number in range(200)]
    after = [(10**9, 7), (5, 1)]
    restored = kind()
    restored.load_plain(json.loads(json.dumps(observed(kind, *before).to_plain())))
    for interval in after:
        restored.observe(*interval)
    assert observed(kind, *before, *after).to_plain() == restored.to_plain()


@pytest.mark.parametrize("plain", [{}, [], {"counts": [0] * 19, "sum_us": 0}, {"counts": "x"}])
@pytest.mark.parametrize("kind", [ClassicDurations, ExponentialDurations])
def test_another_state_is_refused(kind: Any, plain: Any) -> None:
    """That of other bounds, and of another kind."""
    with pytest.raises((LookupError, TypeError, ValueError)):
        kind().load_plain(plain)


@pytest.mark.parametrize("before", [None, ClassicDurations])
@pytest.mark.parametrize("after", [None, ClassicDurations])
def test_a_checkpoint_outlives_the_setting(before: Any, after: Any) -> None:
    """A histogram that is not wanted any more is left out, one that is new begins at 0."""
    states = [RankState(0, 0, None, kind and kind()) for kind in (before, after)]
    states[0].advance(0, 1, 0)
    states[0].advance(0, 2, 1_000)
    states[1].load_plain(json.loads(json.dumps(states[0].to_plain())))
    expected = None if after is None else (1 if before else 0)
    assert expected == (states[1].durations and sum(states[1].durations.counts))


def test_a_state_of_before_there_were_durations_is_read() -> None:
    """A checkpoint of an earlier version has nothing of them."""
    plain = RankState(0, 0).to_plain()
    del plain["durations"]
    state = RankState(0, 0, None, ClassicDurations())
    state.load_plain(json.loads(json.dumps(plain)))
    assert sum(state.durations.counts) == 0


def test_what_no_sdk_takes_is_bounded() -> None:
    """Without a reader, the oldest are forgotten; each is given once."""
    durations = UnrecordedDurations()
    for number in range(70_000):
        durations.observe(1 + number, 1)
    taken = list(durations.take())
    assert len(taken) == 1 << 16
    assert taken[-1] == 70_000 / 1e6
    assert not durations
    assert not list(durations.take())

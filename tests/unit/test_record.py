"""Records and what their steps mean."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.json_encoding import encode_record
from otel_dllogger.logs.parsers.formats import FileRecord
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.record import (
    EPOCH,
    GRANULARITIES,
    ITERATION,
    RUN,
    VALIDATION,
    Info,
    Metadata,
    Position,
    Record,
    is_parameter_step,
    microseconds,
    parse_rank,
    step_position,
)
from tests.support.ids import repr_without_address

pytestmark = pytest.mark.newest_only

NOWHERE = (None, None)


@pytest.mark.parametrize(
    ("step", "granularity", "place"),
    [
        ((), RUN, ()),
        ([], RUN, ()),
        ((3,), EPOCH, (3, None)),
        ([3], EPOCH, (3, None)),
        ((3, 4), ITERATION, (3, 4)),
        ([3, 4], ITERATION, (3, 4)),
        ((3, 4, 5), VALIDATION, (3, 4)),
        ((3, 4, 5, 6), VALIDATION, (3, 4)),
        (7, ITERATION, (None, 7)),
        (0, ITERATION, (None, 0)),
        (7.5, ITERATION, (None, 7.5)),
        ("7", ITERATION, (None, 7)),
        (np.int64(7), ITERATION, (None, 7)),
        (np.array(7), ITERATION, (None, 7)),
        ((np.int32(3), np.int64(4)), ITERATION, (3, 4)),
        (("3", "4"), ITERATION, (3, 4)),
        (("Calibration", 4), ITERATION, NOWHERE),
        (("Calibration",), EPOCH, NOWHERE),
        (("a", 1, 2), VALIDATION, NOWHERE),
        ((3, "last"), ITERATION, (3, None)),
        ((math.nan, 4), ITERATION, NOWHERE),
        ((3, math.inf), ITERATION, (3, None)),
        ((10**400, 1), ITERATION, NOWHERE),
        (math.nan, RUN, NOWHERE),
        ("event", RUN, NOWHERE),
        ("infer", RUN, NOWHERE),
        ("", RUN, NOWHERE),
        (None, RUN, NOWHERE),
        ({"epoch": 1}, RUN, NOWHERE),
        (object(), RUN, NOWHERE),
        (([1], [2]), ITERATION, NOWHERE),
    ],
    ids=repr_without_address,
)
def test_step_position(step, granularity, place):
    """Every shape of a step has a granularity, and says as much of the place as it can."""
    assert step_position(step) == Position(granularity, place)


def test_the_granularities_are_those_of_the_contract():
    """They are values of a label: dashboards know them by these names."""
    assert GRANULARITIES == ("run", "epoch", "iteration", "validation")


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text() | st.booleans(),
        lambda inner: st.lists(inner) | st.lists(inner).map(tuple),
        max_leaves=6,
    )
)
def test_no_step_raises(step):
    """Whatever a step is, its place is empty or of finite numbers and None."""
    granularity, place = step_position(step)
    assert granularity in GRANULARITIES
    assert place == () or len(place) == 2
    assert all(number is None or math.isfinite(number) for number in place)
    assert is_parameter_step(step) in {True, False}


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("PARAMETER", True),
        ("HPARAMS", True),
        (" parameter ", True),
        ("PARAMETERS", True),
        ("event", False),
        ("PARAMETER 2", False),
        (("PARAMETER",), False),
        ((), False),
        (0, False),
        (None, False),
    ],
    ids=repr_without_address,
)
def test_parameter_steps(step, expected):
    """Hyper-parameters are what is logged under "PARAMETER" or "HPARAMS"."""
    assert is_parameter_step(step) == expected


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ((0, 1), True),
        ((True, 1), False),
        ((0, 1.0), False),
        ([0, 1], False),
        ((0, 1, 2), False),
        ((np.int64(0), 1), False),
        ("ab", False),
    ],
    ids=repr_without_address,
)
def test_a_pair_is_two_ints_and_nothing_else(step, expected):
    """The short way is for steps that need no conversion."""
    assert Record(0, 0, step, {}).is_pair is expected


@given(st.integers(0, 4_000_000_000_000_000))
def test_times_go_forth_and_back(time_us):
    """A naive local datetime is the same microsecond as before, and so is an aware one."""
    record = Record(time_us, 1_500_000, (), {})
    timestamp = record.timestamp
    assert timestamp.tzinfo is None
    assert microseconds(timestamp) == time_us
    assert microseconds(timestamp.astimezone(timezone.utc)) == time_us
    assert record.elapsed_s == 1.5


@pytest.mark.parametrize("hour_us", [1730611800_000001, 1730615400_000001])
def test_the_hour_that_comes_twice_is_told_apart(monkeypatch, hour_us):
    """Both 01:30 of the night when summer time ends are their own microsecond."""
    try:
        with monkeypatch.context() as environment:
            environment.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
            time.tzset()
            timestamp = Record(hour_us, 0, (), {}).timestamp
            assert str(timestamp) == "2024-11-03 01:30:00.000001"
            assert microseconds(timestamp) == hour_us
    finally:
        time.tzset()


@pytest.mark.parametrize(
    "entry", [Metadata(1_000_001, 2_500_000, "m", {}), Info(1_000_001, 2_500_000, "text")]
)
def test_metadata_and_info_are_frozen_and_timed(entry):
    """They have the times of a record and cannot be changed."""
    assert entry.timestamp == datetime.fromtimestamp(1.000001)  # noqa: DTZ006 - naive by contract
    assert entry.elapsed_s == 2.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.time_us = 0


@pytest.mark.parametrize(
    ("data", "encoded", "numbers", "numbers_only"),
    [
        ({"a": 1.5, "b": 2}, b'{"a":1.5,"b":2}', {"a": 1.5, "b": 2}, True),
        ({}, b"{}", {}, True),
        ({"a": True}, b'{"a":true}', {"a": True}, True),
        ({"a": math.nan, "b": 1}, b'{"a":NaN,"b":1}', None, False),
        ({"a": -math.inf}, b'{"a":-Infinity}', {"a": -math.inf}, False),
        ({"a": None}, b'{"a":null}', {}, False),
        ({"a": "1.5", "b": "x"}, b'{"a":"1.5","b":"x"}', {"a": 1.5}, False),
        ({"ü": 1}, b'{"\\u00fc":1}', {"ü": 1}, True),
        ({"a": 2**70}, b'{"a":1180591620717411303424}', {"a": 2**70}, True),
        ({1: 2}, b'{"1":2}', {"1": 2}, False),
        ({"a": np.float32(0.5)}, b'{"a":0.5}', {"a": 0.5}, False),
        ({"a": [1, math.nan]}, b'{"a":[1,NaN]}', {}, False),
        ([1, 2], b"[1,2]", {}, False),
        ("text", b'"text"', {}, False),
        (None, b"null", {}, False),
    ],
    ids=repr_without_address,
)
@pytest.mark.parametrize("converted_first", [False, True])
def test_encoding_and_conversion_agree(data, encoded, numbers, numbers_only, converted_first):
    """A record has one JSON text and one set of numbers, whichever is asked for first."""
    record = Record(0, 0, (0, 1), data)
    if converted_first:
        record.convert()
    assert encode_record(record) == encoded
    assert record.encoded == encoded
    assert record.numbers_only == numbers_only
    if numbers is not None:
        assert record.numbers == numbers
    assert record.convert()[2] == all(map(math.isfinite, record.numbers.values()))


def test_a_record_is_converted_once():
    """All backends share one conversion."""
    record = Record(0, 0, (0, 1), {"a": np.float32(0.5)})
    assert record.convert() is record.convert()
    assert encode_record(record) == b'{"a":0.5}'
    assert record.values is record.convert()


def test_a_detached_record_holds_nothing_of_the_user():
    """What is logged can be changed at once; a thread that sends sees what it was."""
    step, data = [3, np.int64(4)], {"loss": np.float32(0.5), "text": ["x"]}
    detached = Record(7, 5, step, data).detach()
    step[0], data["loss"] = 9, 9.0
    assert (detached.time_us, detached.elapsed_us, detached.data) == (7, 5, None)
    assert detached.position == Position(ITERATION, (3, 4))
    assert (detached.numbers, detached.plain, detached.is_parameter) == ({"loss": 0.5}, {}, False)
    parameters = {"net": {"depth": 3}}
    detached = Record(7, 5, "PARAMETER", parameters).detach()
    parameters["net"]["depth"] = 4
    assert (detached.plain, detached.is_parameter) == ({"net": {"depth": 3}}, True)


def test_a_step_is_read_once():
    """A step of the user's own class is asked for its numbers at one time, not later."""
    asked = []

    class Step:
        def __float__(self):
            asked.append(1)
            return 7.0

    record = Record(0, 0, (2, Step(), 1), {})
    assert record.position == Position(VALIDATION, (2, 7.0))
    assert record.granularity == VALIDATION
    assert [1] == asked
    assert Record(0, 0, (2, 7), {}).granularity == ITERATION


@given(
    st.dictionaries(st.text(), st.floats() | st.integers() | st.none() | st.text() | st.booleans())
)
def test_what_is_encoded_is_what_the_standard_library_reads(data):
    """NaN, Inf, other alphabets and lone surrogates come back as they were, in ASCII."""
    encoded = encode_record(Record(0, 0, (), data))
    assert encoded.isascii()
    assert repr(json.loads(encoded)) == repr(data)


@pytest.mark.parametrize(
    ("value", "rank"),
    [
        (0, 0),
        (3, 3),
        (3.0, 3),
        ("3", 3),
        (np.int64(3), 3),
        (-1, 0),
        ("-1", 0),
        (-2, None),
        (1.5, None),
        (True, None),
        (None, None),
        ("three", None),
        ([3], None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_a_rank_among_the_data(value, rank):
    """One rule for the page, the text, OTLP and files: a whole number from 0, or -1 for 0."""
    assert rank == parse_rank(value)
    record = FileRecord(0, 0, (0, 1), {"rank": value, "loss": 1.0})
    record.file_rank = 7
    assert record.rank == (7 if rank is None else rank)
    store = SeriesStore(run="r", rank=7, start_us=0)
    store.take(Record(0, 0, (0, 1), {"rank": value, "loss": 1.0}))
    assert {7, record.rank} == set(store.ranks)
    assert store.ranks[record.rank].iterations["loss"] == 1.0

"""The axis of training steps: it never starts again at 0, and knows what was done again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.view.step_axis import StepAxis

pytestmark = pytest.mark.newest_only


def places(*steps: tuple[float | None, float | None]) -> list[float]:
    axis = StepAxis()
    found = []
    for epoch, iteration in steps:
        axis.move(epoch, iteration)
        found.append(axis.x)
    return found


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        pytest.param([(None, 0), (None, 10), (None, 20)], [0, 10, 20], id="iterations alone"),
        pytest.param([(0, 0), (0, 1), (1, 2), (1, 3)], [0, 1, 2, 3], id="counted through"),
        pytest.param([(0, 0), (0, 1), (1, 0), (1, 1)], [0, 1, 2, 3], id="from 0 in each epoch"),
        pytest.param([(1, 1), (1, 2), (2, 1), (2, 2)], [1, 2, 3, 4], id="from 1 in each epoch"),
        pytest.param(
            [(0, 0), (0, 10), (0, 20), (1, 0), (1, 10)], [0, 10, 20, 30, 40], id="each tenth"
        ),
        pytest.param([(0, 0), (1, 0), (2, 0)], [0, 1, 2], id="one iteration in each epoch"),
        pytest.param([(0, None), (1, None), (2, None)], [0, 1, 2], id="epochs alone"),
        pytest.param(
            [(0, 0), (0, 1), (0, None), (1, 0), (1, 1), (1, None)],
            [0, 1, 1, 2, 3, 3],
            id="with summaries of epochs",
        ),
        pytest.param(
            [(0, 0), (0, 1), (1, None), (1, 0), (1, 1)],
            [0, 1, 1, 2, 3],
            id="summary in the name of the next epoch",
        ),
        pytest.param(
            [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (1, 1), (2, 0), (2, 1), (3, 0)],
            [0, 1, 2, 3, 4, 3, 4, 5, 6],
            id="continued from a checkpoint",
        ),
        pytest.param([(3, 5), (3, 6), (0, 0), (0, 1)], [5, 6, 0, 1], id="from the beginning again"),
        pytest.param([(0, 10**400), (0, 2)], [1e300, 2], id="any int"),
    ],
)
def test_places(steps, expected) -> None:
    """Each record has its place, in whatever way the script counts."""
    assert places(*steps) == expected


def test_going_back_begins_a_segment() -> None:
    """Steps that are done again are told apart from those of the first time."""
    axis = StepAxis()
    for iteration in (0, 1, 2):
        axis.move(0, iteration)
    assert axis.segment == 0
    axis.move(0, 1)
    assert (axis.x, axis.segment) == (1, 1)


def test_an_epoch_that_counts_from_0_does_not_go_back() -> None:
    """Otherwise each epoch would be an attempt of its own."""
    axis = StepAxis()
    for epoch in range(3):
        for iteration in range(4):
            axis.move(epoch, iteration)
    assert axis.segment == 0
    assert axis.epochs == [(0, 0), (4, 1), (8, 2)]


def test_a_process_begins_a_segment() -> None:
    """Also where it continues exactly where the one before stopped."""
    axis = StepAxis()
    axis.start()
    assert axis.segment == 0  # the first one
    axis.move(0, 5)
    axis.start()
    axis.move(0, 6)
    assert (axis.x, axis.segment) == (6, 1)


def test_epochs_that_are_done_again_are_there_once() -> None:
    """So that places within epochs ascend."""
    axis = StepAxis()
    for epoch, iteration in [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (1, 3), (2, 4), (2, 5)]:
        axis.move(epoch, iteration)
    starts = [start for start, _epoch in axis.epochs]
    assert starts == sorted(starts)
    assert [epoch for _start, epoch in axis.epochs] == [0, 1, 2]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        pytest.param([(0, 3, 4), (0, 9, 10), (2, 5, 26)], [3, 9, 25], id="epochs between readings"),
        pytest.param([(20, 38, 2039), (35, 10, 3511)], [2038, 3510], id="read late"),
        pytest.param([(20, 2000, 2001), (21, 2100, 2101)], [2000, 2100], id="counted through"),
        pytest.param([(20, 2000, 5), (21, 2100, 105)], [2000, 2100], id="continued and through"),
        pytest.param([(0, 10, 1), (0, 20, 11), (1, 10, 101)], [10, 20, 110], id="each tenth"),
        pytest.param([(None, 5, 6), (None, 9, 10)], [5, 9], id="without epochs"),
        pytest.param([(3, None, 0), (4, None, 0)], [3, 4], id="epochs alone"),
    ],
)
def test_a_page_that_is_read_now_and_then(readings, expected) -> None:
    """What the process counted says how many steps were made in between."""
    axis = StepAxis()
    found = []
    for epoch, iteration, steps in readings:
        axis.follow(epoch, iteration, steps)
        found.append(axis.x)
    assert found == expected


def test_a_page_of_another_process_goes_on_where_its_epoch_was() -> None:
    """A restart goes back to the steps that it does again."""
    axis = StepAxis()
    for epoch, iteration, steps in [(0, 0, 1), (1, 0, 101), (2, 50, 251)]:
        axis.follow(epoch, iteration, steps)
    axis.start()
    axis.follow(2, 0, 1)
    assert (axis.x, axis.segment) == (200, 2)
    axis.follow(3, 10, 111)
    assert axis.x == 310


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(0, 3)),
            st.one_of(st.none(), st.integers(0, 20)),
        ),
        max_size=60,
    )
)
def test_a_whole_number_has_the_place_of_the_same_float(steps) -> None:
    """The short way of whole numbers, which nearly all steps are, leads to the same place."""
    floats = [(epoch, None if it is None else float(it)) for epoch, it in steps]
    assert places(*steps) == places(*floats)

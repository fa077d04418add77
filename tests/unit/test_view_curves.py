"""Curves of many ranks on one axis, as a plot draws them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_dllogger.view.curves import EPOCH, MAX_POINTS, PROCESS, RELATIVE, STEP, WALL, Range, draw
from otel_dllogger.view.metric import Metric
from otel_dllogger.view.model import Model

pytestmark = pytest.mark.newest_only

LABELS = {"metric": "loss", "granularity": "iteration", "kind": "loss"}
LOSS = Metric.of("dl_loss", LABELS)


def fill(model: Model, rank: int, steps, *, run: str = "r", start_s: float = 1000.0) -> None:
    """Let a rank log values at steps, one each second."""
    one = model.rank(run, rank)
    if one.start_s is None:
        one.start(start_s, 1)
    for x, value in steps:
        one.axis.move(None, x)
        one.last_log_s = (one.last_log_s or start_s) + 1.0
        series = model.series(one, "dl_loss", LABELS)
        series.history.append(value, (one.axis.x, one.last_log_s, one.axis.segment))


def curves_of(model: Model, **options):
    return draw(model.runs.values(), LOSS, **options)


def test_few_values_are_shown_as_they_are() -> None:
    """Each place is one at which something was logged."""
    model = Model()
    fill(model, 0, [(0, 3.0), (10, 2.0), (20, 1.0)])
    fill(model, 1, [(0, 5.0), (20, 2.0)])
    curves = curves_of(model)
    assert curves.is_exact
    assert curves.places.tolist() == [0, 10, 20]
    first, second = curves.lines
    assert first.mean.tolist() == [3.0, 2.0, 1.0]
    assert np.isnan(second.mean[1])
    (band,) = curves.bands
    assert band.ranks == 2
    assert band.least.tolist() == [3.0, 2.0, 1.0]
    assert band.median.tolist() == [4.0, 2.0, 1.5]
    assert band.greatest.tolist() == [5.0, 2.0, 2.0]


@settings(deadline=None)  # the machine may be busy
@given(
    st.lists(st.integers(1, 4_000), min_size=1, max_size=4),
    st.integers(0, 2**40),
    st.integers(2, 300),
)
def test_no_spike_is_lost(lengths: list[int], first: int, most: int) -> None:
    """However few places there are, the extremes are those of all values."""
    model = Model()
    values = []
    for rank, length in enumerate(lengths):
        steps = [(first + n, math.sin(n * (rank + 1)) * 100) for n in range(length)]
        steps[length // 2] = (steps[length // 2][0], 1e6 + rank)
        values += [value for _x, value in steps]
        fill(model, rank, steps)
    curves = curves_of(model, max_points=most)
    assert len(curves.places) <= most
    assert np.all(np.diff(curves.places) > 0)
    (band,) = curves.bands
    assert np.nanmax(band.greatest) == np.float32(max(values))
    assert np.nanmin(band.least) == np.float32(min(values))
    assert np.nanmax([line.greatest for line in curves.lines]) == np.float32(max(values))


def test_places_stay_while_a_run_goes_on() -> None:
    """What was drawn is not drawn elsewhere a second later."""
    model = Model()
    fill(model, 0, [(n, 1.0) for n in range(3_000)])
    before = curves_of(model)
    assert not before.is_exact
    fill(model, 0, [(n, 1.0) for n in range(3_000, 3_900)])
    after = curves_of(model)
    assert set(before.places.tolist()) <= set(after.places.tolist())


def test_nonfinite_values_are_gaps_that_are_counted() -> None:
    """Not zeros, and not the last good value."""
    model = Model()
    fill(model, 0, [(0, 1.0), (1, math.nan), (2, math.inf), (3, 4.0)])
    (line,) = curves_of(model).lines
    assert np.isnan(line.mean).tolist() == [False, True, True, False]
    assert line.nonfinite.tolist() == [0, 1, 1, 0]


def test_steps_done_again_are_a_line_of_their_own() -> None:
    """The line does not run backwards; the band has what counts, the last pass."""
    model = Model()
    fill(model, 0, [(0, 9.0), (1, 8.0), (2, 7.0), (1, 5.0), (2, 4.0), (3, 3.0)])
    curves = curves_of(model)
    first, second = curves.lines
    assert (first.is_redone, second.is_redone) == (True, False)
    assert first.mean.tolist()[:3] == [9.0, 8.0, 7.0]
    assert second.mean.tolist()[1:] == [5.0, 4.0, 3.0]
    assert curves.bands[0].median.tolist() == [9.0, 5.0, 4.0, 3.0]


def test_axes() -> None:
    """The same values by time, by time without gaps, and by epoch."""
    model = Model()
    fill(model, 0, [(0, 1.0), (1, 1.0)])
    rank = model.rank("r", 0)
    rank.start(1100.0, 2)
    rank.last_log_s = 1100.0
    fill(model, 0, [(2, 1.0), (3, 1.0)])
    assert curves_of(model, axis=WALL).places.tolist() == [1001, 1002, 1101, 1102]
    assert curves_of(model, axis=RELATIVE).places.tolist() == [1, 2, 101, 102]
    assert curves_of(model, axis=PROCESS).places.tolist() == [1, 2, 3, 4]


def test_epochs_are_shared_out_by_their_steps() -> None:
    """Step 5 of an epoch of 10 is half of it; the last epoch is as long as the one before."""
    model = Model()
    rank = model.rank("r", 0)
    for epoch in range(2):
        for iteration in range(10):
            if (epoch, iteration) > (1, 5):
                break
            rank.axis.move(epoch, iteration)
            series = model.series(rank, "dl_loss", LABELS)
            series.history.append(1.0, (rank.axis.x, 0.0, 0))
    places = curves_of(model, axis=EPOCH).places.tolist()
    assert places[:3] == [0.0, 0.1, 0.2]
    assert places[-1] == pytest.approx(1.5)


def test_a_part_is_shown_in_more_detail() -> None:
    """Zooming in gives the buckets that there are."""
    model = Model()
    fill(model, 0, [(n, float(n)) for n in range(4_000)])
    curves = curves_of(model, part=Range(1_000, 1_500))
    assert curves.is_exact
    assert curves.places.tolist() == list(range(1_000, 1_501))


def test_lines_can_be_chosen() -> None:
    """The band is of all ranks nevertheless."""
    model = Model()
    for rank in range(5):
        fill(model, rank, [(0, float(rank))])
    curves = curves_of(model, ranks=[("r", 3)])
    assert [line.rank for line in curves.lines] == [3]
    assert curves.bands[0].ranks == 5


def test_runs_share_one_axis() -> None:
    """Two runs on one plot, each with its band."""
    model = Model()
    fill(model, 0, [(0, 1.0), (2, 1.0)], run="a")
    fill(model, 0, [(1, 1.0)], run="b")
    curves = curves_of(model)
    assert curves.places.tolist() == [0, 1, 2]
    assert [band.run for band in curves.bands] == ["a", "b"]


def test_nothing_gives_nothing() -> None:
    """A metric that nobody logged has no places, and a part without values neither."""
    model = Model()
    assert len(curves_of(model).places) == 0
    fill(model, 0, [(0, 1.0)])
    empty = curves_of(model, part=Range(5, 6))
    assert (len(empty.places), empty.lines, empty.bands) == (0, [], [])


def test_a_plot_has_a_limit() -> None:
    """Of places, by default."""
    model = Model()
    fill(model, 0, [(n * 7.3, 1.0) for n in range(4_000)])
    assert MAX_POINTS // 4 < len(curves_of(model).places) <= MAX_POINTS


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("axis", [STEP, EPOCH])
@pytest.mark.parametrize("unit", [1e305, 1e-320])
def test_steps_may_be_of_any_size(unit: float, axis: str) -> None:
    """Even where their difference is beyond the range of floats, or below their precision."""
    model = Model()
    rank = model.rank("r", 0)
    rank.start(1000.0, 1)
    history = model.series(rank, "dl_loss", LABELS).history
    for n in range(-1_790, 1_790):
        rank.axis.move(n * unit, n * unit)
        history.append(1.0, (rank.axis.x, 2000.0 + n, rank.axis.segment))
    curves = curves_of(model, axis=axis)
    assert 0 < len(curves.places) <= MAX_POINTS
    assert np.isfinite(curves.places).all()
    assert np.isfinite(curves.bands[0].median).all()

"""The curves of one metric, as a plot draws them: for each place on its axis what all ranks had.

Histories have up to 4,096 buckets for each rank, each with places of its own. Here they are
brought onto the places of one axis, at most ``MAX_POINTS`` of them, with the least and the
greatest value of each, so that no spike is lost.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from otel_dllogger.view.history import Columns
    from otel_dllogger.view.metric import Metric
    from otel_dllogger.view.model import Rank, Run

    Floats = NDArray[np.float64]

MAX_POINTS = 1_000
"""The most places of a plot."""

STEP = "step"
EPOCH = "epoch"
RELATIVE = "relative"
PROCESS = "process"
WALL = "wall"

AXES = {
    STEP: "training step",
    EPOCH: "epoch",
    RELATIVE: "seconds since the run began",
    PROCESS: "seconds of training, without the gaps between attempts",
    WALL: "time",
}
"""What can be on the axis of places, with its title."""


@dataclasses.dataclass(frozen=True, slots=True)
class Range:
    """A part of an axis.

    Attributes:
        start: Where it begins; None for the beginning.
        end: Where it ends; None for the end.
    """

    start: float | None = None
    end: float | None = None

    def holds(self, places: Floats) -> NDArray[np.bool_]:
        """Return which places are in it."""
        low = -math.inf if self.start is None else self.start
        high = math.inf if self.end is None else self.end
        return (places >= low) & (places <= high)


class Line(NamedTuple):
    """The values of one rank, in one pass over its steps, on the places of a plot.

    Attributes:
        run: The run.
        rank: The rank.
        segment: Number of the attempt or pass.
        is_redone: Whether a later segment did its last steps again: it is drawn dashed there.
        mean: The mean of the finite values of each place; NaN if there is none.
        least: Their least.
        greatest: Their greatest.
        nonfinite: How many values were NaN or infinite.
    """

    run: str
    rank: int
    segment: int
    is_redone: bool
    mean: Floats
    least: Floats
    greatest: Floats
    nonfinite: Floats


class Band(NamedTuple):
    """What all ranks of one run had, on the places of a plot; NaN where none had a value.

    Attributes:
        run: The run.
        ranks: How many ranks have values.
        least: The least value of any rank.
        median: The median of the ranks' means.
        greatest: The greatest value of any rank.
    """

    run: str
    ranks: int
    least: Floats
    median: Floats
    greatest: Floats


class Curves(NamedTuple):
    """The curves of a metric.

    Attributes:
        metric: The metric.
        places: The places on the axis, ascending.
        is_exact: Whether each place is one at which values were logged; otherwise it stands for
            all places from it to the next one.
        lines: For each rank that was asked for, its segments.
        bands: For each run.
    """

    metric: Metric
    places: Floats
    is_exact: bool
    lines: list[Line]
    bands: list[Band]


class _Piece(NamedTuple):
    rank: Rank
    segment: int
    is_redone: bool
    places: Floats
    columns: Columns


def draw(
    runs: Iterable[Run],
    metric: Metric,
    *,
    axis: str = STEP,
    part: Range | None = None,
    ranks: Iterable[tuple[str, int]] | None = None,
    max_points: int = MAX_POINTS,
) -> Curves:
    """Return the curves of a metric.

    Args:
        runs: The runs.
        metric: The metric.
        axis: One of ``AXES``.
        part: The part of the axis; all of it by default.
        ranks: Run and rank of each line; None for all. Bands are always of all ranks.
        max_points: The most places.
    """
    runs, part = list(runs), part or Range()
    pieces = [piece for run in runs for rank in run for piece in _pieces(rank, run, metric, axis)]
    pieces = [cut for piece in pieces if (cut := _cut(piece, part)) is not None]
    places, is_exact = _places([piece.places for piece in pieces], max_points)
    wanted = None if ranks is None else set(ranks)
    lines: list[Line] = []
    by_run: dict[str, list[Line]] = {run.name: [] for run in runs}
    for piece in pieces:
        line = _line(piece, places)
        by_run[line.run].append(line)
        if wanted is None or (line.run, line.rank) in wanted:
            lines.append(line)
    bands = [_band(run, found, places) for run, found in by_run.items() if found]
    return Curves(metric, places, is_exact, lines, bands)


def _pieces(rank: Rank, run: Run, metric: Metric, axis: str) -> Iterable[_Piece]:
    """Yield a rank's segments, with their places on an axis."""
    series = rank.series.get(metric)
    if series is None:
        return
    columns = series.history.columns()
    places = _on_axis(columns, rank, run, axis)
    segments = np.unique(columns.segment)
    for number, segment in enumerate(segments):
        chosen = columns.segment == segment
        own = columns.x[chosen]
        later = columns.x[columns.segment > segment]
        is_redone = number < len(segments) - 1 and bool(len(later) and later.min() <= own.max())
        yield _Piece(rank, int(segment), is_redone, places[chosen], columns.where(chosen))


def _on_axis(columns: Columns, rank: Rank, run: Run, axis: str) -> Floats:
    if axis == WALL:
        return columns.time_s
    if axis == RELATIVE:
        return columns.time_s - begin_s(run)
    if axis == PROCESS:
        return _without_gaps(columns, rank, run)
    if axis == EPOCH:
        return _epochs(columns.x, rank)
    return columns.x


def begin_s(run: Run) -> float:
    """Return when a run began, seconds since the Unix epoch; 0 if that is not known."""
    times = [rank.starts[0].time_s if rank.starts else rank.start_s for rank in run]
    return min((time_s for time_s in times if time_s), default=0.0)


def _without_gaps(columns: Columns, rank: Rank, run: Run) -> Floats:
    """Return times since the run began, less the gaps before each of the rank's attempts."""
    times = columns.time_s - begin_s(run)
    gap_s = np.zeros(len(times))
    for start in list(rank.starts)[1:]:
        before = columns.time_s[columns.segment < start.segment]
        if len(before):
            gap_s[columns.segment >= start.segment] += max(start.time_s - before.max(), 0.0)
    return times - gap_s


def _epochs(x: Floats, rank: Rank) -> Floats:
    """Return places in epochs: those within an epoch by their share of its steps."""
    epochs = rank.axis.epochs
    if not epochs:
        return x
    starts = np.array([start for start, _epoch in epochs])
    numbers = np.array([epoch for _start, epoch in epochs])
    # How long the last epoch is is not known: as long as the one before, or as far as it got.
    last = starts[-1] - starts[-2] if len(starts) > 1 else x[-1] - starts[0] + 1 if len(x) else 1.0
    lengths = np.append(np.diff(starts), last)
    index = np.clip(np.searchsorted(starts, x, side="right") - 1, 0, None)
    share = np.clip((x - starts[index]) / np.maximum(lengths[index], 1e-9), 0.0, 1.0)
    found: Floats = numbers[index] + share
    return found


def _cut(piece: _Piece, part: Range) -> _Piece | None:
    chosen = part.holds(piece.places)
    if not chosen.any():
        return None
    return piece._replace(places=piece.places[chosen], columns=piece.columns.where(chosen))


def _places(found: Sequence[Floats], most: int) -> tuple[Floats, bool]:
    """Return the places of a plot: all that there are, or else the beginnings of equal parts.

    The length of a part is a power of two, so that the parts stay as they are while a run goes on.
    """
    if not found:
        return np.empty(0), True
    every = np.unique(np.concatenate(found))
    if len(every) <= most:
        return every, True
    length = 2.0 ** math.ceil(math.log2((every[-1] - every[0]) / (most - 1)))
    return np.unique(np.floor(every / length)) * length, False


def _line(piece: _Piece, places: Floats) -> Line:
    size, columns = len(places), piece.columns
    index = np.searchsorted(places, piece.places, side="right") - 1
    finite = columns.finite > 0
    at, weights = index[finite], columns.finite[finite].astype(np.float64)
    counts = np.bincount(at, weights, size)
    sums = np.bincount(at, weights * columns.mean[finite], size)
    mean = np.divide(sums, counts, out=np.full(size, np.nan), where=counts > 0)
    least, greatest = np.full(size, np.inf), np.full(size, -np.inf)
    np.minimum.at(least, at, columns.least[finite])
    np.maximum.at(greatest, at, columns.greatest[finite])
    least[counts == 0] = greatest[counts == 0] = np.nan
    nonfinite = np.bincount(index, columns.nonfinite, size).astype(np.float64)
    return Line(
        piece.rank.run,
        piece.rank.number,
        piece.segment,
        piece.is_redone,
        mean,
        least,
        greatest,
        nonfinite,
    )


def _band(run: str, lines: Sequence[Line], places: Floats) -> Band:
    """Return the band of all ranks; where steps were done again, the last pass counts."""
    by_rank: dict[int, list[Line]] = {}
    for line in lines:
        by_rank.setdefault(line.rank, []).append(line)
    means = np.full((len(by_rank), len(places)), np.nan)
    least, greatest = means.copy(), means.copy()
    for row, passes in enumerate(by_rank.values()):
        for line in sorted(passes, key=lambda each: each.segment):
            known = ~np.isnan(line.mean)
            means[row, known] = line.mean[known]
            least[row, known] = line.least[known]
            greatest[row, known] = line.greatest[known]
    return Band(
        run,
        len(by_rank),
        np.fmin.reduce(least, axis=0),
        _medians(means),
        np.fmax.reduce(greatest, axis=0),
    )


def _medians(values: Floats) -> Floats:
    """Return the median of each column, of the values that are not NaN; NaN if there is none."""
    ordered = np.sort(values, axis=0)  # NaN comes last
    counts = np.count_nonzero(~np.isnan(ordered), axis=0)
    columns = np.arange(values.shape[1])
    low, high = ordered[np.maximum(counts - 1, 0) // 2, columns], ordered[counts // 2, columns]
    middle: Floats = np.where(counts > 0, (low + high) / 2, np.nan)
    return middle

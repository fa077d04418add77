"""What pages show of a model at one moment: runs and curves, for JSON.

What several pages show is worked out once for all of them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otel_dllogger.errors import printable
from otel_dllogger.metrics import health
from otel_dllogger.view.assessment import assess_now
from otel_dllogger.view.curves import MAX_POINTS, Curves, draw
from otel_dllogger.view.plain import plain_curves, plain_run
from otel_dllogger.view.server.selection import ALL, Selection

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from otel_dllogger.view.metric import Metric
    from otel_dllogger.view.model import Model, Run

FEW_RANKS = 8
"""With that many ranks or less, each has its line."""

MAX_LINES = 256
"""The most lines of one chart."""

_WORST = 3  # ranks of a run that have a line where there are many
_MAX_POINTS_OF_LINES = 128_000
_OLD_STATE_S = 10.0  # the state of a run that no page shows may be that old


class Reading(NamedTuple):
    """How far logs were read.

    Attributes:
        read_bytes: Bytes that were read.
        size_bytes: Bytes that there are.
        is_current: Whether all that there was has been read once.
    """

    read_bytes: int = 0
    size_bytes: int = 0
    is_current: bool = True


class Look(NamedTuple):
    """What a page shows at one moment.

    Attributes:
        fields: What is not curves, by name, as plain values.
        curves: The curves of its metrics, as ``plain_curves``, with columns as arrays.
    """

    fields: dict[str, Any]
    curves: list[dict[str, Any]]


class _Known(NamedTuple):
    revision: int
    at_s: float
    plain: dict[str, Any]


class Board:
    """What pages show of a model. It is used by one thread at a time.

    Args:
        model: The model.
        words: What is looked at, for people.
        reading: Returns how far logs were read.
    """

    def __init__(self, model: Model, words: str, reading: Callable[[], Reading]) -> None:
        self._model = model
        self._words = printable(words)  # they may have names of files, which JSON cannot have
        self._reading = reading
        self._runs: dict[str, _Known] = {}
        self._curves: dict[tuple[object, ...], dict[str, Any]] = {}
        self._revision = -1
        self._now_s = 0.0

    def begin(self) -> None:
        """Begin another moment."""
        self._now_s = time.time()
        with self._model.lock:
            revision = self._model.revision
            self._runs = {name: self._runs[name] for name in self._runs if name in self._model.runs}
        if revision != self._revision:
            self._revision = revision
            self._curves.clear()

    def look(self, selection: Selection) -> Look:
        """Return what a page shows."""
        with self._model.lock:
            runs = self._model.runs
            shown = [runs[name] for name in selection.runs if name in runs]
            if not selection.runs and runs:
                shown = [max(runs.values(), key=_last_log_s)]
            plain = [self.plain_run(run) for run in shown]
            fields = {
                "words": self._words,
                "reading": self._reading()._asdict(),
                "runs": [self._brief(run) for run in runs.values()],
                "shown": plain,
            }
            by_selector = {metric.selector: metric for run in shown for metric in run.metrics()}
            curves = [
                self._draw(shown, by_selector[selector], selection)
                for selector in selection.metrics
                if selector in by_selector
            ]
            return Look({"now_s": round(self._now_s, 3), **fields}, curves)

    def plain_run(self, run: Run) -> dict[str, Any]:
        """Return what a run is doing."""
        known = self._runs.get(run.name)
        is_same = known is not None and known.revision == self._model.revision
        if known is not None and is_same:
            is_over = known.plain["state"] in health.OVER
            if is_over or self._now_s == known.at_s:
                return known.plain
        plain = plain_run(assess_now(run, self._now_s))
        self._runs[run.name] = _Known(self._model.revision, self._now_s, plain)
        return plain

    def plain_runs(self, names: Iterable[str]) -> list[dict[str, Any]]:
        """Return what runs are doing: those of some names, or all if there are none."""
        wanted = set(names)
        with self._model.lock:
            return [
                self.plain_run(run)
                for run in self._model.runs.values()
                if not wanted or run.name in wanted
            ]

    def _brief(self, run: Run) -> dict[str, Any]:
        known = self._runs.get(run.name)
        is_old = known is None or self._now_s - known.at_s > _OLD_STATE_S
        plain = self.plain_run(run) if is_old or known is None else known.plain
        return {
            "name": run.name,
            "state": plain["state"],
            "ranks": len(run.ranks),
            "begin_s": plain["begin_s"],
        }

    def _draw(
        self,
        runs: Sequence[Run],
        metric: Metric,
        selection: Selection,
    ) -> dict[str, Any]:
        names = tuple(run.name for run in runs)
        _, _, axis, part, chosen, lines = selection
        key = (names, metric, axis, part, chosen, lines)
        found = self._curves.get(key)
        if found is None:
            ranks = sum(len(run.ranks) for run in runs)
            drawn_lines = max(min(ranks, MAX_LINES), 1) if lines == ALL else FEW_RANKS
            most = min(MAX_POINTS, _MAX_POINTS_OF_LINES // drawn_lines)
            drawn = draw(runs, metric, axis=axis, part=part, max_points=most)
            drawn = _choose_lines(drawn, selection, ranks)
            found = self._curves[key] = curves_with_arrays(drawn)
        return found


def curves_with_arrays(curves: Curves) -> dict[str, Any]:
    """Return curves as ``plain_curves`` does, with arrays, which orjson writes fast."""
    return {"places": curves.places, **plain_curves(curves, _narrow)}


def _narrow(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return values.astype(np.float32)


def _last_log_s(run: Run) -> float:
    return max((rank.last_log_s or 0.0 for rank in run), default=0.0)


def _choose_lines(curves: Curves, selection: Selection, ranks: int) -> Curves:
    """Return curves with the lines that are to be drawn: all, or where there are many, some.

    Args:
        curves: The curves of all ranks.
        selection: What a page shows.
        ranks: How many ranks there are.
    """
    if ranks <= FEW_RANKS or (selection.lines == ALL and ranks <= MAX_LINES):
        return curves
    most = MAX_LINES if selection.lines == ALL else _WORST * len(curves.bands)
    chosen = {*selection.ranks, *_farthest(curves, most)}
    return curves._replace(lines=[line for line in curves.lines if (line.run, line.rank) in chosen])


def _farthest(curves: Curves, most: int) -> list[tuple[str, int]]:
    """Return the ranks that are farthest from the median of their run, lately."""
    start = len(curves.places) * 3 // 4
    distances: dict[tuple[str, int], float] = {}
    for band in curves.bands:
        median = band.median[start:]
        for line in curves.lines:
            if line.run == band.run:
                away = np.abs(line.mean[start:] - median)
                known = away[~np.isnan(away)]
                if len(known):
                    key = (line.run, line.rank)
                    distances[key] = max(distances.get(key, 0.0), float(known.mean()))
    return sorted(distances, key=lambda key: -distances[key])[:most]

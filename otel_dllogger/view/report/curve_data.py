"""The curves of a report, packed into few bytes.

A packed file is gzip of: the length of a header in 4 bytes, little-endian; the header, JSON that
ends on a multiple of 8 bytes; all places, as 64-bit floats; all columns, as 32-bit floats in which
NaN stands for no value. The header says where each column begins, and equal columns are kept once.
"""

from __future__ import annotations

import gzip
import json
import struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from otel_dllogger.view.curves import AXES, STEP, draw
from otel_dllogger.view.headline import in_order
from otel_dllogger.view.plain import plain_curves
from otel_dllogger.view.table import make_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from otel_dllogger.view.assessment import RunStatus
    from otel_dllogger.view.curves import Curves
    from otel_dllogger.view.metric import Metric, Traits
    from otel_dllogger.view.report.past_events import PastEvents

MAX_BYTES = 6 << 20
"""The most bytes of packed curves; base64 makes 8 MiB of them."""

_MAX_PLACES = 512
_LEAST_PLACES = 64
_FEW_RANKS = 16
_COLUMNS = 3
_VALUE_BYTES = 4


class PackedCurves(NamedTuple):
    """Curves of all metrics.

    Attributes:
        content: The packed file.
        places: The most places of a curve.
        drawn: How many metrics have curves.
        left_out: How many have none, since there is no room for them.
        has_all_ranks: Whether every rank has a line; otherwise those that need help.
    """

    content: bytes
    places: int
    drawn: int
    left_out: int
    has_all_ranks: bool


def pack_curves(
    runs: Sequence[RunStatus],
    events: Mapping[str, PastEvents] | None = None,
    *,
    max_bytes: int = MAX_BYTES,
) -> PackedCurves:
    """Pack the curves of all metrics, with as many places as there is room for.

    If there are too many ranks, only those that need help have lines beside the band of all; if
    there are too many metrics, the last ones have no curves.

    Args:
        runs: The runs.
        events: Their events by the names of the runs, which are marked on the curves.
        max_bytes: The most bytes.
    """
    metrics = _metrics(runs)
    ordered = in_order(metrics)
    ranks = [(status.run.name, row.status.rank.number) for status in runs for row in _rows(status)]
    least_bytes = _COLUMNS * _VALUE_BYTES * _LEAST_PLACES
    has_all = len(metrics) * len(ranks) * least_bytes <= max_bytes
    few = [
        (status.run.name, row.status.rank.number)
        for status in runs
        for row in _rows(status)[:_FEW_RANKS]
    ]
    chosen = ranks if has_all else few
    fitting = max(max_bytes // (least_bytes * (len(chosen) + len(runs) or 1)), 1)
    drawn = ordered[:fitting]
    marks = _marks(runs, events or {})
    places = _MAX_PLACES
    while True:
        found = [
            (metric, draw([s.run for s in runs], metric, ranks=chosen, max_points=places))
            for metric in drawn
        ]
        content = _pack(found, metrics, marks)
        if len(content) <= max_bytes or (places <= 2 and len(drawn) <= 1):
            return PackedCurves(content, places, len(drawn), len(ordered) - len(drawn), has_all)
        if places > _LEAST_PLACES:
            places //= 2
        else:  # many attempts, each with lines of its own
            drawn = drawn[: len(drawn) // 2] or drawn
            places = places // 2 if len(drawn) == 1 else places


def title_of(metric: str, stage: str, granularity: str) -> str:
    """Return the name of a metric for people: as logged, with what the name does not say."""
    parts = [metric]
    if stage and not metric.lower().startswith(stage):
        parts.append(stage)
    if granularity not in ("", "iteration"):
        parts.append(f"per {granularity}" if granularity != "run" else "of the run")
    return " · ".join(parts)


def _metrics(runs: Sequence[RunStatus]) -> dict[Metric, Traits]:
    found: dict[Metric, Traits] = {}
    for status in runs:
        for metric, traits in status.run.metrics().items():
            found[metric] = found[metric].completed_by(traits) if metric in found else traits
    return found


def _rows(status: RunStatus) -> list[Any]:
    return make_table(status, points=0).rows


class _Columns:
    """Columns of one type, one after the other."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._known: dict[bytes, int] = {}
        self._parts: list[bytes] = []
        self._length = 0

    def add(self, values: NDArray[Any]) -> int:
        """Add a column, and return where it begins."""
        content = values.astype(self._dtype).tobytes()
        at = self._known.get(content)
        if at is None:
            at = self._known[content] = self._length
            self._parts.append(content)
            self._length += len(values)
        return at

    def content(self) -> bytes:
        return b"".join(self._parts)


def _pack(
    found: Sequence[tuple[Metric, Curves]],
    metrics: dict[Metric, Traits],
    marks: list[dict[str, Any]],
) -> bytes:
    places, values = _Columns("<f8"), _Columns("<f4")
    charts = [
        {
            "title": title_of(metric.metric, metric.stage, metric.granularity),
            "unit": metrics[metric].unit,
            "axis": STEP,
            "axis_title": AXES[STEP],
            "marks": marks,
            **_chart(curves, places, values),
        }
        for metric, curves in found
        if len(curves.places) > 1  # a single value is in the tables
    ]
    place_bytes = places.content()
    header = {"charts": charts, "places": len(place_bytes) // 8}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 4) % 8)
    whole = struct.pack("<I", len(text)) + text + place_bytes + values.content()
    return gzip.compress(whole, 9, mtime=0)


def _chart(curves: Curves, places: _Columns, values: _Columns) -> dict[str, Any]:
    with np.errstate(over="ignore"):
        return {
            "places": [places.add(curves.places), len(curves.places)],
            **plain_curves(curves, values.add),
        }


def _marks(runs: Sequence[RunStatus], events: Mapping[str, PastEvents]) -> list[dict[str, Any]]:
    """Return where further attempts began, and events; all ranks have one mark together."""
    found: dict[tuple[str, int], float] = {}
    for status in runs:
        for rank in status.run:
            for start in list(rank.starts)[1:]:
                key = (status.run.name, start.attempt)
                found[key] = min(found.get(key, start.x), start.x)
    words = [(x, run, f"attempt {attempt}") for (run, attempt), x in sorted(found.items())]
    for status in runs:
        name = status.run.name
        words += [(x, name, event) for x, event in events[name].marks()] if name in events else []
    return [
        {"x": x, "words": f"{run} · {what}" if len(runs) > 1 else what} for x, run, what in words
    ]

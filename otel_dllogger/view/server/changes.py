"""The difference between two looks at the same thing: what a page that has one needs for the other.

A curve of a run that goes on grows at its end, so only that is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from otel_dllogger.view.server.board import Look

_COLUMNS = {"lines": ("mean", "least", "greatest"), "bands": ("least", "median", "greatest")}


def whole(look: Look) -> dict[str, Any]:
    """Return all of a look, as a page that has nothing yet needs it."""
    curves = [_tail(curve, 0) for curve in look.curves]
    return {"is_whole": True, **look.fields, "curves": curves}


def changes(before: Look, after: Look) -> dict[str, Any]:
    """Return what is different in a later look. What is left out is as it was."""
    found = {name: value for name, value in after.fields.items() if value != before.fields[name]}
    if "shown" in found:
        found["shown"] = _changed_runs(before.fields["shown"], after.fields["shown"])
    known = {curve["metric"]: curve for curve in before.curves}
    curves = []
    for curve in after.curves:
        first = _first_change(known.get(curve["metric"]), curve)
        if first is not None:
            curves.append(_tail(curve, first))
    return {"is_whole": False, **found, "curves": curves}


def encode(message: dict[str, Any]) -> bytes:
    """Return a message as JSON; NaN is null."""
    return orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)


def _changed_runs(
    before: list[dict[str, Any]], after: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return each run with its name and its fields that are different."""
    known = {run["name"]: run for run in before}
    return [
        {
            key: value
            for key, value in run.items()
            if key == "name" or run["name"] not in known or known[run["name"]][key] != value
        }
        for run in after
    ]


def _first_change(before: dict[str, Any] | None, after: dict[str, Any]) -> int | None:
    """Return the first index at which curves differ; None if nowhere, 0 if they have no start."""
    if before is after:
        return None
    if before is None or _shape(before) != _shape(after):
        return 0
    old, new = before["places"], after["places"]
    size = len(old)
    if len(new) < size or not np.array_equal(old, new[:size]):
        return 0
    first = size
    for kind, names in _COLUMNS.items():
        for one, other in zip(before[kind], after[kind], strict=True):
            for name in names:
                first = min(first, _first_difference(one[name], other[name][:size]))
            if kind == "lines":
                odd = {*map(tuple, one["nonfinite"])} ^ {*map(tuple, other["nonfinite"])}
                first = min([first, *(at for at, _count in odd)])
    return first if first < len(new) else None


def _shape(curves: dict[str, Any]) -> tuple[object, ...]:
    """Return what must be the same in curves of which one is the beginning of the other."""
    lines = [
        (line["run"], line["rank"], line["segment"], line["is_redone"]) for line in curves["lines"]
    ]
    bands = [(band["run"], band["ranks"]) for band in curves["bands"]]
    return curves["is_exact"], lines, bands


def _first_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> int:
    differ = (one != other) & ~(np.isnan(one) & np.isnan(other))
    return int(differ.argmax()) if differ.any() else len(one)


def _tail(curves: dict[str, Any], first: int) -> dict[str, Any]:
    """Return curves from an index on."""
    found = {**curves, "first": first, "places": curves["places"][first:]}
    for kind, names in _COLUMNS.items():
        found[kind] = [
            {**one, **{name: one[name][first:] for name in names}} for one in curves[kind]
        ]
    for line in found["lines"]:
        line["nonfinite"] = [pair for pair in line["nonfinite"] if pair[0] >= first]
    return found

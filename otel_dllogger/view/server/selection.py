"""What one open page shows, as its query says it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.view.curves import AXES, STEP, Range

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.datastructures import QueryParams

MAX_RUNS = 16
MAX_METRICS = 16
MAX_RANKS = 64
"""The most runs, metrics and chosen ranks of one page."""

ALL = "all"
WORST = "worst"
_LINES = (WORST, ALL)


class SelectionError(ValueError):
    """A query that cannot be answered; it says why in one line."""


class Selection(NamedTuple):
    """What one page shows. Pages that show the same share all the work.

    Attributes:
        runs: The names of runs; none for the one that logged last.
        metrics: Metrics, as selectors.
        axis: One of ``curves.AXES``.
        part: The part of the axis.
        ranks: Run and rank of each line that is wanted in any case.
        lines: ``all``, or ``worst`` for the ranks that need help, where there are many.
    """

    runs: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    axis: str = STEP
    part: Range = Range()
    ranks: tuple[tuple[str, int], ...] = ()
    lines: str = WORST

    @classmethod
    def of(cls, query: QueryParams) -> Selection:
        """Return what a query asks for.

        It has ``run``, ``metric`` and ``rank`` (as ``NUMBER:RUN``) any number of times, and
        ``axis``, ``from``, ``to`` and ``lines`` once.

        Raises:
            SelectionError: If it asks for something that there cannot be, or for too much.
        """
        return cls(
            _at_most(MAX_RUNS, "run", query.getlist("run")),
            _at_most(MAX_METRICS, "metric", query.getlist("metric")),
            _one_of("axis", query.get("axis", STEP), AXES),
            Range(_number("from", query.get("from")), _number("to", query.get("to"))),
            tuple(map(_rank, _at_most(MAX_RANKS, "rank", query.getlist("rank")))),
            _one_of("lines", query.get("lines", WORST), _LINES),
        )


def _at_most(most: int, name: str, values: list[str]) -> tuple[str, ...]:
    if len(values) > most:
        raise SelectionError(f"{name} is given {len(values)} times; at most {most} can be shown")
    return tuple(dict.fromkeys(values))


def _one_of(name: str, value: str, choices: Iterable[str]) -> str:
    choices = tuple(choices)
    if value not in choices:
        raise SelectionError(f"{name} must be one of {', '.join(choices)}")
    return value


def _number(name: str, text: str | None) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise SelectionError(f"{name} must be a number")
    return number


def _rank(text: str) -> tuple[str, int]:
    number, colon, run = text.partition(":")
    if not colon or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise SelectionError("rank must be a number, a colon and the name of a run")
    return run, int(number)

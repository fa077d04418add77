"""What a target of a dashboard's panel must answer: which series, how many, which values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from grafana.queries.datasource import Frame


@dataclass(frozen=True)
class Shape:
    """Hold what the answer to a query must look like.

    Attributes:
        labels: Labels that every series has.
        series: How many there are; None is any number but 0.
        low: No value is below.
        high: No value is above.
        check: What else must hold, with its reason as the name of the function.
    """

    labels: tuple[str, ...] = ()
    series: int | None = None
    low: float | None = None
    high: float | None = None
    check: Callable[[list[Frame]], bool] | None = None

    def misfit(self, frames: list[Frame]) -> str | None:
        """Return what does not fit, None if all does."""
        values = [value for frame in frames for value in frame.finite]
        if not values:
            return "nothing to draw"
        if self.series not in (None, len(frames)):
            return f"{len(frames)} series instead of {self.series}"
        for frame in frames:
            missing = set(self.labels) - frame.labels.keys()
            if missing:
                return f"no label {sorted(missing)} in {frame.labels}"
        if self.low is not None and min(values) < self.low:
            return f"{min(values)} is below {self.low}"
        if self.high is not None and max(values) > self.high:
            return f"{max(values)} is above {self.high}"
        if self.check is not None and not self.check(frames):
            return f"not {self.check.__name__}"
        return None


def last(low: float, high: float | None = None) -> Callable[[list[Frame]], bool]:
    """Ask for the last value of the one series, or for the range that it is in."""

    def ends_with(frames: list[Frame]) -> bool:
        return low <= frames[0].finite[-1] <= (low if high is None else high)

    ends_with.__name__ = f"ends_with_{low}" + (f"_to_{high}" if high is not None else "")
    return ends_with


def reaches(value: float) -> Callable[[list[Frame]], bool]:
    """Ask that the greatest value is at least this."""

    def reached(frames: list[Frame]) -> bool:
        return max(value for frame in frames for value in frame.finite) >= value

    reached.__name__ = f"reached_{value}"
    return reached


def each_run(**expected: float) -> Callable[[list[Frame]], bool]:
    """Ask for the last value of each run."""

    def as_expected(frames: list[Frame]) -> bool:
        return {frame.labels["run"]: frame.finite[-1] for frame in frames} == expected

    as_expected.__name__ = f"each_run_{expected}"
    return as_expected


def greatest_is(label: str, value: str) -> Callable[[list[Frame]], bool]:
    """Ask which series has the greatest last value."""

    def greatest(frames: list[Frame]) -> bool:
        return max(frames, key=lambda frame: frame.finite[-1]).labels[label] == value

    greatest.__name__ = f"greatest_{label}_{value}"
    return greatest


def includes(label: str, value: str) -> Callable[[list[Frame]], bool]:
    """Ask for a series with this label, whatever others there are."""

    def included(frames: list[Frame]) -> bool:
        return value in {frame.labels[label] for frame in frames}

    included.__name__ = f"includes_{label}_{value}"
    return included


def least_is(label: str, value: str) -> Callable[[list[Frame]], bool]:
    """Ask which series has the least last value."""

    def least(frames: list[Frame]) -> bool:
        return min(frames, key=lambda frame: frame.finite[-1]).labels[label] == value

    least.__name__ = f"least_{label}_{value}"
    return least


def only(label: str, *values: str) -> Callable[[list[Frame]], bool]:
    """Ask which values a label has."""

    def alone(frames: list[Frame]) -> bool:
        return {frame.labels.get(label, "") for frame in frames} == set(values)

    alone.__name__ = f"only_{label}_{values}"
    return alone

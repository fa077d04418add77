"""``Scope``: which values in a hub belong to one validation or test.

A hub keeps the values of all validations under the same names, those of the batches beside the
results. A scope separates them. While a loop is under way, its values count from where the loop
began. At the end they count from where the previous results were logged, since several loops may
have led to the new ones.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from otel_dllogger.training.history_buffer import HistoryBuffer

MOMENTS = LOOP, RESULTS = ("loop", "results")
"""Names of marks in histories: where a loop over batches began, where results were logged."""

PROGRESS = ("loss", "time", "data_time", "eta", "memory")
"""What MMEngine shows while a validation is under way."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """The values of a mode that count.

    Attributes:
        results: The scalars of the hub that are results, and are shown as they were given;
            None while a loop is under way.
        replaced: The scalars that are not shown, since a result that is not a number has
            their name.
        stale: The facts of the hub that are not shown, since they are earlier results.
    """

    results: frozenset[str] | None = None
    replaced: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()

    def is_result(self, key: str | None) -> bool:
        """Return whether a name is that of a result."""
        return self.results is not None and key in self.results

    def count(self, history: Any) -> int | None:
        """Return how many of the last values count; None, for all, if that is not known."""
        if not isinstance(history, HistoryBuffer):
            return None
        return history.since(LOOP if self.results is None else RESULTS)

    def has(self, key: str, history: Any) -> bool:
        """Return whether a scalar has any value in this scope."""
        return self.count(history) != 0 and key not in self.replaced

    def default(self, key: str, history: Any, window_size: int, *, is_mean: bool) -> Any:
        """Return what is shown for a scalar unless a configuration says otherwise.

        Args:
            key: Its name in the hub.
            history: Its history, which has a value in this scope.
            window_size: How many values a mean is over while a loop is under way; for results
                it is over all.
            is_mean: Whether the mean is shown.
        """
        if self.is_result(key) or not is_mean:
            return history.current()
        count = self.count(history)
        if count is None:
            return history.mean(window_size)
        return history.mean(min(window_size, count) if self.results is None else count)

    def window(self, key: str, history: Any, window_size: int, asked: Any) -> int:
        """Return how many values a window has: only those that count, unless it asks for all.

        Args:
            key: The scalar's name in the hub.
            history: Its history.
            window_size: How many values are asked for. For a result, one value is one validation.
            asked: The configured window: a number, ``"epoch"`` or ``"global"``.
        """
        if asked == "global":
            return max(window_size, len(history.data[0]))
        if self.is_result(key):
            return 1 if asked == "epoch" else window_size
        count = self.count(history)
        if count is None:
            return window_size
        return count if asked == "epoch" else min(window_size, count)

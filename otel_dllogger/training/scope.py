"""Which values of a hub one validation or test has, of all that the hub has of their mode.

A hub keeps the values of every validation under the same names, those of its batches beside the
results. With a scope each counts for itself: from where its loop began while that is under way,
and in the end from where the results before it were logged, since several loops may have led to
them.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from otel_dllogger.training.history_buffer import HistoryBuffer

MOMENTS = LOOP, RESULTS = ("loop", "results")
"""When a loop over batches began, and when results were logged: marks in histories."""

PROGRESS = ("loss", "time", "data_time", "eta", "memory")
"""What MMEngine shows of a validation that is under way."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """Say which values count.

    Attributes:
        results: The scalars of the hub that are results, each of which counts as it is given;
            None while a loop is under way.
        replaced: The scalars that are not shown, since their names are those of other results.
        stale: The facts of the hub that are not shown, since they are results of others.
    """

    results: frozenset[str] | None = None
    replaced: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()

    def is_result(self, key: str | None) -> bool:
        """Tell whether a name is that of a result."""
        return self.results is not None and key in self.results

    def count(self, history: Any) -> int | None:
        """Return how many of the last values count; None for all where nobody can tell."""
        if not isinstance(history, HistoryBuffer):
            return None
        return history.since(LOOP if self.results is None else RESULTS)

    def has(self, key: str, history: Any) -> bool:
        """Tell whether a scalar has any value here."""
        return self.count(history) != 0 and key not in self.replaced

    def default(self, key: str, history: Any, window_size: int, *, is_mean: bool) -> Any:
        """Return what is shown of a scalar unless a configuration says otherwise.

        Args:
            key: Its name in the hub.
            history: Its history, which has a value here.
            window_size: How many values count in a mean while a loop is under way; of results
                all do.
            is_mean: Whether it is the mean that is shown.
        """
        if self.is_result(key) or not is_mean:
            return history.current()
        count = self.count(history)
        if count is None:
            return history.mean(window_size)
        return history.mean(min(window_size, count) if self.results is None else count)

    def window(self, key: str, history: Any, window_size: int, asked: Any) -> int:
        """Return how many values a window has: no others than count, unless it asks for all.

        Args:
            key: The scalar's name in the hub.
            history: Its history.
            window_size: How many values are asked for. Of a result, validations are counted.
            asked: How they are asked for: a number, ``"epoch"`` or ``"global"``.
        """
        if asked == "global":
            return max(window_size, len(history.data[0]))
        if self.is_result(key):
            return 1 if asked == "epoch" else window_size
        count = self.count(history)
        if count is None:
            return window_size
        return count if asked == "epoch" else min(window_size, count)

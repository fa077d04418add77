"""A hub as one validation or test sees it, of all that it has of their mode.

A hub keeps the values of every validation under the same names, those of its batches beside the
results. Here each counts for itself: from where its loop began while that is under way, and in
the end from where the results before it were logged, since several loops may have led to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from otel_dllogger.training.loop_state import Hub

LOOP, RESULTS = "loop", "results"
"""When a loop over batches began, and when results were logged: marks in histories."""

RESULTS_OF = "results_of_"
"""Before a mode, the fact of a hub that names all results there were that are no numbers."""


def view_of_one(hub: Hub, mode: str, results: Collection[str] | None = None) -> Hub:
    """Return a hub as if there were only the validation or test that began last.

    Args:
        hub: The hub.
        mode: The mode.
        results: The names of its results in the hub; None while it is under way.
    """
    given = frozenset(results or ())
    scalars: dict[str, Any] = {}
    for key, history in list(hub.log_scalars.items()):
        if key in given:
            if key not in hub.runtime_info:  # else it is no number this time
                scalars[key] = Result(history)
        elif not key.startswith(mode):
            scalars[key] = history
        elif new := history.since(LOOP if results is None else RESULTS):
            scalars[key] = _Recent(history, new, counts_all=results is not None)
    others = {*hub.get_info(RESULTS_OF + mode, ())} - given
    infos = {key: value for key, value in list(hub.runtime_info.items()) if key not in others}
    return _View(hub, scalars, infos)


class _View:
    """Show what of a hub is to be logged; anything else is the hub's.

    Args:
        hub: The hub.
        scalars: Its histories that are shown.
        infos: Its facts that are shown.
    """

    def __init__(self, hub: Hub, scalars: Mapping[str, Any], infos: Mapping[str, Any]) -> None:
        self._hub = hub
        self.log_scalars = scalars
        self.runtime_info = infos

    def get_scalar(self, key: str) -> Any:
        """Return a history, as it is shown where it is."""
        hub: Any = self._hub
        return self.log_scalars[key] if key in self.log_scalars else hub.get_scalar(key)

    def get_info(self, key: str, default: Any = None) -> Any:
        """Return a fact."""
        return self._hub.get_info(key, default)

    def __getattr__(self, name: str) -> Any:
        if name == "_hub":  # of a copy that is not made yet
            raise AttributeError(name)
        return getattr(self._hub, name)


class _Recent:
    """Let no more than the last values of a history count in the mean of a window.

    Args:
        history: The history; any statistic of it can be asked for.
        new: How many values.
        counts_all: Whether all of them count, however small the window.
    """

    def __init__(self, history: Any, new: int, *, counts_all: bool) -> None:
        self._history = history
        self._new = new
        self._counts_all = counts_all

    def mean(self, window_size: int | None = None) -> Any:
        """Return the mean of a window; of the whole history without one."""
        if window_size is None:
            return self._history.mean()
        return self._history.mean(self._new if self._counts_all else min(window_size, self._new))

    def __getattr__(self, name: str) -> Any:
        if name == "_history":  # of a copy that is not made yet
            raise AttributeError(name)
        return getattr(self._history, name)


class Result(_Recent):
    """Show a result as it was given, whatever there was before.

    Args:
        history: The history, of which it is the last value.
    """

    def __init__(self, history: Any) -> None:
        super().__init__(history, 1, counts_all=True)

    def mean(self, window_size: int | None = None) -> Any:
        """Return the result; the mean of all there were without a window."""
        return self._history.mean() if window_size is None else self._history.current()

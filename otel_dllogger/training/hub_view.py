"""A hub as one validation or test sees it, of all that it has of their mode.

A hub keeps the values of every validation under the same names, those of its batches beside the
results. Here each counts for itself: from where its loop began while that is under way, and in
the end from where the results before it were logged, since several loops may have led to them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.training.history_buffer import HistoryBuffer

if TYPE_CHECKING:
    from collections.abc import Collection

MOMENTS = LOOP, RESULTS = ("loop", "results")
"""When a loop over batches began, and when results were logged: marks in histories."""

RESULTS_OF = "results_of_"
"""Before a mode, the fact of a hub that names all results there were that are no numbers."""

PROGRESS = ("loss", "time", "data_time", "eta", "memory")
"""What MMEngine shows of a validation that is under way."""

_VIEW = "view"


class Result(HistoryBuffer):
    """Show a result as it was given, among all there were: it is the last one."""

    def mean(self, window_size: int | None = None) -> Any:
        """Return the result; the mean of all there were without a window."""
        return super().mean() if window_size is None else self.current()


class _Whole(HistoryBuffer):
    """Have no smaller window: what results show beside them is of all batches."""

    def mean(self, _window_size: int | None = None) -> Any:
        return super().mean()


def view_of_one(hub: Any, mode: str, results: Collection[str] | None = None) -> Any:
    """Return a hub as if there were only the validation or test that began last.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
        results: The names of its results in the hub; None while it is under way.
    """
    given = frozenset(results or ())
    moment, kind = (LOOP, HistoryBuffer) if results is None else (RESULTS, _Whole)
    scalars: dict[str, Any] = {}
    for key, history in list(hub.log_scalars.items()):
        if not key.startswith(mode) or not isinstance(history, HistoryBuffer):
            scalars[key] = history
        elif key in given:
            if key not in hub.runtime_info:  # else it is no number this time
                scalars[key] = _last(Result, history, history.since(_VIEW))
        elif new := history.since(moment):
            scalars[key] = _last(kind, history, new)
    others = {*hub.get_info(RESULTS_OF + mode, ())} - given
    infos = {key: value for key, value in list(hub.runtime_info.items()) if key not in others}
    return hub.showing(scalars, infos)


def _last(kind: type[HistoryBuffer], history: HistoryBuffer, count: int) -> HistoryBuffer:
    values, counts = history.data
    shown = kind(values[-count:], counts[-count:], history.max_length)
    shown.mark(_VIEW)
    return shown


def adopt(hub: Any, view: Any) -> None:
    """Put into a hub what was put into a view of it, as a processor of one's own may do.

    Args:
        hub: The hub.
        view: The view.
    """
    for key, history in view.log_scalars.items():
        if history is not hub.log_scalars.get(key) and (new := history.since(_VIEW)):
            values, counts = history.data
            for value, count in zip(values[-new:].tolist(), counts[-new:].tolist(), strict=True):
                hub.update_scalar(key, value, count, hub.is_resumed(key))
    for key, info in view.runtime_info.items():
        if hub.runtime_info.get(key) is not info:
            hub.update_info(key, info, hub.is_resumed(key))

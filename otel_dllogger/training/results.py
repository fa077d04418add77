"""What a validation or a test gave, beside what it measured on its way.

A hub keeps both under one mode. Results count as they are given, once, and not again in the
middle of the next validation, or among the results of one that did not give them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.training.faults import MisuseError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.training.history_buffer import HistoryBuffer
    from otel_dllogger.training.loop_state import Hub
    from otel_dllogger.training.message_hub import MessageHub

_RESULTS_OF = "results_of_"


class _LastCounts:
    """Show of a history the last value, whatever statistic is the default.

    Args:
        history: The history, whose statistics can be asked for by name.
    """

    def __init__(self, history: HistoryBuffer) -> None:
        self._history = history
        self.current = self.mean = lambda *_window: history.current()
        self.statistics = history.statistics


class _View:
    """Show what of a hub is to be logged."""

    def __init__(
        self, hub: MessageHub, scalars: Mapping[str, Any], infos: Mapping[str, Any]
    ) -> None:
        self.log_scalars = scalars
        self.runtime_info = infos
        self.get_info = hub.get_info


def view_without_results(hub: MessageHub, mode: str) -> Hub:
    """Return a hub without the results of a mode: what a validation has while it is under way."""
    return _view(hub, mode, frozenset())


def keep_results(hub: MessageHub, mode: str, results: Mapping[str, Any]) -> Hub:
    """Put results into a hub, and return it with these of all results.

    Args:
        hub: The hub.
        mode: The mode that they are of.
        results: Values by name, without the mode.
    """
    keys = [f"{mode}/{name}" for name in results]
    for key, value in zip(keys, results.values(), strict=True):
        try:
            hub.update_scalar(key, value)
            hub.pop_info(key)
        except MisuseError:  # no single number: shown and logged, as MMEngine does
            hub.update_info(key, value)
            hub.log_scalars.pop(key, None)
    known = dict.fromkeys([*hub.get_info(_RESULTS_OF + mode, ()), *keys])
    hub.update_info(_RESULTS_OF + mode, list(known))
    return _view(hub, mode, frozenset(keys))


def _view(hub: MessageHub, mode: str, given: frozenset[str]) -> Hub:
    hidden = {*hub.get_info(_RESULTS_OF + mode, ())} - given
    scalars = {
        key: _LastCounts(history) if key in given else history
        for key, history in list(hub.log_scalars.items())
        if key not in hidden
    }
    infos = {k: v for k, v in list(hub.runtime_info.items()) if k not in hidden}
    return _View(hub, scalars, infos)

"""What a validation or a test gave, beside what it measured on its way.

A hub keeps both under one mode. Results count as they are given, once, and not again in the
middle of the next validation, or among the results of one that did not give them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from otel_dllogger.training.history_buffer import HistoryBuffer
    from otel_dllogger.training.loop_state import Hub

RESULTS_OF = "results_of_"
"""Before a mode, the fact of a hub that names the results there were so far."""


class _LastCounts:
    """Show of a history the last value, whatever statistic is the default.

    Args:
        history: The history, whose statistics can be asked for by name.
    """

    def __init__(self, history: HistoryBuffer) -> None:
        self.current = self.mean = lambda *_window: history.current()
        self.statistics = history.statistics


class _View:
    """Show what of a hub is to be logged."""

    def __init__(self, hub: Hub, scalars: Mapping[str, Any], infos: Mapping[str, Any]) -> None:
        self.log_scalars = scalars
        self.runtime_info = infos
        self.get_info = hub.get_info


def view_without_results(hub: Hub, mode: str) -> Hub:
    """Return a hub without the results of a mode: what a validation has while it is under way."""
    return _view(hub, mode, frozenset())


def view_of_results(hub: Hub, mode: str, keys: Iterable[str]) -> Hub:
    """Return a hub with these of all results of a mode, each as it was given.

    Args:
        hub: The hub, which has them.
        mode: The mode that they are of.
        keys: Their names in the hub.
    """
    return _view(hub, mode, frozenset(keys))


def _view(hub: Hub, mode: str, given: frozenset[str]) -> Hub:
    hidden = {*hub.get_info(RESULTS_OF + mode, ())} - given
    scalars = {
        key: _LastCounts(history) if key in given else history
        for key, history in list(hub.log_scalars.items())
        if key not in hidden
    }
    infos = {k: v for k, v in list(hub.runtime_info.items()) if k not in hidden}
    return _View(hub, scalars, infos)

"""What a validation or a test gives, put into a hub, and where the next one begins there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.faults import FAULTS
from otel_dllogger.training.faults import MisuseError
from otel_dllogger.training.history_buffer import HistoryBuffer
from otel_dllogger.training.hub_view import LOOP, MOMENTS, PROGRESS, RESULTS, RESULTS_OF
from otel_dllogger.training.loop_state import MODES

if TYPE_CHECKING:
    from collections.abc import Mapping


_UNDER_WAY = "under_way_"

_unlogged: set[str] = set()


def begin_loop(hub: Any, mode: str) -> None:
    """Note that a loop of a mode begins: what a hub has by now, others have measured.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
    """
    # In a checkpoint of the middle of a loop, which is now begun anew.
    was_under_way = hub.pop_info(_UNDER_WAY + mode)
    _mark(hub, mode, *(MOMENTS if was_under_way else (LOOP,)))
    hub.update_info(_UNDER_WAY + mode, True)


def end_loop(hub: Any, mode: str) -> None:
    """Note that a loop of a mode is left.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
    """
    hub.pop_info(_UNDER_WAY + mode)


def end(hub: Any, mode: str) -> None:
    """Note that the results of a mode are logged: what a hub has by now, no others have.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
    """
    _mark(hub, mode, *MOMENTS)


def warn_of_unlogged(hub: Any) -> None:
    """Say once of each scalar of a validation that no record has had it.

    Args:
        hub: The ``MessageHub``, once the validation is over.
    """
    for key, history in list(hub.log_scalars.items()):
        mode, _, name = key.partition("/")
        if (
            mode in MODES[1:]
            and key not in _unlogged
            and not name.startswith(PROGRESS)
            and isinstance(history, HistoryBuffer)
            and history.since(RESULTS)
        ):
            _unlogged.add(key)
            FAULTS.warn(
                f"unlogged {key}",
                f"{key!r} in the hub is not logged: call log_results({{}}, mode={mode!r}) after "
                "the loop, with what else it gave",
            )


def keep(hub: Any, mode: str, results: Mapping[str, Any]) -> None:
    """Put results into a hub: numbers into histories, anything else as facts.

    Args:
        hub: The ``MessageHub``.
        mode: The mode that they are of.
        results: Values by their names in the hub.
    """
    others = {*hub.get_info(RESULTS_OF + mode, ())}
    for key, value in results.items():
        resumed = hub.is_resumed(key)
        try:
            hub.update_scalar(key, value, resumed=resumed)
            hub.pop_info(key)
        except MisuseError:  # no single number: shown and logged, as MMEngine does
            hub.update_info(key, value, resumed=resumed)
            others.add(key)
    hub.update_info(RESULTS_OF + mode, sorted(others))


def _mark(hub: Any, mode: str, *moments: str) -> None:
    for key, history in list(hub.log_scalars.items()):
        if key.startswith(mode) and isinstance(history, HistoryBuffer):
            for moment in moments:
                history.mark(moment)

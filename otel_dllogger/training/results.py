"""What a validation or a test gives, put into a hub, and where the next one begins there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otel_dllogger.training.faults import MisuseError
from otel_dllogger.training.hub_view import LOOP, RESULTS, RESULTS_OF

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.training.message_hub import MessageHub


def begin_loop(hub: MessageHub, mode: str) -> None:
    """Note that a loop of a mode begins: what a hub has by now, others have measured.

    Args:
        hub: The hub.
        mode: The mode.
    """
    _mark(hub, mode, LOOP)


def end(hub: MessageHub, mode: str) -> None:
    """Note that the results of a mode are logged: what a hub has by now, no others have.

    Args:
        hub: The hub.
        mode: The mode.
    """
    _mark(hub, mode, RESULTS)


def keep(hub: MessageHub, mode: str, results: Mapping[str, Any]) -> None:
    """Put results into a hub: numbers into histories, anything else as facts.

    Args:
        hub: The hub.
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


def _mark(hub: MessageHub, mode: str, moment: str) -> None:
    for key, history in list(hub.log_scalars.items()):
        if key.startswith(mode):
            history.mark(moment)

"""The results of a validation or a test in a hub, and the marks where the next ones begin."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.errors import MisuseError
from otel_dllogger.training.history_buffer import HistoryBuffer
from otel_dllogger.training.loop_state import MODES
from otel_dllogger.training.scope import LOOP, MOMENTS, PROGRESS, RESULTS, Scope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


MAX_SAID = 100
"""Most names to warn of for one reason, in case a loop invents names without end."""

# Prefixes of facts in a hub, followed by a mode: the token of the loop that is under way, which
# is also in a checkpoint that is taken in its middle; and the names of all results so far that
# are not numbers.
_UNDER_WAY = "under_way_"
_RESULTS_OF = "results_of_"

_counts: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()
_unlogged: set[str] = set()


def begin_loop(hub: Any, mode: str, token: str, others: Collection[str]) -> None:
    """Note that a loop of a mode begins: what is in the hub already was measured by others.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
        token: Identifies this loop among all others, also those of other processes.
        others: The tokens of loops in this process that are still running.
    """
    before = hub.pop_info(_UNDER_WAY + mode)
    # A checkpoint from the middle of a loop that now starts over: what it measured is void.
    is_resumed = before is not None and before not in others
    _mark(hub, mode, *(MOMENTS if is_resumed else (LOOP,)))
    hub.update_info(_UNDER_WAY + mode, token)


def end_loop(hub: Any, mode: str, token: str) -> bool:
    """Note that a loop of a mode has ended, and return whether no other has begun since.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
        token: The token of the loop.
    """
    is_last: bool = hub.get_info(_UNDER_WAY + mode) == token
    if is_last:
        hub.pop_info(_UNDER_WAY + mode)
    return is_last


def keep(hub: Any, mode: str, results: Mapping[str, Any]) -> Scope:
    """Put results into a hub: numbers into histories, anything else as facts.

    Args:
        hub: The ``MessageHub``.
        mode: The mode that they belong to.
        results: Values by their names in the hub.

    Returns:
        Which values in the hub belong to these results.
    """
    others = {*hub.get_info(_RESULTS_OF + mode, ())}
    numbers = set()
    for key, value in results.items():
        resumed = hub.is_resumed(key)
        try:
            hub.update_scalar(key, value, resumed=resumed)
        except MisuseError:  # not a single number: shown and logged, as MMEngine does
            is_number = False
        except Exception as error:  # from the value's own methods
            DIAGNOSTICS.caught("statistic_failed", f"{key!r} cannot be read as a number", error)
            is_number = False
        else:
            is_number = True
        if is_number:
            hub.pop_info(key)
            numbers.add(key)
        else:
            hub.update_info(key, copied(key, value), resumed=resumed)
            others.add(key)
    hub.update_info(_RESULTS_OF + mode, sorted(others))
    replaced = results.keys() - numbers
    return Scope(frozenset(numbers), frozenset(replaced), frozenset(others - results.keys()))


def copied(key: str, value: Any) -> Any:
    """Return a copy of a fact, so that it cannot change; if it cannot be copied, itself."""
    try:
        return copy.deepcopy(value)
    except Exception as error:
        DIAGNOSTICS.caught(
            "backend_failed", f"{key!r} cannot be copied: a reference to it is kept", error
        )
        return value


def end(hub: Any, mode: str) -> None:
    """Note that the results of a mode are logged: later results do not include these values.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
    """
    _mark(hub, mode, *MOMENTS)


def warn_of_unlogged(hub: Any) -> None:
    """Warn, once for each scalar of validations, that it is in no record.

    Called each time that a training loop begins. Results may be logged while training goes on,
    so a scalar must have been left out on two occasions.

    Args:
        hub: The ``MessageHub``.
    """
    counts = _counts.setdefault(hub, {})
    for key, history in list(hub.log_scalars.items()):
        if not isinstance(history, HistoryBuffer) or not isinstance(key, str):
            continue
        mode, _, name = key.partition("/")
        if mode not in MODES[1:] or name.startswith(PROGRESS) or key in _unlogged:
            continue
        before, counts[key] = counts.get(key, 0), history.since(RESULTS)
        if 0 < before < counts[key] == history.since() and len(_unlogged) < MAX_SAID:
            _unlogged.add(key)
            DIAGNOSTICS.warn(
                f"unlogged {key}",
                f"{key!r} in the hub is not logged: call log_results({{}}, mode={mode!r}) after "
                "the loop, with the other results if there are any",
            )


def _mark(hub: Any, mode: str, *moments: str) -> None:
    for key, history in list(hub.log_scalars.items()):
        if isinstance(history, HistoryBuffer) and isinstance(key, str) and key.startswith(mode):
            for moment in moments:
                history.mark(moment)

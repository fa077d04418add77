"""What a validation or a test gives, put into a hub, and where the next one begins there."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.training.faults import MisuseError
from otel_dllogger.training.history_buffer import HistoryBuffer
from otel_dllogger.training.loop_state import MODES
from otel_dllogger.training.scope import LOOP, MOMENTS, PROGRESS, RESULTS, Scope

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


MAX_SAID = 100
"""Names that are warned of for one reason; a loop that makes up names is not said name by name."""

# Facts of a hub, before a mode: the token of the loop that is under way, which a checkpoint of
# its middle has as well; and the names of all results there were that are no numbers.
_UNDER_WAY = "under_way_"
_RESULTS_OF = "results_of_"

_counts: WeakKeyDictionary[Any, dict[str, int]] = WeakKeyDictionary()
_unlogged: set[str] = set()


def begin_loop(hub: Any, mode: str, token: str, others: Collection[str]) -> None:
    """Note that a loop of a mode begins: what a hub has by now, others have measured.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
        token: What tells this loop from any other, of other processes as well.
        others: The tokens of loops of this process that are not through.
    """
    before = hub.pop_info(_UNDER_WAY + mode)
    # A checkpoint of the middle of a loop, which is now begun anew: what it measured is void.
    is_resumed = before is not None and before not in others
    _mark(hub, mode, *(MOMENTS if is_resumed else (LOOP,)))
    hub.update_info(_UNDER_WAY + mode, token)


def end_loop(hub: Any, mode: str, token: str) -> bool:
    """Note that a loop of a mode is left, and tell whether no other has begun since.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
        token: That of the loop.
    """
    is_last: bool = hub.get_info(_UNDER_WAY + mode) == token
    if is_last:
        hub.pop_info(_UNDER_WAY + mode)
    return is_last


def keep(hub: Any, mode: str, results: Mapping[str, Any]) -> Scope:
    """Put results into a hub, numbers into histories and anything else as facts.

    Args:
        hub: The ``MessageHub``.
        mode: The mode that they are of.
        results: Values by their names in the hub.

    Returns:
        What of the hub is of them.
    """
    others = {*hub.get_info(_RESULTS_OF + mode, ())}
    numbers = set()
    for key, value in results.items():
        resumed = hub.is_resumed(key)
        try:
            hub.update_scalar(key, value, resumed=resumed)
        except MisuseError:  # not a single number: shown and logged, as MMEngine does
            is_number = False
        except Exception as error:  # of the value's own methods
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
    """Return a copy of a fact, so that it stays what it was; itself where there can be none."""
    try:
        return copy.deepcopy(value)
    except Exception as error:
        DIAGNOSTICS.caught(
            "backend_failed", f"{key!r} cannot be copied: a reference to it is kept", error
        )
        return value


def end(hub: Any, mode: str) -> None:
    """Note that the results of a mode are logged: what a hub has by now, no others have.

    Args:
        hub: The ``MessageHub``.
        mode: The mode.
    """
    _mark(hub, mode, *MOMENTS)


def warn_of_unlogged(hub: Any) -> None:
    """Say once of each scalar of validations that no record has had it.

    Args:
        hub: The ``MessageHub``, each time that training begins anew. Results may be logged
            while it goes on, so it takes two times.
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
                "the loop, with what else it gave",
            )


def _mark(hub: Any, mode: str, *moments: str) -> None:
    for key, history in list(hub.log_scalars.items()):
        if isinstance(history, HistoryBuffer) and isinstance(key, str) and key.startswith(mode):
            for moment in moments:
                history.mark(moment)

"""What the internal metrics, ``dllogger_*``, say of a rank.

They are the same in a log that was read here and on a page: both sources use this table.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from otel_dllogger.metrics.phases import PARTS_OF_A_STEP
from otel_dllogger.record import HANG
from otel_dllogger.view.hangs import Hang
from otel_dllogger.view.model import Counted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_dllogger.view.model import Rank

    _Note = Callable[[Rank, Mapping[str, str], float], None]

INFO = "dllogger_rank_info"
"""The metric that is to be noted first: the others are of the process that it names."""

BESIDE_A_LOG = frozenset(
    (
        INFO,
        "dllogger_run_finished",
        "dllogger_run_terminated",
        "dllogger_log_seconds_total",
        "dllogger_dropped_total",
        "dllogger_phase",
    )
)
"""What a page says of a rank whose log is read as well; the log has the rest, from its start."""

_MOST = 2.0**48  # of what is counted
_SAME_TIME_S = 0.001


def note(rank: Rank, name: str, labels: Mapping[str, str], value: float) -> None:
    """Note what one series says.

    Args:
        rank: The rank that it belongs to.
        name: Its name in Prometheus; any that is not known is ignored.
        labels: Its labels.
        value: Its value.
    """
    found = _NOTES.get(name)
    # Only a parameter can be NaN or infinite; on a page of something else anything can.
    if found is not None and (math.isfinite(value) or found is _parameter):
        found(rank, labels, value)


def _info(rank: Rank, labels: Mapping[str, str], _value: float) -> None:
    rank.attempt = _count(labels.get("attempt"), 1)
    if rank.pid and not labels.get("pid"):  # its page knows better than its log
        return
    rank.host = labels.get("host", "")
    rank.local_rank = labels.get("local_rank", "")
    rank.pid = labels.get("pid", "")
    rank.world_size = _count(labels.get("world_size"), 0)


def _started(rank: Rank, _labels: Mapping[str, str], value: float) -> None:
    if rank.start_s is None or abs(value - rank.start_s) > _SAME_TIME_S:
        rank.start(value, rank.attempt)


def _attribute(name: str) -> _Note:
    def note_it(rank: Rank, _labels: Mapping[str, str], value: float) -> None:
        setattr(rank, name, value)

    return note_it


def _flag(name: str) -> _Note:
    def note_it(rank: Rank, _labels: Mapping[str, str], value: float) -> None:
        setattr(rank, name, value == 1.0)

    return note_it


def _records(rank: Rank, labels: Mapping[str, str], value: float) -> None:
    if labels.get("type") == "log":
        rank.records = int(value)


def _nonfinite(rank: Rank, labels: Mapping[str, str], value: float) -> None:
    rank.nonfinite[_counted(labels, "kind")] = min(max(value, 0.0), _MOST)


def _best(rank: Rank, labels: Mapping[str, str], value: float) -> None:
    rank.best[_counted(labels, "goal")] = value


def _counted(labels: Mapping[str, str], of: str) -> Counted:
    return Counted(labels.get("metric", ""), labels.get("stage", ""), labels.get(of, ""))


def _parameter(rank: Rank, labels: Mapping[str, str], value: float) -> None:
    rank.parameters[labels.get("name", "")] = labels.get("value") or value


def _phase(rank: Rank, labels: Mapping[str, str], value: float) -> None:
    name = labels.get("phase", "")
    if value != 1.0:
        rank.phases.pop(name, None)
    elif name not in PARTS_OF_A_STEP:
        rank.phases.setdefault(name, rank.read_s or rank.last_log_s or 0.0)


def _event(rank: Rank, labels: Mapping[str, str], value: float) -> None:
    known = rank.hang
    # That of a log says more than the series.
    if labels.get("event") == HANG and (known is None or value - known.time_s > _SAME_TIME_S):
        rank.hang = Hang(value)


def _dropped(rank: Rank, labels: Mapping[str, str], value: float) -> None:
    rank.dropped[labels.get("reason", "")] = value


def _count(text: str | None, default: int) -> int:
    try:
        count = float(text or default)
    except ValueError:
        return default
    return int(count) if abs(count) <= _MOST else default


_NOTES: dict[str, _Note] = {
    INFO: _info,
    "dllogger_epoch": _attribute("epoch"),
    "dllogger_iteration": _attribute("iteration"),
    "dllogger_steps_total": _attribute("steps"),
    "dllogger_step_seconds_total": _attribute("step_s"),
    "dllogger_log_seconds_total": _attribute("log_s"),
    "dllogger_last_log_timestamp_seconds": _attribute("last_log_s"),
    "dllogger_run_start_timestamp_seconds": _started,
    "dllogger_run_finished": _flag("finished"),
    "dllogger_run_terminated": _flag("terminated"),
    "dllogger_records_total": _records,
    "dllogger_nonfinite_total": _nonfinite,
    "dllogger_best": _best,
    "dllogger_parameter": _parameter,
    "dllogger_dropped_total": _dropped,
    "dllogger_phase": _phase,
    "dllogger_last_event_timestamp_seconds": _event,
}

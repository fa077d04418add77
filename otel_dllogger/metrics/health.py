"""The words for what a run is doing, and for what is wrong with it: states and alerts.

``watch``, the live page, the report and ``check`` say them, and so do the alerts of
``prometheus/rules/alerts.yml``. Tests compare the thresholds and the texts below with those of the
rules.
"""

from __future__ import annotations

import math
import re
import statistics
from datetime import datetime, timezone
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

_Key = TypeVar("_Key")

STARTING = "starting"
TRAINING = "training"
QUIET = "quiet"
STALLED = "stalled"
VANISHED = "vanished"
TERMINATED = "terminated"
FINISHED = "finished"
UNFINISHED = "unfinished"

STATES = {
    STARTING: "has not logged a step yet",
    TRAINING: "logs",
    QUIET: "has logged nothing for more than ten times its usual interval",
    STALLED: "has logged nothing for so long that an alert fires",
    VANISHED: "no longer answers, and neither finished nor was told to end",
    TERMINATED: "was told to end by SIGTERM or SIGINT",
    FINISHED: "logged the summary of the run, or closed with exit code 0",
    UNFINISHED: "its log ends without a summary of the run, or its page was taken away",
}
"""What a rank or a run is doing, with what that means."""

OVER = (FINISHED, TERMINATED, UNFINISHED, VANISHED)
"""The states of a run of which nothing more is to come."""

URGENCY = (VANISHED, STALLED, QUIET, STARTING, TRAINING, UNFINISHED, TERMINATED, FINISHED)
"""The states in the order in which somebody has to look."""

STALLED_S = 300.0
STALLED_INTERVALS = 10.0
PHASE_S = 3600.0
STRAGGLER_STEP_RATIO = 0.25
STRAGGLER_DURATION_RATIO = 0.10
STRAGGLER_RANKS = 3
THROUGHPUT_RATIO = 0.7
SETTLED_S = 1200.0
SKEW_S = 60.0
SKEW_EPOCHS = 2.0
ALIVE_S = 60.0
CRASH_ATTEMPTS = 2.0
OVERHEAD_RATIO = 0.05
"""These are ``dllogger:threshold:*`` in the rules, where their meaning is explained."""

INTERRUPTING_PHASES = frozenset(("startup", "checkpoint", "validation", "restore", "compile"))
"""Phases in which the ranks of a run log nothing: those that are in one, and those that wait."""

QUIET_S = 5.0
"""Seconds that a rank may be silent before it is quiet, however often it logs otherwise."""

UNFINISHED_S = 3600.0
"""Seconds without a record after which nobody waits for a rank: it has not finished."""

CRITICAL = "critical"
WARNING = "warning"
INFO = "info"


class Alert(NamedTuple):
    """An alert.

    Attributes:
        severity: ``critical``, ``warning`` or ``info``.
        words: Its summary. ``{name}`` stands for a label, ``{value:form}`` for the value in a form
            of ``_FORMS``; what is in brackets is left out where the label in it is empty.
    """

    severity: str
    words: str


ALERTS = {
    "DLLoggerNonFiniteLoss": Alert(
        CRITICAL, "{metric} of run {run}, rank {rank} was NaN or Inf {value:times} in 5 minutes"
    ),
    "DLLoggerRankStalled": Alert(
        CRITICAL,
        "Rank {rank} of run {run}[ on {host}][ (local rank {local_rank})] has not logged for "
        "{value:duration}, while others go on",
    ),
    "DLLoggerRunStalled": Alert(
        CRITICAL, "Run {run} is stalled: no rank logs any more; {value} did before"
    ),
    "DLLoggerRankVanished": Alert(
        CRITICAL,
        "Rank {rank} of run {run}[ on {host}][ (local rank {local_rank})], started {value:time}, "
        "no longer answers at {instance}",
    ),
    "DLLoggerRunVanished": Alert(
        CRITICAL,
        "Run {run} is gone: no process of it answers, and {value} of its ranks did not finish",
    ),
    "DLLoggerCrashLoop": Alert(
        CRITICAL, "Run {run} is restarted again and again: {value} attempts in 30 minutes"
    ),
    "DLLoggerRunFinished": Alert(INFO, "Run {run} has finished, according to {value} of its ranks"),
    "DLLoggerRunTerminated": Alert(
        INFO, "Run {run} was told to end: {value} of its ranks got SIGTERM or SIGINT"
    ),
    "DLLoggerStraggler": Alert(
        WARNING,
        "Rank {rank} of run {run}[ on {host}][ (local rank {local_rank})] is slow: its "
        "{metric|step} is longer than the median of the ranks by {value:percentage} of a step",
    ),
    "DLLoggerThroughputDrop": Alert(
        WARNING, "Run {run} trains at {value:percentage} of its usual speed[, by {metric}]"
    ),
    "DLLoggerLossDiverging": Alert(
        WARNING,
        "{metric} of run {run} is at {value:si}, worse than at any time in the hour before",
    ),
    "DLLoggerIterationSkew": Alert(
        WARNING, "The ranks of run {run} are {value:rounded} {unit} apart"
    ),
    "DLLoggerRecordsDropped": Alert(
        WARNING, "Run {run} lost something ({reason}): {value:times} in 5 minutes"
    ),
    "DLLoggerLoggingOverhead": Alert(
        WARNING, "Run {run} spends {value:percentage} of its time in log()"
    ),
}
"""The alerts by name."""

_LATELY = " in 5 minutes"
_OPTIONAL = re.compile(r"\[([^\]]*?\{(\w+)\}[^\]]*)\]")
_FIELD = re.compile(r"\{(\w+)(?:([:|])(\w+))?\}")


def activity(age_s: float, life_s: float, records: int, *, is_interrupted: bool = False) -> str:
    """Return what a rank that has not ended does: ``TRAINING``, ``QUIET`` or ``STALLED``.

    Args:
        age_s: Seconds since it logged last.
        life_s: Seconds from the start of its process until then.
        records: How many records it logged.
        is_interrupted: Whether a rank of its run is in one of ``INTERRUPTING_PHASES``, which
            explains its silence for ``PHASE_S``.
    """
    if is_interrupted and age_s <= PHASE_S:
        return TRAINING
    usual_s = life_s / max(records, 1)
    # As rank:dllogger_log_interval_seconds:max, which is longer for a rank that logged little.
    interval_s = usual_s + STALLED_S / max(records, 1)
    if age_s > max(STALLED_INTERVALS * interval_s, STALLED_S):
        return STALLED
    if age_s > max(STALLED_INTERVALS * usual_s, QUIET_S):
        return QUIET
    return TRAINING


def excesses(step_s: Mapping[_Key, float]) -> dict[_Key, float]:
    """Return by how much longer each rank's step takes than the median, as a share of that.

    Args:
        step_s: Seconds of a step, by rank.
    """
    median_s = statistics.median(step_s.values()) if step_s else 0.0
    return {key: each_s / median_s - 1 for key, each_s in step_s.items()} if median_s > 0 else {}


def is_straggler(excess: float, ranks: int) -> bool:
    """Return whether an alert calls a rank a straggler, by the time of its steps.

    Args:
        excess: By how much longer its step takes than the median.
        ranks: How many ranks there are to compare.
    """
    return ranks >= STRAGGLER_RANKS and excess > STRAGGLER_STEP_RATIO


def alert_words(
    name: str, labels: Mapping[str, str], value: float, *, is_past: bool = False
) -> str:
    """Return the summary of an alert, as Prometheus sends it.

    Args:
        name: The alert.
        labels: The labels that it has.
        value: Its value.
        is_past: Whether the value is of a whole run that is over, instead of the last minutes.
    """
    template = ALERTS[name].words
    if is_past:
        template = template.removesuffix(_LATELY)

    def fill(found: re.Match[str]) -> str:
        field, mark, form = found.groups()
        if field == "value":
            return _FORMS[form](value)
        return labels.get(field, "") or (form if mark == "|" else "")

    def keep(found: re.Match[str]) -> str:
        return found[1] if labels.get(found[2]) else ""

    # Filled in one pass: a label may itself look like a field.
    return _FIELD.sub(fill, _OPTIONAL.sub(keep, template))


def format_duration(seconds: float) -> str:
    """Return a duration as ``humanizeDuration`` of Prometheus does: ``1h 2m 3s``."""
    if not math.isfinite(seconds):
        return str(seconds)
    sign, seconds = ("-" if seconds < 0 else ""), abs(seconds)
    if seconds < 1:
        return sign + _with_prefix(seconds, "s") if seconds else "0s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{sign}{days}d {hour}h {minute}m {second}s"
    if hours:
        return f"{sign}{hour}h {minute}m {second}s"
    if minutes:
        return f"{sign}{minute}m {second}s"
    return f"{sign}{seconds:.4g}s"


def _with_prefix(number: float, unit: str = "") -> str:
    """Return a number with an SI prefix, as ``humanize`` of Prometheus does."""
    if number == 0 or not math.isfinite(number):
        return f"{number:.4g}{unit}"
    up, down = ("", "k", "M", "G", "T", "P", "E", "Z", "Y"), ("m", "u", "n", "p", "f", "a")
    if abs(number) >= 1:
        power = next((n for n in range(len(up)) if abs(number) < 1000 ** (n + 1)), len(up) - 1)
        return f"{number / 1000**power:.4g}{up[power]}{unit}"
    power = next((n for n in range(len(down)) if abs(number) * 1000 ** (n + 1) >= 1), 5)
    return f"{number * 1000 ** (power + 1):.4g}{down[power]}{unit}"


def _times(value: float) -> str:
    return "once" if value == 1.0 else f"{value:.0f} times"


def _time(value: float) -> str:
    moment = datetime.fromtimestamp(value, timezone.utc)
    return f"{moment:%Y-%m-%d %H:%M:%S} +0000 UTC"


_FORMS = {
    None: lambda value: f"{value:g}",
    "duration": format_duration,
    "percentage": lambda value: f"{value * 100:.4g}%",
    "si": _with_prefix,
    "rounded": lambda value: f"{value:.0f}",
    "times": _times,
    "time": _time,
}

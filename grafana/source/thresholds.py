"""The thresholds of the alerts, for the colours of the panels: both change together."""

from __future__ import annotations

import re
from pathlib import Path

_RULES = Path(__file__).parents[2] / "prometheus" / "rules" / "alerts.yml"
_THRESHOLD = re.compile(r"- record: dllogger:threshold:(\w+)\n +expr: vector\((\S+)\)\n")
_VALUES = {name: float(value) for name, value in _THRESHOLD.findall(_RULES.read_text())}

STALLED_S = _VALUES["stalled_seconds"]
"""A rank that has not logged for so many seconds is stalled."""

SLOW_RATIO = _VALUES["straggler_duration_ratio"]
"""So much of a step's time is a rank's part of it longer, if the rank is a straggler."""

SLOW_STEP_RATIO = _VALUES["straggler_step_ratio"]
"""So much longer is the step of a straggler."""

DROP_RATIO = _VALUES["throughput_ratio"]
"""A throughput below this share of the usual is a drop."""

SKEW_S = _VALUES["skew_seconds"]
"""Ranks that are so many seconds of training apart are not in step."""

ATTEMPTS = _VALUES["crash_attempts"]
"""A run with more attempts than this in half an hour keeps crashing."""

OVERHEAD_RATIO = _VALUES["overhead_ratio"]
"""The share of its time that training may spend in ``log()``."""

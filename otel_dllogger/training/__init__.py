"""MMEngine's logging without MMEngine: smoothed statistics, selected by configuration.

``HistoryBuffer``, ``MessageHub``, ``LogProcessor`` and ``MMLogger`` behave like their namesakes
in MMEngine. ``MessageHub.log_to`` and ``track`` send the results to a Logger, so that a smoothed
statistic is a metric like any other.
"""

from __future__ import annotations

from otel_dllogger.errors import installing

try:
    import numpy  # noqa: F401, ICN001 - the only dependency
except ImportError as error:
    raise ImportError(f"otel_dllogger.training needs numpy: {installing('training')}") from error

from otel_dllogger.errors import MisuseError
from otel_dllogger.training.history_buffer import HistoryBuffer
from otel_dllogger.training.log_processor import LogProcessor
from otel_dllogger.training.loop_state import LoopState
from otel_dllogger.training.message_hub import MessageHub
from otel_dllogger.training.rank_logger import MMLogger, print_log
from otel_dllogger.training.records import mmengine_line
from otel_dllogger.training.track import log_results, track

__all__ = [
    "HistoryBuffer",
    "LogProcessor",
    "LoopState",
    "MMLogger",
    "MessageHub",
    "MisuseError",
    "log_results",
    "mmengine_line",
    "print_log",
    "track",
]

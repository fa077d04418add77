"""Counters and warnings for what the package could not do.

Every fault is counted, warned about at a limited rate, and never raised. Logging must not make
training fail, so a fault becomes a number (``dllogger_dropped_total{reason}``) and at most one
warning line per reason and minute on the standard ``otel_dllogger`` logger.

A thread of the package writes that line. A handler of ``logging`` is foreign code: it may be
slow, call the package, or wait for a lock that another thread of the training script holds.
When it runs on the package's thread, none of the package's locks is held, and training does
not wait.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.errors import one_line
from otel_dllogger.runtime import fork
from otel_dllogger.runtime.interruptions import let_through
from otel_dllogger.runtime.locks import LockTimeout, locked
from otel_dllogger.runtime.wakers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WARNING_INTERVAL_S = 60.0
"""Seconds between two warnings about the same reason."""

MAX_UNWRITTEN = 100
"""The largest number of warnings that wait to be written."""

MAX_REASONS = 1_000
"""The largest number of reasons whose last warning is remembered."""

DRAIN_S = 2.0
"""Seconds that a process waits at exit for warnings to be written."""

RAISE_VARIABLE = "OTEL_DLLOGGER_RAISE"
"""The variable that, set to 1, turns caught faults back into exceptions; for tests only."""

PROCESS, OTLP, LINE, FILE = "process", "otlp", "line", "file"
"""Where a reason is counted.

``DIAGNOSTICS`` counts the first two, the OTLP reasons only where there is an ``OTLPBackend``. For
a log that is being read, ``FileContext`` counts what its lines contain other than records, and
``FileAnomalies`` counts what is unusual about the file.
"""

# Reasons of lines.
BLANK = "blank"
NOT_A_RECORD = "not_a_record"
NOISE = "noise"
TORN = "torn"
MALFORMED = "malformed"
MISSING_FIELDS = "missing_fields"
UNKNOWN_TYPE = "unknown_type"
UNREADABLE_DATA = "unreadable_data"
UNCLEAR_NAME = "unclear_name"
NO_TIME = "no_time"
NUL_BYTES = "nul_bytes"
INVALID_UTF8 = "invalid_utf8"
LINE_TOO_LONG = "line_too_long"  # also a reason of files
NESTED_TOO_DEEP = "nested_too_deep"
NUMBER_TOO_LONG = "number_too_long"

# Reasons of files.
TRUNCATED = "truncated"
REWRITTEN = "rewritten"
INODE_REUSED = "inode_reused"
REPEATED = "repeated"
NUL_FILLED = "nul_filled"
PARTIAL_LINE_LOST = "partial_line_lost"
UNREAD_LOST = "unread_lost"
PERMISSION_DENIED = "permission_denied"
UNREADABLE = "unreadable"
NOT_REGULAR = "not_regular"
LINK_OUTSIDE = "link_outside"
LINK_BROKEN = "link_broken"
HARD_LINK = "hard_link"
PATH_MISSING = "path_missing"
FILE_LIMIT = "file_limit"
DESCRIPTOR_LIMIT = "descriptor_limit"
CHECKPOINT_CORRUPT = "checkpoint_corrupt"
CHECKPOINT_FOREIGN = "checkpoint_foreign"
CHECKPOINT_VERSION = "checkpoint_version"
CHECKPOINT_UNREADABLE = "checkpoint_unreadable"
CHECKPOINT_ENTRY = "checkpoint_entry"
CHECKPOINT_FAILED = "checkpoint_failed"


class Reason(NamedTuple):
    """What a value of the label ``reason`` means.

    Attributes:
        words: What it counts, in words.
        unit: What is counted: ``lines``, ``values``, or ``events``.
        is_harmless: Whether nothing is lost.
    """

    words: str
    unit: str = "events"
    is_harmless: bool = False


REASONS = {
    PROCESS: {
        "backend_failed": Reason("a backend or a user's function raised"),
        "discovery": Reason("a discovery file could not be written"),
        "disk_full": Reason("lines that could not be written to a full or broken disk", "lines"),
        "endpoint": Reason("the metrics page could not be opened"),
        "file_replaced": Reason(
            "lines lost with a log file that was deleted while it was open", "lines"
        ),
        "format_failed": Reason(
            "a format function or format string raised; the plain value was printed",
            is_harmless=True,
        ),
        "instrument": Reason("OpenTelemetry refused an instrument"),
        "scrape": Reason("a metrics page could not be rendered"),
        "series_limit": Reason("values of series beyond the limit", "values"),
        "statistic_failed": Reason(
            "a statistic of smoothed scalars could not be computed", "values"
        ),
        "stdout": Reason("lines that could not be written to the standard output", "lines"),
        "torn_line": Reason(
            "a log file ended in the middle of a line, after an earlier kill", is_harmless=True
        ),
    },
    OTLP: {
        "otlp_queue": Reason(
            "values or log records that were dropped, the oldest first, while no collector "
            "accepted them",
            "values",
        ),
        "otlp_refused": Reason("values or log records that a collector refused", "values"),
        "otlp_exit": Reason(
            "values or log records that no collector had accepted when the process ended", "values"
        ),
    },
    LINE: {
        BLANK: Reason("lines with nothing but white space", "lines", is_harmless=True),
        NOT_A_RECORD: Reason("lines from other programs", "lines", is_harmless=True),
        NOISE: Reason(
            "text from other programs on the line of a record", "lines", is_harmless=True
        ),
        TORN: Reason("a record is cut off", "lines"),
        MALFORMED: Reason("a record is not a valid JSON object, or an event is damaged", "lines"),
        MISSING_FIELDS: Reason("a record lacks a field that its type must have", "lines"),
        UNKNOWN_TYPE: Reason("a record's type is not LOG, METADATA, INFO, PHASE or EVENT", "lines"),
        UNREADABLE_DATA: Reason(
            "the data are not a dict in the form that TCAP DLLogger writes, or the seconds of a "
            "phase are not a duration",
            "lines",
        ),
        UNCLEAR_NAME: Reason(
            "a metric's name cannot be told from the text around it: its value is left out", "lines"
        ),
        NO_TIME: Reason("a record has no time", "lines"),
        NUL_BYTES: Reason("NUL bytes, as a power failure leaves them behind", "lines"),
        INVALID_UTF8: Reason("bytes that are not valid UTF-8", "lines"),
        LINE_TOO_LONG: Reason("a line of more than 1,048,576 bytes", "lines"),
        NESTED_TOO_DEEP: Reason("a record with more than 100 levels of nesting", "lines"),
        NUMBER_TOO_LONG: Reason("a number with more than 4,300 digits", "lines"),
    },
    FILE: {
        TRUNCATED: Reason(
            "a file became shorter than what was read of it: it is read again from its start"
        ),
        REWRITTEN: Reason(
            "a file has other bytes where lines were read: it is read again from its start"
        ),
        INODE_REUSED: Reason(
            "a new file has the inode of one that is gone: it is read from its start"
        ),
        REPEATED: Reason(
            "files with lines that were counted before, such as an older copy of a log"
        ),
        LINE_TOO_LONG: Reason("lines longer than the limit, skipped"),
        NUL_FILLED: Reason("runs of NUL bytes before a line, skipped"),
        PARTIAL_LINE_LOST: Reason("files that disappeared with half a line at their end"),
        UNREAD_LOST: Reason("files that were deleted before they were read to the end"),
        PERMISSION_DENIED: Reason("files or folders without permission to read them"),
        UNREADABLE: Reason("files or folders that cannot be read, for another reason"),
        NOT_REGULAR: Reason("pipes, sockets and devices where a file was expected"),
        LINK_OUTSIDE: Reason("symbolic links that leave the watched folder: not followed"),
        LINK_BROKEN: Reason("symbolic links whose target does not exist"),
        HARD_LINK: Reason("hard links to a file that is already followed under another name"),
        PATH_MISSING: Reason("paths that were given and do not exist"),
        FILE_LIMIT: Reason("files beyond the limit on their number: not followed"),
        DESCRIPTOR_LIMIT: Reason(
            "files not opened because of the process's limit on file descriptors"
        ),
        CHECKPOINT_CORRUPT: Reason(
            "checkpoints that are not JSON, or empty: files are read from the start"
        ),
        CHECKPOINT_FOREIGN: Reason(
            "checkpoints that something else wrote: files are read from the start"
        ),
        CHECKPOINT_VERSION: Reason("checkpoints of another version: files are read from the start"),
        CHECKPOINT_UNREADABLE: Reason(
            "checkpoints that could not be read: files are read from the start"
        ),
        CHECKPOINT_ENTRY: Reason(
            "entries of a checkpoint that are invalid or do not fit: left out"
        ),
        CHECKPOINT_FAILED: Reason("checkpoints that could not be written"),
    },
}
"""All values of the label ``reason``, by where they are counted.

Each counter starts at 0, so that rates work. Counters, ``otel-dllogger check``, documentation
and alerts take them from this table, or a test compares them with it.
"""

HARMLESS = frozenset(name for name, reason in REASONS[LINE].items() if reason.is_harmless)
"""What lines may contain other than records without anything being lost."""

HARMLESS_DROPS = frozenset(
    name
    for group in (LINE, OTLP, PROCESS)
    for name, reason in REASONS[group].items()
    if reason.is_harmless and name not in HARMLESS
)
"""Values of ``reason`` in ``dllogger_dropped_total`` for which nothing is lost."""

DAMAGE = tuple(name for name in REASONS[LINE] if name not in HARMLESS)
"""The reasons why a line that should have yielded a record did not."""


class Diagnostics:
    """The counters of what was not written or not exported, with rate-limited warnings.

    Any thread and any signal handler may call any method at any time: no method waits for a
    lock, and only ``drain`` waits at all.

    Args:
        clock: Monotonic seconds, for the rate of warnings.

    Attributes:
        dropped: What was lost, by reason.
        uncounted: What is to be added to it. No signal handler can come between ``+=`` and the
            assignment before it, as it can at a call.
        log_ns: Nanoseconds spent in ``log``, over all Loggers. If two threads add at the same
            moment, one addition may be lost: a lock would cost more than the time being counted.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._silent = False
        self._warned_at: dict[str, float] = {}
        self.uncounted: deque[tuple[str, int]] = deque()
        self._counting = threading.RLock()
        self._is_counting = False
        self._unwritten: deque[str] = deque()
        self._captured: list[tuple[str, str]] | None = None
        self._writer = Worker("otel-dllogger-warnings", self._write)
        self.log_ns = 0
        self.dropped = dict.fromkeys(REASONS[PROCESS], 0)
        fork.register(self)

    def after_fork_in_child(self) -> None:
        """Stop warning: what a forked child loses does not belong to the training run."""
        self._silent = True
        self._counting = threading.RLock()
        self._is_counting = False
        self._unwritten.clear()

    def count_from_zero(self, where: str) -> None:
        """Show at 0 the reasons of a part, such as ``OTLP``, that is in use from now on."""
        for reason in REASONS[where]:
            self.dropped.setdefault(reason, 0)

    def count(self, reason: str, message: str, *, count: int = 1) -> None:
        """Count a loss and warn about it, at most once a minute per reason.

        Args:
            reason: One of ``REASONS``.
            message: One line for the user: the value, the rule, the next step.
            count: How many records, values or series were lost.
        """
        self.uncounted += [(reason, count)]
        try:
            self.add_up()
        finally:
            if self.uncounted:  # a signal handler raised
                self.add_up()
        self._warn(reason, message, f' (counted in dllogger_dropped_total{{reason="{reason}"}})')

    def add_up(self) -> None:
        """Add what is in ``uncounted`` to ``dropped``."""
        try:  # noqa: SIM105 - at the call of anything else, a signal handler may raise
            locked(self._counting, self._add_up)
        except LockTimeout:  # it is counted together with the next
            pass

    def _add_up(self) -> None:
        if not self._is_counting:  # else a signal handler interrupts an addition
            self._is_counting = True
            try:
                while self.uncounted:
                    name, more = self.uncounted[0]
                    self.dropped[name] = self.dropped.get(name, 0) + more
                    self.uncounted.popleft()
            finally:
                self._is_counting = False

    def warn(self, reason: str, message: str) -> None:
        """Warn without counting, at most once a minute per reason."""
        self._warn(reason, message)

    def _warn(self, reason: str, message: str, more: str = "") -> None:
        now_s = self._clock()
        warned_at = self._warned_at.get(reason)
        if self._silent or (warned_at is not None and now_s - warned_at < WARNING_INTERVAL_S):
            return
        if len(self._warned_at) >= MAX_REASONS:  # some reasons contain a name
            self._warned_at.clear()
        self._warned_at[reason] = now_s
        if self._captured is not None:
            self._captured.append((reason, message))
            return
        if len(self._unwritten) < MAX_UNWRITTEN:
            self._unwritten.append(message + more)
        self._writer.ask()

    @contextlib.contextmanager
    def captured(self) -> Iterator[list[tuple[str, str]]]:
        """Collect warnings as pairs of reason and message instead of writing them."""
        captured: list[tuple[str, str]] = []
        self._captured = captured
        try:
            yield captured
        finally:
            self._captured = None

    def caught(self, reason: str, where: str, error: Exception) -> None:
        """Account for an exception that stopped at the fault barrier.

        Args:
            reason: The value of the ``reason`` label.
            where: What the package was doing, for the warning.
            error: What was raised.

        Raises:
            Exception: ``error`` itself, if a signal handler of the application raised it,
                or if ``OTEL_DLLOGGER_RAISE=1``.
        """
        let_through(error)
        if os.environ.get(RAISE_VARIABLE) == "1":
            raise error
        self.count(
            reason, f"{where}: {type(error).__name__}: {one_line(error, most=300, redacted=True)}"
        )

    def drain(self, most_s: float = DRAIN_S) -> None:
        """Wait until the warnings so far are written, for example when a process exits.

        Args:
            most_s: The longest time to wait for a slow handler, in seconds.
        """
        if not self._unwritten or self._silent:
            return
        if self._writer.ask():
            self._writer.run(most_s)
        else:
            self._write()

    def _write(self) -> None:
        import logging  # noqa: PLC0415 - 10 ms that most runs never need

        logger = logging.getLogger("otel_dllogger")
        while self._unwritten:
            message = self._unwritten[0]
            with contextlib.suppress(Exception):  # a broken handler is not training's problem
                # Where logging is not configured, a line does not show where it comes from.
                logger.warning(
                    "%s", message if logger.hasHandlers() else f"otel_dllogger: {message}"
                )
            with contextlib.suppress(IndexError):
                self._unwritten.popleft()


DIAGNOSTICS = Diagnostics()
"""The fault counters of this process: every backend counts here, and the metrics show them."""

# Registered before any backend's handler, so it runs after all of them: they may still warn.
atexit.register(DIAGNOSTICS.drain)

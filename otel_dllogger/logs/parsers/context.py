"""The state of a file while it is parsed, the parsers' limits, and their exception."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, Any

from otel_dllogger.logs.parsers.times import find_year, parse_datetime, parse_zone
from otel_dllogger.values import to_number

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_LINE_BYTES = 2**20
"""The longest line that is read; its record can take up to a hundred times as much memory."""

MAX_NESTING = 100
"""Nesting levels of a record; this package writes up to ``values.MAX_DEPTH`` and a few more."""

MAX_DIGITS = 4_300
"""Digits of a number: Python's default limit, since reading it takes quadratic time."""


class SkippedError(ValueError):
    """Something cannot be read; raised and caught within this package only.

    Args:
        reason: One of the reasons for lines in ``diagnostics``.
        detail: What it was, for people, if the reason alone leaves a question.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


_MAX_ROW_US = 7 * 24 * 3600 * 10**6
_APART_US = 1_000  # databases keep milliseconds
_MAX_RANKS = 10_000
_NO_DURATIONS = (
    "rows have neither times nor durations: their times are made up from their places in the file, "
    "so distances between them mean nothing"
)
MAX_UNITS = 10_000
"""Metrics of a file whose units are remembered."""


@dataclasses.dataclass(slots=True)
class FileContext:
    """What is known of one file while it is read, line by line.

    All fields are plain: ``dataclasses.asdict`` returns what a checkpoint keeps, as JSON,
    and ``FileContext(**state)`` continues from there.

    Attributes:
        rank: The rank of records of the current line that do not name theirs.
        ranks_by: How each rank was found in lines, in words, as in "the tag [1,3]<stdout>:".
        guesses: What had to be guessed, in words, by what it is about.
        zone: The zone of times without an offset: a name of the IANA database, an
            offset such as ``+08:00``, or None for the machine's own.
        modified_us: When the file was last changed, microseconds since the Unix epoch; None for
            now. No record is newer. It determines years and the end of interpolated times.
        name: The last two names of its path, which say what its rows are.
        run_start_us: When the run started, for lines without times or elapsed times.
        size_bytes: The file's length, for formats without times.
        offset_bytes: Bytes read so far; a caller that leaves out lines adds their bytes.
        first_us: When elapsed time begins, for lines that do not have it.
        last_us: The time of the last record.
        epoch: The epoch of the last training row of MMEngine, None if it has none.
        iteration: The iteration of the last training row of MMEngine.
        encoding: How the file's text is encoded, "" for UTF-8.
        is_events: Whether it is an event file of TensorBoard, whose frames stand for lines.
        cut: The beginning of a line that a container's log cut.
        is_untimed: Whether no line of a console had a time so far.
        outer_us: The time that a container's log gives the line, None if there is none.
        columns: The names of a CSV file's columns, empty as long as it is not one.
        delimiter: What stands between its columns.
        document: The beginning of a row of a JSON document, None outside of its rows.
        open_row: Step, stage and time of a row of MMEngine whose line broke off, until it ends.
        rows: Rows of CSV so far.
        old_columns: The columns of the file before it was written anew, empty if it was not.
        old_rows: How many rows it had then.
        timed_iteration: The iteration of the last row that said how long its iterations took.
        stride: Iterations between the last two such rows.
        ran_us: How long the run had lasted at the last row, for rows that say that.
        total_us: How long the run lasted in all, as its summary says; None if there is none.
        iteration_us: How long an iteration took, for rows that do not say it; None if not known.
        has_durations: Whether any row said how long it took.
        anchor_us: The time from which interpolated times continue, once the file has grown.
        anchor_bytes: The offset that belongs to ``anchor_us``.
        units: The unit of each metric, as a text line last showed it.
        entries: How many entries the lines gave so far, by format; ``""`` for INFO lines, which
            this package and TCAP DLLogger write alike.
        skipped: How often something gave no entry, by reason (``REASONS[LINE]``).
        skips: The sum of ``skipped``; compare it before and after a line to know about that line.
        glued: Lines with more than one record, whole or damaged: several writers shared the file.
        detail: What the last reason leaves open, in words: the type, or the missing field.

    Raises:
        ConfigurationError: If there is no such zone.
    """

    rank: int = 0
    ranks_by: dict[int, str] = dataclasses.field(default_factory=dict)
    guesses: dict[str, str] = dataclasses.field(default_factory=dict)
    zone: str | None = None
    modified_us: int | None = None
    name: str = ""
    run_start_us: int | None = None
    size_bytes: int = 0
    offset_bytes: int = 0
    first_us: int | None = None
    last_us: int | None = None
    epoch: int | None = None
    iteration: int | None = None
    encoding: str = ""
    is_events: bool = False
    cut: str = ""
    is_untimed: bool = False
    outer_us: int | None = None
    columns: list[str] = dataclasses.field(default_factory=list)
    delimiter: str = ","
    document: str | None = None
    open_row: list[Any] | None = None
    rows: int = 0
    old_columns: list[str] = dataclasses.field(default_factory=list)
    old_rows: int = 0
    timed_iteration: float | None = None
    stride: float = 0
    ran_us: int = 0
    total_us: int | None = None
    iteration_us: float | None = None
    has_durations: bool = False
    anchor_us: int | None = None
    anchor_bytes: int = 0
    units: dict[str, str] = dataclasses.field(default_factory=dict)
    entries: dict[str, int] = dataclasses.field(default_factory=dict)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    skips: int = 0
    glued: int = 0
    detail: str = ""

    def __post_init__(self) -> None:
        # JSON has no numbers as keys.
        self.ranks_by = {int(rank): words for rank, words in self.ranks_by.items()}
        parse_zone(self.zone)

    def observe(self, *, size_bytes: int, modified_us: int) -> None:
        """Note the file's state before what was added to it is read.

        Rows without times that are read from now on get times between that of the last row and
        this change of the file.

        Args:
            size_bytes: The file's length now.
            modified_us: When it was last changed, microseconds since the Unix epoch.
        """
        was_read = 0 < self.size_bytes <= self.offset_bytes
        if was_read and size_bytes > self.size_bytes and self.last_us is not None:
            self.anchor_bytes = self.offset_bytes
            self.anchor_us = self.last_us
        self.size_bytes = size_bytes
        self.modified_us = modified_us

    def follow(self, before: FileContext) -> None:
        """Note what the file held before it was written anew.

        When Lightning learns of another column, it writes the whole file again. What the earlier
        file had is still counted then, unlike the rows of a process that begins the file again.

        Args:
            before: What was known of the file, read as far as it was.
        """
        continues = not before.columns or {*before.columns} > {*before.old_columns}
        self.old_columns = before.columns or before.old_columns
        self.old_rows = max(before.rows, before.old_rows if continues else 0)

    @property
    def is_read_again(self) -> bool:
        """Return whether the last row of CSV was read before the file was written anew."""
        return self.rows <= self.old_rows and {*self.columns} > {*self.old_columns}

    def skip(self, reason: str, detail: str = "") -> None:
        """Count something that gave no record."""
        self.detail = detail
        self.skipped[reason] = self.skipped.get(reason, 0) + 1
        self.skips += 1

    def count(self, log_format: str) -> None:
        """Count an entry."""
        self.entries[log_format] = self.entries.get(log_format, 0) + 1

    def read_datetime(self, text: str) -> int | None:
        """Read a time with a year, as ``times.parse_datetime`` does."""
        return parse_datetime(text, zone=self.zone, last_us=self.last_us)

    def find_year(self, month: int, day: int, clock: Sequence[int]) -> int | None:
        """Read a time without a year, hours, minutes and seconds, as ``times.find_year`` does."""
        hour, minute, second = clock
        return find_year(
            month,
            day,
            (hour, minute, second),
            zone=self.zone,
            reference_us=self.modified_us,
            last_us=self.last_us,
            start_us=self.run_start_us,
        )

    def note_rank(self, rank: int, words: str) -> None:
        """Note the rank of the current line's records, and how it was found, in words."""
        self.rank = rank
        if len(self.ranks_by) < _MAX_RANKS:
            self.ranks_by.setdefault(rank, words)

    def elapsed_us(self, time_us: int) -> int:
        """Return the time since the run's start, for lines that do not say it.

        If the start is not known, it is that of the file's first record. A record from before the
        start begins another run, at 0.
        """
        self.last_us = time_us
        if self.first_us is None and self.run_start_us is not None:
            self.first_us = self.run_start_us
        if self.first_us is None or time_us < self.first_us:
            self.first_us = time_us
        return time_us - self.first_us

    def took_us(self, seconds: Any, iteration: Any) -> int | None:
        """Return how long the iterations since the row before took.

        If the iteration goes back, in a new epoch or after a restart, the last distance counts,
        unless so many iterations were not done yet.

        Args:
            seconds: The mean duration of one, as the row has it.
            iteration: The row's iteration.

        Returns:
            Microseconds, None if that cannot be.
        """
        before = self.timed_iteration
        try:
            if before is None:
                stride = iteration
            else:
                stride = iteration - before if iteration > before else min(iteration, self.stride)
            if type(seconds) is str:
                seconds = to_number(seconds)
            took_us: int = round(stride * seconds * 1e6)
        except (TypeError, ValueError, OverflowError):
            return None
        self.timed_iteration, self.stride = iteration, stride
        return took_us if 0 <= took_us < _MAX_ROW_US else None

    def took_since_us(self, seconds: Any) -> int | None:
        """Return how long a row took by the duration of the run so far; a new start begins at 0.

        Args:
            seconds: How long the run has lasted, as the row has it.

        Returns:
            Microseconds, None if that cannot be.
        """
        try:
            ran_us: int = round(seconds * 1e6)
        except (TypeError, ValueError, OverflowError):
            return None
        took_us = ran_us - self.ran_us if ran_us >= self.ran_us else ran_us
        if not 0 <= took_us < _MAX_ROW_US:
            return None
        self.ran_us = ran_us
        return took_us

    def row_us(self, took_us: int | None = None) -> int:
        """Return the time of the row that ends at ``offset_bytes``, for files without times.

        Rows that were there when the file was found follow each other from the run's start, each
        by the time that its steps took. Where the start is not known, the rows end at the change of
        the file, and are kept apart by a millisecond a byte, so that none is taken for another;
        where only durations are not known, by a millisecond. Rows that are appended while the
        file is followed lie between the row before and the change of the file that brought them.

        The file's change is only a bound: git, unzip and cp change it as well.

        Args:
            took_us: How long the row's steps took, microseconds; None if it does not say.
        """
        until_us = time.time_ns() // 1000 if self.modified_us is None else self.modified_us
        if self.anchor_us is not None:
            length = self.size_bytes - self.anchor_bytes
            passed = self.offset_bytes - self.anchor_bytes
            if not 0 <= passed < length:
                return max(until_us, self.anchor_us)
            return self.anchor_us + max(until_us - self.anchor_us, 0) * passed // length
        left = max(self.size_bytes - self.offset_bytes, 0)
        if took_us is not None:
            self.has_durations = True
            self.guesses.pop("times", None)
        elif not self.has_durations and left:
            self.guesses["times"] = _NO_DURATIONS
        if self.run_start_us is None or self.run_start_us > until_us:
            return max(until_us - left * _APART_US, self.after_last_us())
        before = self.run_start_us if self.last_us is None else self.last_us
        if took_us is None:
            took_us = _APART_US
        return max(min(before + took_us, until_us), self.after_last_us())

    def after_last_us(self) -> int:
        """Return a time that databases keep apart from that of the record before."""
        return 0 if self.last_us is None else self.last_us + _APART_US

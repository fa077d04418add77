"""Find what makes a log's records doubtful, for ``check``, ``bridge`` and ``backfill`` alike."""

from __future__ import annotations

import dataclasses
import re
import time
from typing import TYPE_CHECKING

from otel_dllogger.diagnostics import DAMAGE, LINE, REASONS
from otel_dllogger.errors import count_of
from otel_dllogger.logs.parsers.event_names import path_stage
from otel_dllogger.logs.parsers.formats import REPEATING, FileRecord
from otel_dllogger.logs.parsers.other_tools import name_tool
from otel_dllogger.logs.rank_trace import RankTrace
from otel_dllogger.logs.reader import SEPARATOR, ProcessStart
from otel_dllogger.record import EPOCH, ITERATION, RUN, VALIDATION, Info

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from otel_dllogger.logs.ranks import LoggedRank
    from otel_dllogger.logs.reader import FileReader, RankEntry

_MAX_TRACES = 1_000
_MAX_MARKS = 128
_MAX_SAID = 20
_MAX_NONFINITE = 1_000
_SHARED_MARKS = 3  # records with the same microsecond and step: two ranks do not have three of them
_MAX_NAME = 60
_MAX_STEP = 40
_MAX_NAMES = 8
_HEAD_BYTES = 64
_FEW_REPEATED = 2
_FEW_STARTS = 2
_LONGER = 2.0
_ROUNDING_S = 5.0  # MMEngine's times are whole seconds
_EARLIEST_US = 1_262_304_000_000_000  # 2010
_AHEAD_US = 300_000_000
_NO_LETTER = re.compile(r"[\d\W_]+")
_ATTEMPT = re.compile(r"/(?:attempt_\d+|checkpoint-\d+)(?=/|$)")
_DIGITS = re.compile(r"\d[\d.,]*")


@dataclasses.dataclass(slots=True)
class Findings:
    """What was found in a log.

    Attributes:
        notes: What was decided, and why.
        warnings: What may or may not be as it should be.
        wrong: Why there is nothing to export.
    """

    notes: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    wrong: list[str] = dataclasses.field(default_factory=list)

    def all(self) -> list[str]:
        """Return everything, what is wrong first."""
        return [*self.wrong, *self.warnings, *self.notes]


class LogFindings:
    """What the records of one file show, gathered line by line in memory that does not grow.

    Call ``look`` for each line that holds nothing, and ``take`` for each item once its rank has
    taken it.

    Args:
        reader: Reads the file.
    """

    def __init__(self, reader: FileReader) -> None:
        self._reader = reader
        self._traces: dict[int, RankTrace] = {}
        self._ranks: dict[tuple[str, int], LoggedRank] = {}
        self._tools: dict[str, int] = {}
        self._marks: set[int] = set()
        self._nonfinite: dict[str, tuple[int, str]] = {}  # how often, and the first step
        self._is_continued = reader.context.offset_bytes > 0  # what was read before is not known
        self._infos = 0
        self._head = b""
        self._has_metric = False
        self._first_us = self._last_us = -1

    def look(self, line: bytes) -> None:
        """Look at a line for which the reader returned nothing."""
        tool = name_tool(line)
        if tool is not None:
            self._tools[tool] = self._tools.get(tool, 0) + 1
        if not self._head:
            self._head = line.strip()[:_HEAD_BYTES]

    def take(self, rank: LoggedRank, item: RankEntry) -> None:
        """Look at an item that a rank has taken."""
        if type(item) is FileRecord:
            if item.log_format in REPEATING and not item.data:  # its rank knew all of it
                self._has_metric = True
                return
            trace = self._traces.get(rank.rank) or self._trace(rank)
            time_us = item.time_us
            self._last_us = max(self._last_us, time_us)
            if time_us < self._first_us or self._first_us < 0:
                self._first_us = time_us
            if trace is not None and (item.is_pair or not item.is_parameter):
                self._take_record(rank, trace, item)
        elif isinstance(item, ProcessStart):
            trace = self._traces.get(rank.rank)
            if trace is not None:
                trace.start()
        elif isinstance(item, Info):
            self._infos += 1

    def _trace(self, rank: LoggedRank) -> RankTrace | None:
        if len(self._traces) >= _MAX_TRACES:
            return None
        self._ranks[rank.key] = rank
        trace = self._traces[rank.rank] = RankTrace()
        return trace

    def _take_record(self, rank: LoggedRank, trace: RankTrace, record: FileRecord) -> None:
        _plain, numbers, finite, _flat = record.values or record.convert()
        if not self._has_metric:
            self._has_metric = len(numbers) > ("rank" in numbers)
        if len(self._marks) < _MAX_MARKS:
            # A copy of a record has the same time; if that is coarse, the same values as well.
            values = () if record.time_us % 1000 else tuple(numbers.values())
            self._marks.add(hash((record.time_us, repr(record.position), values)))
        if not finite:
            for key, value in numbers.items():
                if value - value != 0.0:
                    step = repr(record.step)[:_MAX_STEP]
                    self._note_nonfinite(key, step)
                    trace.first_nonfinite = trace.first_nonfinite or step
        trace.add(record, numbers, rank)

    def _note_nonfinite(self, key: str, step: str) -> None:
        count, first = self._nonfinite.get(key, (0, step))
        if count or len(self._nonfinite) < _MAX_NONFINITE:
            self._nonfinite[key] = (count + 1, first)

    @property
    def first_nonfinite(self) -> dict[tuple[str, int], str]:
        """Return the step of the first NaN or Inf of each rank that had one."""
        return {
            key: self._traces[key[1]].first_nonfinite
            for key in self._ranks
            if self._traces[key[1]].first_nonfinite
        }

    @property
    def names_run(self) -> bool:
        """Return whether the run's name was found in the path, rather than given."""
        return not self._reader.identity.is_run_given

    @property
    def keys(self) -> Iterable[tuple[str, int]]:
        """Return run and rank of the records."""
        return self._ranks

    @property
    def has_records(self) -> bool:
        """Return whether any line is a record, whole or damaged."""
        context = self._reader.context
        return bool(context.entries) or any(context.skipped.get(reason) for reason in DAMAGE)

    def found(self, *, is_over: bool = True) -> Findings:
        """Return what was found so far.

        Args:
            is_over: Whether the file was read to its end and does not grow.
        """
        context = self._reader.context
        findings = Findings(notes=list(self._decisions()))
        if is_over and not self._is_continued:
            findings.wrong += self._emptiness()
        warnings = findings.warnings
        warnings += context.guesses.values()
        warnings += self._repetitions()
        warnings += self._jumps()
        if context.glued:
            warnings.append(
                f"{count_of(context.glued, 'line')} with more than one record: several writers "
                "share this file and tear each other's lines; give each rank its own file"
            )
        warnings += self._misread_steps()
        warnings += self._odd_names()
        warnings += self._odd_times()
        warnings += [
            f"{_quoted(key)} was NaN or Inf {count_of(count, 'time')}, first at step {step}; look "
            "at what came before it"
            for key, (count, step) in self._nonfinite.items()
        ]
        warnings += [
            f"{count_of(count, 'line')} of {tool}: not read, so that what {_it_says(count)} is not "
            "exported"
            for tool, count in self._tools.items()
        ]
        return findings

    def damage(self) -> Iterator[str]:
        """Yield which lines gave no record although they should have."""
        for reason in DAMAGE:
            count = self._reader.context.skipped.get(reason, 0)
            if count:
                words = REASONS[LINE][reason].words
                yield f"{count:,} {reason}: {words}; otel-dllogger check shows the lines"

    def _decisions(self) -> Iterator[str]:
        decided: dict[str, str] = {}
        for rank in self._ranks.values():
            for form, why in rank.state.meaning.decisions.items():
                decided.setdefault(form, why)
        for form, why in decided.items():
            yield (
                f"steps are read as {form}: {why}; set OTEL_DLLOGGER_STEPS=dllogger if the last "
                "element is what DLLogger defines"
            )

    def _emptiness(self) -> Iterator[str]:
        """Yield why there is no metric, unless damage explains it."""
        skipped, head = self._reader.context.skipped, self._head
        if self._has_metric:
            return
        if self._reader.context.entries:
            only = "text, such as INFO lines" if self._infos else "METADATA and hyper-parameters"
            yield f"no record holds a metric, only {only}: there is nothing to plot"
        elif self._reader.context.is_events:
            if not self._reader.context.guesses and not any(map(skipped.get, DAMAGE)):
                yield "no event holds a scalar: pictures, texts and histograms are not exported"
        elif b"\0" in head and head[0]:  # what a power failure leaves behind begins with NULs
            yield "no line is a record: it is a binary file; pass the log itself"
        elif any(skipped.get(reason) for reason in DAMAGE):
            return
        elif head in (b"{", b"[") or head.startswith((b"[{", b"[\n")):
            yield "it is one JSON document, not a record on each line; pass the log beside it"
        elif head.startswith(b"{") and not self._tools:
            yield (
                "its lines are JSON, but without the prefix DLLL, and no step, iteration or epoch "
                "says where in the training they belong; pass another log of the run"
            )
        else:
            yield (
                "no line is a record of DLLogger, MMEngine or another tool that is known; pass the "
                "file that JSONStreamBackend was given, or wait for the first step"
            )

    def _repetitions(self) -> Iterator[str]:
        for trace in self._traces.values():
            times, steps, repeated = trace.repetitions()
            if trace.is_one_step:
                yield (
                    f"all {trace.records:,} iteration steps are the same: nothing can be plotted "
                    "by step; pass log() the epoch and iteration"
                )
            elif repeated >= _FEW_REPEATED and repeated * 2 > steps:
                each = (
                    "each step is" if repeated == steps else f"{repeated:,} of {steps:,} steps are"
                )
                yield (
                    f"{each} there {times:,} times: several ranks pass for one, without a tag or "
                    "with the local rank of several nodes, and their values become one series; "
                    "give each rank its own file, or have the launcher tag the lines (mpirun "
                    "--tag-output, srun --label)"
                )

    def _jumps(self) -> Iterator[str]:
        jumps = sum(trace.jumps for trace in self._traces.values())
        if jumps:
            yield (
                f"elapsed times jump back {count_of(jumps, 'time')}: this file contains several "
                "processes that ran at once, or one part twice; give each process its own file"
            )

    def _misread_steps(self) -> Iterator[str]:
        keys: dict[str, None] = {}
        for rank in self._ranks.values():
            cells = rank.state.cells
            if not cells[ITERATION] and not cells[EPOCH]:
                keys.update(
                    (key, None)
                    for key in cells[VALIDATION]
                    if rank.mapped(key).stage in (None, "train")
                )
        if keys:
            yield (
                f"every step is read as a validation, that of {_listed(keys)} too: if the last "
                "element of a step is a total, set OTEL_DLLOGGER_STEPS=total"
            )

    def _odd_names(self) -> Iterator[str]:
        keys: dict[str, None] = {}
        for rank in self._ranks.values():
            for granularity in (RUN, EPOCH, ITERATION, VALIDATION):
                names = rank.state.cells[granularity]
                keys.update((key, None) for key in names if _NO_LETTER.fullmatch(key))
        if keys:
            yield (
                f"{_listed(keys)}: metrics that are named after numbers; lines may have been "
                "misread, or classes and ids were logged as names"
            )

    def _odd_times(self) -> Iterator[str]:
        if self._first_us < 0:
            return
        if self._first_us < _EARLIEST_US:
            yield (
                f"times begin in {_date(self._first_us)}, before 2010: the clock was not set, or "
                "the time was misread"
            )
        if self._last_us > time.time_ns() // 1000 + _AHEAD_US:
            yield (
                f"times reach {_date(self._last_us)}, which is in the future: the clock was wrong, "
                "or times without a zone are of another one (--timezone)"
            )
        step_s = clock_s = passed_s = elapsed_s = 0.0
        for trace in self._traces.values():
            odd, steps = trace.odd_starts, trace.steps
            if odd > _FEW_STARTS and odd * 2 > steps:
                yield (
                    f"elapsed times grow, but by the times of the records {odd:,} of {steps:,} are "
                    "the first of a process: one of the two cannot be right"
                )
            step_s, clock_s = step_s + trace.step_s, clock_s + trace.step_clock_us / 1e6
            passed_s = passed_s + trace.passed_us / 1e6
            elapsed_s = elapsed_s + trace.elapsed_us / 1e6
        if _differ(step_s, clock_s):
            yield (
                f"by the times of the records, the steps took {_duration(clock_s)} together; by "
                f"the metric 'time', {_duration(step_s)}: the times cannot be right"
                + (", which are worked out" if self._is_interpolated() else "")
            )
        if _differ(passed_s, elapsed_s):
            yield (
                f"the records span {_duration(passed_s)} by their times, but "
                f"{_duration(elapsed_s)} by their elapsed times: one of them cannot be right"
            )

    def _is_interpolated(self) -> bool:
        return any(trace.is_interpolated for trace in self._traces.values())


SHARED = (
    "same run and rank as another log of that time; if that is wrong, say how files are named, for "
    "example --pattern 'log_{rank}.json'"
)
"""What is wrong with a log that begins before the last record of its rank."""


def merge_warnings(logs: Iterable[tuple[str, LogFindings]]) -> Iterator[str]:
    """Yield which logs hold the records of another log, or pass for another's continuation.

    Args:
        logs: Paths, and what was found in each.
    """
    listed = list(logs)
    yield from _copies(listed)
    yield from _namesakes(listed)


def _copies(listed: Sequence[tuple[str, LogFindings]]) -> Iterator[str]:
    owners: dict[int, list[int]] = {}
    pairs: dict[tuple[int, int], int] = {}
    for number, (_path, findings) in enumerate(listed):
        for mark in findings._marks:  # noqa: SLF001 - of the same module
            for other in owners.setdefault(mark, []):
                pairs[other, number] = pairs.get((other, number), 0) + 1
            owners[mark].append(number)
    partners: dict[int, list[int]] = {}
    for (one, other), count in pairs.items():
        if count >= _SHARED_MARKS:
            partners.setdefault(one, []).append(other)
            partners.setdefault(other, []).append(one)
    told: set[int] = set()
    for merged in sorted(partners, key=lambda number: -len(partners[number])):
        others = [other for other in partners[merged] if other not in told]
        if merged in told or not others:
            continue
        told.update((merged, *others))
        shown = ", ".join(listed[other][0] for other in sorted(others)[:3])
        more = f" and {len(others) - 3:,} more" if len(others) > 3 else ""
        yield (
            f"{listed[merged][0]} holds records of {shown}{more} as well: a copy, or a merged log "
            "beside the ranks' own? They count twice; leave it out"
        )


def _namesakes(listed: Sequence[tuple[str, LogFindings]]) -> Iterator[str]:
    """Yield which folders hold different logs of one rank, one after the other.

    Logs of the same time are told of elsewhere; a launcher's attempts, checkpoints and the folders
    of Keras's stages are one run. A run that the user named is what the user says.
    """
    folders: dict[tuple[str, int], dict[str, str]] = {}
    for path, findings in listed:
        if findings.names_run and path_stage(path) is None:
            folder = _ATTEMPT.sub("", path.rpartition("/")[0])
            for key in findings.keys:
                folders.setdefault(key, {}).setdefault(folder, path)
    several: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    for key, paths in folders.items():
        if len(paths) > 1:
            several.setdefault(tuple(paths.values()), []).append(key)
    for paths_of, keys in several.items():
        run = keys[0][0]
        more = f" and {len(paths_of) - 2:,} more" if len(paths_of) > 2 else ""
        yield (
            f"{paths_of[0]}, {paths_of[1]}{more} are read as one run, {run!r}, that was continued; "
            f"if they are different runs, say what the folders mean: {_pattern_for(*paths_of[:2])}"
        )


def _pattern_for(path: str, other: str) -> str:
    """Return the option that takes the first folder in which two paths differ for the run."""
    parts, others = path.split("/"), other.split("/")
    at = next(i for i, (one, two) in enumerate(zip(parts, others, strict=False)) if one != two)
    return f"--pattern '{'/'.join(['{run}', *'*' * len(parts[at + 1 : -1]), parts[-1]])}'"


class Announcements:
    """Says each finding once, for logs that are followed or read in bulk.

    Args:
        say: Takes a line for the user.
    """

    def __init__(self, say: Callable[[str], object]) -> None:
        self._say = say
        self._said: set[tuple[str, str]] = set()

    def announce(self, found: Iterable[tuple[str, Iterable[str]]]) -> None:
        """Say what was not said before, however its numbers have changed.

        Args:
            found: Paths, and findings for each, in words.
        """
        fresh = []
        for path, lines in found:
            for words in lines:
                key = (path, _DIGITS.sub("#", words))
                if key not in self._said:
                    self._said.add(key)
                    fresh.append((path, words))
        lines = grouped(fresh)
        for line in lines[:_MAX_SAID]:
            self._say(line)
        if len(lines) > _MAX_SAID:
            self._say(f"and {len(lines) - _MAX_SAID:,} more; otel-dllogger check says them all")


def grouped(findings: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each finding; those that differ only in numbers are one line.

    Args:
        findings: Where it was found, and the finding, in words.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for path, words in findings:
        groups.setdefault(_DIGITS.sub("#", words), []).append((path, words))
    lines = []
    for group in groups.values():
        path, words = group[0]
        more = f" and {len(group) - 1:,} more" if len(group) > 1 else ""
        lines.append(f"{path}{more}: {words}")
    return lines


def _differ(one_s: float, other_s: float) -> bool:
    shorter, longer = sorted((one_s, other_s))
    return shorter > 0 and longer > _LONGER * shorter + _ROUNDING_S


def _date(time_us: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(time_us / 1e6))
    except (OverflowError, ValueError, OSError):
        return "a year that no clock has"


def _duration(seconds: float) -> str:
    return f"{seconds:,.1f} s"


def _it_says(count: int) -> str:
    return "it says" if count == 1 else "they say"


def _quoted(key: str) -> str:
    return repr(key.partition(SEPARATOR)[0][:_MAX_NAME])


def _listed(keys: Iterable[str]) -> str:
    names = list(dict.fromkeys(map(_quoted, keys)))
    shown = ", ".join(names[:_MAX_NAMES])
    return shown if len(names) <= _MAX_NAMES else f"{shown} and {len(names) - _MAX_NAMES:,} more"

"""The sums: what was logged is written exactly once, or counted as lost."""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.soak.files import THEIRS
from tests.soak.progress import (
    ACKNOWLEDGED,
    FIRST_LINE_OF_CHILDREN,
    LINES,
    WITHIN,
    Progress,
    used_lines,
)

if TYPE_CHECKING:
    from collections.abc import Callable

FULL, REPLACED = "disk_full", "file_replaced"
"""The reasons of ``dllogger_dropped_total`` that count lines of the log: those that were never
written, and those that were written to a file that had been deleted."""

LOOK_S = 3.0
"""Seconds between two looks after the file, and more than that. Who finds it deleted cannot tell
which lines since the last look had been in it before, and counts them all."""

NEVER = ("backend_failed", "scrape", "stdout", "discovery", "endpoint")
"""The reasons that no attack gives cause for."""

_PREFIXES = (b"DLLL {", b"INFO {")
_SHOWN = 5


@dataclass
class Ended:
    """One life of a rank that is over.

    Attributes:
        number: Its number within the rank.
        kind: As in ``rank.ATTACKS_OF_KIND``.
        how: ``killed`` by the parent, ``ended`` as asked, or ``failed``: it died or hung.
    """

    number: int
    kind: str
    how: str


@dataclass
class Sums:
    """What the files of one rank, or of all, come to.

    Attributes:
        logged: Lines whose ``log`` returned.
        written: How many of them are in the files, once each.
        counted: Lines that were counted as lost.
        torn: Beginnings of lines, left by kills and full disks.
        interrupted: Lines whose ``log`` did not return.
        of_children: Lines of forked children among those logged.
        unchecked: Lines of processes that failed, and took with them what would tell.
    """

    logged: int = 0
    written: int = 0
    counted: int = 0
    torn: int = 0
    interrupted: int = 0
    of_children: int = 0
    unchecked: int = 0

    def add(self, other: Sums) -> None:
        """Add another rank's."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class _Lines:
    """Where the lines of one life are.

    Attributes:
        files: The number of the file by the number of the line.
        gone: Those that were written to a file after it was deleted.
        perhaps_gone: How many may have been.
        times_s: When each line that is in a file was logged, seconds since the Unix epoch.
        deleted_s: The time of the last line in each file that was deleted or moved.
    """

    files: dict[int, int] = field(default_factory=dict)
    gone: set[int] = field(default_factory=set)
    perhaps_gone: int = 0
    times_s: array[float] = field(default_factory=lambda: array("d"))
    deleted_s: list[float] = field(default_factory=list)

    def before_deletions(self) -> int:
        """Return how many lines may be counted as lost with a file that still had them."""
        times_s = sorted(self.times_s)
        return sum(
            bisect_right(times_s, end_s) - bisect_left(times_s, end_s - LOOK_S)
            for end_s in self.deleted_s
        )


class Ledger:
    """Read all files of one rank and do the sums.

    Args:
        folder: The rank's folder.
        lives: Its lives, all of them over.
        find: Called with what does not hold.
    """

    def __init__(self, folder: Path, lives: list[Ended], find: Callable[[str], None]) -> None:
        self._folder = folder
        self._lives = {life.number: life for life in lives}
        self._find = find
        self._files = [Path()]
        self._lines = {life.number: _Lines() for life in lives}
        self._mended = 0
        self.sums = Sums()

    def settle(self) -> Sums:
        """Do the sums."""
        for folder in ("logs", "kept"):
            for path in sorted((self._folder / folder).rglob("*")):
                if path.is_file() and not path.is_symlink():
                    self._read(path)
        reasons = sum(self._settle(life) for life in self._lives.values())
        if self._mended > reasons:
            self._say(f"{self._mended} lines within files are torn, with reason for {reasons}")
        for path in (self._folder / "theirs").iterdir():
            content = path.read_bytes()
            if content.replace(THEIRS, b""):
                self._say(f"{path.name} is a user's file and holds {content[:120]!r}")
        return self.sums

    def _say(self, text: str) -> None:
        self._find(f"{self._folder.name}: {text}")

    def _read(self, path: Path) -> None:
        """Note which lines a file holds, and where they count."""
        self._files.append(path)
        number = len(self._files) - 1
        kind, sizes = _fate(path.relative_to(self._folder))
        offset = 0
        last: tuple[_Lines, float] | None = None
        with path.open("rb") as file:
            for place, text in enumerate(file, 1):
                start, offset = offset, offset + len(text)
                line = _parse(text)
                if line is None:
                    self._torn(path, place, text)
                    continue
                lines = self._lines.get(line.life)
                if lines is None or not 0 < line.number < LINES:
                    self._say(f"{path.name}:{place} is of no life: {text[:120]!r}")
                    continue
                lines.times_s.append(line.time_s)
                if sizes and start < sizes[0]:
                    last = lines, line.time_s
                elif kind == "deleted" and start >= sizes[1]:
                    lines.gone.add(line.number)
                    continue
                elif sizes:  # it may have been written to the file in its new place
                    lines.perhaps_gone += 1
                if other := lines.files.get(line.number):
                    self._say(
                        f"life {line.life} line {line.number} is in {self._files[other].name} and "
                        f"again in {path.name}:{place}"
                    )
                lines.files[line.number] = number
        if last is not None:
            last[0].deleted_s.append(last[1])

    def _torn(self, path: Path, place: int, line: bytes) -> None:
        self.sums.torn += 1
        if line.endswith(b"\n"):
            self._mended += 1
        elif path.parent.name == "logs" and self._last().how == "ended":
            self._say(f"{path.name}:{place} is torn, and its process ended as it should")
        begins = any(line.startswith(one[: len(line.rstrip(b"\n"))]) for one in _PREFIXES)
        if not begins or any(one in line[1:] for one in _PREFIXES):
            self._say(f"{path.name}:{place} is not a line, nor its beginning: {line[:120]!r}")

    def _last(self) -> Ended:
        return max(self._lives.values(), key=lambda life: life.number)

    def _settle(self, life: Ended) -> int:
        """Compare what a life logged with what there is of it.

        Returns:
            How many lines it may have torn within a file: those that it counted as torn, one if
            it was killed, and one for each disk that was full, which a child may have mended.
        """
        home = self._folder / "lives" / str(life.number)
        progress = Progress(home / "progress")
        states, wrong, limits = progress.states(), progress.wrong, progress.counted()["limits"]
        progress.close()
        if wrong:
            self._say(f"life {life.number}: {wrong}")
        lines = self._lines[life.number]
        absent: list[int] = []
        of_children: list[int] = []
        uncertain = own = 0
        for number, state in used_lines(states):
            is_own = number < FIRST_LINE_OF_CHILDREN
            there = number in lines.files
            if state != ACKNOWLEDGED and (state != WITHIN or life.how != "ended"):
                self.sums.interrupted += 1
                uncertain += not there
                continue
            own += is_own
            self.sums.logged += 1
            self.sums.of_children += not is_own
            self.sums.written += there
            if there or (life.kind == "full" and not is_own):
                continue
            (absent if is_own else of_children).append(number)
        gone = [number for number in absent if number in lines.gone]
        absent = [number for number in absent if number not in lines.gone]
        dropped = _final(home)
        self.sums.counted += dropped.get(FULL, 0) + dropped.get(REPLACED, 0)
        if life.how == "failed" and self._cannot_tell(life):
            self.sums.unchecked += len(absent) + len(of_children)
            of_children.clear()
        else:
            spare = uncertain + lines.perhaps_gone
            where = _Where(life, lines, self._files, own, dropped)
            self._compare(where, FULL, absent, uncertain)
            self._compare(where, REPLACED, gone, spare + lines.before_deletions())
        if of_children:
            self._say(
                f"life {life.number} ({life.kind}, {life.how}): {len(of_children)} lines of its "
                f"forked children are in no file; the first: {of_children[:_SHOWN]}"
            )
        for reason in NEVER:
            if dropped.get(reason):
                self._say(
                    f"life {life.number}: {reason} counts {dropped[reason]}: "
                    + _first_warning(home, reason)
                )
        return dropped.get("torn_line", 0) + (life.how != "ended") + limits

    def _cannot_tell(self, life: Ended) -> bool:
        """Tell whether a process that failed took with it what the sums need."""
        deleting = (self._folder / "kept").glob(f"deleting.{life.number}.*")
        return life.kind == "full" or any(deleting)

    def _compare(self, where: _Where, reason: str, lost: list[int], spare: int) -> None:
        """Compare what is lost with what was counted, which may be a little more."""
        counted = where.dropped.get(reason, 0)
        # What a backend failed at is counted as well, and is a finding of its own.
        if len(lost) > counted + where.dropped.get("backend_failed", 0):
            self._say(
                f"{where}: {len(lost)} lines of {where.own} are lost and {counted} counted as "
                f"{reason}; the first: "
                + ", ".join(where.place_of(number) for number in lost[:_SHOWN])
            )
        elif counted > len(lost) + spare:
            self._say(
                f"{where}: {counted} lines are counted as {reason}, and {len(lost)} are lost, at "
                f"most {spare} more"
            )


@dataclass
class _Where:
    """What a finding says of the life that it is about."""

    life: Ended
    lines: _Lines
    files: list[Path]
    own: int
    dropped: dict[str, int]

    def __str__(self) -> str:
        return f"life {self.life.number} ({self.life.kind}, {self.life.how})"

    def place_of(self, number: int) -> str:
        """Describe a line that is lost by the one before it."""
        before = next((one for one in range(number - 1, 0, -1) if one in self.lines.files), 0)
        name = self.files[self.lines.files[before]].name if before else "nothing"
        return f"line {number}, after line {before} in {name}"


@dataclass(frozen=True)
class _Line:
    """A whole line of the log."""

    life: int
    number: int
    time_s: float


def _fate(path: Path) -> tuple[str, list[int]]:
    """Read what became of a file from the names that ``files.LogFile`` gives."""
    top = path.parts[1] if path.parts[0] == "kept" else ""
    kind, *numbers = top.split(".")
    if kind == "folder" and path.name != "log.json":
        return "", []
    return kind, [int(one) for one in numbers[2:]] if kind in ("moved", "folder", "deleted") else []


def _parse(text: bytes) -> _Line | None:
    """Read a line, None where it is not a whole line of the log."""
    if not text.startswith(_PREFIXES) or not text.endswith(b"}\n"):
        return None
    try:
        entry = json.loads(text[5:])
        life, number = _soak_of(entry)
        if entry["type"] == "INFO":
            time_s = datetime.fromisoformat(entry["datetime"]).timestamp()
        else:
            time_s = float(entry["timestamp"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return None
    return _Line(life, number, time_s)


def _soak_of(entry: dict[str, Any]) -> Any:
    if entry["type"] == "METADATA":
        return entry["metadata"]["soak"]
    data = entry["data"]
    if isinstance(data, dict) and "soak" in data:
        return data["soak"]
    return entry["step"]


def _first_warning(home: Path, reason: str) -> str:
    lines = (home / "warnings").read_text("utf-8", "replace").splitlines()
    return next((line[:300] for line in lines if f'"{reason}"' in line), "nothing was warned of")


def _final(home: Path) -> dict[str, int]:
    """Return what a life that ended as asked had counted, by reason."""
    try:
        final: dict[str, Any] = json.loads((home / "final.json").read_text())
    except FileNotFoundError:
        return {}
    return {reason: int(count) for reason, count in final["dropped"].items()}

"""What a rank says of itself while it runs, in memory that outlives it.

Stores into a shared mapping of a file cost no system call, need no descriptor, obey no limit on
the size of files, and are there after a SIGKILL. Forked children share them.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNUSED, BEGUN, ACKNOWLEDGED, INTERRUPTED, WITHIN = range(5)
"""What has become of a line: its call began, returned, ended with an exception, or returned
within another call of its thread that has not. A signal handler's line waits for the line that
it came in the midst of, so that a SIGKILL between the two may take it."""

LINES = 4 << 20
"""Lines of one life at most; the file is sparse."""

LINES_OF_A_CHILD = 64
CHILDREN = 12_500
FIRST_LINE_OF_CHILDREN = LINES - CHILDREN * LINES_OF_A_CHILD

THREADS = 8
"""Threads that say that they are alive; 0 is the main thread."""

COUNTERS = ("forks", "rotations", "signals", "interrupts", "thefts", "limits", "nested", "values")

_STOP = 0
_BEATS = 16
_COUNTERS = _BEATS + 8 * THREADS
_NOW = 512, 64
_WRONG = 576, 512
_HEADER = 4096


class Progress:
    """Share what one life of a rank does with the parent.

    Args:
        path: The file of the mapping, made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        with path.open("a+b") as file:
            file.truncate(_HEADER + LINES)
            self._memory = mmap.mmap(file.fileno(), _HEADER + LINES)

    def close(self) -> None:
        """Give the mapping back."""
        self._memory.close()

    @property
    def stop(self) -> bool:
        """Tell whether the rank is to come to its end."""
        return bool(self._memory[_STOP])

    @stop.setter
    def stop(self, value: bool) -> None:
        self._memory[_STOP] = value

    def beat(self, thread: int) -> None:
        """Say that a thread is alive."""
        self._add(_BEATS + 8 * thread, 1)

    def beats(self) -> list[int]:
        """Return how often each thread said that it is alive; 0 where there is none."""
        return list(struct.unpack_from(f"{THREADS}Q", self._memory, _BEATS))

    def retire(self, thread: int) -> None:
        """Say that a thread has come to its end, as it should."""
        struct.pack_into("Q", self._memory, _BEATS + 8 * thread, 0)

    def count(self, counter: str, by: int = 1) -> None:
        """Count something that was done, for the report."""
        self._add(_COUNTERS + 8 * COUNTERS.index(counter), by)

    def counted(self) -> dict[str, int]:
        """Return what was counted."""
        values = struct.unpack_from(f"{len(COUNTERS)}Q", self._memory, _COUNTERS)
        return dict(zip(COUNTERS, values, strict=True))

    @property
    def now(self) -> str:
        """Return what the main thread does now."""
        return self._text(*_NOW)

    @now.setter
    def now(self, what: str) -> None:
        self._set_text(what, *_NOW)

    @property
    def wrong(self) -> str:
        """Return what a rank or its child found wrong with itself, empty if nothing."""
        return self._text(*_WRONG)

    @wrong.setter
    def wrong(self, what: str) -> None:
        if not self.wrong:
            self._set_text(what, *_WRONG)

    def set_state(self, line: int, state: int) -> None:
        """Say what has become of a line."""
        self._memory[_HEADER + line] = state

    def states(self) -> bytes:
        """Return the state of every line."""
        return self._memory[_HEADER:]

    def _add(self, place: int, by: int) -> None:
        (value,) = struct.unpack_from("Q", self._memory, place)
        struct.pack_into("Q", self._memory, place, value + by)

    def _text(self, place: int, size: int) -> str:
        return self._memory[place : place + size].rstrip(b"\0").decode("utf-8", "replace")

    def _set_text(self, text: str, place: int, size: int) -> None:
        self._memory[place : place + size] = text.encode("ascii", "replace")[:size].ljust(
            size, b"\0"
        )


def used_lines(states: bytes) -> Iterator[tuple[int, int]]:
    """Go through the lines that were begun, each with its state."""
    own = states[:FIRST_LINE_OF_CHILDREN].rstrip(b"\0")
    yield from ((line, state) for line, state in enumerate(own) if state)
    children = states[FIRST_LINE_OF_CHILDREN:].rstrip(b"\0")
    yield from (
        (FIRST_LINE_OF_CHILDREN + line, state) for line, state in enumerate(children) if state
    )

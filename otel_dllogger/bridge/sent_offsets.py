"""What a collector took since the last commit, so that a kill does not send it again."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import orjson

from otel_dllogger.runtime.files import read_regular, replacing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.logs.ranks import Observation
    from otel_dllogger.logs.tail.fingerprint import FilePosition

_Content = tuple[int, int, int]  # device, inode, generation

MAX_BYTES = 1 << 20
"""Size from which the file is rewritten without what later notes have replaced."""


class SentOffsets:
    """Note after each request how far every file is sent, until a commit says it.

    It is not synced: it is for a kill, after which the kernel still has it. Where it cannot
    be written, more is sent again.

    Args:
        path: The file; None: nowhere, as there is no checkpoint either.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._fd: int | None = None
        self._size_bytes = 0
        self._max_bytes = MAX_BYTES
        self._ends: dict[_Content, int] = {}
        self._figures: dict[tuple[str, int], Observation] = {}
        if path is not None:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.tmp")  # noqa: PTH108 - no Path here
            with contextlib.suppress(OSError):
                for line in read_regular(path).splitlines():
                    # The last one may be torn, and any may be damaged.
                    with contextlib.suppress(TypeError, ValueError):
                        self._load(*orjson.loads(line))

    def _load(self, ends: list[Any], figures: list[Any]) -> None:
        for numbers in ends:
            device, inode, generation, end = map(_checked_int, numbers)
            self._ends[device, inode, generation] = end
        for run, *numbers in figures:
            rank, time_us, items = map(_checked_int, numbers)
            self._figures[str(run), rank] = (time_us, items)

    def sent_until(self, position: FilePosition) -> int:
        """Return up to which offset the content was sent that a position is in."""
        return self._ends.get((position.device, position.inode, position.generation), 0)

    def has_sent_figures(self, rank: tuple[str, int], observation: Observation) -> bool:
        """Return whether the figures of a rank were sent as they were at an observation."""
        return self._figures.get(rank) == observation

    def note(
        self,
        ends: Mapping[_Content, int],
        figures: Mapping[tuple[str, int], Observation] | None = None,
    ) -> None:
        """Note what was sent.

        Args:
            ends: The offset up to which contents were sent, by device, inode and generation.
            figures: The observations of figures that were sent, by run and rank.
        """
        if self._path is None:
            return
        self._ends.update(ends)
        self._figures.update(figures or {})
        if self._size_bytes > self._max_bytes and self._compact(self._path):
            return
        with contextlib.suppress(OSError):
            self._append(self._path, ends, figures or {})

    def _append(
        self,
        path: str,
        ends: Mapping[_Content, int],
        figures: Mapping[tuple[str, int], Observation],
    ) -> None:
        if self._fd is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            self._fd = os.open(path, flags, 0o600)
            self._size_bytes = os.fstat(self._fd).st_size
        self._size_bytes += os.write(self._fd, _format(ends, figures))

    def _compact(self, path: str) -> bool:
        """Write anew what still holds, and return whether that worked."""
        self.close()
        notes = _format(self._ends, self._figures)
        try:
            with replacing(path, f"{path}.tmp") as file:
                file.write(notes)
        except OSError:
            return False
        self._size_bytes = len(notes)
        self._max_bytes = max(MAX_BYTES, 2 * self._size_bytes)
        return True

    def forget_content(self, content: _Content) -> None:
        """Keep nothing of a file that is gone."""
        self._ends.pop(content, None)

    def forget_rank(self, rank: tuple[str, int]) -> None:
        """Keep nothing of a rank that is forgotten."""
        self._figures.pop(rank, None)

    def clear(self, read: Mapping[_Content, int]) -> None:
        """Forget what a checkpoint says by now, but not what is yet to be read again.

        Args:
            read: How far each content was read.
        """
        if self._path is None or not (self._ends or self._figures or self._fd is not None):
            return
        if any(sent > read.get(place, sent) for place, sent in self._ends.items()):
            return
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 - no Path here
        self._ends.clear()
        self._figures.clear()
        self._max_bytes = MAX_BYTES
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _checked_int(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r} is not an int")
    return value


def _format(ends: Mapping[_Content, int], figures: Mapping[tuple[str, int], Observation]) -> bytes:
    notes = [
        [(*content, end) for content, end in ends.items()],
        [(*rank, *observation) for rank, observation in figures.items()],
    ]
    # A line of its own, though a kill may have left half a line.
    return b"\n" + orjson.dumps(notes) + b"\n"

"""Notes of what a collector took since the last commit, so that a kill does not resend it."""

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
"""Size above which the file is rewritten without the notes that later ones have replaced."""


class SentOffsets:
    """Notes, after each request, of how far every file was sent, until a commit holds that.

    Their file is not synced: it is for a kill of the process, after which the kernel still has
    what was written. If it cannot be written, more is sent again.

    Args:
        path: The file; None to note nothing, as there is no checkpoint either.
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
        """Return the offset up to which the content that holds a position was sent."""
        return self._ends.get((position.device, position.inode, position.generation), 0)

    def has_sent_figures(self, rank: tuple[str, int], observation: Observation) -> bool:
        """Return whether this observation of a rank's internal metrics was sent."""
        return self._figures.get(rank) == observation

    def note(
        self,
        ends: Mapping[_Content, int],
        figures: Mapping[tuple[str, int], Observation] | None = None,
    ) -> None:
        """Note what was sent.

        Args:
            ends: The offset up to which contents were sent, by device, inode and generation.
            figures: The observations of internal metrics that were sent, by run and rank.
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
        """Rewrite the file with what still holds; return whether that worked."""
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
        """Forget a file that is gone."""
        self._ends.pop(content, None)

    def forget_rank(self, rank: tuple[str, int]) -> None:
        """Forget a rank."""
        self._figures.pop(rank, None)

    def clear(self, read: Mapping[_Content, int]) -> None:
        """Forget what a checkpoint says by now, unless some of it is still to be read again.

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
    # On a line of its own, even if a kill has left half a line.
    return b"\n" + orjson.dumps(notes) + b"\n"

"""What a collector took since the last commit, so that a kill does not send it again."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import orjson

from otel_dllogger.logfiles.checkpoint import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_dllogger.logfiles.identity import Position

_Place = tuple[int, int, int]  # device, inode, generation


class Journal:
    """Note after each request how far every file is sent, until a commit says it.

    It is not synced: it is for a kill, after which the kernel still has it. Where it cannot
    be written, more is sent again.

    Args:
        path: The file; None: nowhere, as there is no checkpoint either.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._fd: int | None = None
        self._offsets: dict[_Place, int] = {}
        if path is not None:
            with contextlib.suppress(OSError):
                for line in read_regular(path).splitlines():
                    self._offsets.update(_parse_line(line))

    def sent_until(self, position: Position) -> int:
        """Return up to which offset the content was sent that a position is in."""
        return self._offsets.get((position.device, position.inode, position.generation), 0)

    def note(self, positions: Iterable[tuple[int, int, int, int]]) -> None:
        """Note that files were sent up to there: device, inode, generation and offset of each."""
        if self._path is None:
            return
        with contextlib.suppress(OSError):
            if self._fd is None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                self._fd = os.open(self._path, flags, 0o600)
            os.write(self._fd, orjson.dumps(list(positions)) + b"\n")

    def clear(self) -> None:
        """Forget all: a checkpoint says it."""
        if self._path is not None and (self._offsets or self._fd is not None):
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108 - no Path here
        self._offsets.clear()
        self.close()

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def _parse_line(line: bytes) -> dict[_Place, int]:
    """Return the offsets of a line, none where it is torn or not a journal's."""
    try:
        places = {
            (device, inode, generation): offset
            for device, inode, generation, offset in orjson.loads(line)
        }
        numbers = {type(number) for place, offset in places.items() for number in (*place, offset)}
    except (TypeError, ValueError):
        return {}
    return places if numbers <= {int} else {}

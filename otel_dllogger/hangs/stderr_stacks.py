"""Stacks on standard error, for those that no file takes."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

MAX_THREADS = MAX_FRAMES = 100
"""The most threads, and the most frames of each, as in ``faulthandler``."""


def format_stacks() -> str:
    """Return the stacks of all threads but this one, in the form of ``faulthandler``.

    That only writes to descriptors, with the GIL, and nobody may wait for whoever reads standard
    error.
    """
    own = threading.get_ident()
    frames = sys._current_frames()  # noqa: SLF001 - documented, for debugging
    stacks = [(ident, frame) for ident, frame in frames.items() if ident != own]
    return "\n".join(
        line
        for ident, frame in stacks[:MAX_THREADS]
        for line in (f"Thread 0x{ident:016x} (most recent call first):", *_lines(frame))
    )


def write_to_stderr(text: str) -> None:
    """Write to standard error without the GIL or a lock; where that fails, do nothing.

    Args:
        text: It is completed by a newline.
    """
    left = f"{text}\n".encode("utf-8", "backslashreplace")
    # There may be no standard error, or one that is not a file, as in a notebook.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        descriptor = sys.stderr.fileno()
        while left:
            left = left[os.write(descriptor, left) :]


def _lines(frame: FrameType) -> Iterator[str]:
    """Yield a line for each frame, the innermost first."""
    for one in itertools.islice(_outwards(frame), MAX_FRAMES):
        code = one.f_code
        yield f'  File "{code.co_filename}", line {one.f_lineno or "?"} in {code.co_name}'


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back

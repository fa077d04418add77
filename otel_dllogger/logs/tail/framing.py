"""Tell from the first bytes of a file how it is cut."""

from __future__ import annotations

import codecs
import functools
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.logs.parsers.tfrecord import HEADER_BYTES, is_frame
from otel_dllogger.logs.tail.split_frames import split_frames
from otel_dllogger.logs.tail.split_lines import split_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.logs.tail.split_lines import SplitLines

HEAD_BYTES = HEADER_BYTES
"""How many of the first bytes decide."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Framing(NamedTuple):
    """How a file is cut.

    Attributes:
        split: Cuts bytes, as ``split_lines`` does.
        separator: What is between two lines, and is not part of them.
    """

    split: Callable[..., SplitLines]
    separator: bytes = b"\n"


LINES = Framing(split_lines)
UTF16_LINES = Framing(functools.partial(split_lines, trusts_nuls=True))
FRAMES = Framing(split_frames, b"")


def find_framing(head: bytes) -> Framing | None:
    """Return how a file is cut.

    Args:
        head: Its first ``HEAD_BYTES`` bytes.

    Returns:
        The framing, None if the file is too short to tell.
    """
    if head.startswith(_UTF16):
        return UTF16_LINES
    if is_frame(head):
        return FRAMES
    return LINES if len(head) == HEAD_BYTES else None

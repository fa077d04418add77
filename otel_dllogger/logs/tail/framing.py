"""Tell from the first bytes of a file how it is cut."""

from __future__ import annotations

import codecs
import functools
from typing import TYPE_CHECKING, NamedTuple

from otel_dllogger.logs.tail.split_lines import split_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.logs.tail.split_lines import SplitLines

HEAD_BYTES = 12
"""How many of the first bytes decide."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class Framing(NamedTuple):
    """How a file is cut.

    Attributes:
        split: Cuts bytes, as ``split_lines`` does.
    """

    split: Callable[..., SplitLines]


LINES = Framing(split_lines)
UTF16_LINES = Framing(functools.partial(split_lines, trusts_nuls=True))


def find_framing(head: bytes) -> Framing | None:
    """Return how a file is cut.

    Args:
        head: Its first ``HEAD_BYTES`` bytes.

    Returns:
        The framing, None if the file is too short to tell.
    """
    if head.startswith(_UTF16):
        return UTF16_LINES
    return LINES if len(head) == HEAD_BYTES else None

"""Where a rank stands: one line about its main thread."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_dllogger.cli.stacks.py_spy import Frame, Look, Thread

_ANY_PUBLIC = r"[a-z]\w*"

_KNOWN = (
    (r"torch/distributed/distributed_c10d\.py", _ANY_PUBLIC, ""),
    (r"torch/distributed/rendezvous\.py", r"\w+", "rendezvous"),
    (r"torch/distributed/checkpoint/.*\.py", r"\w*save\w*", "checkpoint save"),
    (r"torch/distributed/checkpoint/.*\.py", r"\w*load\w*", "checkpoint load"),
    (r"torch/serialization\.py", r"_?(legacy_)?save", "checkpoint save"),
    (r"torch/serialization\.py", r"_?(legacy_)?load", "checkpoint load"),
    (r"torch/utils/data/.*\.py", r"\w+", "data loader"),
    (r"torch/(autograd/\w+|_tensor)\.py", r"_?\w*backward\w*", "backward"),
    (r"torch/optim/(?!lr_scheduler)\w+\.py", r"\w+", "optimizer step"),
    (r"torch/cuda/.*\.py", r"(synchronize|wait)", "waiting for the GPU"),
    (r"torch/(_dynamo|_inductor)/.*\.py", r"_?\w*compile\w*", "compile"),
)
"""Frames that say what a rank does: the end of the file, the function, and the words for it.

Without words, it is the function. The innermost frame that is known decides.
"""

_KNOWN_FRAMES = [
    (re.compile(rf"(?:.*/)?{path}"), re.compile(function), words)
    for path, function, words in _KNOWN
]

_NOT_THE_USERS = re.compile(
    r".*/(site|dist)-packages/.*|.*/lib(64)?/python3\.\d+t?/.*|<frozen .*|.*\.so(\.[\d.]+)?|"
    r".*/otel_dllogger/.*|.*\.(c|cc|cpp|cxx|cu|h|hh|hpp|cuh|pyx|pxd|rs)|\?*"
)


class Group(NamedTuple):
    """Ranks that stand at the same place.

    Attributes:
        place: The place, in words.
        ranks: The ranks.
    """

    place: str
    ranks: list[int]


def place_of(seen: Look) -> str:
    """Return where the main thread stands, as ``data loader (train.py:41 next_batch)``.

    The words are those of a framework's frames, if they are known; in brackets is the innermost
    frame of the user's own code.
    """
    place = _place_in(seen.threads)
    return f"stopped by a signal or a debugger, in {place}" if seen.is_stopped else place


def _place_in(threads: Sequence[Thread]) -> str:
    main = next((thread for thread in threads if thread.is_main), None)
    if main is None:
        return "no main thread of Python"
    if not main.frames:
        return "no frames of Python in the main thread"
    users = next((one for one in main.frames if not _NOT_THE_USERS.fullmatch(one.path)), None)
    where = _where(users or main.frames[0])
    words = _words_of(main.frames)
    holder = next((one.name for one in threads if one.holds_gil and not one.is_main), None)
    beside = "" if holder is None else f", while thread {holder or 'without a name'} holds the GIL"
    return (f"{words} ({where})" if words else where) + beside


def groups_of(places: dict[int, str]) -> list[Group]:
    """Return which ranks stand at which place, the odd ones first.

    Args:
        places: The place of each rank.
    """
    ranks_at: dict[str, list[int]] = {}
    for rank in sorted(places):
        ranks_at.setdefault(places[rank], []).append(rank)
    groups = [Group(place, ranks) for place, ranks in ranks_at.items()]
    return sorted(groups, key=lambda group: (len(group.ranks), group.ranks))


def format_ranks(ranks: Iterable[int]) -> str:
    """Return sorted ranks as ``rank 3`` or ``ranks 0-2, 4-7``."""
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and spans[-1][1] == rank - 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in spans]
    is_one = len(spans) == 1 and spans[0][0] == spans[0][1]
    return f"{'rank' if is_one else 'ranks'} {', '.join(texts)}"


def _words_of(frames: Iterable[Frame]) -> str:
    for frame in frames:
        function = frame.function.rpartition(".")[2]
        for path, pattern, words in _KNOWN_FRAMES:
            if path.fullmatch(frame.path) and pattern.fullmatch(function):
                return words or function
    return ""


def _where(frame: Frame) -> str:
    return f"{PurePosixPath(frame.path).name}:{frame.line} {frame.function}"

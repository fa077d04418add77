"""Hyper-parameters by name, without those that are nobody's business."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH = 8
"""Levels of nesting that are looked into."""

_WORD_BREAKS = re.compile(r"[\W_]+|(?<=[a-z])(?=[A-Z])")

# Words of a name, and the words that a name ends in.
_SECRET_WORDS = frozenset(
    ("password", "passwd", "pwd", "secret", "secrets", "credential", "credentials", "apikey")
)
_SECRET_ENDINGS = (("api", "key"), ("access", "key"), ("private", "key"), ("auth",), ("token",))


def open_parameters(plain: object) -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested parameters as ``optimizer.lr``, lists and secrets left out.

    Args:
        plain: Converted data; anything but a dict has no parameters.
    """
    for name, value in _leaves(plain, "", 0):
        if not _is_secret(name):
            yield name, value


def _leaves(plain: object, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    if not isinstance(plain, dict) or depth >= MAX_DEPTH:
        return
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.", depth + 1)
        elif not isinstance(value, list):
            yield f"{prefix}{key}", value


def _is_secret(name: str) -> bool:
    for part in name.split("."):  # what is in a secret is one: token.value
        words = tuple(_WORD_BREAKS.sub(" ", part).lower().split())  # also of authToken
        if not _SECRET_WORDS.isdisjoint(words) or any(
            words[-len(ending) :] == ending for ending in _SECRET_ENDINGS
        ):
            return True
    return False

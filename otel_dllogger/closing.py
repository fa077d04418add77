"""The backends that have something to wait for at their end, so that they wait together.

One that sends or serves may take two seconds to close. Where several are about to close, all
are told first: each does its work at once, and the waits that follow have one deadline.
"""

from __future__ import annotations

from typing import Protocol

CLOSE_S = 2.0
"""Seconds that closing takes at most, from the moment at which a backend was told."""


class Closing(Protocol):
    """A backend whose close takes time."""

    def hurry(self) -> None:
        """Take note that another one closes, and this one perhaps next; wait for nothing."""

    def begin_close(self) -> None:
        """Begin to close, and wait for nothing."""


_open: dict[int, Closing] = {}


def add(backend: Closing) -> None:
    """Add a backend to the open ones.

    Args:
        backend: The backend, from now on until ``remove``.
    """
    _open[id(backend)] = backend


def remove(backend: Closing) -> None:
    """Take a backend that closes out of the open ones, and let those hurry.

    Args:
        backend: The backend.
    """
    _open.pop(id(backend), None)
    for other in tuple(_open.values()):
        other.hurry()


def begin_all() -> None:
    """Let all open backends begin to close: the process ends."""
    for backend in tuple(_open.values()):
        backend.begin_close()

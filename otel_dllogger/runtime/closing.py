"""Closes the backends whose close takes time, so that they share one deadline.

One that sends or serves may take two seconds to close. Where several are about to close, all
are told first and start at once, so that together they take no longer than the slowest.
"""

from __future__ import annotations

from typing import Protocol

CLOSE_S = 2.0
"""Seconds that closing takes at most, from the moment at which a backend was told."""


class Closing(Protocol):
    """A backend whose close takes time."""

    def hurry(self) -> None:
        """Prepare to close, since another one closes and this one may be next; do not wait."""

    def begin_close(self) -> None:
        """Begin to close, and do not wait."""


_open: dict[int, Closing] = {}


def add(backend: Closing) -> None:
    """Add a backend to the open ones.

    Args:
        backend: The backend, from now on until ``remove``.
    """
    _open[id(backend)] = backend


def remove(backend: Closing) -> None:
    """Remove a backend that closes from the open ones, and let the others prepare.

    Args:
        backend: The backend.
    """
    _open.pop(id(backend), None)
    for other in tuple(_open.values()):
        other.hurry()


def begin_all() -> None:
    """Let all open backends begin to close, since the process ends."""
    for backend in tuple(_open.values()):
        backend.begin_close()

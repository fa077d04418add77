"""Close the backends whose close takes time, so that they share one deadline.

A backend that sends or serves may take two seconds to close. If several are about to close, all
of them are told first and start at once, so that together they take no longer than the slowest.
"""

from __future__ import annotations

from typing import Protocol

CLOSE_S = 2.0
"""The longest time that closing takes, in seconds from when a backend was told."""


class Closing(Protocol):
    """A backend whose close takes time."""

    def hurry(self) -> None:
        """Prepare to close without waiting: another backend closes, and this may be next."""

    def begin_close(self) -> None:
        """Begin to close, without waiting."""


_open: dict[int, Closing] = {}


def add(backend: Closing) -> None:
    """Add a backend to the open ones.

    Args:
        backend: The backend, which counts as open until ``remove``.
    """
    _open[id(backend)] = backend


def remove(backend: Closing) -> None:
    """Remove a closing backend from the open ones, and let the others prepare to close.

    Args:
        backend: The backend.
    """
    _open.pop(id(backend), None)
    for other in tuple(_open.values()):
        other.hurry()


def begin_all() -> None:
    """Let all open backends begin to close, since the process is exiting."""
    for backend in tuple(_open.values()):
        backend.begin_close()

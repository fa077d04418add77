"""What must be put right around a fork: one registry, which Python calls.

A child has a copy of its parent's memory, but only the thread that forked: locks may be held for
ever, threads are gone, and what waits to be written or sent is the parent's. Objects register
themselves, and are held weakly.

There is no lock here: a fork may come in the middle of ``register``, on this thread by a signal
handler or on another one. An object is then registered or it is not, and nothing waits.
"""

from __future__ import annotations

import functools
import itertools
import os
import weakref
from typing import Protocol


class ForkHandler(Protocol):
    """An object that is told of forks.

    It may have ``before_fork()`` and ``after_fork_in_parent()`` as well, which are called in the
    process that forks.
    """

    def after_fork_in_child(self) -> None:
        """Put right what a child cannot use, and forget what is its parent's."""


_handlers: dict[int, weakref.ref[ForkHandler]] = {}
_numbers = itertools.count()


def register(handler: ForkHandler) -> None:
    """Have an object told of every fork for as long as it lives.

    After a fork the objects are called in the order in which they were registered, so that what
    others stand on is put right first; before a fork in the opposite order.

    Args:
        handler: The object; it must be possible to refer to it weakly.
    """
    number = next(_numbers)
    # Python calls it with the reference, which is then the default of ``pop``: no code of this
    # module's, since its names may be gone before the last object is.
    _handlers[number] = weakref.ref(handler, functools.partial(_handlers.pop, number))


def _call(method: str, *, backwards: bool = False) -> None:
    """Call a method of all handlers that have it, whatever one of them raises."""
    references = list(_handlers.values())
    if backwards:
        references.reverse()
    error = None
    for reference in references:
        try:
            getattr(reference(), method, _do_nothing)()
        except BaseException as raised:  # the others come first
            error = raised
    if error is not None:
        raise error  # Python reports it as ignored, as from any function of this kind


def _do_nothing() -> None:
    """Stand in for a method that a handler does not have."""


os.register_at_fork(
    before=functools.partial(_call, "before_fork", backwards=True),
    after_in_parent=functools.partial(_call, "after_fork_in_parent"),
    after_in_child=functools.partial(_call, "after_fork_in_child"),
)

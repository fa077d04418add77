"""The registry of objects that must act before or after a fork; Python calls it.

A child has a copy of its parent's memory, but only the thread that forked: locks may be held for
ever, threads are gone, and what waits to be written or sent is the parent's. Objects register
themselves, and are referenced weakly.

There is no lock here: a fork may come in the middle of ``register``, in a signal handler on this
thread or on another thread. The object is then either registered or not, and nothing waits.
"""

from __future__ import annotations

import functools
import itertools
import os
import weakref
from typing import Protocol


class ForkHandler(Protocol):
    """An object that is called at forks.

    It may also have ``before_fork()`` and ``after_fork_in_parent()``, which are called in the
    process that forks.
    """

    def after_fork_in_child(self) -> None:
        """Repair what a child cannot use, and forget what belongs to its parent."""


_handlers: dict[int, weakref.ref[ForkHandler]] = {}
_numbers = itertools.count()


def register(handler: ForkHandler) -> None:
    """Have an object called at every fork for as long as it lives.

    After a fork, objects are called in the order in which they were registered, so that those
    on which others depend are repaired first; before a fork, in reverse order.

    Args:
        handler: The object; it must support weak references.
    """
    number = next(_numbers)
    # Python calls this with the reference, which becomes the default of ``pop``. It is not a
    # function of this module, since the module's names may be gone before the last object is.
    _handlers[number] = weakref.ref(handler, functools.partial(_handlers.pop, number))


def _call(method: str, *, backwards: bool = False) -> None:
    """Call a method of all handlers that have it, even if one of them raises."""
    references = list(_handlers.values())
    if backwards:
        references.reverse()
    error = None
    for reference in references:
        try:
            getattr(reference(), method, _do_nothing)()
        except BaseException as raised:  # the others must be called first
            error = raised
    if error is not None:
        raise error  # Python reports it as ignored, as it does for any such function


def _do_nothing() -> None:
    """Do nothing, in place of a method that a handler does not have."""


os.register_at_fork(
    before=functools.partial(_call, "before_fork", backwards=True),
    after_in_parent=functools.partial(_call, "after_fork_in_parent"),
    after_in_child=functools.partial(_call, "after_fork_in_child"),
)

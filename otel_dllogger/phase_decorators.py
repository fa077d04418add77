"""Functions that are in a phase while they run; generators are not while they are suspended."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Scope = contextlib.AbstractContextManager[object]


def decorate(function: Any, scope: Callable[[], Scope]) -> Any:
    """Return a function that is in a phase while it runs.

    Args:
        function: A function, or one that is a coroutine or a generator, asynchronous ones included.
        scope: Returns the phase, as a context manager, for each call.
    """
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def coroutine(*args: Any, **kwargs: Any) -> Any:
            with scope():
                return await function(*args, **kwargs)

        return coroutine
    if inspect.isasyncgenfunction(function):
        return _decorated_async_generator(function, scope)
    if inspect.isgeneratorfunction(function):
        return _decorated_generator(function, scope)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with scope():
            return function(*args, **kwargs)

    return call


def _decorated_generator(function: Any, scope: Callable[[], Scope]) -> Any:
    """Return a generator that is in the phase while it runs, and not while its consumer does."""

    @functools.wraps(function)
    def generator(*args: Any, **kwargs: Any) -> Any:
        inner, phase = function(*args, **kwargs), scope()
        resume, given = inner.send, None
        while True:
            with _unless_closing(phase, given):
                try:
                    item = resume(given)
                except StopIteration as end:
                    return end.value
                finally:
                    given = None  # an exception would keep this frame, and this frame it
            try:
                given = yield item
                resume = inner.send
            except BaseException as error:
                resume, given = inner.throw, error

    return generator


def _decorated_async_generator(function: Any, scope: Callable[[], Scope]) -> Any:
    """Return an asynchronous generator that is in the phase while it runs."""

    @functools.wraps(function)
    async def generator(*args: Any, **kwargs: Any) -> Any:
        inner, phase = function(*args, **kwargs), scope()
        resume, given = inner.asend, None
        while True:
            with _unless_closing(phase, given):
                try:
                    item = await resume(given)
                except StopAsyncIteration:
                    return
                finally:
                    given = None  # as above
            try:
                given = yield item
                resume = inner.asend
            except BaseException as error:
                resume, given = inner.athrow, error

    return generator


def _unless_closing(phase: Scope, given: object) -> Scope:
    """Return the phase, and nothing for the end of a generator that nobody wants to go on.

    The garbage collector may be who ends it, at any moment, and such an end is not an error.
    """
    return contextlib.nullcontext() if isinstance(given, GeneratorExit) else phase

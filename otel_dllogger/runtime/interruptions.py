"""Pass on exceptions that the application's signal handlers raise in the middle of our code.

A handler that raises, for example at a time limit, means to end what its thread is doing, and
Python raises in whichever frame is running. If that frame is one of ours, a fault barrier must
not mistake the exception for a fault of the package.
"""

from __future__ import annotations

import functools
import itertools
from _signal import getsignal  # type: ignore[import-not-found] # the faster one
from _thread import get_ident
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

from otel_dllogger.runtime.locks import MAIN_THREAD

if TYPE_CHECKING:
    from collections.abc import Container
    from types import FrameType


def let_through(error: BaseException) -> None:
    """Raise an exception again if it comes from a signal handler, otherwise do nothing.

    Every ``except Exception`` that a thread of the training script can reach calls this first.

    Args:
        error: The exception that was caught.

    Raises:
        BaseException: ``error`` itself.
    """
    if get_ident() != MAIN_THREAD.ident:  # handlers never run there
        return
    traceback = _TRACEBACK.__get__(error)
    installed = _installed()
    for _ in range(_MAX_FRAMES):
        if traceback is None:
            return
        if _is_handler(traceback.tb_frame, installed):
            raise error
        traceback = traceback.tb_next


def _is_handler(frame: FrameType, installed: Container[int]) -> bool:
    """Return whether a frame is that of a signal handler.

    A handler is called with the signal's number and the frame that it interrupts, which is the
    frame below its own.

    Source: https://docs.python.org/3/library/signal.html#signal.signal
    """
    interrupted = frame.f_back
    if interrupted is None:
        return False
    if id(frame.f_code) in installed:  # whatever became of its arguments
        return True
    given = _arguments(frame)
    return any(
        frame_given is interrupted and isinstance(number, int) and number in _SIGNAL_NUMBERS
        for number, frame_given in itertools.pairwise(given)
    )


def _installed() -> set[int]:
    """Return the addresses of the code objects of installed handlers written in Python."""
    codes = set()
    for number in _SIGNAL_NUMBERS:
        handler: Any = getsignal(number)
        if not callable(handler):  # the system's default, or ignored
            continue
        while type(handler) is functools.partial:
            handler = handler.func
        if type(handler) not in (FunctionType, MethodType):
            handler = getattr(type(handler), "__call__", None)  # noqa: B004 - of an object
        code = getattr(handler, "__code__", None)  # a method has its function's
        if code is not None:
            codes.add(id(code))
    return codes


def _arguments(frame: FrameType) -> list[object]:
    """Return a function's arguments, with ``*args`` expanded, as its names hold them now."""
    code = frame.f_code
    count = code.co_argcount + code.co_kwonlyargcount
    if code.co_flags & _HAS_VARARGS:
        count += 1
    given: list[object] = []
    for name in code.co_varnames[:count]:
        value = frame.f_locals.get(name)
        if type(value) is tuple:
            given += value
        else:
            given.append(value)
    return given


# An exception that is raised again and again has a traceback of all of them, the latest first.
_MAX_FRAMES = 200
_TRACEBACK = BaseException.__dict__["__traceback__"]  # a class may define its own
_HAS_VARARGS = 0x04  # inspect.CO_VARARGS, without importing inspect
_SIGNAL_NUMBERS = range(1, 65)

"""The phases of this process: which are open, and for how long each was the innermost one.

Phases of the training loop are on one stack, and each stops the clock of the one around it.
Those of other threads, and of forked children, overlap them.
"""

from __future__ import annotations

import math
import sys
from _thread import get_ident
from sys import getrefcount
from time import monotonic_ns
from types import FunctionType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from otel_dllogger.phase_decorators import decorate
from otel_dllogger.record import ERROR, INTERRUPTED, OK
from otel_dllogger.runtime import fork
from otel_dllogger.values import key_text

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")


_REFERENCES_OF_STACK = 2
"""What ``getrefcount`` returns for an object to which one list refers."""


class PhaseLogger(Protocol):
    """What a phase requires of its Logger.

    Attributes:
        loop_ident: The thread of the training loop.
    """

    loop_ident: int

    def end_phase(self, phase: OpenPhase, outcome: str, end_ns: int) -> None:
        """Write a phase that ended."""

    def has_backend(self, backend: object) -> bool:
        """Return whether a backend gets the phases of this Logger."""

    def announce_phase(self, phase: OpenPhase, now_ns: int) -> None:
        """Write that a phase is open, before a record in it."""


class OpenPhase:
    """A phase that has begun.

    Args:
        logger: The Logger that gets it.
        name: Its name.
        step: The step as the user passed it.
        begin_ns: When it began, by the monotonic clock.

    Attributes:
        ident: The thread that began it.
        is_overlapping: Whether it runs beside the training loop.
        clock: Nanoseconds in which it was the innermost phase, and since when it is again; None
            while an inner phase is open. They are replaced together, since another thread reads
            them.
        announced_ns: What was announced of them before a record.
        is_over: Whether it ended.
    """

    __slots__ = (
        "announced_ns",
        "begin_ns",
        "clock",
        "ident",
        "is_over",
        "is_overlapping",
        "logger",
        "name",
        "step",
    )

    def __init__(self, logger: PhaseLogger, name: str, step: Any, begin_ns: int) -> None:
        self.logger = logger
        self.name = name
        self.step = step
        self.begin_ns = begin_ns
        self.ident = get_ident()
        self.is_overlapping = self.ident != logger.loop_ident
        self.clock: tuple[int, int | None] = (0, begin_ns)
        self.announced_ns: int | None = None
        self.is_over = False

    def self_ns(self, now_ns: int) -> int:
        """Return the nanoseconds in which it was the innermost phase."""
        before_ns, since_ns = self.clock
        return before_ns if since_ns is None else max(before_ns + now_ns - since_ns, before_ns)


class OpenPhases:
    """The open phases of this process.

    Attributes:
        has_unannounced: Whether a phase of the training loop is open of which no entry tells yet.
    """

    def __init__(self) -> None:
        self._stack: list[OpenPhase] = []
        self._overlapping: list[OpenPhase] = []
        self._is_child = False
        self.has_unannounced = False
        fork.register(self)

    def begin(self, logger: PhaseLogger, name: str, step: Any) -> OpenPhase:
        """Begin a phase inside those that are open.

        Args:
            logger: The Logger that gets it.
            name: Its name.
            step: The step as the user passed it.
        """
        stack, now_ns = self._stack, monotonic_ns()
        phase = OpenPhase(logger, name, step, now_ns)
        if phase.is_overlapping or self._is_child:
            phase.is_overlapping = True
            self._overlapping.append(phase)
            return phase
        if stack:
            # An exception of a signal handler between ``begin`` and the block of a ``with``
            # statement leaves a phase that nobody can end: only the stack refers to it.
            while stack and getrefcount(stack[-1]) <= _REFERENCES_OF_STACK:
                stack.pop()
            if stack:
                outer = stack[-1]
                outer.clock = (outer.self_ns(now_ns), None)
        stack.append(phase)
        self.has_unannounced = True
        return phase

    def end(self, phase: OpenPhase, now_ns: int) -> int:
        """End a phase, and return the nanoseconds in which it was the innermost one.

        Args:
            phase: The phase; one that is not the innermost is ended by itself, as a task of
                asyncio does that ends before another one.
            now_ns: The time, by the monotonic clock.
        """
        stack, self_ns = self._stack, phase.self_ns(now_ns)
        if stack and stack[-1] is phase:
            stack.pop()
            if stack:
                outer = stack[-1]
                outer.clock = (outer.clock[0], now_ns)
        else:
            for phases in (stack, self._overlapping):
                if phase in phases:
                    phases.remove(phase)
        if not stack:
            self.has_unannounced = False
        return self_ns

    def left_in(self, phase: OpenPhase) -> list[OpenPhase]:
        """Return the phases that began in a phase that ends and have not ended, innermost first.

        While a loop of asyncio runs there are no such phases: its tasks may end in any order.
        """
        stack = self._stack
        if not stack or stack[-1] is phase or phase not in stack:
            return []
        asyncio = sys.modules.get("asyncio")  # which takes long to import
        if asyncio is not None and asyncio._get_running_loop() is not None:  # noqa: SLF001
            return []
        return stack[: stack.index(phase) : -1]

    def take_unannounced(self, now_ns: int) -> list[OpenPhase]:
        """Return the phases of this thread of which no entry tells yet, outermost first.

        Other threads leave them alone: a phase could end before it is announced.

        Args:
            now_ns: The time, by the monotonic clock.
        """
        ident = get_ident()
        found = []
        for phase in self._stack.copy():
            if phase.ident == ident and phase.announced_ns is None:
                phase.announced_ns = 0  # before any call, in which a handler may log as well
                phase.announced_ns = phase.self_ns(now_ns)
                found.append(phase)
        if found:
            self.has_unannounced = False
        return found

    def forget(self, logger: PhaseLogger) -> None:
        """Forget the open phases of a Logger that is closed, since they may never end."""
        for phases in (self._stack, self._overlapping):
            phases[:] = [phase for phase in phases if phase.logger is not logger]

    def names(self, begun_by_s: float = math.inf) -> list[str]:
        """Return the names of the open phases of the training loop, outermost first.

        Args:
            begun_by_s: Leave out those that began after this time, seconds of the monotonic clock.
        """
        return [phase.name for phase in self._stack if phase.begin_ns <= begun_by_s * 1e9]

    def times_us(self, backend: object) -> dict[str, int | None]:
        """Return the open phases with the time of each that no entry tells of, in microseconds.

        It is None for those that are only open beside the training loop.

        Args:
            backend: A backend that gets the phases.
        """
        now_ns = monotonic_ns()
        times_us: dict[str, int | None] = {
            phase.name: None
            for phase in self._overlapping.copy()
            if phase.logger.has_backend(backend)
        }
        for phase in self._stack.copy():
            if not phase.logger.has_backend(backend):
                continue
            new_us = (phase.self_ns(now_ns) - (phase.announced_ns or 0)) // 1000
            times_us[phase.name] = (times_us.get(phase.name) or 0) + max(new_us, 0)
        return times_us

    def after_fork_in_child(self) -> None:
        """Forget the phases, which are the parent's; the child's own overlap them."""
        self._stack = []
        self._overlapping = []
        self._is_child = True
        self.has_unannounced = False


PHASES = OpenPhases()


class PhaseScope:
    """A phase as a context manager, or as a decorator of a function; made by ``phase``.

    It may be used again, nested in itself, and by several threads. ``async with`` works as well. A
    decorated coroutine is in the phase until it ends, a decorated generator only while it runs:
    each time that it is resumed is a phase, and what its consumer does with an item is not in it.

    Args:
        logger: The Logger that gets the phase, or a function that returns it when it begins.
        name: What the process does meanwhile, as text.
        step: The step to which it belongs.
    """

    __slots__ = ("_begun", "_logger", "_name", "_step")

    def __init__(
        self, logger: PhaseLogger | Callable[[], PhaseLogger], name: Any, step: Any
    ) -> None:
        self._logger = logger
        self._name = name if type(name) is str else key_text(name)
        self._step = step
        self._begun: list[OpenPhase] = []

    def __enter__(self) -> PhaseScope:  # noqa: PYI034 - Self came with Python 3.11
        logger = self._logger
        if type(logger) is FunctionType:
            logger = logger()
        self._begun.append(PHASES.begin(logger, self._name, self._step))  # type: ignore[arg-type]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_error: object) -> None:
        now_ns = monotonic_ns()
        begun = self._begun
        phase = begun.pop() if len(begun) == 1 else self._take_begun()
        if phase.is_over:  # it was left open in one that ended
            return
        outcome = OK if kind is None else ERROR if issubclass(kind, Exception) else INTERRUPTED
        for inner in PHASES.left_in(phase):
            inner.is_over = True
            inner.logger.end_phase(inner, INTERRUPTED, now_ns)
        phase.is_over = True
        phase.logger.end_phase(phase, outcome, now_ns)

    def _take_begun(self) -> OpenPhase:
        """Return the phase that this thread began last; it may be used by several."""
        ident = get_ident()
        for phase in reversed(self._begun.copy()):
            if phase.ident == ident:
                self._begun.remove(phase)
                return phase
        return self._begun.pop()

    async def __aenter__(self) -> PhaseScope:  # noqa: PYI034 - as above
        return self.__enter__()

    async def __aexit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self.__exit__(kind, *error)

    def __call__(self, function: Function) -> Function:
        """Return a function that is in the phase while it runs."""
        decorated: Function = decorate(
            function, lambda: PhaseScope(self._logger, self._name, self._step)
        )
        return decorated

"""Find out whether the script ended with exit code 0.

Python does not tell exit handlers the exit code. What can be known about it comes from three
sources: ``sys.last_value``, which Python sets for every exception but SystemExit; the arguments
of ``sys.exit``, ``exit`` and ``quit``; and the instruction at which the script's own code
stopped. A SystemExit that a function raises itself leaves no trace: then the result is a guess,
and there is a warning.
"""

from __future__ import annotations

import atexit
import builtins
import functools
import sys
import threading
import weakref
from typing import TYPE_CHECKING, Any

from otel_dllogger.diagnostics import DIAGNOSTICS

if TYPE_CHECKING:
    from collections.abc import Callable
    from dis import Instruction
    from types import CodeType, FrameType

_BESIDE_A_CALL = ("PUSH_NULL", "PRECALL", "NOP", "CACHE", "EXTENDED_ARG", "RESUME", "NOT_TAKEN")
_CONSTANTS = ("LOAD_CONST", "LOAD_SMALL_INT")
_TEXTS = ("BUILD_STRING", "FORMAT_VALUE", "FORMAT_SIMPLE", "FORMAT_WITH_SPEC")  # of f-strings
_UNSEEN = object()


class ExitStatus:
    """A watcher that finds out how the script of this process ends."""

    def __init__(self) -> None:
        self._watching = False
        self._leave: object = None
        self._script: FrameType | None = None
        self._exits: list[_Exit] = []  # calls of sys.exit, except those known to be caught
        self._known: bool | None = None

    def note_exits(self) -> None:
        """Wrap ``sys.exit``, ``exit`` and ``quit`` to note their calls; callers see no difference.

        To be called when the package is imported: ``sys.exit(main())`` looks ``sys.exit`` up
        before ``main`` creates a backend. Nothing is kept until there is a backend.
        """
        if self._leave is None:
            self._leave = sys.exit
            sys.exit = self._noting(sys.exit)
            site = sys.modules.get("_sitebuiltins")
            if site is not None:
                site.Quitter.__call__ = self._noting(site.Quitter.__call__)

    def watch(self) -> None:
        """Begin to watch how the script ends; for callers that need to know it at exit."""
        self.note_exits()
        if not self._watching:
            self._watching = True
            # Handlers run in reverse order: this one runs after those of all backends.
            atexit.register(self._forget)
        if self._script is None:
            self._script = _keepable(_script_frame())

    def tell(self, error: BaseException | None) -> None:
        """Set how the script ended, if this package itself runs it.

        Args:
            error: The exception that ended it; None if it ran to its end.
        """
        self._known = error is None or _is_code_0(error)

    def is_clean(self) -> bool:
        """Return whether the script has ended, is ending or is running without a failure.

        While an exception is being handled, as in a ``finally``, only ``SystemExit`` with code 0
        is not a failure. The same goes for an ``except`` block, even if no exception leaves it:
        at that time the two cannot be told apart.
        """
        error = sys.exc_info()[1]
        if error is not None:
            return _is_code_0(error)
        if _script_frame() is not None:
            return _code_of_forked_child() in (None, 0)
        if self._known is None:
            self._known = self._ended_cleanly()
        return self._known

    def _noting(self, leave: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(leave)
        def noting(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True  # from pytest, which would show this as the failing code
            try:
                return leave(*args, **kwargs)
            except SystemExit as error:
                _stays = self._note(error)  # lives in the traceback, with this frame
                raise

        return noting

    def _note(self, error: SystemExit) -> _Passage | None:
        # In another thread it ends only that thread, and in an exit handler it ends nothing.
        if not self._watching or threading.get_ident() != threading.main_thread().ident:
            return None
        script = _script_frame()
        if script is None:
            return None
        self._script = _keepable(script)
        passage = _Passage(sys._getframe(2), self._settle)  # noqa: SLF001 - no other way
        self._exits.append(_Exit(_is_code_0(error), passage))
        return passage

    def _settle(self, passage: _Passage) -> None:
        """Drop an exit that can no longer be raised, or note whether it ended the script."""
        is_running = _script_frame() is not None
        for noted in list(self._exits):
            if noted.key == id(passage):
                noted.has_ended = not is_running and passage.is_through()
                if is_running:
                    self._exits.remove(noted)

    def _ended_cleanly(self) -> bool:
        """Return whether a script that is no longer running ended without a failure."""
        script = self._script
        if script is not None and _operation(script.f_code, script.f_lasti).startswith("RETURN_"):
            return True  # any exception before that was caught
        ends = [noted.is_code_0 for noted in self._exits if noted.ended()]
        if ends:
            return ends[-1]
        if _has_raised(script):
            return False
        if script is None:
            return True
        stop = _Stop(script, self._leave)
        if stop.is_code_0 is not None:
            return stop.is_code_0
        guess = stop.leaves_with_result
        DIAGNOSTICS.warn(
            "exit_status",
            "the script ended by `raise SystemExit(...)`, whose exit code cannot be seen: the run "
            f"counts as {'finished' if guess else 'failed'}; call sys.exit(...) instead",
        )
        return guess

    def _forget(self) -> None:
        # The frame holds the script's globals, which should be freed as if we did not exist.
        self._script = None


class _Exit:
    """A call of ``sys.exit``, stored without keeping any objects alive."""

    def __init__(self, is_code_0: bool, passage: _Passage) -> None:
        self.is_code_0 = is_code_0
        self.key = id(passage)
        self.has_ended = False
        self._passage = weakref.ref(passage)

    def ended(self) -> bool:
        """Return whether it ended the script, which is no longer running."""
        passage = self._passage()
        return self.has_ended if passage is None else passage.is_through()


class _Passage:
    """The frames that an exit passes through, from its call to the end of the script.

    It is a local variable in a frame of the exit's traceback. So it lives as long as the
    traceback, and keeps only frames that the traceback keeps anyway. Code that catches the exit
    frees it while the script runs. If the exit ends the script, or is the context of the
    exception that does, it is freed after that.

    Args:
        frame: The frame that called ``sys.exit``.
        settle: Called with this object before it is freed.
    """

    def __init__(self, frame: FrameType | None, settle: Callable[[_Passage], None]) -> None:
        self._settle = settle
        self._calls: list[tuple[FrameType, int]] = []
        while frame is not None:
            self._calls.append((frame, frame.f_lasti))
            if _is_script(frame):
                break
            frame = frame.f_back

    def is_through(self) -> bool:
        """Return whether all frames stopped at the call, or raised the exit again."""
        return all(frame.f_lasti == offset or _raises_again(frame) for frame, offset in self._calls)

    def __del__(self) -> None:
        self._settle(self)


class _Stop:
    """What the script's own code was doing when a SystemExit left it.

    Args:
        script: The frame of the script's module.
        leave: The original ``sys.exit``, which the script may have imported before.

    Attributes:
        is_code_0: Whether ``raise SystemExit(code)`` or ``exit(code)`` leaves with code 0;
            None if this cannot be seen.
        leaves_with_result: Whether the code is the result of a call, as in
            ``raise SystemExit(main())``.
    """

    def __init__(self, script: FrameType, leave: object) -> None:
        self.is_code_0: bool | None = None
        self.leaves_with_result = False
        self._names = {**vars(builtins), **script.f_globals}
        self._leave = leave
        steps = _steps_to(script)
        raised = _operand(steps)
        if raised is not None:
            value = self._value(raised)
            if value is SystemExit:
                self.is_code_0 = True
            elif isinstance(value, SystemExit):
                self.is_code_0 = _is_code_0(value)
            else:
                self._see_call(raised, of_exception=True)
        elif steps and steps[-1].opname.startswith("CALL"):
            expression = _last_expression(steps)
            if expression is not None:
                self._see_call(expression, of_exception=False)

    def _see_call(self, expression: list[Instruction], *, of_exception: bool) -> None:
        call = _parts(expression)
        if call is None or len(call) > 2:
            return
        leave = self._value(call[0])
        if leave is not SystemExit if of_exception else leave not in (self._leave, sys.exit):
            return
        if len(call) == 1:
            self.is_code_0 = True
            return
        given = call[1]
        code = self._value(given)
        if code is not _UNSEEN and not isinstance(code, tuple):  # it depends on the version
            self.is_code_0 = _is_code_0(SystemExit(code))
        elif self._is_text(given):
            self.is_code_0 = False
        else:
            self.leaves_with_result = given[-1].opname.startswith("CALL") and not any(
                isinstance(step.argval, str) for step in given if step.opname in _CONSTANTS
            )

    def _value(self, expression: list[Instruction]) -> object:
        """Return the value of a constant, a variable or ``sys.exit``, else ``_UNSEEN``."""
        steps = [step for step in expression if step.opname not in _BESIDE_A_CALL]
        if not steps:
            return _UNSEEN
        value: object = _UNSEEN
        if steps[0].opname in _CONSTANTS:
            value = steps[0].argval
        elif steps[0].opname == "LOAD_NAME":
            value = self._names.get(steps[0].argval, _UNSEEN)
        if len(steps) == 1:
            return value
        is_exit = steps[1].opname in ("LOAD_METHOD", "LOAD_ATTR") and steps[1].argval == "exit"
        return sys.exit if len(steps) == 2 and is_exit and value is sys else _UNSEEN

    def _is_text(self, expression: list[Instruction]) -> bool:
        """Return whether it is an f-string or a call of ``str`` or ``repr``, and so never 0."""
        if expression[-1].opname in _TEXTS:
            return True
        call = _parts(expression)
        return call is not None and self._value(call[0]) in (str, repr, ascii)


def _steps_to(frame: FrameType) -> list[Instruction]:
    """Return a frame's instructions up to the one at which it stopped."""
    import dis  # noqa: PLC0415 - of use in rare cases only

    steps = [step for step in dis.get_instructions(frame.f_code) if step.offset <= frame.f_lasti]
    while steps and steps[-1].opname == "CACHE":
        steps.pop()
    return steps


def _operand(steps: list[Instruction]) -> list[Instruction] | None:
    """Return the instructions that produce what the last one raises; None if it raises nothing."""
    if not steps or steps[-1].opname != "RAISE_VARARGS" or not steps[-1].arg:
        return None
    made = steps[:-1]
    if steps[-1].arg == 2:  # raise ... from ...
        cause = _last_expression(made)
        if cause is None:
            return None
        made = made[: len(made) - len(cause)]
    return _last_expression(made)


def _last_expression(steps: list[Instruction]) -> list[Instruction] | None:
    """Return the last instructions that together push one value; None if there are branches."""
    import dis  # noqa: PLC0415 - of use in rare cases only

    values = 0
    for start in range(len(steps) - 1, -1, -1):
        step = steps[start]
        if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs:
            return None
        values += dis.stack_effect(
            step.opcode, step.arg if step.opcode >= dis.HAVE_ARGUMENT else None, jump=False
        )
        if values >= 1:
            return steps[start:]
        if step.is_jump_target:
            return None
    return None


def _parts(expression: list[Instruction]) -> list[list[Instruction]] | None:
    """Return a call's function and arguments; None if it is not a plain call."""
    if expression[-1].opname not in ("CALL", "CALL_FUNCTION", "CALL_METHOD"):
        return None
    rest = expression[:-1]
    parts: list[list[Instruction]] = []
    for _ in range(expression[-1].arg or 0):
        while rest and rest[-1].opname in ("PRECALL", "CACHE"):
            rest.pop()
        if not rest or rest[-1].opname == "KW_NAMES":
            return None
        argument = _last_expression(rest)
        if argument is None:
            return None
        parts.insert(0, argument)
        rest = rest[: len(rest) - len(argument)]
    return [rest, *parts]


def _raises_again(frame: FrameType) -> bool:
    """Return whether a frame that has ended raised again the exception that it had caught."""
    steps = _steps_to(frame)
    if not steps or not steps[-1].opname.startswith(("RAISE", "RERAISE")):
        return False
    raised = _operand(steps)
    if raised is None:
        return not steps[-1].arg or steps[-1].opname == "RERAISE"
    name = raised[-1]
    # After ``except ... as error`` the name is deleted; any other variable still exists.
    return (
        len(raised) == 1
        and name.opname.startswith(("LOAD_FAST", "LOAD_NAME", "LOAD_DEREF", "LOAD_GLOBAL"))
        and name.argval not in {**vars(builtins), **frame.f_globals, **frame.f_locals}
    )


def _has_raised(script: FrameType | None) -> bool:
    """Return whether the exception that Python printed last came from the script."""
    if not hasattr(sys, "last_value"):
        return False
    if script is None:
        return not hasattr(sys, "ps1")  # at a prompt, it comes from some earlier statement
    traceback = getattr(sys, "last_traceback", None)
    while traceback is not None:
        if traceback.tb_frame is script:
            return True
        traceback = traceback.tb_next
    return False  # a library set it


def _operation(code: CodeType, offset: int) -> str:
    from opcode import opname  # noqa: PLC0415 - only at exit

    return opname[code.co_code[offset]] if offset >= 0 else ""


def _is_code_0(error: BaseException) -> bool:
    """Return whether Python exits with 0 for this exception."""
    if not isinstance(error, SystemExit):
        return False
    code: object = error.code
    if not isinstance(code, int):
        return code is None
    number = int.__add__(code, 0)  # without the operators of a subclass
    # Python converts it to a C long, or to -1; the system keeps eight bits.
    return -(2**63) <= number < 2**63 and number & 0xFF == 0


def _is_script(frame: FrameType) -> bool:
    return frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__"


def _script_frame() -> FrameType | None:
    """Return the frame of the script's module, None if the script is not running."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - no other way
    script = None
    while frame is not None:
        if _is_script(frame):
            script = frame
        frame = frame.f_back
    return script


def _keepable(script: FrameType | None) -> FrameType | None:
    """Return a module's frame if it keeps only the module's globals alive."""
    caller = None if script is None else script.f_back
    while caller is not None:
        if caller.f_globals.get("__name__") != "runpy":  # not python -m
            return None
        caller = caller.f_back
    return script


def _code_of_forked_child() -> int | None:
    """Return the exit code with which multiprocessing is about to end this process.

    Since Python 3.13, multiprocessing itself calls the exit handlers of a forked child.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - no other way
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name == "multiprocessing.process":  # the process still runs its target
            return None
        if name in ("multiprocessing.popen_fork", "multiprocessing.forkserver"):
            code = frame.f_locals.get("code")
            return code if isinstance(code, int) else None
        frame = frame.f_back
    return None


EXIT_STATUS = ExitStatus()
"""The watcher of this process's script."""

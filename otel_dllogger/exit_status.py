"""How the script ended: with exit code 0, or in any other way.

Python tells no exit handler the exit code. What can be known of it comes from three places:
``sys.last_value``, which Python sets for every exception but SystemExit; what ``sys.exit``,
``exit`` and ``quit`` were called with; and the instruction at which the script's own code
stopped. A SystemExit that a function raises by itself leaves no trace: there it is a guess,
which is warned of.
"""

from __future__ import annotations

import atexit
import functools
import sys
import threading
from typing import TYPE_CHECKING, Any

from otel_dllogger.faults import FAULTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from dis import Instruction
    from types import CodeType, FrameType

_BESIDE_A_CALL = ("PUSH_NULL", "PRECALL", "NOP", "CACHE", "EXTENDED_ARG", "RESUME", "NOT_TAKEN")
_CONSTANTS = ("LOAD_CONST", "LOAD_SMALL_INT")


class ExitStatus:
    """Watch how the script of this process ends."""

    def __init__(self) -> None:
        self._watching = False
        self._leave: object = None
        self._script: FrameType | None = None
        self._exit: tuple[bool, int] | None = None  # of sys.exit: code 0 or not, and where
        self._known: bool | None = None

    def note_exits(self) -> None:
        """Have ``sys.exit``, ``exit`` and ``quit`` noted; to who calls them nothing changes.

        To be called when the package is imported: ``sys.exit(main())`` looks ``sys.exit`` up
        before ``main`` makes a backend. Nothing is kept until there is one.
        """
        if self._leave is None:
            self._leave = sys.exit
            sys.exit = self._noting(sys.exit)
            site = sys.modules.get("_sitebuiltins")
            if site is not None:
                site.Quitter.__call__ = self._noting(site.Quitter.__call__)

    def watch(self) -> None:
        """Find out from now on how the script ends; for who has to know at its end."""
        self.note_exits()
        if not self._watching:
            self._watching = True
            # Handlers run in reverse: this one after those of all backends.
            atexit.register(self._forget)
        if self._script is None:
            self._script = _keepable(_script_frame())

    def tell(self, error: BaseException | None) -> None:
        """Say how the script ended, where it is run by this package.

        Args:
            error: What ended it; None for its own end.
        """
        self._known = error is None or _is_code_0(error)

    def is_clean(self) -> bool:
        """Tell whether the script ended, ends or goes on without a failure.

        While it is on the way out of an exception, as in a ``finally``, only
        ``SystemExit`` with the code 0 is none.
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
            try:
                return leave(*args, **kwargs)
            except SystemExit as error:
                self._note(error)
                raise

        return noting

    def _note(self, error: SystemExit) -> None:
        # In another thread it ends that thread alone, and in an exit handler nothing.
        if not self._watching or threading.get_ident() != threading.main_thread().ident:
            return
        script = _script_frame()
        if script is not None:
            self._script = _keepable(script)
            self._exit = _is_code_0(error), script.f_lasti

    def _ended_cleanly(self) -> bool:
        """Find out how a script ended that is no longer running."""
        script = self._script
        if script is not None and _operation(script.f_code, script.f_lasti).startswith("RETURN_"):
            return True  # whatever was raised before was caught
        if hasattr(sys, "last_value"):
            return False
        if script is None:
            return self._exit is None or self._exit[0]
        if self._exit is not None and self._exit[1] == script.f_lasti:
            return self._exit[0]
        stop = _Stop(script, self._leave)
        if stop.code is not None:
            return _is_code_0(SystemExit(*stop.code))
        if self._exit is not None and stop.passes_on:
            return self._exit[0]
        guess = stop.leaves_with_result
        FAULTS.warn(
            "exit_status",
            "a SystemExit that sys.exit() did not raise has ended the script, so its exit code is "
            f"not known: the run counts as {'finished' if guess else 'failed'}; raise it with "
            "sys.exit(code)",
        )
        return guess

    def _forget(self) -> None:
        # The frame has the script's globals, which are to be freed as without us.
        self._script = None


class _Stop:
    """What the script's own code was doing when a SystemExit left it.

    Args:
        script: The frame of its module.
        leave: The original ``sys.exit``, which the script may have imported before.

    Attributes:
        code: The argument of ``raise SystemExit(code)`` or ``exit(code)`` in a tuple, empty
            where there was none; None where it cannot be seen.
        leaves_with_result: Whether it is that of a call, as in ``raise SystemExit(main())``.
        passes_on: Whether it raised again what it had caught.
    """

    def __init__(self, script: FrameType, leave: object) -> None:
        import dis  # noqa: PLC0415 - of use in rare cases only

        names = script.f_globals
        lines = [
            range(start, end)
            for start, end, line in script.f_code.co_lines()
            if line == script.f_lineno
        ]
        steps = [
            step
            for step in dis.get_instructions(script.f_code)
            if step.offset <= script.f_lasti
            and step.opname not in _BESIDE_A_CALL
            and any(step.offset in line for line in lines)
        ]
        raises = bool(steps) and steps[-1].opname.startswith(("RAISE", "RERAISE"))
        self.passes_on = raises
        if raises:
            steps.pop()
        leavers = [
            number
            for number, step in enumerate(steps)
            if (
                step.opname == "LOAD_NAME"
                and (step.argval == "SystemExit" or names.get(step.argval) is leave)
            )
            or (  # sys.exit
                step.opname in ("LOAD_METHOD", "LOAD_ATTR")
                and step.argval == "exit"
                and names.get(steps[number - 1].argval) is sys
            )
        ]
        given = steps[leavers[-1] + 1 :] if leavers else None
        self.code = None if given is None else _argument(given, names)
        self.leaves_with_result = (
            self.code is None
            and given is not None
            and len(given) > 1
            and all(step.opname.startswith("CALL") for step in given[-2:])
            and not any(isinstance(step.argval, str) for step in given if step.opname in _CONSTANTS)
        )


def _argument(given: list[Instruction], names: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return the argument of a call, from the instructions after the callee's name."""
    if given and given[-1].opname.startswith("CALL"):
        given = given[:-1]
    if not given:
        return ()
    if len(given) > 1:
        return None
    step = given[0]
    if step.opname in _CONSTANTS:
        return (step.argval,)
    return (names[step.argval],) if step.opname == "LOAD_NAME" and step.argval in names else None


def _operation(code: CodeType, offset: int) -> str:
    from opcode import opname  # noqa: PLC0415 - at exit only

    return opname[code.co_code[offset]] if offset >= 0 else ""


def _is_code_0(error: BaseException) -> bool:
    """Tell whether Python exits with 0 for this exception."""
    if not isinstance(error, SystemExit):
        return False
    code: object = error.code
    if not isinstance(code, int):
        return code is None
    number = int.__add__(code, 0)  # not the operators of a subclass
    # Python makes it a C long, or -1; the system keeps eight bits.
    return -(2**63) <= number < 2**63 and number & 0xFF == 0


def _script_frame() -> FrameType | None:
    """Return the frame of the script's module, None where the script is not running."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - no other way
    script = None
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            script = frame
        frame = frame.f_back
    return script


def _keepable(script: FrameType | None) -> FrameType | None:
    """Return a module's frame if it keeps nothing alive but the module's globals."""
    caller = None if script is None else script.f_back
    while caller is not None:
        if caller.f_globals.get("__name__") != "runpy":  # of python -m
            return None
        caller = caller.f_back
    return script


def _code_of_forked_child() -> int | None:
    """Return the exit code that multiprocessing has for this process while it ends it.

    Since Python 3.13 it calls the exit handlers of a forked child itself.
    """
    frame: FrameType | None = sys._getframe()  # noqa: SLF001 - no other way
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name == "multiprocessing.process":  # it runs what it was made for
            return None
        if name in ("multiprocessing.popen_fork", "multiprocessing.forkserver"):
            code = frame.f_locals.get("code")
            return code if isinstance(code, int) else None
        frame = frame.f_back
    return None


EXIT_STATUS = ExitStatus()
"""How the script of this process ends."""

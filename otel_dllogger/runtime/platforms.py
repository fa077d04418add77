"""The systems that the package runs on: Linux and macOS."""

from __future__ import annotations

import sys

_PACKAGE = "otel_dllogger"
_PROBLEM = (
    "otel-dllogger needs Linux or macOS; on Windows, install and run it in WSL 2, "
    "see https://learn.microsoft.com/windows/wsl/install"
)


def require_posix() -> None:
    """Refuse Windows, whose files and signals work differently, before anything else fails on it.

    This is a function, since type checkers on Windows take whatever follows a ``raise`` that
    depends on ``sys.platform`` for code that is never reached.

    Raises:
        ImportError: On Windows.
        SystemExit: On Windows, after a line on standard error, if this process is the command
            ``otel-dllogger`` or ``python -m otel_dllogger``, which imports the package first.
    """
    if sys.platform != "win32":
        return
    if _is_command():
        sys.stderr.write(f"{_PROBLEM}\n")
        raise SystemExit(2)
    raise ImportError(_PROBLEM, name=_PACKAGE)


def _is_command() -> bool:
    program: str = (getattr(sys, "argv", None) or [""])[0]
    if program == "-m":  # Python is about to import the module that it will run
        return any(argument.removeprefix("-m") == _PACKAGE for argument in sys.orig_argv)
    name = program.replace("\\", "/").rpartition("/")[2].lower()
    return name.removesuffix(".exe").removesuffix("-script.py") == "otel-dllogger"

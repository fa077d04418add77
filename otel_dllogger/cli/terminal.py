"""What a command shows its user on the terminal: one-line errors, and its progress."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from otel_dllogger.errors import installing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

    from otel_dllogger.errors import ConfigurationError, EndpointError

EXIT_CODE = 2


class UserError(click.ClickException):
    """An error that says in one line what is wrong and what to do next; the exit code is 2."""

    exit_code = EXIT_CODE


def in_options(error: ConfigurationError | EndpointError, steps: Mapping[str, str]) -> str:
    """Return what an error says, with a next step that fits the command line.

    Args:
        error: The error.
        steps: What to do about each argument that is an option here; ``{example}`` stands for a
            valid value.
    """
    step = steps.get(error.argument, "").format(example=error.example) or error.step
    return f"{error.problem}; {step}" if step else error.problem


def missing_extra(error: ImportError, extra: str) -> str:
    """Return what to install, if a package of one of our extras is not there.

    Args:
        error: What the import said.
        extra: The extra.
    """
    package = f"the package {error.name}" if error.name else "more packages"
    return f"this needs {package}: {installing(extra)}"


def note(line: str) -> None:
    """Print a line to standard error; where that is closed, broken or full, nothing else happens.

    The line stays in no buffer: what could not be written would change the exit code.

    Args:
        line: What to say.
    """
    if sys.stderr is None:  # closed by who started this
        return
    with contextlib.suppress(Exception):  # a script runs without it
        stream: Any = sys.stderr.buffer
        encoded = f"otel-dllogger: {line}\n".encode(sys.stderr.encoding, "backslashreplace")
        getattr(stream, "raw", stream).write(encoded)


_PARTS = 1_000


class Bar:
    """A progress bar on a terminal for each stage; nothing if there is no terminal.

    Args:
        hidden: Show nothing on a terminal either.
    """

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden or sys.stderr is None or not sys.stderr.isatty()
        self._bar: Any = None
        self._name = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._begin("", 0)

    def stage(self, name: str, done: float) -> None:
        """Show how much of a stage is done, from 0 to 1."""
        self._begin(name, _PARTS)
        if self._bar is not None:
            self._update(round(done * _PARTS) - self._bar.pos)

    def advance(self, name: str, total: int) -> Callable[[int], None]:
        """Return a function that advances a stage of ``total`` bytes."""
        self._begin(name, max(total, 1))
        return self._update

    def _begin(self, name: str, length: int) -> None:
        """End the bar of the last stage, and show the bar of another one."""
        if name == self._name:
            return
        if self._bar is not None:
            self._bar.render_finish()
            self._bar = None
        self._name = name
        if name and not self._hidden:
            self._bar = click.progressbar(length=length, label=f"{name:>12}", file=sys.stderr)

    def _update(self, steps: int) -> None:
        if self._bar is not None and steps > 0:
            self._bar.update(steps)

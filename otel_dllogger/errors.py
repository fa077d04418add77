"""The exceptions of the package: each names the value, the rule and the next step."""

from __future__ import annotations

from otel_dllogger.runtime.interruptions import let_through

MAX_CHARACTERS = 1_000
"""Characters of a text that ``one_line`` looks at."""


class DLLoggerNotInitialized(Exception):  # noqa: N818 - DLLogger's own name
    """Say that a module function was called before ``init(backends)``."""


class DLLLoggerAlreadyInitialized(Exception):  # noqa: N818 - DLLogger's own name, three L's
    """Say that ``init(backends)`` was called a second time."""


class _Explained(Exception):  # noqa: N818 - a base of errors
    """Say what is wrong and what to do next, in one line.

    Args:
        problem: What is wrong: the value, and the rule that it breaks.
        step: What a program does instead; empty where ``problem`` ends in it.
        argument: The name of the argument that is wrong: on the command line it is an option,
            and the step another one. Empty where it is none.
        example: A value of the argument that is right.
    """

    def __init__(
        self, problem: str, *, step: str = "", argument: str = "", example: str = ""
    ) -> None:
        super().__init__(f"{problem}; {step}" if step else problem)
        self.problem = problem
        self.step = step
        self.argument = argument
        self.example = example


class ConfigurationError(_Explained, ValueError):
    """Say that an argument cannot mean anything, in one line with the next step."""


class EndpointError(_Explained, OSError):
    """Say that a metrics endpoint cannot be opened or announced, with the next step."""


class BackfillError(Exception):
    """Say in one line what ends a backfill, and what to do next; it can be run again."""


def one_line(what: object, *, most: int = MAX_CHARACTERS, redacted: bool = False) -> str:
    """Return a text, or what an exception says, on one line of characters that can be printed.

    Args:
        what: The text, its bytes, or the exception; ``MAX_CHARACTERS`` of it are looked at.
        most: Characters that are returned at most.
        redacted: Whether ``[redacted]`` takes the place of secrets.
    """
    try:
        text = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
        text = "".join(c if c.isprintable() else " " for c in text[:MAX_CHARACTERS])
        text = " ".join(text.split())
        if redacted:
            from otel_dllogger.redaction import redact  # noqa: PLC0415 - of use after a fault only

            text = redact(text)
    except Exception as error:
        let_through(error)
        return "(its message cannot be shown)"
    return text[:most]


def in_words(error: BaseException, *, named: bool = False) -> str:
    """Return on one line what is at the bottom of an error, as ``Connection refused``.

    Args:
        error: One that others led to: a connection's has three layers of libraries on it.
        named: Whether the error's own type comes first, as ``ConnectionError: ``.
    """
    name = f"{type(error).__name__}: " if named else ""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    words = one_line((isinstance(error, OSError) and error.strerror) or error)
    return name + (words or type(error).__name__)

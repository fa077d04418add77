"""The package's exceptions; each names the value, the rule and the next step."""

from __future__ import annotations

from otel_dllogger.runtime.interruptions import let_through

MAX_CHARACTERS = 1_000
"""The number of characters of a text that ``one_line`` looks at."""


class DLLoggerNotInitialized(Exception):  # noqa: N818 - DLLogger's own name
    """The error for a module function that is called before ``init(backends)``."""


class DLLLoggerAlreadyInitialized(Exception):  # noqa: N818 - DLLogger's own name, three L's
    """The error for a second call of ``init(backends)``."""


class _Explained(Exception):  # noqa: N818 - a base of errors
    """An error that says in one line what is wrong and what to do next.

    Args:
        problem: What is wrong: the value, and the rule that it breaks.
        step: What a program should do instead; empty if ``problem`` already ends with it.
        argument: The name of the wrong argument, since on the command line it is an option and
            the next step is a different one. Empty if no argument is at fault.
        example: A valid value of the argument.
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
    """The error for an invalid argument, in one line with the next step."""


class MisuseError(ConfigurationError, AssertionError):
    """A call or a configuration of ``otel_dllogger.training`` is not meaningful.

    It is an ``AssertionError`` as well, since that is what MMEngine raises instead.
    """


class MisuseTypeError(MisuseError, TypeError):
    """A ``MisuseError`` where MMEngine raises a ``TypeError``."""


class EndpointError(_Explained, OSError):
    """The error for a metrics endpoint that cannot be opened or announced, with the next step."""


class BackfillError(Exception):
    """The error that ends a backfill, in one line with the next step; it can be run again."""


def one_line(what: object, *, most: int = MAX_CHARACTERS, redacted: bool = False) -> str:
    """Return a text, or the message of an exception, as one line of printable characters.

    Args:
        what: The text, its bytes, or the exception; ``MAX_CHARACTERS`` of it are looked at.
        most: The largest number of characters to return.
        redacted: Whether to replace secrets by ``[redacted]``.
    """
    try:
        text = what.decode(errors="replace") if isinstance(what, bytes) else str(what)
        text = "".join(c if c.isprintable() else " " for c in text[:MAX_CHARACTERS])
        text = " ".join(text.split())
        if redacted:
            from otel_dllogger.redaction import redact  # noqa: PLC0415 - needed only after a fault

            text = redact(text)
    except Exception as error:
        let_through(error)
        return "(its message cannot be shown)"
    return text[:most]


def in_words(error: BaseException, *, named: bool = False) -> str:
    """Return the root cause of an error on one line, such as ``Connection refused``.

    Args:
        error: An error that may wrap others: one of a connection has three layers of libraries.
        named: Whether the error's own type comes first, as ``ConnectionError: ``.
    """
    name = f"{type(error).__name__}: " if named else ""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    words = one_line((isinstance(error, OSError) and error.strerror) or error)
    return name + (words or type(error).__name__)


def installing(extra: str) -> str:
    """Return the commands that install the packages of one of our extras.

    Args:
        extra: The extra.
    """
    return f"pip install 'otel-dllogger[{extra}]', or pip install '.[{extra}]' in a checkout"


def count_of(count: float, noun: str) -> str:
    """Return a count with its noun, as ``1 line`` and ``1,200 lines``."""
    plural = noun if count == 1 else f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{count:,.0f} {plural}"


def visible(name: str) -> str:
    """Return a name, in quotes if it is empty, or begins or ends with a blank."""
    return name if name and name == name.strip() else f'"{name}"'


def printable(text: str) -> str:
    """Return text that cannot move the terminal's cursor, whatever a log holds."""
    return "".join(c if c.isprintable() else "?" for c in text)

"""The exceptions of the package: each names the value, the rule and the next step."""

from __future__ import annotations


class DLLoggerNotInitialized(Exception):  # noqa: N818 - DLLogger's own name
    """Say that a module function was called before ``init(backends)``."""


class DLLLoggerAlreadyInitialized(Exception):  # noqa: N818 - DLLogger's own name, three L's
    """Say that ``init(backends)`` was called a second time."""


class ConfigurationError(ValueError):
    """Say that an argument cannot mean anything, in one line with the next step."""


class EndpointError(OSError):
    """Say that no metrics endpoint could be opened, in one line with the next step."""


def in_words(error: BaseException) -> str:
    """Return what is at the bottom of an error, as ``Connection refused``.

    Args:
        error: One that others led to: a connection's has three layers of libraries on it.
    """
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__

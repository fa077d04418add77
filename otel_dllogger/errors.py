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

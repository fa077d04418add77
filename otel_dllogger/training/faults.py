"""The exceptions for mistakes in the use of ``otel_dllogger.training``."""

from __future__ import annotations

from otel_dllogger.errors import ConfigurationError


class MisuseError(ConfigurationError, AssertionError):
    """A call or a configuration is not meaningful; one line that says what to do.

    It is an ``AssertionError`` as well, since that is what MMEngine raises instead.
    """


class MisuseTypeError(MisuseError, TypeError):
    """A ``MisuseError`` where MMEngine raises a ``TypeError``."""

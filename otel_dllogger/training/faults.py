"""What a user of the training pieces can do wrong."""

from __future__ import annotations

from otel_dllogger.errors import ConfigurationError


class MisuseError(ConfigurationError, AssertionError):
    """Say that a call or a configuration cannot mean anything, in one line with the next step.

    It is an ``AssertionError`` as well, since that is what MMEngine raises in its place.
    """


class MisuseTypeError(MisuseError, TypeError):
    """Say so where MMEngine raises a ``TypeError``."""

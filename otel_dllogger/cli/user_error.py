"""What a user got wrong, as one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_dllogger.errors import ConfigurationError, EndpointError

EXIT_CODE = 2


class UserError(click.ClickException):
    """Say in one line what is wrong and what to do next; the command exits with 2."""

    exit_code = EXIT_CODE


def in_options(error: ConfigurationError | EndpointError, steps: Mapping[str, str]) -> str:
    """Return what an error says, with a next step that is one of the command line.

    Args:
        error: The error.
        steps: What to do about each argument that is an option here; ``{example}`` stands for a
            value that is right.
    """
    step = steps.get(error.argument, "").format(example=error.example) or error.step
    return f"{error.problem}; {step}" if step else error.problem

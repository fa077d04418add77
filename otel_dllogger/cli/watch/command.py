"""``otel-dllogger watch``: runs in the terminal, while they train."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from otel_dllogger.cli.terminal import UserError, missing_extra
from otel_dllogger.errors import ConfigurationError

if TYPE_CHECKING:
    from otel_dllogger.cli.watch.options import WatchOptions


def run_watch(options: WatchOptions) -> int:
    """Show runs until the user leaves, or until all of them are over.

    Returns:
        The exit code.

    Raises:
        UserError: If there is nothing where a path points to, or a package is missing.
    """
    if sys.stdout is None:
        raise UserError("standard output is closed; let it go to a terminal, a pipe or a file")
    try:
        from otel_dllogger.cli.watch.session import Session  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise UserError(missing_extra(error, "view")) from None
    try:
        session = Session(options)
    except ConfigurationError as error:
        raise UserError(str(error)) from None
    return session.run()

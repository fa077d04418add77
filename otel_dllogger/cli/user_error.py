"""What a user got wrong, as one line."""

from __future__ import annotations

import click

from otel_dllogger.settings import HOST, PORT

EXIT_CODE = 2


class UserError(click.ClickException):
    """Say in one line what is wrong and what to do next; the command exits with 2."""

    exit_code = EXIT_CODE


def in_options(message: str) -> str:
    """Return a message of the package's in the words of the command line.

    Args:
        message: One that advises to pass arguments, as ``pass port=0 or set VARIABLE``.
    """
    words = (
        ("pass port=0", "pass --port 0"),
        ("pass host='127.0.0.1'", "pass --host 127.0.0.1"),
        ("pass discovery_dir or OTEL_DLLOGGER_DISCOVERY_DIR with", "pass --discovery-dir with"),
        (f" or set {PORT}", ""),
        (f" or set {HOST}", ""),
    )
    for in_python, on_command_line in words:
        message = message.replace(in_python, on_command_line)
    return message

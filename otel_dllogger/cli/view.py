"""``otel-dllogger view``: show runs live in a browser."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from otel_dllogger.cli.bridge import parse_address
from otel_dllogger.cli.log_source import explain
from otel_dllogger.cli.terminal import UserError
from otel_dllogger.errors import ConfigurationError, EndpointError
from otel_dllogger.http.listener import open_listener
from otel_dllogger.settings import DISCOVERY_DIR

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from otel_dllogger.logs.source import Source

_PORT = 8384
_PORT_TRIES = 100


@dataclasses.dataclass(frozen=True, slots=True)
class ViewOptions:
    """The options of ``view``.

    Attributes:
        source: What is shown, and how logs are read.
        listen: The address of the page as HOST:PORT, None for the default.
        token: What is needed to see it, or @ and a file that holds it; None for nothing.
        is_insecure: Show it to everybody who reaches it.
        hosts: More names by which it may be called.
        prefix: What a proxy puts before its path.
    """

    source: Source
    listen: str | None
    token: str | None
    is_insecure: bool
    hosts: Sequence[str]
    prefix: str


def run_view(options: ViewOptions) -> int:
    """Serve the page until a signal says to end.

    Returns:
        The exit code.

    Raises:
        UserError: If it cannot be served, or there is nothing to show.
    """
    try:
        return _serve(options)
    except ModuleNotFoundError as error:
        raise UserError(
            f"this needs the package {error.name}: pip install 'otel-dllogger[view]'"
        ) from None
    except (ConfigurationError, EndpointError) as error:
        raise UserError(explain(error)) from None


def _serve(options: ViewOptions) -> int:
    from otel_dllogger.view.follow import Follower  # noqa: PLC0415 - NumPy takes long
    from otel_dllogger.view.model import Model  # noqa: PLC0415
    from otel_dllogger.view.server.access import Access, Hosts, Token, is_loopback  # noqa: PLC0415
    from otel_dllogger.view.server.app import make_app  # noqa: PLC0415
    from otel_dllogger.view.server.board import Board, Reading  # noqa: PLC0415
    from otel_dllogger.view.server.serve import PageServer  # noqa: PLC0415
    from otel_dllogger.view.server.streams import Streams  # noqa: PLC0415
    from otel_dllogger.view.targets import find_targets  # noqa: PLC0415

    model = Model()
    targets = find_targets(options.source, os.environ.get(DISCOVERY_DIR))
    sources = targets.open(model)
    host, port = ("127.0.0.1", _PORT) if options.listen is None else parse_address(options.listen)
    if not (is_loopback(host) or options.token is not None or options.is_insecure):
        raise UserError(
            f"--listen {options.listen} can be reached from other machines; pass --token TEXT to "
            "show the page to who has the token, or --insecure to show it to everybody"
        )
    secret = _read_token(options.token)
    listener = open_listener(host, port, tries=_PORT_TRIES if options.listen is None else 1)
    token = Token(secret, listener.getsockname()[1]) if secret else None
    follower = Follower(sources)
    board = Board(
        model, targets.words, lambda: Reading(*follower.progress, follower.wait_until_current(0))
    )
    streams = Streams(board)
    app = Access(make_app(streams), Hosts(host, options.hosts), token, options.prefix)
    server = PageServer(app, streams.end)
    click.echo(f"otel-dllogger: {targets.words}: {_link(listener, options.prefix, secret)}")
    follower.start()
    try:
        server.serve_on(listener)
    finally:
        follower.close()
    return 0


def _read_token(given: str | None) -> str:
    if given is None:
        return ""
    if not given.startswith("@"):
        token = given.strip()
    else:
        try:
            token = Path(given[1:]).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"--token {given} cannot be read ({error}); name a file") from None
    if not token:
        raise UserError("--token is empty; pass a text, or @FILE with a file that holds one")
    return token


def _link(listener: socket.socket, path: str, token: str) -> str:
    """Return the address of the page, with its token."""
    host, port = listener.getsockname()[:2]
    literal = f"[{host}]" if ":" in host else host
    prefix = path.strip("/")
    query = f"?token={quote(token, safe='')}" if token else ""
    return f"http://{literal}:{port}/{f'{prefix}/' if prefix else ''}{query}"

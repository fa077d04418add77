"""``otel-dllogger view``: show runs live in a browser."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from otel_dllogger.cli.log_source import explain, parse_address
from otel_dllogger.cli.terminal import UserError, missing_extra
from otel_dllogger.errors import ConfigurationError, EndpointError, printable
from otel_dllogger.http.listener import open_listener
from otel_dllogger.identity import host_name

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from otel_dllogger.logs.source import Source
    from otel_dllogger.view.model import Model
    from otel_dllogger.view.server.board import Reading
    from otel_dllogger.view.server.serve import PageServer

_PORT = 8384
_PORT_TRIES = 100
_END_S = 3.0


@dataclasses.dataclass(frozen=True, slots=True)
class PageOptions:
    """Where a live page is, and who may see it.

    Attributes:
        listen: The address of the page as HOST:PORT, None for the default.
        token: What is needed to see it, or @ and a file that holds it; None for nothing.
        is_insecure: Show it to everybody who reaches it.
        hosts: More names by which it may be called.
        prefix: What a proxy puts before its path.
    """

    listen: str | None = None
    token: str | None = None
    is_insecure: bool = False
    hosts: Sequence[str] = ()
    prefix: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ViewOptions:
    """The options of ``view``.

    Attributes:
        source: What is shown, and how logs are read.
        page: Where the page is, and who may see it.
    """

    source: Source
    page: PageOptions


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
        raise UserError(missing_extra(error, "view")) from None
    except (ConfigurationError, EndpointError) as error:
        raise UserError(explain(error)) from None


def _serve(options: ViewOptions) -> int:
    from otel_dllogger.view.follow import Follower  # noqa: PLC0415 - NumPy takes long
    from otel_dllogger.view.model import Model  # noqa: PLC0415
    from otel_dllogger.view.server.board import Reading  # noqa: PLC0415
    from otel_dllogger.view.targets import find_targets  # noqa: PLC0415

    model = Model()
    targets = find_targets(options.source)
    follower = Follower(targets.open(model))
    page = open_live_page(
        options.page,
        model,
        targets.words,
        lambda: Reading(*follower.progress, follower.wait_until_current(0)),
    )
    click.echo(f"otel-dllogger: {printable(targets.words)}: {page.link}")
    follower.start()
    try:
        page.serve()
    finally:
        follower.close()
    return 0


class LivePage:
    """A live page that can be served.

    Args:
        server: The server.
        listener: What it listens on.
        link: Its address, with its token.
    """

    def __init__(self, server: PageServer, listener: socket.socket, link: str) -> None:
        self._server = server
        self._listener = listener
        self.link = link
        self._thread = threading.Thread(target=self.serve, name="otel-dllogger-page", daemon=True)

    def serve(self) -> None:
        """Serve it until a signal says to end, or ``close`` is called."""
        self._server.serve_on(self._listener)

    def start(self) -> None:
        """Serve it on a thread of its own."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._server.should_exit = True
        self._thread.join(_END_S)


def open_live_page(
    options: PageOptions, model: Model, words: str, reading: Callable[[], Reading]
) -> LivePage:
    """Return a page that shows a model, once it is served.

    Args:
        options: Where, and to whom.
        model: What it shows.
        words: What is looked at, for people.
        reading: Returns how far logs were read.

    Raises:
        EndpointError: If the address cannot be listened on.
        UserError: If it is not said who may see a page that other machines reach.
    """
    from otel_dllogger.view.server.access import Access, Hosts, Token, is_loopback  # noqa: PLC0415
    from otel_dllogger.view.server.app import make_app  # noqa: PLC0415
    from otel_dllogger.view.server.board import Board  # noqa: PLC0415
    from otel_dllogger.view.server.serve import PageServer  # noqa: PLC0415
    from otel_dllogger.view.server.streams import Streams  # noqa: PLC0415

    host, port = ("127.0.0.1", _PORT) if options.listen is None else parse_address(options.listen)
    if not (is_loopback(host) or options.token is not None or options.is_insecure):
        raise UserError(
            f"--listen {options.listen} can be reached from other machines; pass --token TEXT to "
            "show the page to who has the token, or --insecure to show it to everybody"
        )
    secret = _read_token(options.token)
    listener = open_listener(host, port, tries=_PORT_TRIES if options.listen is None else 1)
    token = Token(secret, listener.getsockname()[1]) if secret else None
    streams = Streams(Board(model, words, reading))
    app = Access(make_app(streams), Hosts(host, options.hosts), token, options.prefix)
    link = _link(listener, options.prefix, secret)
    return LivePage(PageServer(app, streams.end), listener, link)


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
    if host in ("0.0.0.0", "::"):  # noqa: S104 - it is compared with
        host = host_name()
    literal = f"[{host}]" if ":" in host else host
    prefix = quote(path.strip("/"))
    query = f"?token={quote(token, safe='')}" if token else ""
    return f"http://{literal}:{port}/{f'{prefix}/' if prefix else ''}{query}"

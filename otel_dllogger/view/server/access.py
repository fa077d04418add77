"""Who may see the live page: checks of method, host and token that come before everything else.

They wrap the whole application, so no path is outside them.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import socket
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_BEARER = "bearer "


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address that is listened on."""
    name = host.strip("[]")
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Hosts:
    """The names by which the page may be called.

    A page of an attacker whose DNS name is made to point here ("DNS rebinding") sends its own
    name. An address cannot be rebound, so any is allowed: a tunnel or a proxy may use it.

    Args:
        bound: The address that is listened on.
        allowed: More names.
    """

    def __init__(self, bound: str, allowed: Iterable[str] = ()) -> None:
        own = socket.gethostname().lower()
        names = ("localhost", bound.strip("[]"), own, own.partition(".")[0], *allowed)
        self._names = {name.lower().rstrip(".") for name in names if name}

    def has(self, header: str) -> bool:
        """Return whether a Host header has one of them, with any port: tunnels change it."""
        name = header.strip().lower()
        if name.startswith("["):
            name, bracket, port = name[1:].partition("]")
            port = port.removeprefix(":")
            if not bracket or "." in port:
                return False
        else:
            name, _, port = name.partition(":")
        if port and not (port.isascii() and port.isdigit()):
            return False
        name = name.rstrip(".")
        return name in self._names or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Token:
    """A token, and the cookie that a browser gets for it.

    Args:
        text: The token.
        port: The port of the page: cookies are shared by all ports of a host.
    """

    def __init__(self, text: str, port: int) -> None:
        self._digest = _digest(text)
        self._session = secrets.token_urlsafe(32)
        self._session_digest = _digest(self._session)
        self._cookie = f"otel-dllogger-{port}"

    def is_given(self, headers: Headers) -> bool:
        """Return whether a request has the token as a bearer, or the cookie for it."""
        bearer = headers.get("authorization", "")
        if bearer[: len(_BEARER)].lower() == _BEARER and self.is_right(bearer[len(_BEARER) :]):
            return True
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return False
        return cookie is not None and _is_same(cookie.value, self._session_digest)

    def is_right(self, text: str) -> bool:
        """Return whether a text is the token."""
        return _is_same(text.strip(), self._digest)

    def admit(self, response: Response) -> None:
        """Give a browser the cookie.

        It has no ``Path``, so that it holds for the folder of the page wherever a proxy puts that,
        and is ``Lax``, since with ``Strict`` a link in a chat would not open.
        """
        response.headers["Set-Cookie"] = f"{self._cookie}={self._session}; HttpOnly; SameSite=Lax"


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _is_same(text: str, digest: bytes) -> bool:
    """Return whether a text has a digest, in a time that tells neither its length nor its parts."""
    return hmac.compare_digest(_digest(text), digest)


class Access:
    """An application that lets through to another one what may see it.

    Args:
        app: The other application.
        hosts: The names by which it may be called.
        token: The token that is needed, None if none is.
        prefix: A path before all of its paths that a proxy may leave there.
    """

    def __init__(self, app: ASGIApp, hosts: Hosts, token: Token | None, prefix: str = "") -> None:
        self._app = app
        self._hosts = hosts
        self._token = token
        self._prefix = "/" + prefix.strip("/") if prefix.strip("/") else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or let it through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(scope)
        app = self._app if refusal is None else refusal
        await app(self._without_prefix(scope), receive, send_with_headers)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        if scope["method"] not in ("GET", "HEAD"):
            return _line(405, "GET or HEAD", {"Allow": "GET, HEAD"})
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._hosts.has(hosts[0]):
            return _line(421, "this page is not known by that name; pass --allow-host with it")
        if self._token is not None and not self._token.is_given(headers):
            return self._exchange(scope, self._token)
        path = scope["path"]
        if self._prefix and path == self._prefix:
            return RedirectResponse(f"{path.rpartition('/')[2]}/", 303)
        return None

    def _exchange(self, scope: Scope, token: Token) -> Response:
        """Return the way to the page without the token, which is then neither shown nor kept."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if not (given and token.is_right(given[0])):
            return _line(
                401,
                "this page needs its token: open the link that `otel-dllogger view` printed",
                {"WWW-Authenticate": "Bearer"},
            )
        rest = urlencode([pair for pair in query if pair[0] != "token"])
        response = RedirectResponse("?" + rest if rest else ".", 303)
        token.admit(response)
        return response

    def _without_prefix(self, scope: Scope) -> Scope:
        path = scope["path"]
        if self._prefix and path.startswith(self._prefix + "/"):
            return {**scope, "path": path[len(self._prefix) :]}
        return scope


def _line(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(f"{status}: {words}\n", status, headers)

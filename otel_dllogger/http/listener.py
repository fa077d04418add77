"""The first free port from one on, for several ranks that start on one machine at once."""

from __future__ import annotations

import errno
import socket
from typing import Any

from otel_dllogger.errors import EndpointError
from otel_dllogger.http.server import BACKLOG
from otel_dllogger.http.sockets import OwnSocket

PORT_MAX = 65535

_PORT_STEP = "pass port=0 or set OTEL_EXPORTER_PROMETHEUS_PORT"
_HOST_STEP = "pass host='127.0.0.1' or set OTEL_EXPORTER_PROMETHEUS_HOST"


def open_listener(host: str, port: int, *, tries: int) -> OwnSocket:
    """Open a listening socket on the first port that is free.

    Args:
        host: A name or an address of this machine.
        port: The first port to try, 0 for any free one.
        tries: How many ports to try, counted up.

    Returns:
        The socket, listening; no forked child keeps it.

    Raises:
        EndpointError: No port could be opened.
    """
    name = host.strip("[]")
    if not name:
        raise EndpointError("host is empty; pass 127.0.0.1, or 0.0.0.0 for every interface")
    if not 0 <= port <= PORT_MAX:
        raise EndpointError(f"port {port} is not in 0 to {PORT_MAX}; {_PORT_STEP}")
    last = min(port + tries - 1, PORT_MAX) if port else port
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        raise EndpointError(f"host {host!r} is unknown; {_HOST_STEP}") from error
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    for candidate in range(port, last + 1):
        sock = OwnSocket(family, kind, protocol)
        refused = _bind(sock, (address[0], candidate, *address[2:]))
        if refused is None:
            return sock
        sock.close()
        if refused.errno != errno.EADDRINUSE:
            raise EndpointError(_refusal(refused, host, candidate)) from refused
    taken = f"ports {port} to {last} on {host!r} are all" if last > port else f"port {port} is"
    raise EndpointError(f"{taken} taken; {_PORT_STEP}")


def _bind(sock: socket.socket, address: tuple[Any, ...]) -> OSError | None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Two ranks can bind one port in the same moment: listen() decides.
        sock.listen(BACKLOG)
    except OSError as error:
        return error
    return None


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs privileges; {_PORT_STEP}"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"host {host!r} is not an address of this machine; {_HOST_STEP}"
    return f"{host!r} port {port} cannot be listened on ({error.strerror}); {_HOST_STEP}"

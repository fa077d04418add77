"""The listening socket of an endpoint: on the first free port, or an error that says what to do."""

from __future__ import annotations

import errno
import socket
from typing import Any

from otel_dllogger.errors import EndpointError
from otel_dllogger.runtime.own_sockets import OwnSocket

MAX_PORT = 65535

BACKLOG = 1024
"""The most connections that the kernel keeps for the server to accept."""


def open_listener(host: str, port: int, *, tries: int) -> OwnSocket:
    """Open a listening socket on the first port that is free.

    Args:
        host: A name or an address of this machine.
        port: The first port to try, 0 for any free one.
        tries: How many ports to try, counting up.

    Returns:
        The listening socket, which no forked child keeps.

    Raises:
        EndpointError: If no port could be opened.
    """
    name = host.strip("[]")
    if not name:
        raise EndpointError(
            "host is empty", step="pass 127.0.0.1, or 0.0.0.0 for every interface", argument="host"
        )
    if not 0 <= port <= MAX_PORT:
        raise _bad_port(f"port {port} is not between 0 and {MAX_PORT}")
    last = min(port + tries - 1, MAX_PORT) if port else port
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:
        raise _bad_host(f"host {host!r} is unknown") from error
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    for candidate in range(port, last + 1):
        sock = OwnSocket(family, kind, protocol)
        refused = _bind(sock, (address[0], candidate, *address[2:]))
        if refused is None:
            return sock
        sock.close()
        if refused.errno != errno.EADDRINUSE:
            raise _refusal(refused, host, candidate) from refused
    taken = f"ports {port} to {last} on {host!r} are all" if last > port else f"port {port} is"
    raise _bad_port(f"{taken} taken")


def _bind(sock: socket.socket, address: tuple[Any, ...]) -> OSError | None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        # Two ranks can bind the same port at the same moment: listen() decides.
        sock.listen(BACKLOG)
    except OSError as error:
        return error
    return None


def _refusal(error: OSError, host: str, port: int) -> EndpointError:
    if error.errno in (errno.EACCES, errno.EPERM):
        return _bad_port(f"port {port} needs privileges")
    if error.errno == errno.EADDRNOTAVAIL:
        return _bad_host(f"host {host!r} is not an address of this machine")
    return _bad_host(f"{host!r} port {port} cannot be listened on ({error.strerror})")


def _bad_port(problem: str) -> EndpointError:
    step = "pass port=0 or set OTEL_EXPORTER_PROMETHEUS_PORT"
    return EndpointError(problem, step=step, argument="port")


def _bad_host(problem: str) -> EndpointError:
    step = "pass host='127.0.0.1' or set OTEL_EXPORTER_PROMETHEUS_HOST"
    return EndpointError(problem, step=step, argument="host")

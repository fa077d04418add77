"""A forked child closes what is the endpoint's, all of it, and nothing else."""

from __future__ import annotations

from tests._command import assert_forked_child_answers

OPENED = """
import socket, time
from otel_dllogger.metrics import own_sockets
from otel_dllogger.metrics.endpoint import MetricsEndpoint

def is_open(descriptor):
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True

def endpoint(**options):
    return MetricsEndpoint(lambda accept: ("text/plain", b"x"), **options)
"""


def test_what_is_the_applications_stays_open() -> None:
    """Not even a socket on the endpoint's own port is closed if the application opened it."""
    assert_forked_child_answers(
        OPENED
        + """
application = socket.socket()
application.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
application.bind(("127.0.0.2", 0))
served = endpoint(host="0.0.0.0", port=application.getsockname()[1], port_tries=1)
ours = served._server.socket.fileno()
beside = hold

def answers():
    served.close()
    return is_open(application.fileno()) and not is_open(ours)
"""
    )


def test_a_number_that_was_ours_and_is_not_any_more() -> None:
    """What the application opened after the endpoint's end stays open under the same number."""
    assert_forked_child_answers(
        OPENED
        + """
before = endpoint(port=0)
number = before._server.socket.fileno()
before.close()
read, write = os.pipe()
assert number in (read, write)
beside = hold

def answers():
    before.close()
    return is_open(read) and is_open(write) and not own_sockets.OWN.open
"""
    )


def test_connections_at_every_stage_are_closed() -> None:
    """The listener, a connection that was just accepted, and the pipe, but not the client's end."""
    assert_forked_child_answers(
        OPENED
        + """
served = endpoint(port=0)
client = socket.create_connection(("127.0.0.1", served.port))
while not served._server.channels():
    time.sleep(0.001)
accepted = [one.socket.fileno() for one in served._server.channels()]
ours = [served._server.socket.fileno(), *accepted, served._server.trigger.socket.fileno(),
        served._server.trigger.trigger]
assert all(map(is_open, ours))
beside = hold

def answers():
    return is_open(client.fileno()) and not any(map(is_open, ours))
"""
    )


def test_a_fork_does_not_wait_for_ever() -> None:
    """A thread that hangs while it holds the lock delays a fork, and does not prevent it."""
    assert_forked_child_answers(
        OPENED
        + """
own_sockets.LONGEST_WAIT_S = 0.05
served = endpoint(port=0)
ours = served._server.socket.fileno()

def beside():
    with own_sockets.OWN.lock:
        hold()

def answers():
    own = endpoint(port=0)
    own.close()
    return not is_open(ours)
"""
    )

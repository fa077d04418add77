"""What is the endpoint's is closed, in a forked child as well, and nothing else is touched."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.command import TIMEOUT_S, assert_forked_child_answers, uncovered

pytestmark = pytest.mark.newest_only

OPENED = """
import socket, time
from otel_dllogger.runtime import own_sockets as sockets
from otel_dllogger.http.endpoint import MetricsEndpoint

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
    return is_open(read) and is_open(write) and not sockets.OWN.open
"""
    )


def test_connections_at_every_stage_are_closed() -> None:
    """The listener, a connection that was just accepted, and the trigger, not the client's end."""
    assert_forked_child_answers(
        OPENED
        + """
served = endpoint(port=0)
client = socket.create_connection(("127.0.0.1", served.port))
while not served._server.channels():
    time.sleep(0.001)
accepted = [one.socket.fileno() for one in served._server.channels()]
ours = [served._server.socket.fileno(), *accepted, served._server.trigger.waker.fileno(),
        served._server.trigger.woken.fileno()]
assert len(ours) == len(sockets.OWN.open)
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
sockets.LONGEST_WAIT_S = 0.05
served = endpoint(port=0)
ours = served._server.socket.fileno()

def beside():
    with sockets.OWN.lock:
        hold()

def answers():
    own = endpoint(port=0)
    own.close()
    return not is_open(ours)
"""
    )


CLOSED_BEHIND_ITS_BACK = """
import os, socket, tempfile, threading, time
from otel_dllogger import Logger, PrometheusBackend

backend = PrometheusBackend(1, port=0)
logger = Logger([backend])
logger.log(0, {"a": 1})
client = socket.create_connection(("127.0.0.1", backend.endpoint.port))
server = backend.endpoint._server
while not server.channels():
    time.sleep(0.001)
client.detach()  # the next line closes it
os.closerange(3, 200)
files = [tempfile.TemporaryFile(buffering=0) for _ in range(20)]
ours, theirs = zip(*(socket.socketpair() for _ in range(20)))
for one in (*ours, *theirs):
    one.send(b"theirs")

def check():
    for file in files:
        assert os.fstat(file.fileno()).st_size == 0, "a file was written to"
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 0, "a file was read"
    for one in (*ours, *theirs):
        assert one.recv(99, socket.MSG_PEEK) == b"theirs", "a socket was used"
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run a script whose descriptors were all closed, and others opened in their place."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", CLOSED_BEHIND_ITS_BACK + program],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=uncovered(),
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "program",
    [
        "logger.close()\ncheck()",
        "time.sleep(0.3)\ncheck()\nlogger.close()\ncheck()",
        "logger.close()\nimport gc\ndel backend, logger, server\ngc.collect()\ncheck()",
        (
            "from otel_dllogger.runtime import own_sockets as sockets\n"
            "sockets.OWN.before_exit()\ncheck()\nassert not sockets.OWN.open"
        ),
        """
if (pid := os.fork()) == 0:
    check()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
logger.close()
check()
""",
        """
import signal, threading
while any(thread.name == "otel-dllogger-signals" for thread in threading.enumerate()):
    time.sleep(0.001)
signal.signal(signal.SIGUSR1, lambda *_: None)
signal.raise_signal(signal.SIGUSR1)  # Python writes its number to the "wakeup fd"
check()
logger.close()
check()
""",
    ],
    ids=["closed", "waited", "collected", "exit", "forked", "signalled"],
)
def test_a_number_that_is_the_applications_by_now(program: str) -> None:
    """After os.closerange, what the application opens is not read, written to, or closed."""
    done = run(program)
    assert 0 == done.returncode, done.stderr
    assert "Exception ignored" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_server_without_its_socket_ends() -> None:
    """It does not spin, it says so once, and its end does not wait."""
    done = run("""
for thread in backend.endpoint._threads[:1]:
    thread.join(10)
    assert not thread.is_alive()
begun_s = time.process_time()
time.sleep(1)
assert time.process_time() - begun_s < 0.3
assert not server.channels()
begun_s = time.monotonic()
logger.close()
assert time.monotonic() - begun_s < 3
assert not any(thread.is_alive() for thread in backend.endpoint._threads)
check()
""")
    assert 0 == done.returncode, done.stderr
    assert 1 == done.stderr.count("closed by something else"), done.stderr
    assert 1 == done.stderr.count("\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["socket", "trigger.waker", "trigger.woken"])
def test_a_server_without_one_of_its_sockets_ends(lost: str) -> None:
    """Whichever it is that something else closed, perhaps twice, as its own."""
    done = run(f"""
beside = PrometheusBackend(1, port=0)
server = beside.endpoint._server
number = server.{lost}.fileno()
os.dup2(files[0].fileno(), number)
beside.endpoint._threads[0].join(10)
assert not beside.endpoint._threads[0].is_alive()
beside.close()
assert os.fstat(number).st_ino == os.fstat(files[0].fileno()).st_ino
logger.close()
check()
""")
    assert 0 == done.returncode, done.stderr


@pytest.mark.slow
def test_a_connection_that_was_closed_is_let_go_of() -> None:
    """The server goes on, and what has the number now is neither read nor closed."""
    done = run("""
import urllib.request
beside = PrometheusBackend(1, port=0)
server = beside.endpoint._server
client = socket.create_connection(("127.0.0.1", beside.endpoint.port))
while not server.channels():
    time.sleep(0.001)
number = server.channels()[0].socket.fileno()
os.dup2(files[0].fileno(), number)
while server.channels():
    time.sleep(0.001)
assert os.fstat(number).st_ino == os.fstat(files[0].fileno()).st_ino
assert urllib.request.urlopen(beside.endpoint.url, timeout=10).status == 200
beside.close()
logger.close()
check()
""")
    assert 0 == done.returncode, done.stderr


def test_a_client_that_goes_away_sends_no_signal() -> None:
    """A script that restored what SIGPIPE does elsewhere goes on."""
    done = run("""
import signal
from otel_dllogger.runtime.own_sockets import own_pair
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
one, other = own_pair()
other.close()
try:
    one.send(b"x")
except BrokenPipeError:
    one.close()
    logger.close()
    check()
""")
    assert 0 == done.returncode, done.stderr

"""The HTTP endpoint of a rank in its process: closing, exit, fork, few descriptors, and abuse."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend
from otel_dllogger.http import endpoint as module
from otel_dllogger.http import server
from otel_dllogger.http.endpoint import MetricsEndpoint
from tests.support.endpoint import PLAIN, numbers, own_threads, small
from tests.support.http import SCRAPE, ask, connect, read_to_end, scrape_at_once, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.newest_only


@contextmanager
def script(source: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run Python source with line-buffered pipes, and kill it afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", source],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_close_frees_the_port_at_once(serve):
    """With clients in every state the port is free, and the threads gone, when close returns."""
    page = numbers(4_000_000)
    endpoint = serve(lambda accept: (PLAIN, page))
    clients = [connect(endpoint.port, sent) for sent in (b"", b"GET /me", SCRAPE)]
    wait_until(lambda: any(one.total_outbufs_len for one in endpoint._server.channels()))
    wait_until(lambda: len(endpoint._server.channels()) == 3)
    began_s = time.monotonic()
    endpoint.close()
    assert time.monotonic() - began_s < 1
    assert own_threads() == []
    successor = serve(port=endpoint.port, port_tries=1)
    assert ask(successor.port).status == 200
    endpoint.close()
    for client in clients:
        with client:
            assert len(read_to_end(client)) < len(page)


@pytest.mark.slow
def test_opening_and_closing_leaves_nothing(serve):
    """Endpoint after endpoint, closed amid scrapes, keeps no descriptor and no thread."""
    before = psutil.Process().num_fds()
    for _ in range(200):
        endpoint = MetricsEndpoint(small, port=0)
        with connect(endpoint.port, SCRAPE) as client:
            endpoint.close()
            read_to_end(client)
    assert psutil.Process().num_fds() == before
    assert own_threads() == []


def test_close_does_not_wait_for_a_rendering(serve, monkeypatch):
    """A rendering that hangs holds neither the port nor, for long, the exit."""
    monkeypatch.setattr(module, "CLOSE_S", 0.2)
    begun, go = threading.Event(), threading.Event()

    def render(accept: str) -> tuple[str, bytes]:
        begun.set()
        go.wait(20)
        return small(accept)

    endpoint = serve(render)
    with connect(endpoint.port, SCRAPE) as client:
        assert begun.wait(10)
        endpoint.close()
        assert read_to_end(client) == b""
        assert ask(serve(port=endpoint.port, port_tries=1).port).status == 200
    go.set()
    wait_until(lambda: len(own_threads()) == 2)


def test_close_from_a_callback_does_not_wait_for_itself(serve):
    """Closing out of render, as a failing handler may, returns and frees the port."""
    opened: list[MetricsEndpoint] = []
    returned: list[str] = []

    def render(accept: str) -> tuple[str, bytes]:
        opened[0].close()
        returned.append(accept)
        return small(accept)

    opened.append(serve(render))
    with connect(opened[0].port, SCRAPE) as client:
        assert read_to_end(client) == b""
    wait_until(lambda: own_threads() == [])
    assert returned == [""]
    assert serve(port=opened[0].port, port_tries=1).port == opened[0].port


AT_EXIT = """
import atexit, logging
from otel_dllogger.http.endpoint import MetricsEndpoint
logging.basicConfig()
endpoint = MetricsEndpoint(lambda accept: ("text/plain", b"x"), port=0)
if {close}:
    atexit.register(endpoint.close)
print(endpoint.port)
input()
"""


@pytest.mark.parametrize("close", [True, False])
def test_exit_is_quick_and_silent(close):
    """A process with an endpoint ends at once and writes nothing, closed or not."""
    with script(AT_EXIT.format(close=close)) as process:
        port = int(process.stdout.readline())
        with connect(port, b"GET") as client:
            assert scrape_at_once(port, 50) == [len(read_one(port))] * 50
            began_s = time.monotonic()
            assert process.communicate("\n", timeout=10) == ("", "")
            assert time.monotonic() - began_s < 3
            assert read_to_end(client) == b""
    assert process.returncode == 0


def read_one(port: int) -> bytes:
    with connect(port, SCRAPE) as client:
        return read_to_end(client)


def test_import_starts_nothing():
    """Importing the module opens no socket and starts no thread."""
    source = (
        "import os, threading; import otel_dllogger.http.endpoint\n"
        "links = [os.readlink(f'/proc/self/fd/{fd}') for fd in range(3, 50)"
        " if os.path.islink(f'/proc/self/fd/{fd}')]\n"
        "print(threading.active_count(), sum('socket' in link for link in links))"
    )
    with script(source) as process:
        assert process.communicate(timeout=20) == ("1 0\n", "")


FORKING = """
import os, sys, time
from otel_dllogger.http.endpoint import MetricsEndpoint
closed = MetricsEndpoint(lambda accept: ("text/plain", b"x"), port=0)
closed.close()
endpoint = MetricsEndpoint(lambda accept: ("text/plain", b"x" * 3_000_000), port=0)
print(endpoint.port)
input()
children = []
for number in range(200):
    child = os.fork()
    if child:
        if number < 5:
            children.append(child)
        continue
    kept = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
            if int(fd) > 2 and os.path.islink(f"/proc/self/fd/{fd}")]
    endpoint.close()
    os.write(1, b"%d\\n" % len([link for link in kept if "socket" in link or "pipe" in link]))
    if number < 5:
        time.sleep(60)
    os._exit(0)
os.write(1, ("children " + " ".join(map(str, children)) + "\\n").encode())
time.sleep(60)
"""


@pytest.mark.slow
def test_a_forked_child_keeps_nothing():
    """Children forked amid scrapes hold no socket; the port is free when the parent is killed."""
    with script(FORKING) as process, ExitStack() as stack:
        port = int(process.stdout.readline())
        idle, unread = (stack.enter_context(connect(port, sent)) for sent in (b"GET", SCRAPE))
        busy = threading.Event()

        def scrape() -> None:
            while not busy.is_set():
                with suppress(OSError):
                    scrape_at_once(port, 3)

        with ThreadPoolExecutor(2) as pool:
            stack.callback(busy.set)
            pool.submit(scrape)
            pool.submit(scrape)
            process.stdin.write("\n")
            process.stdin.flush()
            lines = sorted(process.stdout.readline().split() for _ in range(201))
            busy.set()
        children = [int(pid) for pid in lines.pop()[1:]]
        for child in children:
            stack.callback(os.kill, child, signal.SIGKILL)
        assert lines == [["0"]] * 200
        assert ask(port).status == 200
        process.kill()
        process.wait()
        assert all(psutil.pid_exists(child) for child in children)
        began_s = time.monotonic()
        MetricsEndpoint(small, port=port, port_tries=1).close()
        assert read_to_end(idle) == b""
        assert len(read_to_end(unread)) < 3_000_000
        assert time.monotonic() - began_s < 1


MANY_DESCRIPTORS = """
import os, resource
from otel_dllogger.http.endpoint import MetricsEndpoint
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
taken = [os.dup(0) for _ in range(1100)]
endpoint = MetricsEndpoint(lambda accept: ("text/plain", b"x"), port=0)
print(endpoint.port)
input()
"""


def test_descriptors_above_1024_are_served():
    """A training run with more files open than select() can count is scraped all the same."""
    with script(MANY_DESCRIPTORS) as process:
        assert read_one(int(process.stdout.readline())).endswith(b"x")


WITHOUT_DESCRIPTORS = """
import os, resource, time
from otel_dllogger.http.endpoint import MetricsEndpoint
endpoint = MetricsEndpoint(lambda accept: ("text/plain", b"x"), port=0)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    print(endpoint.port)
input()
began = time.process_time()
time.sleep(1)
spent = time.process_time() - began
for fd in taken:
    os.close(fd)
print(spent)
input()
"""


@pytest.mark.slow
def test_no_spinning_without_descriptors():
    """A training run out of file descriptors is not slowed, and scrapes resume afterwards."""
    with script(WITHOUT_DESCRIPTORS) as process:
        port = int(process.stdout.readline())
        with connect(port, SCRAPE) as client:
            process.stdin.write("\n")
            process.stdin.flush()
            assert float(process.stdout.readline()) < 0.3
            assert read_to_end(client).endswith(b"x")
        process.communicate("\n", timeout=10)


@pytest.mark.slow
def test_stalled_clients_are_dropped(serve, monkeypatch):
    """A request that is never finished and a response that is never read end in time."""
    page = numbers(4_000_000)
    endpoint = serve(lambda accept: (PLAIN, page))
    monkeypatch.setattr(server, "STALLED_S", 0.2)
    half, unread = connect(endpoint.port, b"GET /m"), connect(endpoint.port, SCRAPE)
    with half, unread, connect(endpoint.port) as idle:
        wait_until(lambda: len(endpoint._server.channels()) == 3)
        wait_until(lambda: len(endpoint._server.channels()) == 1)
        assert read_to_end(half) == b""
        monkeypatch.setattr(server, "IDLE_S", 0.2)
        assert read_to_end(idle) == b""


def test_waiting_pages_are_bounded(serve, monkeypatch):
    """Many different pages that nobody reads are not all kept."""
    monkeypatch.setattr(server, "MAX_HELD_BYTES", 8_000_000)
    page = numbers(3_000_000)
    endpoint = serve(lambda accept: (PLAIN, page + accept.encode()))
    with ExitStack() as stack:
        for number in range(12):
            client = connect(endpoint.port, SCRAPE[:-2] + b"Accept: %d\r\n\r\n" % number)
            stack.enter_context(client)
            assert client.recv(1) == b"H"
        wait_until(lambda: len(endpoint._server.channels()) <= 3)
        assert ask(endpoint.port).body == page


@pytest.mark.slow
def test_crowd_after_crowd_is_quick():
    """The two threads do not spin against each other: 4,000 scrapes cost little CPU time."""
    with script(MANY_DESCRIPTORS) as process:
        port = int(process.stdout.readline())
        server = psutil.Process(process.pid)
        for _ in range(20):
            assert min(scrape_at_once(port, 200)) > 0
        assert sum(server.cpu_times()[:2]) < 5


ABUSED = """
import random
from otel_dllogger.http.endpoint import MetricsEndpoint
dice = random.Random(0)
def render(accept):
    return "text/plain", b"".join(b"dl_x %d\\n" % dice.getrandbits(60) for _ in range(100_000))
endpoint = MetricsEndpoint(render, port=0)
print(endpoint.port)
input()
"""


@pytest.mark.slow
def test_abuse(record_property):
    """Slow clients, silent ones, ones that never read and a crowd: a good scrape is quick."""
    with script(ABUSED) as process, ExitStack() as stack:
        port = int(process.stdout.readline())
        server = psutil.Process(process.pid)
        size = len(read_one(port))
        threads, rss_bytes = server.num_threads(), server.memory_info().rss
        slow = [
            stack.enter_context(connect(port, (b"", b"G")[number % 2])) for number in range(300)
        ]
        for _ in range(20):
            stack.enter_context(connect(port, SCRAPE, receive_bytes=4096))
        over = threading.Event()
        peak = [threads, rss_bytes]

        def dribble() -> None:
            while not over.wait(0.2):
                for client in slow:
                    with suppress(OSError):
                        client.send(b"x")
                peak[0] = max(peak[0], server.num_threads())
                peak[1] = max(peak[1], server.memory_info().rss)

        # Ended first when the test fails, or the pool would wait for ever.
        with ThreadPoolExecutor(2) as pool, ExitStack() as ending:
            ending.callback(over.set)
            pool.submit(dribble)
            crowd = pool.submit(scrape_at_once, port, 200)
            took_s = []
            while not crowd.done():
                began_s = time.monotonic()
                assert len(read_one(port)) in range(size - 5_000, size + 5_000)
                took_s.append(time.monotonic() - began_s)
            assert [one for one in crowd.result() if abs(one - size) > 5_000] == []
            began_s = time.monotonic()
            read_one(port)
            took_s.append(time.monotonic() - began_s)
            over.set()
        record_property("took_s", took_s)
        print(
            f"scrapes {took_s} s, threads {peak[0]}, RSS +{(peak[1] - rss_bytes) / 2**20:.0f} MiB"
        )
        assert max(took_s) < 1
        assert peak[0] == threads == 3
        assert peak[1] - rss_bytes < 100 * 2**20


@pytest.mark.parametrize("host", ["192.0.2.1", "no host"])
def test_training_goes_on_without_a_page(host, counted, tmp_path):
    """A host that cannot be listened on is counted once, and log() goes on."""
    page = PrometheusBackend(1, host=host, port=0)
    logger = Logger([JSONStreamBackend(1, tmp_path / "log"), page])
    logger.log((0, 1), {"loss": 1.0})
    logger.close()
    assert page.url is None
    (problem,) = page.problems
    assert "host" == problem.argument
    assert str(problem).startswith("no metrics are served: host ")
    assert {"endpoint": 1} == counted()
    assert 1 == len((tmp_path / "log").read_text().splitlines())

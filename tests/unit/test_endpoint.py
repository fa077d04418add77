"""Tests of the per-rank HTTP endpoint, with real sockets and real processes."""

from __future__ import annotations

import errno
import gzip
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING

import psutil
import pytest

from otel_dllogger import JSONStreamBackend, Logger, PrometheusBackend
from otel_dllogger.diagnostics import DIAGNOSTICS, RAISE_VARIABLE
from otel_dllogger.errors import EndpointError
from otel_dllogger.http import endpoint as module
from otel_dllogger.http import server, sockets
from otel_dllogger.http.endpoint import MetricsEndpoint
from tests.support.http import SCRAPE, ask, connect, read_to_end, scrape_at_once, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.newest_only

PLAIN = "text/plain; version=0.0.4"


def small(accept: str) -> tuple[str, bytes]:
    return PLAIN, b"dl_loss 0.25\n"


def numbers(size_bytes: int) -> bytes:
    dice = random.Random(0)
    return b"".join(b"dl_x %d\n" % dice.getrandbits(60) for _ in range(size_bytes // 24))


def own_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name.startswith("otel-dllogger-")]


@pytest.fixture
def serve() -> Iterator[Callable[..., MetricsEndpoint]]:
    """Open endpoints on free ports and close them after the test."""
    with ExitStack() as stack:

        def start(render=small, *, port: int = 0, **options) -> MetricsEndpoint:
            opened = MetricsEndpoint(render, port=port, **options)
            stack.callback(opened.close)
            return opened

        yield start


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


def test_metrics_is_what_render_gives(serve):
    """/metrics is the rendered page with its own content type."""
    answer = ask(serve().port)
    assert (answer.status, answer.body) == (200, b"dl_loss 0.25\n")
    assert answer.headers["content-type"] == PLAIN
    assert answer.headers["vary"] == "Accept, Accept-Encoding"


def test_health_is_json(serve):
    """/health says ok and what the owner has to say."""
    answer = ask(serve(health=lambda: {"run": "a", "at": 1j}).port, "/health")
    assert json.loads(answer.body) == {"status": "ok", "run": "a", "at": "1j"}
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(ask(serve().port, "/health").body) == {"status": "ok"}


def test_index_names_the_paths(serve):
    """/ leads to the two pages."""
    body = ask(serve().port, "/").body
    assert b"/metrics" in body
    assert b"/health" in body


def test_other_paths_are_404_in_one_line(serve):
    """An unknown path gets one line that names the known ones."""
    answer = ask(serve().port, "/admin?x=1")
    assert (answer.status, answer.body) == (404, b"404: see /metrics and /health\n")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_other_methods_are_405(serve, method):
    """Only GET and HEAD are allowed, and the answer says so."""
    answer = ask(serve().port, method=method)
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/", "/metrics", "/health"])
def test_head_is_get_without_a_body(serve, path):
    """HEAD has GET's headers, length included, and no body."""
    port = serve().port
    head, got = ask(port, path, method="HEAD"), ask(port, path)
    assert (head.status, head.body) == (200, b"")
    assert head.headers["content-length"] == str(len(got.body)) == got.headers["content-length"]


def test_an_empty_page_is_served(serve):
    """A page without a series is an empty 200."""
    answer = ask(serve(lambda accept: (PLAIN, b"")).port)
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "0", b"")


def test_render_sees_the_accept_header(serve):
    """The Accept header reaches render as it was sent, empty where there is none."""
    port = serve(lambda accept: (PLAIN, accept.encode())).port
    assert ask(port, Accept="application/openmetrics-text;q=0.5,*/*;q=0.1").body == (
        b"application/openmetrics-text;q=0.5,*/*;q=0.1"
    )
    assert ask(port).body == b""


@pytest.mark.parametrize(
    ("coding", "zipped"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip; q=0", False), ("identity", False)],
)
def test_gzip_for_those_who_ask(serve, coding, zipped):
    """A large page is compressed for a client that accepts it, and says so."""
    page = numbers(50_000)
    answer = ask(serve(lambda accept: (PLAIN, page)).port, Accept_Encoding=coding)
    assert answer.headers.get("content-encoding") == ("gzip" if zipped else None)
    assert (gzip.decompress(answer.body) if zipped else answer.body) == page


def test_a_small_page_is_not_compressed(serve):
    """Compressing a few bytes costs more than it saves."""
    assert "content-encoding" not in ask(serve().port, Accept_Encoding="gzip").headers


def test_connections_are_kept_alive_and_pipelining_is_answered_once(serve):
    """One connection serves scrape after scrape, but a pipelined burst gets one answer."""
    port = serve().port
    kept = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with closing(kept):
        sockets = set()
        for _ in range(3):
            kept.request("GET", "/metrics")
            sockets.add(kept.sock)
            assert kept.getresponse().read() == b"dl_loss 0.25\n"
        assert len(sockets) == 1
    request = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
    with connect(port, request * 300) as client:
        assert 1 <= read_to_end(client).count(b"HTTP/1.1 200 OK") < 10


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b" 431 "),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 10000000000\r\n\r\n", b" 413 "),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b" 400 "),
    ],
)
def test_requests_are_bounded(serve, request_bytes, status):
    """What is too large, or not HTTP, gets an error and the end of its connection."""
    endpoint = serve()
    with connect(endpoint.port, request_bytes) as client:
        assert status in read_to_end(client).partition(b"\r\n")[0] + b" "
    assert ask(endpoint.port).status == 200


def test_connections_have_the_options_of_the_listener(serve):
    """What nobody reads waits in a small buffer of the kernel, and small pages go at once."""
    endpoint = serve()
    with connect(endpoint.port):
        wait_until(endpoint._server.channels)
        (channel,) = endpoint._server.channels()
        nodelay = channel.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        buffer_bytes = channel.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert nodelay
    assert buffer_bytes <= 2 * server._SEND_BUFFER_BYTES  # Linux doubles what it is asked


def test_two_hundred_scrapes_cost_two_renderings(serve):
    """Scrapes that wait while a page is rendered share the next one, compressed or not."""
    go, begun = threading.Event(), []

    def render(accept: str) -> tuple[str, bytes]:
        begun.append(accept)
        go.wait(20)
        return PLAIN, numbers(5_000)

    endpoint = serve(render)
    with ThreadPoolExecutor(200) as pool:
        first = pool.submit(ask, endpoint.port)
        wait_until(lambda: begun)
        rest = [
            pool.submit(ask, endpoint.port, Accept_Encoding="gzip" if number % 2 else "identity")
            for number in range(199)
        ]
        wait_until(lambda: endpoint._server.waiting.qsize() == 199)
        go.set()
        assert {future.result().status for future in (first, *rest)} == {200}
    assert len(begun) == 2


def test_a_page_is_begun_after_its_request(serve):
    """Whatever was logged before a scrape is on its page, however many scrape at once."""
    logged: list[int] = []

    def render(accept: str) -> tuple[str, bytes]:
        value = len(logged)
        time.sleep(0.003)  # the page is as old as its beginning
        return PLAIN, str(value).encode()

    endpoint = serve(render)

    def log_and_scrape(number: int) -> bool:
        logged.append(number)
        before = len(logged)
        return int(ask(endpoint.port).body) >= before

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(log_and_scrape, range(400)))


@pytest.mark.parametrize("raising", ["0", "1"])
def test_a_failing_rendering_is_500_and_counted(serve, monkeypatch, raising):
    """A page that cannot be rendered is one line and a count, and the next one is served."""
    monkeypatch.setenv(RAISE_VARIABLE, raising)
    broken = [True]

    def render(accept: str) -> tuple[str, bytes]:
        if broken[0]:
            raise ValueError("secret\nof the run")
        return small(accept)

    port, before = serve(render).port, DIAGNOSTICS.dropped.get("scrape", 0)
    answer = ask(port)
    assert (answer.status, answer.body) == (
        500,
        b"500: rendering the metrics page raised ValueError\n",
    )
    assert DIAGNOSTICS.dropped.get("scrape", 0) - before == (0 if raising == "1" else 1)
    broken[0] = False
    assert ask(port).status == 200


def test_a_failing_health_is_500(serve):
    """A health callback that raises does not end the endpoint."""
    port = serve(health=lambda: {}["gone"]).port
    assert ask(port, "/health").status == 500
    assert ask(port).status == 200


def test_an_exit_in_a_callback_ends_one_request(serve):
    """SystemExit out of render ends that connection and nothing else."""
    first = [SystemExit(1)]

    def render(accept: str) -> tuple[str, bytes]:
        if first:
            raise first.pop()
        return small(accept)

    port = serve(render).port
    with connect(port, SCRAPE) as client:
        assert read_to_end(client) == b""
    assert ask(port).status == 200


def test_a_taken_port_leads_to_the_next(serve):
    """The next free port is used, and url says which."""
    first = serve()
    second = serve(port=first.port)
    assert first.port < second.port < first.port + 100
    assert second.url == f"http://127.0.0.1:{second.port}/metrics"
    assert ask(second.port).status == 200


def test_ranks_that_start_together_share_the_ports_out(serve):
    """Endpoints opened in the same moment on one port end up on different ones."""
    first = serve()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            opened = list(pool.map(lambda _: serve(port=first.port), range(8)))
            assert len({endpoint.port for endpoint in (first, *opened)}) == 9
            for endpoint in opened:
                endpoint.close()


def test_ports_end_somewhere(serve):
    """When the allowed tries are taken, or the ports end, one line says so."""
    taken = serve().port
    with pytest.raises(EndpointError, match=rf"^port {taken} is taken; pass port=0"):
        serve(port=taken, port_tries=1)
    with socket.socket() as last:
        with suppress(OSError):  # somebody else's, then
            last.bind(("127.0.0.1", 65535))
            last.listen()
        with pytest.raises(EndpointError, match=r"^port 65535 is taken"):
            serve(port=65535)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"port": 70_000}, "port 70000 is not in 0 to 65535; pass port=0"),
        ({"port": -1}, "port -1 is not in 0 to 65535; pass port=0"),
        ({"host": ""}, "host is empty; pass 127.0.0.1"),
        ({"host": "no host"}, "host 'no host' is unknown; pass host='127.0.0.1'"),
        ({"host": "a\0b"}, r"host 'a\x00b' is unknown; pass host='127.0.0.1'"),
        ({"host": "192.0.2.7"}, "host '192.0.2.7' is not an address of this machine; pass host="),
    ],
)
def test_errors_are_one_line(serve, options, line):
    """An endpoint that cannot be opened names the value, the rule and the next step."""
    with pytest.raises(EndpointError) as caught:
        serve(**options)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)
    assert own_threads() == []


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (
            errno.EACCES,
            "port 80 needs privileges; pass port=0 or set OTEL_EXPORTER_PROMETHEUS_PORT",
        ),
        (errno.ENOBUFS, "'127.0.0.1' port 80 cannot be listened on (No buffer space available); "),
    ],
)
def test_refusals_that_root_never_sees(number, line):
    """The words for errors that cannot be had on demand."""
    error = OSError(number, os.strerror(number))
    assert str(sockets._refusal(error, "127.0.0.1", 80)).startswith(line)


def test_ipv6_is_bracketed(serve):
    """An IPv6 address is a literal in the URL."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
    endpoint = serve(host="::1")
    assert endpoint.url == f"http://[::1]:{endpoint.port}/metrics"
    with socket.create_connection(("::1", endpoint.port), 20) as client:
        client.sendall(SCRAPE)
        assert read_to_end(client).endswith(b"dl_loss 0.25\n")


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

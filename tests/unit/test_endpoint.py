"""The HTTP endpoint of a rank: what it answers, how it compresses, and which port it takes."""

from __future__ import annotations

import errno
import gzip
import http.client
import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from otel_dllogger.diagnostics import DIAGNOSTICS, RAISE_VARIABLE
from otel_dllogger.errors import EndpointError
from otel_dllogger.http import listener, server
from tests.support.endpoint import PLAIN, numbers, own_threads, small
from tests.support.http import SCRAPE, ask, connect, read_to_end, wait_until

pytestmark = pytest.mark.newest_only


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
        ({"port": 70_000}, "port 70000 is not between 0 and 65535; pass port=0"),
        ({"port": -1}, "port -1 is not between 0 and 65535; pass port=0"),
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
    assert str(listener._refusal(error, "127.0.0.1", 80)).startswith(line)


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

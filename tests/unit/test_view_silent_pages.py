"""Pages that never answer or never end, as those of a stopped process or of another service."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from otel_dllogger.http.scrape import UnreachableError, fetch
from otel_dllogger.view.model import Model
from otel_dllogger.view.page_source import FixedPlaces, PageSource
from tests.support.command import COMMAND, environment, otel_dllogger

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.newest_only

WELL = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
PAGE = b'dllogger_iteration{run="well",rank="0"} 5\n'


@contextlib.contextmanager
def answering(
    first: bytes, again: bytes = b"", pause_s: float = 0.0, *, asked: threading.Event | None = None
) -> Iterator[int]:
    """Answer each connection with some bytes and then others for ever; yield the port."""
    asked, ended = asked or threading.Event(), threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(30)
            connection.recv(1 << 16)
            asked.set()
            connection.sendall(first)
            while again and not ended.wait(pause_s):
                connection.sendall(again)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = server.accept()[0]
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def test_views_do_not_wait_for_a_page_that_never_answers() -> None:
    """The model is free meanwhile; a page that is gone is not waited for each time."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        model = Model()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/metrics"
        source = PageSource([FixedPlaces([url])], model)
        thread = threading.Thread(target=_poll_now, args=(source,))
        thread.start()
        asked = server.accept()[0]  # it has asked, and waits
        assert model.lock.acquire(timeout=0.5)
        model.lock.release()
        thread.join(10)
        deadline_s = time.monotonic() + 30
        while not source._pages[url].due_s and time.monotonic() < deadline_s:
            _poll_now(source)
        assert list(source.errors) == [url]
        source._due_s = 0.0
        begun_s = time.monotonic()
        source.poll()
        assert time.monotonic() - begun_s < 0.9
        source.close()
        asked.close()


@pytest.mark.parametrize(
    "slow", [(WELL, b"#", 0.1), (b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.1), (WELL, b"#" * 99 + b"\n")]
)
def test_others_do_not_wait_for_a_page_that_never_ends(slow) -> None:
    """A service that is not a rank, on a port where ranks may be, does not hide those that are."""
    with answering(*slow) as endless, answering(WELL + PAGE) as well:
        urls = [f"http://127.0.0.1:{port}/metrics" for port in (endless, well)]
        model = Model()
        source = PageSource([FixedPlaces(urls)], model)
        begun_s = time.monotonic()
        _poll_now(source)
        assert time.monotonic() - begun_s < 1.9  # less than a page may take
        assert model.runs["well"].ranks[0].iteration == 5
        while not source.errors and time.monotonic() < begun_s + 30:
            _poll_now(source)
        assert list(source.errors) == urls[:1]
        source.close()


@pytest.mark.parametrize(
    ("slow", "words"),
    [
        ((WELL, b"#", 0.05), "no whole answer in time"),
        ((b"HTTP/1.1 200 OK\r\nX: ", b"x", 0.05), "no whole answer in time"),
        ((b"HTTP/1.1 503 Busy\r\n\r\n", b"#", 0.05), "no whole answer in time"),
        ((WELL, b"#" * (1 << 16)), "its page is longer than 1 MiB"),
    ],
)
def test_a_page_has_one_deadline_for_all_its_parts(slow, words: str) -> None:
    """However often something arrives, and however much."""
    with answering(*slow) as port, pytest.raises(UnreachableError, match=words):
        fetch(f"http://127.0.0.1:{port}/", timeout_s=0.5, max_bytes=1 << 20)


def test_a_stream_of_events_is_refused_by_its_type() -> None:
    """Nobody waits for its end."""
    with answering(EVENTS, b": ping\n\n", 0.1) as port:
        done = otel_dllogger("check", f"{port}")
    assert (done.returncode, done.stderr) == (1, "")
    assert "it is 'text/event-stream' and not a metrics page" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["watch", "view"])
def test_a_page_that_never_ends_does_not_keep_a_view_from_ending(
    command: str, number: signal.Signals
) -> None:
    """Signals end it at once, while it is read."""
    options = ["--listen", "127.0.0.1:0"] if command == "view" else []
    asked = threading.Event()
    with (
        answering(WELL, b"#", 0.1, asked=asked) as port,
        subprocess.Popen(
            [*COMMAND, command, f"{port}", *options], env=environment(), stdout=subprocess.DEVNULL
        ) as process,
    ):
        try:
            assert asked.wait(30)
            process.send_signal(number)
            begun_s = time.monotonic()
            process.wait(10)
            assert time.monotonic() - begun_s < 4.0
        finally:
            process.kill()


def _poll_now(source: PageSource) -> None:
    """Read the pages, once that is due."""
    due_s = source._due_s
    while time.monotonic() < due_s:
        time.sleep(0.01)
    source.poll()

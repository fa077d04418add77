"""Several backends that have something to wait for at their end wait for it together."""

from __future__ import annotations

import re
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from otel_dllogger import Logger, PrometheusBackend
from otel_dllogger.backends.otlp import OTLPBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.otlp import sender as sender_module
from otel_dllogger.runtime import closing
from tests.support.collector import BlackHole, HTTPCollector
from tests.support.http import SCRAPE, ask, connect, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

pytest.importorskip("opentelemetry.proto", reason="pip install 'otel-dllogger[otlp]'")
pytest.importorskip("requests", reason="pip install 'otel-dllogger[otlp]'")

PATIENCE_S = 0.6
FINISHED = re.compile(rb"\ndllogger_run_finished{.*} 1")


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a shorter time than in training."""
    monkeypatch.setattr(sender_module, "EXIT_S", PATIENCE_S)
    monkeypatch.setattr(closing, "CLOSE_S", PATIENCE_S)


@pytest.fixture
def hole() -> Iterator[BlackHole]:
    """A peer that accepts and is silent."""
    with BlackHole() as hole:
        yield hole


def shut_down(backends: list[Any]) -> None:
    Logger(backends).close()


def close_by_hand(backends: list[Any]) -> None:
    for backend in backends:
        backend.close()


def end_the_process(backends: list[Any]) -> None:
    for backend in reversed(backends):  # as atexit does it
        backend._close_at_exit()


HOW = pytest.mark.parametrize("close", [shut_down, close_by_hand, end_the_process])


def seconds(close: Callable[[list[Any]], None], backends: list[Any]) -> float:
    """Log to backends, close them and return the seconds that closing took."""
    Logger(backends).log((0, 1), {"loss": 1.0})
    begun_s = time.monotonic()
    close(backends)
    return time.monotonic() - begun_s


@pytest.mark.slow
@HOW
def test_collectors_that_are_silent_are_waited_for_together(
    close: Callable[[list[Any]], None], hole: BlackHole
) -> None:
    """Five backends take about as long as one, and all values are counted."""

    def backends(count: int) -> list[OTLPBackend]:
        return [OTLPBackend(1, endpoint=hole.url, interval_s=60) for _ in range(count)]

    one_s = seconds(close, backends(1))
    five_s = seconds(close, backends(5))
    assert five_s < 2 * one_s
    assert 6 == DIAGNOSTICS.dropped["otlp_exit"] == sum(DIAGNOSTICS.dropped.values())


@HOW
def test_a_silent_one_takes_nothing_from_the_others(
    close: Callable[[list[Any]], None], hole: BlackHole
) -> None:
    """Whatever its place in the order, a collector that answers gets all there is."""
    with HTTPCollector() as http:
        urls = [http.url, hole.url, http.url, hole.url, http.url]
        backends = [OTLPBackend(1, endpoint=url, interval_s=60) for url in urls]
        seconds(close, backends)
        assert [1.0] * 3 == http.values("dl.loss")
        assert 3 == sum(http.values("dllogger.run_finished"))
    assert 2 == DIAGNOSTICS.dropped["otlp_exit"]


def test_a_backend_that_goes_on_is_not_given_less_time_later() -> None:
    """One closes, another logs on to a collector that answers: it has its own time at its end."""
    with HTTPCollector() as http:
        first, second = (OTLPBackend(1, endpoint=http.url, interval_s=60) for _ in range(2))
        Logger([second]).log((0, 1), {"loss": 1.0})
        first.close()
        http.wait_for("dl.loss", 1)  # sent at once, in case it closes as well
        wait_until(lambda: second._sender._hurried_s is None)
        Logger([second]).log((0, 2), {"loss": 2.0})
        second.close()
        assert [1.0, 2.0] == http.values("dl.loss")
    assert 0 == sum(DIAGNOSTICS.dropped.values())


@pytest.mark.slow
@HOW
def test_renderings_that_hang_are_waited_for_together(close: Callable[[list[Any]], None]) -> None:
    """A page that is never ready holds up the end once, and not for each backend."""
    go = threading.Event()

    def backends(count: int, stack: ExitStack) -> list[PrometheusBackend]:
        made = []
        for _ in range(count):
            backend = PrometheusBackend(1, port=0)
            begun = threading.Event()
            backend.endpoint._render = lambda _accept, begun=begun: (begun.set(), go.wait(20))
            stack.enter_context(connect(backend.endpoint.port, SCRAPE))
            assert begun.wait(10)
            made.append(backend)
        return made

    with ExitStack() as stack:
        stack.callback(go.set)
        one_s = seconds(close, backends(1, stack))
        if close is not close_by_hand:  # where nobody can know that the others are next
            assert seconds(close, backends(3, stack)) < 2 * one_s


@pytest.mark.parametrize("close", [shut_down, end_the_process])
def test_last_scrapes_are_waited_for_together(close: Callable[[list[Any]], None]) -> None:
    """All pages show the end at once, and one that is scraped meanwhile is done."""
    backends = [PrometheusBackend(1, port=0, linger_s=60) for _ in range(3)]
    ports = [backend.endpoint.port for backend in backends]
    thread = threading.Thread(target=close, args=(backends,))
    thread.start()
    for port in ports:
        wait_until(lambda port=port: FINISHED.search(ask(port).body))
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("close", [shut_down, end_the_process])
def test_a_scrape_that_does_not_come_is_waited_for_once(
    close: Callable[[list[Any]], None],
) -> None:
    """Four backends linger for about as long as one."""
    one_s = seconds(close, [PrometheusBackend(1, port=0, linger_s=PATIENCE_S)])
    backends = [PrometheusBackend(1, port=0, linger_s=PATIENCE_S) for _ in range(4)]
    assert seconds(close, backends) < 2 * one_s


def interrupt(call: Callable[[], None], handler: Callable[[], None], line: int) -> bool:
    """Call a function, with a signal handler's work in this thread at one of the lines it runs.

    Returns:
        Whether it has so many lines.
    """
    left, before = [line], sys.gettrace()

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        if "otel_dllogger" not in frame.f_code.co_filename:
            return None
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                handler()  # which is not traced
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return left[0] <= 0


@pytest.mark.slow
@pytest.mark.parametrize("method", ["log", "flush", "close"])
def test_a_signal_handler_may_close_an_otlp_backend(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At any line: nobody waits for himself, and each value arrives or is counted, once."""
    monkeypatch.setattr(sender_module, "EXIT_S", 60.0)
    with HTTPCollector() as http:
        line, reached, logged = 0, True, 0
        while reached:
            line += 1
            backend = OTLPBackend(1, endpoint=http.url, interval_s=60)
            logger = Logger([backend])
            logger.log((0, 1), {"loss": 1.0})

            def handler(logger: Logger = logger) -> None:
                logger.log((0, 2), {"loss": 2.0})
                logger.flush()
                logger.close()

            arguments = ((0, 3), {"loss": 3.0}) if method == "log" else ()
            reached = interrupt(partial(getattr(logger, method), *arguments), handler, line)
            logged += 1 + bool(arguments) + reached
            logger.close()
            assert not backend._sender._thread.is_alive()
            arrived = len(http.values("dl.loss"))
            assert logged == arrived + DIAGNOSTICS.dropped["otlp_exit"], line
            assert 0 == len(closing._open)
    assert line > 5


@pytest.mark.slow
def test_a_signal_handler_may_close_amid_the_close_of_a_page(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """At any line: the endpoint ends once, and nothing is shut down twice."""
    line, reached = 0, True
    while reached:
        line += 1
        backend = PrometheusBackend(1, port=0)
        logger = Logger([backend])

        def handler(logger: Logger = logger) -> None:
            logger.log((0, 2), {"loss": 2.0})
            logger.flush()
            logger.close()

        reached = interrupt(logger.close, handler, line)
        assert not any(thread.is_alive() for thread in backend.endpoint._threads), line
        assert not backend.endpoint._server.sockets, line
        assert [] == caplog.messages, line
    assert line > 30
    assert 0 == sum(DIAGNOSTICS.dropped.values())

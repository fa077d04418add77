"""A close that waits for those who scrape the page regularly, and for nobody else."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_dllogger import Logger, PrometheusBackend
from otel_dllogger.http import scrapers
from otel_dllogger.runtime.wakers import Waker
from tests.support.http import Answer, ask, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.newest_only

FINISHED = re.compile(rb"\ndllogger_run_finished{.*} 1")


class Waits(Waker):
    """A waker that notes how often it was waited for."""

    count = 0

    def wait(self, timeout_s: float) -> None:
        self.count += 1
        super().wait(timeout_s)


def scrape(backend: PrometheusBackend, agent: str = "Prometheus", method: str = "GET") -> Answer:
    headers = {"X_Prometheus_Scrape_Timeout_Seconds": "10", "User_Agent": agent}
    return ask(backend.endpoint.port, method=method, **headers)


def look(backend: PrometheusBackend) -> Answer:
    return ask(backend.endpoint.port)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[..., PrometheusBackend]:
    """Make backends whose waits are counted, and are longer than the test may take."""
    monkeypatch.setattr(scrapers, "SLACK_S", 30.0)

    def make(**options: Any) -> PrometheusBackend:
        backend = PrometheusBackend(1, port=0, **options)
        backend._end_scraped = Waits()
        Logger([backend]).log((0, 1), {"loss": 1.0})
        return backend

    return make


def test_two_scrapes_are_a_reason_to_wait_for_a_third(make: Callable[..., Any]) -> None:
    """It has the last values and the end; what others read meanwhile changes nothing."""
    backend = make()
    for _ in range(2):
        assert not FINISHED.search(scrape(backend).body)
    thread = threading.Thread(target=backend.close)
    thread.start()
    wait_until(lambda: backend._end_scraped.count)
    for read in (look(backend), ask(backend.endpoint.port, "/health"), scrape(backend, "", "HEAD")):
        assert read.status == 200
    wait_until(lambda: backend._end_scraped.count > 1)
    assert thread.is_alive()
    assert FINISHED.search(scrape(backend).body)
    thread.join(20)
    assert not thread.is_alive()


def test_two_scrapers_are_waited_for_both(make: Callable[..., Any]) -> None:
    """Each server has alerts of its own."""
    backend = make()
    for agent in ("a", "b", "b", "a"):
        scrape(backend, agent)
    thread = threading.Thread(target=backend.close)
    thread.start()
    wait_until(lambda: backend._end_scraped.count)
    assert FINISHED.search(scrape(backend, "a").body)
    wait_until(lambda: backend._end_scraped.count > 1)
    assert FINISHED.search(scrape(backend, "b").body)
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "reads",
    [(), (look,) * 9, (scrape,), (scrape, look, look)],
    ids=["nobody", "a browser", "one scrape", "one scrape and a browser"],
)
def test_nobody_else_is_waited_for(make: Callable[..., Any], reads: Any) -> None:
    """A page that nobody scrapes regularly is closed without a wait."""
    backend = make()
    for read in reads:
        read(backend)
    backend.close()
    assert 0 == backend._end_scraped.count


def test_zero_turns_it_off(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument, and in the environment; an invalid variable does not."""
    backends = [make(linger_s=0)]
    for raw in ("0", "soon"):
        monkeypatch.setenv("OTEL_DLLOGGER_LINGER_SECONDS", raw)
        backends.append(make())
    assert [0, 0, None] == [backend._linger_s for backend in backends]
    for backend in backends[:2]:
        scrape(backend)
        scrape(backend)
        backend.close()
        assert 0 == backend._end_scraped.count
    backends[2].close()


def test_a_number_waits_for_anybody(make: Callable[..., Any]) -> None:
    """Also if nobody came before, and until somebody reads the page in any way."""
    backend = make(linger_s=60)
    thread = threading.Thread(target=backend.close)
    thread.start()
    wait_until(lambda: backend._end_scraped.count)
    look(backend)
    thread.join(20)
    assert not thread.is_alive()


def test_an_exception_is_not_waited_for(make: Callable[..., Any]) -> None:
    """It is not a clean end, also after the run's summary."""
    backend = make()
    scrape(backend)
    scrape(backend)
    logger = Logger([backend])
    logger.log((), {"loss": 1.0})
    with pytest.raises(ZeroDivisionError), logger:
        raise ZeroDivisionError
    assert 0 == backend._end_scraped.count


def test_who_cannot_hear_a_signal_does_not_wait(make: Callable[..., Any]) -> None:
    """A backend that another thread made: it could not end the wait when it is told to."""
    made = []
    thread = threading.Thread(target=lambda: made.append(make()))
    thread.start()
    thread.join()
    scrape(made[0])
    scrape(made[0])
    made[0].close()
    assert 0 == made[0]._end_scraped.count

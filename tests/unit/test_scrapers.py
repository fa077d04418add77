"""Who scrapes a page regularly, and until when each of them is waited for at its end."""

from __future__ import annotations

from typing import Any

import pytest

from otel_dllogger.http.scrapers import MOST_WAIT_S, SLACK_S, Scrapers

pytestmark = pytest.mark.newest_only

HEADER = "HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS"
PROMETHEUS = {
    "REQUEST_METHOD": "GET",
    "REMOTE_ADDR": "10.0.0.1",
    "HTTP_USER_AGENT": "Prometheus/2.42.0",
    HEADER: "10",
}
OTHER = {**PROMETHEUS, "REMOTE_ADDR": "10.0.0.2"}


def wait_s(end_s: float, *scrapes: tuple[dict[str, str], float], seen: Any = ()) -> float:
    """Return how long an end is waited for, after these scrapes and those that saw the end."""
    now_s = 0.0
    scrapers = Scrapers(lambda: now_s)
    for request, now_s in scrapes:
        scrapers.note(request, min(now_s, end_s - 0.1))
    for request in seen:
        scrapers.note(request, end_s + 0.1)
    return scrapers.due_by_s(end_s) - end_s


def scrapes(request: dict[str, str], *times_s: float) -> list[tuple[dict[str, str], float]]:
    return [(request, time_s) for time_s in times_s]


@pytest.mark.parametrize(
    ("times_s", "expected_s"),
    [
        ((), 0),
        ((95,), 0),  # once is not regularly
        ((80, 95), 10 + SLACK_S),  # it is due at 110
        ((10, 25, 40, 55, 70, 85, 100), 15 + SLACK_S),
        ((50, 65, 80), 0),  # it is gone: waiting ends in the past
        ((25, 40, 70, 85, 100), MOST_WAIT_S),  # one failed, perhaps the next as well
        ((40, 55, 74, 85, 100), 19 + SLACK_S),  # the longest interval: one scrape came late
        ((98, 98.4, 100), 1.6 + SLACK_S),  # two behind one address
        ((0, 60), 20 + SLACK_S),  # it is due at 120
        ((30, 90), 0),  # it is due at 150, too late to wait for
    ],
)
def test_a_regular_scraper_is_waited_for(times_s: tuple[float, ...], expected_s: float) -> None:
    """For the longest of its last intervals and a slack, and only if it can come in time."""
    assert expected_s == pytest.approx(wait_s(100, *scrapes(PROMETHEUS, *times_s)))


def test_each_of_several_is_waited_for() -> None:
    """Two servers with different intervals, of which each has alerts of its own."""
    both = scrapes(PROMETHEUS, 90, 95) + scrapes(OTHER, 75, 90)
    assert 5 + SLACK_S == wait_s(100, *both, seen=[PROMETHEUS])
    assert SLACK_S == wait_s(100, *both, seen=[OTHER])
    assert 0 == wait_s(100, *both, seen=[OTHER, PROMETHEUS])
    slower = scrapes(PROMETHEUS, 90, 95) + scrapes(OTHER, 30, 90)
    assert SLACK_S == wait_s(100, *slower)
    assert 0 == wait_s(100, *slower, seen=[PROMETHEUS])


@pytest.mark.parametrize("change", [{"REQUEST_METHOD": "HEAD"}, {HEADER: None}])
def test_others_are_not_waited_for(change: dict[str, str | None]) -> None:
    """Health checks, browsers, curl and ``otel-dllogger check``, however often they come."""
    request = {name: value for name, value in {**PROMETHEUS, **change}.items() if value}
    assert 0 == wait_s(100, *scrapes(request, 70, 80, 90))


def test_only_so_many_are_remembered() -> None:
    """The memory does not grow with the addresses; those that came last are kept."""
    many = [({**PROMETHEUS, "REMOTE_ADDR": str(number)}, number / 10) for number in range(1000)]
    assert 0 == wait_s(100, *scrapes(PROMETHEUS, 0), *many, *scrapes(PROMETHEUS, 99))
    assert SLACK_S == wait_s(100, *many, *scrapes(PROMETHEUS, 98, 99))

"""Note who scrapes a page regularly, to know how long to wait until they have seen its end.

Every scrape of Prometheus has the header X-Prometheus-Scrape-Timeout-Seconds, also in agents
that contain its code, such as the OpenTelemetry Collector, in vmagent, and in what
``otel-dllogger watch`` and ``view`` send. Browsers, curl, health checks and ``otel-dllogger check``
do not send it.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed.wsgi import WSGIEnvironment

MOST_WAIT_S = 30.0
"""Seconds to wait at most for scrapes of the end."""

SLACK_S = 2.0
"""Seconds by which a scrape may be late.

Prometheus is punctual to milliseconds, but a lost packet is only sent again after a second, and a
rendering may wait a second for new instruments.
"""

_HEADER = "HTTP_X_PROMETHEUS_SCRAPE_TIMEOUT_SECONDS"
_ARRIVALS = 5
_MAX_SCRAPERS = 16


@dataclass(slots=True)
class _Scraper:
    arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=_ARRIVALS))
    page_s: float = 0.0  # when the rendering of the last page began that it was given


class Scrapers:
    """The scrapers of one page.

    A scraper is an address with a User-Agent. Two behind the same address count as one, so that
    the first of the two is waited for.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._scrapers: dict[tuple[str, str], _Scraper] = {}

    def note(self, environ: WSGIEnvironment, page_s: float) -> None:
        """Note a request for the page, if it is a scrape.

        Args:
            environ: The request.
            page_s: The monotonic time at which the rendering of the answer began.
        """
        if _HEADER not in environ or environ["REQUEST_METHOD"] != "GET":
            return
        key = environ.get("REMOTE_ADDR", ""), environ.get("HTTP_USER_AGENT", "")
        # The one that scraped last is the last in the dict.
        scraper = self._scrapers.pop(key, None) or _Scraper()
        if len(self._scrapers) >= _MAX_SCRAPERS:
            del self._scrapers[next(iter(self._scrapers))]
        scraper.arrivals_s.append(self._clock())
        scraper.page_s = page_s
        self._scrapers[key] = scraper

    def due_by_s(self, end_s: float) -> float:
        """Return the monotonic time by which every regular scraper has seen the end.

        A scraper is regular from its second scrape on. It is due again within the longest of its
        last intervals, since one may have been short by chance. If even the shortest of them
        ends too late, waiting is of no use.

        Args:
            end_s: The monotonic time since which the page shows the end.

        Returns:
            ``end_s`` if there is nobody to wait for.
        """
        return max((end_s, *self._due_s(end_s)))

    def _due_s(self, end_s: float) -> Iterator[float]:
        by_s = end_s + MOST_WAIT_S
        for scraper in tuple(self._scrapers.values()):
            arrivals_s = tuple(scraper.arrivals_s)
            intervals_s = [after - before for before, after in pairwise(arrivals_s)]
            if intervals_s and scraper.page_s < end_s and arrivals_s[-1] + min(intervals_s) < by_s:
                yield min(arrivals_s[-1] + max(intervals_s) + SLACK_S, by_s)

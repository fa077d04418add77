"""The model of runs, filled from metrics pages: of ranks that train, or of a bridge.

A page has last values only, so histories begin when it is first read.
"""

from __future__ import annotations

import math
import queue
import socket
import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Protocol

from otel_dllogger.http.discovery_folder import is_readable
from otel_dllogger.http.scrape import (
    SCANNED_PORTS,
    UnreachableError,
    UnreadablePageError,
    fetch,
    is_endless,
)
from otel_dllogger.http.service_discovery import announced_pages, live_pages
from otel_dllogger.record import ITERATION
from otel_dllogger.view.facts import BESIDE_A_LOG, INFO, note
from otel_dllogger.view.metric import Metric
from otel_dllogger.view.page_lines import PageLines, Sample

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from otel_dllogger.http.discovery_folder import DiscoveryFolder
    from otel_dllogger.view.model import Model, Rank, Series

_Reading = Future["str | Exception"]

SCRAPE_INTERVAL_S = 1.0
"""Seconds between two readings of a page; more if reading all of them takes long."""

_SHARE = 3.0  # the pause is that many times as long as the processor was busy with the readings
_RETRY_S = 10.0  # seconds until a page that is gone is asked again
_TIMEOUT_S = 10.0  # for a whole page, as Prometheus has it by default; others do not wait
_SILENCE_S = 2.0
_MAX_BYTES = 64 * 2**20  # of a page; 10,000 series are about 2 MiB
_THREADS = 16
_MISSES = 2  # failed readings after which a page counts as gone
_SCAN_INTERVAL_S = 5.0
_HTTP_OK = 200
_MOST_DIGITS = 9  # of a rank


class Places(Protocol):
    """Where pages are, which may change.

    Attributes:
        are_announced: Whether ranks announce them, and take that back when they close or are told
            to end.
    """

    are_announced: bool

    def urls(self) -> Iterable[str]:
        """Return the addresses of the pages that there are now."""
        ...


class FixedPlaces:
    """Pages whose addresses a user gave."""

    are_announced = False

    def __init__(self, urls: Iterable[str]) -> None:
        self._urls = list(urls)

    def urls(self) -> Iterable[str]:
        """Return the addresses."""
        return self._urls


class AnnouncedPlaces:
    """Pages that ranks announce in a discovery folder."""

    are_announced = True

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def urls(self) -> Iterable[str]:
        """Return the addresses in the folder's files."""
        return [f"http://{address}/metrics" for address in announced_pages(self._folder)]


class HerePlaces:
    """Pages of ranks that were alive since we look, in a discovery folder of this machine.

    Files of runs that died before stay in it until a rank starts; nobody asked for those.
    """

    are_announced = True

    def __init__(self, folder: DiscoveryFolder) -> None:
        self._folder = folder
        self._alive: set[str] = set()

    def urls(self) -> Iterable[str]:
        """Return the addresses in the folder's files."""
        if not is_readable(self._folder):  # ranks may make it later
            return []
        self._alive.update(live_pages(self._folder.path))
        announced = announced_pages(self._folder.path)
        return [f"http://{address}/metrics" for address in announced if address in self._alive]


class LocalPlaces:
    """Pages on the ports of this machine that ranks take if nobody says otherwise."""

    are_announced = False

    def __init__(self) -> None:
        self._urls: list[str] = []
        self._due_s = 0.0

    def urls(self) -> Iterable[str]:
        """Return the addresses at which something listens, or did when it was looked at before."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + _SCAN_INTERVAL_S
            found = [f"http://127.0.0.1:{port}/metrics" for port in SCANNED_PORTS if _opens(port)]
            self._urls = list(dict.fromkeys([*self._urls, *found]))
        return self._urls


class _Page:
    """One page, and the ranks that it showed."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.misses = 0
        self.due_s = 0.0
        self.was_announced = False
        self.ranks: dict[tuple[str, int], _ReadRank] = {}
        self.lines = PageLines()


class PageSource:
    """A source that reads pages again and again.

    Args:
        places: Where the pages are.
        model: The model to fill.

    Attributes:
        errors: Why pages could not be read the last time, by address.
    """

    def __init__(self, places: Iterable[Places], model: Model) -> None:
        self._places = list(places)
        self._model = model
        self._pages: dict[str, _Page] = {}
        self._owners: dict[Rank, _Page] = {}
        self._readers = _Readers()
        self._asked: dict[str, _Reading] = {}
        self._due_s = 0.0
        self.errors: dict[str, str] = {}

    @property
    def pages(self) -> int:
        """Return how many pages answered the last time."""
        return len(self._pages) - len(self.errors)

    def poll(self) -> bool:
        """Read the pages if that is due; return False, since there is never more at once.

        What a slow page says is taken in a later call, so that the others do not wait for it.
        """
        begun_s, busy_s = time.monotonic(), time.process_time()
        if begun_s < self._due_s:
            return False
        found = [(places.are_announced, list(places.urls())) for places in self._places]
        urls = dict.fromkeys(url for _, each in found for url in each)
        announced = {url for are_announced, each in found if are_announced for url in each}
        for url in urls:
            if url not in self._pages:
                self._pages[url] = _Page(url)
            if url not in self._asked and self._pages[url].due_s <= begun_s:
                self._asked[url] = self._readers.ask(url)
        wait(self._asked.values(), SCRAPE_INTERVAL_S)  # before the lock, for which views wait
        answered = [url for url, reading in self._asked.items() if reading.done()]
        texts = {url: self._asked.pop(url).result() for url in answered}
        with self._model.lock:
            self._leave(urls)
            for url in texts.keys() & self._pages.keys():
                page, text, is_announced = self._pages[url], texts[url], url in announced
                if isinstance(text, Exception) and page.was_announced and not is_announced:
                    self._close(page)
                else:
                    self._take(page, text)
                page.was_announced = is_announced
            self._model.revision += 1
        busy_s = time.process_time() - busy_s
        self._due_s = begun_s + max(SCRAPE_INTERVAL_S, (1 + _SHARE) * busy_s)
        return False

    def close(self) -> None:
        """End the threads."""
        self._readers.close()

    def _leave(self, urls: Mapping[str, None]) -> None:
        """Note which pages were taken away: their processes closed them."""
        for url in self._pages.keys() - urls.keys():
            self._asked.pop(url, None)
            self._close(self._pages.pop(url))

    def _close(self, page: _Page) -> None:
        """Note that the processes of a page closed it, since it is not announced any more."""
        self.errors.pop(page.url, None)
        for read in page.ranks.values():
            if self._owners.get(read.rank) is page:
                read.rank.is_closed = True
        page.ranks.clear()

    def _take(self, page: _Page, text: str | Exception) -> None:
        if isinstance(text, str):
            try:
                self._read(page, page.lines.read(text))
            except (UnreadablePageError, ValueError) as error:
                text = error
        if not isinstance(text, Exception):
            page.misses = 0
            self.errors.pop(page.url, None)
            return
        self.errors[page.url] = str(text)
        page.misses += 1
        if page.misses >= _MISSES:
            page.due_s = time.monotonic() + _RETRY_S
            for read in page.ranks.values():
                if self._owners.get(read.rank) is page:
                    read.rank.is_gone = True

    def _read(self, page: _Page, samples: Iterable[Sample]) -> None:
        by_rank: dict[tuple[str, int], list[Sample]] = {}
        for sample in samples:
            labels = sample.labels
            number = labels.get("rank", "")
            is_rank = number.isdecimal() and len(number) <= _MOST_DIGITS
            if is_rank and sample.name.startswith(("dl_", "dllogger_")):
                key = (labels.get("run", ""), int(number))
                by_rank.setdefault(key, []).append(sample)
        for key, found in by_rank.items():
            read = page.ranks.get(key)
            if read is None:
                read = page.ranks[key] = _ReadRank(self._model, self._model.rank(*key))
            if self._is_owner(page, read.rank, found):
                self._owners[read.rank] = page
                read.take(found)

    def _is_owner(self, page: _Page, rank: Rank, samples: Iterable[Sample]) -> bool:
        """Return whether a page is that of the rank's newest process.

        After a restart, that of the process before may still be there for a moment.
        """
        owner = self._owners.get(rank)
        if owner is None or owner is page or owner.misses or owner.url not in self._pages:
            return True
        return _start_s(samples) > (rank.start_s or 0.0)


class _Readers:
    """Threads that read pages.

    Unlike those of a ``ThreadPoolExecutor``, they do not keep the process from ending.
    """

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[str, _Reading] | None] = queue.SimpleQueue()
        self._threads = 0

    def ask(self, url: str) -> _Reading:
        """Begin to read a page."""
        reading: _Reading = Future()
        self._queue.put((url, reading))
        if self._threads < _THREADS:
            self._threads += 1
            threading.Thread(target=self._run, name="otel-dllogger-scrape", daemon=True).start()
        return reading

    def close(self) -> None:
        """End the threads, without waiting for pages that are being read."""
        for _ in range(self._threads):
            self._queue.put(None)

    def _run(self) -> None:
        while (asked := self._queue.get()) is not None:
            url, reading = asked
            try:
                reading.set_result(_fetch(url))
            except Exception as error:  # a thread that ends would never answer again
                reading.set_result(error)


class _ReadRank:
    """A rank of a page, and its counterpart in the model."""

    def __init__(self, model: Model, rank: Rank) -> None:
        self._model = model
        self.rank = rank
        self._last_log_s = -math.inf
        self._values: dict[Metric, tuple[float, float | None]] = {}  # and the epoch of each
        self._nonfinite = 0.0

    def take(self, samples: list[Sample]) -> None:
        """Take what a page says of the rank now."""
        rank = self.rank
        rank.is_gone = rank.is_closed = False
        rank.read_s = time.time()
        if rank.is_logged:
            self._take_beside_log(samples)
            return
        logged = []
        samples.sort(key=lambda sample: sample.name != INFO)
        for sample in samples:
            if sample.name.startswith("dl_"):
                logged.append(sample)
            else:
                note(rank, *sample)
        is_new = rank.last_log_s is not None and rank.last_log_s > self._last_log_s
        if is_new:
            self._last_log_s = rank.last_log_s or 0.0
            rank.axis.follow(rank.epoch, rank.iteration, rank.steps)
        time_s = rank.last_log_s or time.time()
        seen = set()
        for sample in logged:
            metric = Metric.of(sample.name, sample.labels)
            seen.add(metric)
            # Of what is not logged with each step the page does not say when it was logged: when
            # it changes, and once in each epoch.
            value = (sample.value, rank.epoch)
            is_iteration = metric.granularity == ITERATION
            if is_new and (is_iteration or self._values.get(metric) != value):
                self._values[metric] = value
                series = self._model.series(rank, sample.name, sample.labels)
                self._append(series, sample.value, time_s)
        self._note_gaps(seen, time_s)
        rank.leave_trail(time.time())

    def _take_beside_log(self, samples: Iterable[Sample]) -> None:
        for name, labels, value in samples:
            if name in BESIDE_A_LOG:
                note(self.rank, name, {**labels, "attempt": str(self.rank.attempt)}, value)

    def _append(self, series: Series, value: float, time_s: float) -> None:
        axis = self.rank.axis
        series.history.append(value, (axis.x, time_s, axis.segment))

    def _note_gaps(self, seen: set[Metric], time_s: float) -> None:
        """Note NaN for what is not on the page any more, since its last value is not finite."""
        counted = sum(self.rank.nonfinite.values())
        if counted > self._nonfinite:
            for metric in self._values:
                if metric not in seen and metric in self.rank.series:
                    self._append(self.rank.series[metric], math.nan, time_s)
        self._nonfinite = counted


def _fetch(url: str) -> str | Exception:
    try:
        answer = fetch(
            url, timeout_s=_TIMEOUT_S, silence_s=_SILENCE_S, max_bytes=_MAX_BYTES, is_repeated=True
        )
    except UnreachableError as error:
        return error
    if answer.status != _HTTP_OK:
        return UnreachableError(f"it answers with HTTP status {answer.status}")
    if is_endless(answer.content_type):
        return UnreachableError(f"it is {answer.content_type!r} and not a metrics page")
    return answer.text


def _start_s(samples: Iterable[Sample]) -> float:
    name = "dllogger_run_start_timestamp_seconds"
    return max((sample.value for sample in samples if sample.name == name), default=0.0)


def _opens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2):
            return True
    except OSError:
        return False

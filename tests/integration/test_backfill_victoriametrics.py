"""A real VictoriaMetrics gets every sample once, whatever is repeated, lost or refused."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import math
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import pytest

from otel_dllogger.backfill import victoriametrics
from otel_dllogger.backfill.sorting import SeriesName
from otel_dllogger.backfill.victoriametrics import Imported, import_victoriametrics
from otel_dllogger.errors import BackfillError
from otel_dllogger.version import USER_AGENT
from tests.support.prometheus import wait_for
from tests.support.samples import as_chunks, count
from tests.support.victoriametrics import VictoriaMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.samples import Samples

pytestmark = pytest.mark.newest_only

requests = pytest.importorskip("requests", reason="pip install 'otel-dllogger[otlp]'")

START_MS = 1_700_000_000_123
RUNS = (f"run {number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VictoriaMetrics]:
    """One for all tests; each has runs of its own."""
    with VictoriaMetrics(tmp_path_factory.mktemp("backfill") / "data") as running:
        yield running


@pytest.fixture
def run():
    return next(RUNS)


def series(run: str, rank: int, *, metric: str = 'tr"ain\\.lössa\n') -> SeriesName:
    return SeriesName("dl_loss", (("metric", metric), ("rank", str(rank)), ("run", run)))


def training(run: str, steps: range, *, ranks: int = 3) -> Samples:
    """Return a run of some steps."""
    return {
        series(run, rank): {START_MS + 1037 * step + rank: step / 8 + rank for step in steps}
        for rank in range(ranks)
    }


def stored(server: VictoriaMetrics, run: str) -> Samples:
    """Return every sample of a run, each of which must be there once."""
    found: Samples = {}
    for one in server.export(f'{{run="{run}"}}'):
        labels = one["metric"]
        name = SeriesName(labels.pop("__name__"), tuple(sorted(labels.items())))
        column = found.setdefault(name, {})
        for time_ms, value in zip(one["timestamps"], one["values"], strict=True):
            assert time_ms not in column
            column[time_ms] = value
    return found


def rows_inserted(server: VictoriaMetrics) -> int:
    page = server.ask("/metrics").decode()
    return int(re.search(r'vm_rows_inserted_total\{type="vmimport"\} (\d+)', page)[1])


def wait_as_if(server: VictoriaMetrics, waits: list[float]):
    """Return a sleep that takes no time, after which is visible what would be after it."""

    def wait(seconds: float) -> None:
        waits.append(seconds)
        server.ask("/internal/force_flush")

    return wait


def test_every_sample_is_there_once(server, run):
    """A first run; a second that adds nothing; a third, of a log that has grown."""
    before = rows_inserted(server)
    first = training(run, range(1000))
    assert Imported(count(first), 0, 0) == import_victoriametrics(as_chunks(first), server.url)
    assert first == stored(server, run)

    assert Imported(0, count(first), 0) == import_victoriametrics(as_chunks(first), server.url)
    assert first == stored(server, run)

    grown = training(run, range(-100, 1200), ranks=4)
    added = import_victoriametrics(as_chunks(grown), f"{server.url}/")
    assert Imported(count(grown) - count(first), count(first), 0) == added
    assert grown == stored(server, run)
    # Of a series, what came at two times is exported as two lines.
    assert Imported(0, count(grown), 0) == import_victoriametrics(as_chunks(grown), server.url)
    # Its page is up to a second old; whatever was sent too often would be on it as well.
    rows = wait_for(lambda: rows_inserted(server), lambda rows: rows >= before + count(grown))
    assert before + count(grown) == rows


def test_it_is_asked_in_portions(server, run, monkeypatch):
    """More series and samples than one request has room for."""
    monkeypatch.setattr(victoriametrics, "_REQUEST_SAMPLES", 900)
    monkeypatch.setattr(victoriametrics, "_REQUEST_SERIES", 3)
    samples = training(run, range(1500), ranks=2)
    samples.update({series(run, rank, metric="few"): {START_MS: 1.0} for rank in range(10)})
    seen: list[float] = []
    for expected in (Imported(count(samples), 0, 0), Imported(0, count(samples), 0)):
        done = import_victoriametrics(
            as_chunks(samples),
            server.url,
            samples=count(samples),
            progress=lambda _stage, part: seen.append(part),
        )
        assert expected == done
    assert samples == stored(server, run)
    assert 1.0 == seen[-1]
    assert len(seen) > 10


def test_a_value_that_is_there_stays(server, run):
    """It is counted where it differs by more than the digits that are stored."""
    first = {series(run, 0): {START_MS: 1.0, START_MS + 1: 1 / 3, START_MS + 2: 3.0}}
    import_victoriametrics(as_chunks(first), server.url)
    changed = {series(run, 0): {START_MS: 9.0, START_MS + 1: 1 / 3, START_MS + 3: 4.0}}
    assert Imported(1, 2, 1) == import_victoriametrics(as_chunks(changed), server.url)
    assert {START_MS: 1.0, START_MS + 3: 4.0}.items() <= stored(server, run)[series(run, 0)].items()


def test_a_series_with_more_labels_is_another(server, run):
    """What a scrape stored has an instance, and does not stand for what was logged."""
    scraped = SeriesName("dl_loss", (("instance", "x"), *series(run, 0).labels))
    empty = SeriesName("dl_loss", (("empty", ""), *series(run, 1).labels))
    import_victoriametrics(as_chunks({scraped: {START_MS: 1.0}}), server.url)
    samples = {series(run, 0): {START_MS: 2.0}, empty: {START_MS: 3.0}}
    assert 2 == import_victoriametrics(as_chunks(samples), server.url).imported
    assert 2 == import_victoriametrics(as_chunks(samples), server.url).present
    assert {scraped, series(run, 0), series(run, 1)} == set(stored(server, run))


def test_what_is_not_finite_is_left_out(server, run):
    """It does not store a NaN."""
    samples = {series(run, 0): {START_MS: 1.0, START_MS + 1: math.nan, START_MS + 2: math.inf}}
    assert 1 == import_victoriametrics(as_chunks(samples), server.url).imported
    assert {series(run, 0): {START_MS: 1.0}} == stored(server, run)


def test_what_it_drops_in_silence_is_told(server, run):
    """It answers with success, and does not keep what is outside of its retention."""
    samples = {series(run, 0): {START_MS: 1.0, int(time.time() + 9 * 86_400) * 1000: 2.0}}
    with pytest.raises(BackfillError, match=r"does not keep samples of 20\d\d-\d\d-\d\d: start it"):
        import_victoriametrics(as_chunks(samples), server.url)
    assert {series(run, 0): {START_MS: 1.0}} == stored(server, run)


class Proxy(ThreadingHTTPServer):
    """Stand between, and do to each request what a test says.

    Args:
        target: The real server, or None for one that takes everything and has nothing.
        faults: For each import in turn: a status to answer without passing it on; ``cut`` to
            end the connection before it is passed on; ``lost`` to pass it on and end the
            connection without an answer; None to pass it on. After the last: None.
    """

    daemon_threads = True

    def __init__(self, target: VictoriaMetrics | None, *faults: object, **statuses: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target, self.faults, self.statuses = target, list(faults), statuses
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def log_message(self, *arguments):
        """Say nothing."""

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, headers, body))
        kind = self.path.rpartition("/")[2]
        status = self.server.statuses.get(kind)
        fault = self.server.faults.pop(0) if kind == "import" and self.server.faults else status
        answer = self.passed_on(kind, body) if fault in (None, "lost") else b""
        if fault in ("cut", "lost"):
            self.close_connection = True
            return
        self.send_response(fault or 200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def passed_on(self, kind: str, body: bytes) -> bytes:
        if self.server.target is None:
            return b""
        path = {"force_flush": "/internal/force_flush"}.get(kind, f"/api/v1/{kind}")
        headers = {
            name: self.headers[name]
            for name in ("content-type", "content-encoding")
            if name in self.headers
        }
        url = f"{self.server.target.url}{path}"
        return requests.request(self.command, url, data=body, headers=headers, timeout=20).content


@pytest.mark.parametrize("fault", [503, 429, 500, "cut", "lost"])
def test_what_fails_is_sent_again_and_stored_once(server, run, fault):
    """Whether the request was lost or its answer: it is asked what is there before a repetition."""
    samples = training(run, range(300))
    waits: list[float] = []
    with Proxy(server, fault, fault) as proxy:
        done = import_victoriametrics(as_chunks(samples), proxy.url, sleep=waits.append)
    assert Imported(count(samples), 0, 0) == done
    assert samples == stored(server, run)
    assert ([0.5] if fault == "lost" else [0.5, 1.0]) == waits


def test_it_gives_up_in_one_line(run):
    """The line names the address without the password, and what was the matter."""
    waits: list[float] = []
    chunks = as_chunks(training(run, range(3)))
    with Proxy(None, **{"import": 503}) as proxy:
        url = proxy.url.replace("//", "//me:secret@")
        with pytest.raises(BackfillError, match=r"failed 6 times in .* HTTP status 503") as raised:
            import_victoriametrics(chunks, url, sleep=waits.append)
    assert [0.5, 1.0, 2.0, 4.0, 8.0] == waits
    assert str(raised.value).startswith(f"{proxy.url} failed")
    assert "secret" not in str(raised.value)


def test_nobody_there_is_one_line(run):
    """No connection at all, asked or sent."""
    with Proxy(None) as proxy:
        url = proxy.url
    for unchecked in (False, True):
        with pytest.raises(BackfillError, match=rf"^{url} failed 6 times .* ConnectionError"):
            import_victoriametrics(
                as_chunks(training(run, range(3))),
                url,
                unchecked=unchecked,
                sleep=lambda _seconds: None,
            )


def test_every_request_says_who_sends_it(run):
    """Questions and imports alike have this package's own name and version."""
    with Proxy(None) as proxy, pytest.raises(BackfillError):
        import_victoriametrics(as_chunks(training(run, range(3))), proxy.url)
    assert {USER_AGENT} == {headers["user-agent"] for _, headers, _ in proxy.requests}


def test_a_refusal_is_final(run):
    """What will not be better the next time is not repeated."""
    with (
        Proxy(None, **{"import": 400}) as proxy,
        pytest.raises(BackfillError, match=r"does not accept the samples \(HTTP status 400: \)"),
    ):
        import_victoriametrics(as_chunks(training(run, range(3))), proxy.url)
    assert 1 == sum(path.endswith("/import") for path, _, _ in proxy.requests)


def test_a_cluster_is_asked_elsewhere(server, run):
    """Inserts go to one address, questions to the other, each with its own user."""
    samples = training(run, range(10))
    with Proxy(server) as insert, Proxy(server, force_flush=403) as select:
        waits: list[float] = []
        done = import_victoriametrics(
            as_chunks(samples),
            f"{insert.url.replace('//', '//in%3A:p%40ss@')}/insert/0/prometheus/",
            query_url=f"{select.url}/select/0/prometheus",
            sleep=wait_as_if(server, waits),
        )
    assert Imported(count(samples), 0, 0) == done
    assert [2.0, 2.0] == waits  # since it may not flush
    ((path, headers, body),) = insert.requests
    assert "/insert/0/prometheus/api/v1/import" == path
    assert "Basic " + base64.b64encode(b"in::p@ss").decode() == headers["authorization"]
    lines = [json.loads(line) for line in gzip.decompress(body).splitlines()]
    assert list(samples) == [
        SeriesName(one["metric"].pop("__name__"), tuple(sorted(one["metric"].items())))
        for one in lines
    ]
    exports = [one for one in select.requests if one[0] == "/select/0/prometheus/api/v1/export"]
    assert exports
    assert "authorization" not in exports[0][1]
    assert ["1"] == parse_qs(exports[0][2].decode())["reduce_mem_usage"]


def test_who_cannot_be_asked_needs_permission(server, run):
    """Without asking, a second run would store everything twice."""
    samples = training(run, range(10))
    with Proxy(server, export=404) as proxy:
        with pytest.raises(
            BackfillError, match=r"does not answer which samples .* stored twice: give"
        ):
            import_victoriametrics(as_chunks(samples), proxy.url)
        done = import_victoriametrics(as_chunks(samples), proxy.url, unchecked=True)
    assert Imported(count(samples), 0, 0) == done
    assert samples == stored(server, run)


@pytest.mark.parametrize(
    "url", ["host:8428", "ftp://host", "http://", "http://host:x", "http://host?a=b", ""]
)
def test_what_is_no_address_is_refused(url):
    """The line shows what one looks like, and not what was given: it may have a password."""
    with pytest.raises(BackfillError, match=r"^the address of VictoriaMetrics is not valid: give"):
        import_victoriametrics([], url)

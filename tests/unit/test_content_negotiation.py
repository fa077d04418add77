"""Whatever a client sends gets a page or a refusal, and reaches neither the log nor a counter."""

from __future__ import annotations

import gzip
import http.client
import logging
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import choose_encoder
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

from otel_dllogger import Logger, PrometheusBackend
from otel_dllogger.diagnostics import DIAGNOSTICS
from otel_dllogger.http.content_negotiation import accepts_gzip, choose_format
from otel_dllogger.http.endpoint import MetricsEndpoint
from otel_dllogger.identity import Topology
from otel_dllogger.metrics.exported_store import ExportedStore
from otel_dllogger.metrics.exposition import StorePage
from otel_dllogger.metrics.store import SeriesStore
from otel_dllogger.record import Record
from tests.support.http import ask, connect

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.newest_only

EXAMPLES = settings(deadline=None, derandomize="CI" in os.environ, max_examples=100)
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
PLAIN_1 = "text/plain; version=1.0.0; charset=utf-8; escaping="
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping="
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

# The oldest client has one form of each format.
KNOWS_ESCAPING = "escaping" in choose_encoder(PROMETHEUS_3)[1]


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/html, image/*;q=0.9", PLAIN),
        (PROMETHEUS_3, OPEN_METRICS + "allow-utf-8"),
        ("application/openmetrics-text", OPEN_METRICS + "underscores"),
        ('application/openmetrics-text; version="1.0.0"', OPEN_METRICS + "underscores"),
        ("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", PLAIN),
        (
            "text/plain;version=0.0.4;q=0.3, application/openmetrics-text",
            OPEN_METRICS + "underscore",
        ),
        ("text/plain, application/openmetrics-text", PLAIN),
        ("text/plain; version=1.0.0", PLAIN_1 + "underscores"),
        ("text/plain; version=1.0.0; escaping=dots", PLAIN_1 + "underscores"),
        ("text/plain; version=1.0.0-rc1", PLAIN),
        ("text/plain; version=2.0.0", PLAIN),
        ("application/openmetrics-text; version=abc", PLAIN),
        ("application/openmetrics-text; version=" + "9" * 10_000, PLAIN),
        ("application/openmetrics-text; q=nan", OPEN_METRICS + "underscores"),
        ("application/openmetrics-text; q=-1e999; escaping", OPEN_METRICS + "underscores"),
        ("application/openmetrics-text;q=0", PLAIN),
        ("application/openmetrics-text; version=1.0.0; q=0.000, text/html", PLAIN),
        ("text/plain;version=1.0.0;q=0", PLAIN),
        ("*/*;q=0, application/openmetrics-text;q=0.1", OPEN_METRICS + "underscores"),
        (";;,=;,q=;\x00\xff", PLAIN),
    ],
)
def test_the_format_that_is_asked_for(accept, expected):
    """The most wanted of the formats that there are, and plain text for anything else."""
    if not KNOWS_ESCAPING:
        expected = PLAIN if PLAIN_1 in expected else expected.partition("; escaping")[0]
    assert choose_format(accept)[1].startswith(expected)


@pytest.mark.parametrize(
    ("accept_encoding", "zipped"),
    [
        ("", False),
        ("gzip", True),
        ("deflate, X-GZIP ; q=0.001", True),
        ("gzip;q=0", False),
        ("gzip ;\tq = 0.000", False),
        ("gzip;q=nonsense", True),
        ("gzipped, *", False),
    ],
)
def test_compression_that_is_asked_for(accept_encoding, zipped):
    """gzip by its name, unless its quality is zero."""
    assert accepts_gzip(accept_encoding) == zipped


@pytest.fixture(scope="module")
def ports() -> Iterator[list[int]]:
    """Serve the page of a backend, and one straight from a store as the bridge does."""
    backend = PrometheusBackend(1, port=0, run="r")
    Logger([backend]).log((0, 1), {"loss": 1.0} | {f"metric{one}": one for one in range(50)})
    store = SeriesStore(run="r", rank=0, start_us=0)
    store.take(Record(0, 0, (0, 1), {"loss": 1.0}))
    exported = ExportedStore(store, Topology("r", 0, 0, 1, 1, "h", 1))
    page = StorePage()
    bridge = MetricsEndpoint(lambda accept: page.render([exported], accept), port=0)
    yield [backend.endpoint.port, bridge.port]
    bridge.close()
    backend.close()


@pytest.fixture(scope="module")
def said() -> Iterator[list[logging.LogRecord]]:
    """Collect what reaches the log of the training run."""
    handler = logging.Handler()
    records: list[logging.LogRecord] = []
    handler.emit = records.append  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    yield records
    logging.getLogger().removeHandler(handler)


# Bytes of any kind, those that mean something in these headers more often than not.
WORDS = st.sampled_from(
    b"text/plain application/openmetrics-text */* ; , = version= q= escaping= 1.0.0 0.0.4 gzip "
    b"allow-utf-8 values rc1 \xff \x00 \xe2\x82\xac".split()
)
WORD = (WORDS | st.binary(max_size=9)).map(lambda word: word.translate(None, b"\r\n"))
RANGE = st.builds(
    b"%s; version=%s;escaping=%s;q=%s".__mod__,
    st.tuples(st.sampled_from([b"text/plain", b"application/openmetrics-text"]), WORD, WORD, WORD),
)
VALUES = st.lists(WORD | RANGE, max_size=8).map(b",".join) | st.lists(WORD).map(b"".join)
HUGE = st.integers(1_000, 15_000).map(lambda size: b"a," * (size // 2))
HEADERS = st.fixed_dictionaries(
    {b"Accept": st.lists(RANGE, max_size=3).map(b",".join) | VALUES | HUGE},
    optional=dict.fromkeys(
        (b"Accept-Encoding", b"Host", b"User-Agent", b"Range", b"Cookie", b"X-A"), VALUES | HUGE
    ),
)
PATHS = (
    st.just(b"/metrics")
    | st.sampled_from(
        [b"/metrics", b"/metrics?name[]=dl_loss", b"/metrics?" + b"x" * 500, b"/health?\xff", b"/"]
    )
    | st.binary(max_size=12).map(lambda rest: b"/" + rest.translate(None, b"\r\n \t"))
)
METHODS = st.just(b"GET") | st.sampled_from([b"HEAD", b"POST", b"get", b"PROPFIND"])


@pytest.mark.slow
@EXAMPLES
@given(method=METHODS, path=PATHS, headers=HEADERS)
def test_any_request_is_answered(ports, said, method, path, headers):
    """A page that its own content type's parser reads, or a 4xx; nothing counted, nothing said."""
    lines = [b"%s %s HTTP/1.1" % (method, path), b"Connection: close"]
    lines += [b"%s: %s" % header for header in headers.items()]
    for port in ports:
        with connect(port, b"\r\n".join(lines) + b"\r\n\r\n") as client:
            response = http.client.HTTPResponse(client, method=method.decode())
            response.begin()
            body = response.read()
        assert response.status == 200 or 400 <= response.status < 500, (response.status, body)
        if response.status == 200 and path.startswith(b"/metrics") and method == b"GET":
            if response.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            is_open = response.headers["content-type"].startswith("application/openmetrics-text")
            parse = parse_openmetrics if is_open else parse_text
            assert "dl_loss" in {family.name for family in parse(body.decode())}
        assert [] == said
        assert 0 == sum(DIAGNOSTICS.dropped.values())


@pytest.mark.slow
@EXAMPLES
@given(
    parts=st.lists(
        st.sampled_from(
            b"GET|POST| |/metrics|HTTP/1.1|HTTP/9|\r\n|\r\n\r\n|Accept: |Content-Length: |5|-1|"
            b"Transfer-Encoding: chunked\r\n|Expect: 100-continue\r\n|Host: |:|http://h:99999/|%|"
            b"http://[::1/|Connection: close\r\n|Upgrade: h2c\r\n|ffffffffffff\r\n".split(b"|")
        )
        | st.binary(max_size=5),
        max_size=30,
    )
)
def test_any_bytes_are_survived(ports, said, parts):
    """What need not be HTTP at all leaves the endpoint as it was."""
    for port in ports:
        connect(port, b"".join(parts)).close()
        assert ask(port).status == 200
    assert [] == said
    assert 0 == sum(DIAGNOSTICS.dropped.values())


def test_pages_are_kept_by_format(monkeypatch):
    """Clients that each send another Accept header do not fill the memory with pages."""
    rendered = []

    def render(accept):
        rendered.append(accept)
        return PLAIN, b"dl_loss 1\n"

    endpoint = MetricsEndpoint(render, port=0)
    try:
        for number in range(50):
            endpoint._metrics(f"text/x{number}; version={number}", zipped=bool(number % 2))
        assert 2 == len(endpoint._pages)
        assert 1 == len(rendered)
    finally:
        endpoint.close()

"""Send samples to VictoriaMetrics, through its import of JSON lines.

Source: https://docs.victoriametrics.com/victoriametrics/#how-to-import-data-in-json-line-format
and "How to export data in JSON line format". It stores twice what it receives twice, so it is
asked what is there first, and again before anything is sent a second time.
"""

from __future__ import annotations

import dataclasses
import gzip
import math
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

import orjson

from otel_dllogger.backfill.openmetrics import format_series
from otel_dllogger.backfill.sorting import Chunk, finite_only, keep
from otel_dllogger.errors import BackfillError, in_words, installing, one_line
from otel_dllogger.version import USER_AGENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_REQUEST_SAMPLES = 200_000  # some 4 MB of JSON, or 0.5 MB of gzip
_REQUEST_SERIES = 100  # each is a selector in a query
_ATTEMPTS = 6
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 30.0
_TIMEOUT_S = 60.0
_ANSWER_BYTES = 65_536
_RETRYABLE = frozenset((408, 425, 429, 500, 502, 503, 504))
_LOOKS = 3  # at what should be visible
_FLUSHED_AFTER_S = 2.0  # it makes what it accepted visible within a second or so
_DIGITS = 1e-11  # it stores about twelve decimal digits


@dataclasses.dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        imported: Samples that were sent.
        present: Samples that were there already.
        kept: How many of those have another value there, which stays.
    """

    imported: int
    present: int
    kept: int


def _no_progress(_stage: str, _done: float) -> None:
    pass


def import_victoriametrics(
    chunks: Iterable[Chunk],
    url: str,
    *,
    query_url: str | None = None,
    unchecked: bool = False,
    progress: Callable[[str, float], object] = _no_progress,
    samples: int | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> Imported:
    """Send samples to VictoriaMetrics, except those that are already there.

    Samples that are not finite are left out: it does not store them.

    Args:
        chunks: Samples by family, series and time, as ``SampleSorter.sorted`` gives them.
        url: Its address, such as ``http://host:8428``, or for a cluster
            ``http://vminsert:8480/insert/0/prometheus``; with ``user:password@`` for basic
            authentication.
        query_url: Where to ask what is there, such as ``http://vmselect:8481/select/0/prometheus``
            for a cluster; ``url`` if it is not given.
        unchecked: Send everything without asking what is there: what was sent before is then
            stored twice.
        progress: Called with ``samples`` and how much of them is done, from 0 to 1.
        samples: How many samples will come, if known; only for ``progress``.
        sleep: Called with the seconds to wait before another attempt.

    Returns:
        What was done.

    Raises:
        BackfillError: If it cannot be reached, or refuses; what was sent stays, and the
            import can be repeated.
    """
    with _Server(url, query_url, sleep=sleep) as server:
        total = Imported(0, 0, 0)
        extremes: list[Chunk] = []
        if not unchecked:
            server.flush()
        for portion in _portions(finite_only(chunks)):
            done = _import(server, portion, unchecked=unchecked)
            if done.imported and not unchecked:
                extremes = _extremes(extremes + portion)
            total = Imported(
                total.imported + done.imported,
                total.present + done.present,
                total.kept + done.kept,
            )
            if samples:
                progress("samples", min((total.imported + total.present) / samples, 1.0))
        # So that a query, and the next run, sees all of it at once.
        server.flush()
        if extremes:
            _check_retention(server, extremes)
        progress("samples", 1.0)
        return total


def _extremes(chunks: list[Chunk]) -> list[Chunk]:
    """Return the oldest sample and the newest one, each as a chunk."""
    oldest = min(chunks, key=lambda chunk: chunk.times_ms[0])
    newest = max(chunks, key=lambda chunk: chunk.times_ms[-1])
    return [
        Chunk(oldest.series, oldest.times_ms[:1], oldest.values[:1]),
        Chunk(newest.series, newest.times_ms[-1:], newest.values[-1:]),
    ]


def _check_retention(server: _Server, extremes: list[Chunk]) -> None:
    """Check that samples were kept: those that it deems too old or too new are dropped silently.

    Raises:
        BackfillError: If they were not.
    """
    for chunk in extremes:
        for _ in range(_LOOKS):
            missing, _differing = _missing([chunk], server.export([chunk]))
            if not missing:
                break
            server.flush()
        else:
            day = time.strftime("%Y-%m-%d", time.gmtime(chunk.times_ms[0] / 1000))
            raise BackfillError(
                f"{server.url} does not keep samples of {day}: start it with a -retentionPeriod "
                "that reaches back that far, such as 10y, and run the same command again; it "
                "accepts nothing that is more than two days ahead of its clock"
            )


def _import(server: _Server, portion: list[Chunk], *, unchecked: bool) -> Imported:
    """Import a portion; nothing is sent twice unless it is known to be lost."""
    size = sum(len(chunk.values) for chunk in portion)
    kept = 0
    missing = portion
    for attempt in range(_ATTEMPTS):
        if not unchecked:
            if attempt:
                server.flush()
            missing, differing = _missing(portion, server.export(portion))
            if not attempt:
                kept = differing
                new = sum(len(chunk.values) for chunk in missing)
        elif not attempt:
            new = size
        if not missing or server.send(missing, attempt):
            break
    return Imported(new, size - new, kept)


def _portions(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    portion: list[Chunk] = []
    count = 0
    for chunk in chunks:
        if portion and (
            count + len(chunk.values) > _REQUEST_SAMPLES or len(portion) == _REQUEST_SERIES
        ):
            yield portion
            portion, count = [], 0
        portion.append(chunk)
        count += len(chunk.values)
    if portion:
        yield portion


_Labels = frozenset[tuple[str, str]]


def _labels(chunk: Chunk) -> _Labels:
    """Return a series as VictoriaMetrics stores it, without empty labels."""
    series = chunk.series
    labels = (pair for pair in series.labels if pair[1])
    return frozenset((("__name__", series.family), *labels))


def _missing(
    portion: list[Chunk], there: dict[_Labels, dict[int, float]]
) -> tuple[list[Chunk], int]:
    """Return what is not there, and how many samples are there with another value."""
    missing: list[Chunk] = []
    differing = 0
    for chunk in portion:
        present = there.get(_labels(chunk))
        if not present:
            missing.append(chunk)
            continue
        kept = []
        for time_ms, value in zip(chunk.times_ms, chunk.values, strict=True):
            known = present.get(time_ms)
            kept.append(known is None)
            differing += known is not None and not math.isclose(known, value, rel_tol=_DIGITS)
        if chosen := keep(chunk, kept):
            missing.append(chosen)
    return missing, differing


class _Server:
    """One VictoriaMetrics, reached over connections that stay open."""

    def __init__(
        self, url: str, query_url: str | None, *, sleep: Callable[[float], object]
    ) -> None:
        try:
            import requests  # noqa: PLC0415 - optional, and 60 ms
        except ImportError:
            raise BackfillError(
                "a backfill to VictoriaMetrics needs the package requests: " + installing("otlp")
            ) from None
        self._errors = requests.RequestException
        self._url, self._auth = _parse_url(url)
        self._query_url, self._query_auth = self._url, self._auth
        if query_url is not None:
            self._query_url, self._query_auth = _parse_url(query_url)
        self.url = self._url
        self._sleep = sleep
        self._session = requests.Session()
        self._session.headers["user-agent"] = USER_AGENT
        # Otherwise requests would send the credentials of a .netrc.
        self._session.auth = lambda request: request

    def __enter__(self) -> _Server:  # noqa: PYI034 - private
        return self

    def __exit__(self, *_error: object) -> None:
        self._session.close()

    def send(self, chunks: list[Chunk], attempt: int) -> bool:
        """Send samples; return whether they were accepted.

        Raises:
            BackfillError: If it refuses them, or this was the last attempt.
        """
        body = gzip.compress(b"".join(map(_format_line, chunks)), compresslevel=1)
        try:
            with self._session.post(
                f"{self._url}/api/v1/import",
                data=body,
                headers={"content-encoding": "gzip", "content-type": "application/json"},
                auth=self._auth,
                timeout=_TIMEOUT_S,
                allow_redirects=False,  # a POST would become a GET
                stream=True,
            ) as response:
                if 200 <= response.status_code < 300:
                    return True
                why, final = _refusal(response), response.status_code not in _RETRYABLE
        except (self._errors, OSError) as error:
            why, final = in_words(error, named=True), False
        if final:
            raise BackfillError(
                f"{self._url} does not accept the samples ({why}): give the address of "
                "VictoriaMetrics, such as http://host:8428 or "
                "http://vminsert:8480/insert/0/prometheus"
            )
        self._wait(attempt, self._url, why)
        return False

    def export(self, chunks: list[Chunk]) -> dict[_Labels, dict[int, float]]:
        """Return which samples of these series are there, at the times of these chunks.

        Raises:
            BackfillError: If the server does not say.
        """
        attempt = 0
        while True:
            try:
                return self._export(chunks)
            except (self._errors, OSError, ValueError, KeyError, TypeError) as error:
                self._wait(attempt, self._query_url, in_words(error, named=True))
                attempt += 1

    def _export(self, chunks: list[Chunk]) -> dict[_Labels, dict[int, float]]:
        wanted: dict[_Labels, list[Chunk]] = {}
        for chunk in chunks:
            wanted.setdefault(_labels(chunk), []).append(chunk)
        times_ms = {labels: _times(same) for labels, same in wanted.items()}
        there: dict[_Labels, dict[int, float]] = {}
        first_ms = min(chunk.times_ms[0] for chunk in chunks)
        last_ms = max(chunk.times_ms[-1] for chunk in chunks)
        question = {
            "match[]": list({_selector(chunk) for chunk in chunks}),
            "start": f"{first_ms / 1000:.3f}",
            "end": f"{last_ms / 1000:.3f}",
            "reduce_mem_usage": "1",
        }
        with self._session.post(
            f"{self._query_url}/api/v1/export",
            data=question,
            auth=self._query_auth,
            timeout=_TIMEOUT_S,
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code != 200:
                why = _refusal(response)
                if response.status_code in _RETRYABLE:
                    raise OSError(why)
                raise BackfillError(
                    f"{self._query_url} does not answer which samples it already has ({why}), and "
                    "samples that are sent twice are stored twice: give the address for queries "
                    "with --query-url, for a cluster http://vmselect:8481/select/0/prometheus, or "
                    "pass --unchecked to send without asking"
                )
            for line in response.iter_lines(_ANSWER_BYTES):
                if not line:
                    continue
                series = orjson.loads(line)
                labels = frozenset(series["metric"].items())
                # A selector also matches series with further labels, which are other series.
                if (of_ours := times_ms.get(labels)) is not None:
                    there.setdefault(labels, {}).update(
                        pair
                        for pair in zip(series["timestamps"], series["values"], strict=True)
                        if pair[0] in of_ours
                    )
        return there

    def flush(self) -> None:
        """Make all that came so far visible to queries; if that is refused, wait until it is."""
        try:
            with self._session.get(
                f"{self._query_url}/internal/force_flush",
                auth=self._query_auth,
                timeout=_TIMEOUT_S,
                allow_redirects=False,
                stream=True,
            ) as response:
                if response.status_code == 200:
                    return
        except (self._errors, OSError):
            return  # if it is not there, the next request will fail
        self._sleep(_FLUSHED_AFTER_S)

    def _wait(self, attempt: int, url: str, why: str) -> None:
        """Wait before another attempt.

        Raises:
            BackfillError: If there were enough attempts.
        """
        if attempt + 1 >= _ATTEMPTS:
            raise BackfillError(
                f"{url} failed {_ATTEMPTS} times in a row, the last time with {why}: run the same "
                "command again when it works, which sends only what is missing, unless --unchecked "
                "is given"
            )
        self._sleep(min(_FIRST_WAIT_S * 2**attempt, _LONGEST_WAIT_S))


def _times(chunks: list[Chunk]) -> set[int]:
    times_ms: set[int] = set()
    for chunk in chunks:
        times_ms.update(chunk.times_ms)
    return times_ms


def _selector(chunk: Chunk) -> str:
    return format_series(chunk.series)


def _format_line(chunk: Chunk) -> bytes:
    series = chunk.series
    line = {
        "metric": {"__name__": series.family, **dict(series.labels)},
        "values": chunk.values.tolist(),
        "timestamps": chunk.times_ms.tolist(),
    }
    return orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def _parse_url(url: str) -> tuple[str, Any]:
    """Return an address without user and password, and the two as ``requests`` takes them.

    Raises:
        BackfillError: If it is not an address.
    """
    try:
        parts = urlsplit(url)
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = None
    if not right or parts.query or parts.fragment:
        raise BackfillError(
            "the address of VictoriaMetrics is not valid: give http://host:8428, or "
            "http://vminsert:8480/insert/0/prometheus for a cluster"
        )
    host = parts.netloc.rpartition("@")[2]
    plain = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    if parts.username is None:
        return plain, None
    user, password = unquote(parts.username), unquote(parts.password or "")
    return plain, (user.encode(), password.encode())


def _refusal(response: Any) -> str:
    body: bytes = next(response.iter_content(_ANSWER_BYTES), b"")
    return f"HTTP status {response.status_code}: {one_line(body, most=300)}"

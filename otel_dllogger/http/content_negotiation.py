"""Choose the format and compression of a page from a client's headers.

Clients can send any header, so nothing in one is an error: what is not understood is ignored,
and a client that asks for no known format gets plain text.

Source: https://prometheus.io/docs/instrumenting/content_negotiation/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.exposition import choose_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.registry import Collector

_VERSIONS = {
    "text/plain": ("1.0.0",),
    "application/openmetrics-text": ("", "1.0.0"),
}
# Both leave our names, which consist of letters, digits and underscores, unchanged.
_ESCAPINGS = ("underscores", "allow-utf-8")


def choose_format(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """Return the encoder of a page and the content type with which the page is sent.

    There are only a few content types, whatever the headers.

    Args:
        accept: The Accept header of a request, empty if it has none.
    """
    wanted = filter(_quality, _items(accept))  # a quality of zero means a refusal
    for media, parameters in sorted(wanted, key=_quality, reverse=True):
        version, escaping = parameters.get("version", ""), parameters.get("escaping")
        if version in _VERSIONS.get(media, ()):
            if escaping not in _ESCAPINGS:
                escaping = _ESCAPINGS[0]
            # Not the client's own words: the encoder's choice raises on an unusual version.
            return choose_encoder(f"{media}; version=1.0.0; escaping={escaping}")
        if media in ("text/plain", "text/*", "*/*"):
            break
    return choose_encoder("")


def accepts_gzip(accept_encoding: str) -> bool:
    """Return whether a client accepts a compressed page.

    Args:
        accept_encoding: The Accept-Encoding header of a request, empty if it has none.
    """
    codings = (item for item in _items(accept_encoding) if item[0] in ("gzip", "x-gzip"))
    return any(map(_quality, codings))


def _items(header: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the comma-separated items of a header, with their parameters."""
    for item in header.lower().split(","):
        name, *rest = item.split(";")
        pairs = (text.partition("=") for text in rest)
        yield name.strip(), {key.strip(): value.strip(' \t"') for key, _, value in pairs}


def _quality(item: tuple[str, dict[str, str]]) -> float:
    try:
        quality = float(item[1].get("q", 1.0))
    except ValueError:
        return 1.0
    return quality if 0.0 <= quality <= 1.0 else 1.0

"""Read metrics pages quickly: a series is parsed when it is first seen, and not again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from otel_dllogger.http.scrape import UnreadablePageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_KNOWN = 1_000_000
_MAX_SHOWN = 60


class Sample(NamedTuple):
    """A series and its value.

    Attributes:
        name: Its name.
        labels: Its labels.
        value: Its value.
    """

    name: str
    labels: dict[str, str]
    value: float


class PageLines:
    """A reader of pages in Prometheus' text format, which remembers the series that it has seen."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, dict[str, str]]] = {}

    def read(self, text: str) -> Iterator[Sample]:
        """Yield the samples of a page.

        Args:
            text: The page.

        Raises:
            UnreadablePageError: If a line is not a sample.
        """
        known = self._known
        for line in text.split("\n"):
            if not line or line.startswith("#"):
                continue
            series, _, value = line.rpartition(" ")
            found = known.get(series)
            if found is not None:
                yield Sample(*found, float(value))
                continue
            sample = _parse(line)
            if series.endswith("}"):  # otherwise there may be a timestamp behind the value
                if len(known) >= _MAX_KNOWN:
                    known.clear()
                known[series] = sample[:2]
            yield sample


def _parse(line: str) -> Sample:
    try:
        (family,) = text_string_to_metric_families(f"{line}\n")
        (sample,) = family.samples
    except Exception as error:  # the parser raises whatever its indexing meets
        raise UnreadablePageError(f"{line[:_MAX_SHOWN]!r} is not a sample") from error
    return Sample(sample.name, sample.labels, float(sample.value))

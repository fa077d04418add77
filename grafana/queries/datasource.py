"""Queries to a real Prometheus, sent as Grafana's data source sends them.

Taken from Grafana's own source:

- grafana/grafana ``packages/grafana-prometheus/src/metric_find_query.ts`` turns a variable's
  query into requests, over the dashboard's time range;
- grafana/grafana ``pkg/promlib/client/client.go`` and ``pkg/promlib/models/query.go`` send the
  queries of panels: ranges aligned to the step, instants at the end of the range.
"""

from __future__ import annotations

import json
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grafana.queries.interpolation import DashboardError, Intervals

if TYPE_CHECKING:
    from collections.abc import Mapping

_LABEL_NAMES = re.compile(r"label_names\(\)\s*")
_LABEL_VALUES = re.compile(r"label_values\((?:(.+),\s*)?([a-zA-Z_][a-zA-Z0-9_]*)\)\s*", re.DOTALL)
_METRICS = re.compile(r"metrics\((.+)\)\s*")
_QUERY_RESULT = re.compile(r"query_result\((.+)\)\s*", re.DOTALL)
# A panel asks for as many points as it has pixels, on a screen of this width.
SCREEN_PX = 1920


@dataclass(frozen=True)
class Frame:
    """One series of an answer: its labels, and (seconds, value) for each point."""

    labels: dict[str, str]
    samples: list[tuple[float, float]]

    @property
    def finite(self) -> list[float]:
        """Return the values that can be drawn, the finite ones."""
        return [value for _, value in self.samples if math.isfinite(value)]


@dataclass(frozen=True)
class Query:
    """The query of one target of a panel.

    Attributes:
        panel: The title of the panel, or ``annotation <name>``.
        ref_id: The id of the target.
        expression: PromQL with every variable filled in.
        is_instant: Whether it asks only for the end of the time range.
        is_hidden: Whether the panel does not show the answer.
        intervals: Its step.
    """

    panel: str
    ref_id: str
    expression: str
    is_instant: bool
    is_hidden: bool
    intervals: Intervals


@dataclass(frozen=True)
class Result:
    """The answer to a query, and the seconds until it had arrived in full."""

    query: Query
    frames: list[Frame]
    took_s: float


class DataSource:
    """A Prometheus that is queried as by Grafana's data source.

    Args:
        url: Its address.
        start_s: Where the dashboard's time range begins, Unix seconds.
        end_s: Where it ends.
        scrape_interval_s: The data source's "Scrape interval".
        annotation_step_s: The step of annotations that do not set one.
    """

    def __init__(
        self,
        url: str,
        *,
        start_s: float,
        end_s: float,
        scrape_interval_s: float = 15.0,
        annotation_step_s: float = 60.0,
    ) -> None:
        self.url = url
        self.start_s = start_s
        self.end_s = end_s
        self.scrape_interval_s = scrape_interval_s
        self.annotation_step_s = annotation_step_s
        self.intervals = Intervals(scrape_interval_s, 4 * scrape_interval_s)

    def fetch(self, path: str, parameters: Mapping[str, str], *, post: bool = False) -> Any:
        """Return the data of an answer."""
        return json.loads(self._fetch(path, parameters, post=post))["data"]

    def _fetch(self, path: str, parameters: Mapping[str, str], *, post: bool) -> bytes:
        url, body = f"{self.url}/api/v1/{path}", urllib.parse.urlencode(parameters)
        request = (
            urllib.request.Request(url, data=body.encode())
            if post
            else urllib.request.Request(f"{url}?{body}")
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            reason = json.loads(error.read() or b"{}").get("error", error.reason)
            raise DashboardError(str(reason)) from error

    def run(self, query: Query) -> Result:
        """Send a query of a panel.

        Raises:
            DashboardError: If Prometheus refuses it; the message has the panel and the query.
        """
        path, parameters = "query", {"query": query.expression, "time": repr(self.end_s)}
        if not query.is_instant:
            step_s = query.intervals.step_s
            start_s, end_s = (
                math.floor(time_s / step_s) * step_s for time_s in (self.start_s, self.end_s)
            )
            path, parameters = "query_range", {"query": query.expression, "step": repr(step_s)}
            parameters |= {"start": repr(start_s), "end": repr(end_s)}
        began_s = time.perf_counter()
        try:
            answer = self._fetch(path, parameters, post=True)
        except DashboardError as error:
            raise DashboardError(
                f"panel {query.panel!r}, target {query.ref_id}: {error}\n    {query.expression}"
            ) from error
        took_s = time.perf_counter() - began_s
        return Result(query, _parse_frames(json.loads(answer)["data"]), took_s)

    def find(self, query: str) -> list[str]:
        """Return what a variable's query finds, before its regex and sort are applied."""
        range_ = {
            "start": str(math.floor(self.start_s)),
            "end": str(math.ceil(self.end_s)),
        }
        if _LABEL_NAMES.fullmatch(query):
            return list(self.fetch("labels", range_))
        if found := _LABEL_VALUES.fullmatch(query):
            selector, label = found.groups()
            if selector and selector.replace(" ", "") != "{}":
                range_["match[]"] = selector
            return list(self.fetch(f"label/{label}/values", range_))
        if found := _METRICS.fullmatch(query):
            names = self.fetch("label/__name__/values", range_)
            return [name for name in names if re.search(python_regex(found[1]), name)]
        if found := _QUERY_RESULT.fullmatch(query):
            at = {"query": found[1], "time": str(math.ceil(self.end_s))}
            return [_describe(frame) for frame in _parse_frames(self.fetch("query", at))]
        series = self.fetch("series", {"match[]": query, **range_})
        return [_describe_labels(labels) for labels in series]


def python_regex(pattern: str) -> str:
    """Convert a JavaScript pattern, with or without slashes, to a Python one."""
    if pattern.startswith("/"):
        pattern, _, flags = pattern[1:].rpartition("/")
        pattern = f"(?i){pattern}" if "i" in flags else pattern
    return re.sub(r"\(\?<(?=[A-Za-z])", "(?P<", pattern)


def _parse_frames(data: dict[str, Any]) -> list[Frame]:
    kind, result = data["resultType"], data["result"]
    if kind in ("scalar", "string"):
        return [Frame({}, [(float(result[0]), float(result[1]))])]
    return [
        Frame(
            one["metric"],
            [
                (float(time_s), float(value))
                for time_s, value in (one["values"] if kind == "matrix" else [one["value"]])
            ],
        )
        for one in result
    ]


def _describe(frame: Frame) -> str:
    time_s, value = frame.samples[0]
    return f"{_describe_labels(frame.labels)} {value:g} {time_s * 1000:g}"


def _describe_labels(labels: dict[str, str]) -> str:
    rest = ",".join(f'{name}="{value}"' for name, value in labels.items() if name != "__name__")
    return f"{labels.get('__name__', '')}{{{rest}}}"

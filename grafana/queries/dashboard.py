"""A dashboard as Grafana evaluates it: its variables, its panels and their queries."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from grafana.queries.datasource import SCREEN_PX, Query, Result
from grafana.queries.interpolation import (
    DashboardError,
    Variable,
    built_in,
    choose_intervals,
    format_duration,
    interpolate,
    references,
)
from grafana.queries.options import check_offered, choose, filter_options, sort_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from grafana.queries.datasource import DataSource

COLUMNS = 24
PANELS_WITHOUT_QUERIES = frozenset({"row", "text", "news", "dashlist", "alertlist", "annolist"})
_DATA_SOURCE_UID = "prometheus"


@dataclass(frozen=True)
class Panel:
    """One panel with its variables; a repeated panel becomes several."""

    title: str
    model: dict[str, Any]
    variables: dict[str, Variable]

    @property
    def kind(self) -> str:
        """Return the name of its plugin."""
        return str(self.model.get("type", ""))


class Dashboard:
    """A dashboard with its variables resolved, which can send the queries of its panels.

    Args:
        model: The dashboard's JSON.
        source: The data source of all its panels.
        chosen: Values that a user sets instead of the defaults, by variable.
    """

    def __init__(
        self, model: dict[str, Any], source: DataSource, **chosen: str | list[str]
    ) -> None:
        self.model = model
        self.source = source
        self.uid = str(model.get("uid", ""))
        self._constants = built_in(source.start_s, source.end_s, source.intervals) | {
            "__dashboard": Variable("__dashboard", str(model.get("title", ""))),
        }
        self.variables = self._resolve(chosen)
        self.panels = list(self._expand())

    @classmethod
    def load(cls, path: Path, source: DataSource, **chosen: str | list[str]) -> Dashboard:
        """Read a dashboard from its file."""
        return cls(json.loads(path.read_text()), source, **chosen)

    def queries(self, panel: Panel) -> list[Query]:
        """Return the queries of a panel's targets, including hidden ones.

        Raises:
            DashboardError: If a variable is not defined, or a panel with data has no target.
        """
        targets = panel.model.get("targets") or []
        if not targets and panel.kind not in PANELS_WITHOUT_QUERIES:
            raise DashboardError(f"panel {panel.title!r} has no target")
        return [query for target in targets for query in self._target_queries(panel, target)]

    def annotation_queries(self) -> list[Query]:
        """Return the queries of the annotations; Grafana's own have no data source and no query."""
        found = []
        for annotation in self.model.get("annotations", {}).get("list", []):
            target = annotation.get("target") or {}
            expression = annotation.get("expr") or target.get("expr")
            if not expression:
                continue
            title = f"annotation {annotation['name']}"
            self._check_data_source(title, annotation, self._constants | self.variables)
            default = format_duration(self.source.annotation_step_s)
            step = annotation.get("step") or target.get("interval") or default
            model = {"refId": "X", "expr": expression, "interval": step}
            panel = Panel(title, {"maxDataPoints": 100}, self.variables)
            found.extend(self._target_queries(panel, model))
        return found

    def run(self, panel: Panel) -> list[Result]:
        """Send every query of a panel."""
        return [self.source.run(query) for query in self.queries(panel)]

    def series_drawn(self, panel: Panel, results: list[Result] | None = None) -> int:
        """Return how many lines, or for a table how many rows, the panel would draw.

        Args:
            panel: The panel.
            results: The answers to its queries, which are sent if this is not given.
        """
        results = self.run(panel) if results is None else results
        shown = [len(result.frames) for result in results if not result.query.is_hidden]
        # In a table, the targets are side by side: columns of the same rows.
        return max(shown, default=0) if panel.kind == "table" else sum(shown)

    def _resolve(self, chosen: Mapping[str, str | list[str]]) -> dict[str, Variable]:
        waiting = {
            str(model["name"]): model for model in self.model.get("templating", {}).get("list", [])
        }
        unknown = chosen.keys() - waiting.keys()
        if unknown:
            raise DashboardError(f"no variable to choose: {sorted(unknown)}")
        resolved: dict[str, Variable] = {}
        while waiting:
            ready = [name for name, model in waiting.items() if not _needs(model) & waiting.keys()]
            if not ready:
                raise DashboardError(f"variables that need each other: {sorted(waiting)}")
            for name in ready:
                model = waiting.pop(name)
                known = self._constants | resolved
                options = self._options(model, known)
                if name in chosen:
                    model = {**model, "current": {"value": chosen[name]}}
                    check_offered(model, options)
                resolved[name] = choose(model, options, self.source)
        return resolved

    def _options(self, model: dict[str, Any], known: dict[str, Variable]) -> list[str]:
        kind, query = model["type"], model.get("query", "")
        if kind == "query":
            self._check_data_source(f"variable {model['name']}", model, known)
            text = query if isinstance(query, str) else query.get("query", "")
            if not text:
                raise DashboardError(f"variable {model['name']!r} has no query")
            try:
                found = self.source.find(interpolate(text, known))
            except DashboardError as error:
                raise DashboardError(f"variable {model['name']!r}: {error}") from error
            pattern = interpolate(model.get("regex") or "", known, "regex")
            return sort_options(filter_options(found, pattern), int(model.get("sort") or 0))
        if kind == "datasource":
            if query != "prometheus":
                raise DashboardError(f"variable {model['name']!r} offers {query!r} data sources")
            return [_DATA_SOURCE_UID]
        if kind in ("custom", "interval"):
            parts = re.split(r"(?<!\\),", interpolate(query, known))
            items = [part.replace("\\,", ",").strip() for part in parts]
            pairs = [re.fullmatch(r"(.+)\s:\s(.+)", item) for item in items]
            return [
                pair[2].strip() if pair else item for pair, item in zip(pairs, items, strict=True)
            ]
        if kind in ("textbox", "constant"):
            return [str(query)]
        raise DashboardError(f"variable {model['name']!r} is of type {kind!r}")

    def _expand(self) -> Iterator[Panel]:
        row: dict[str, Any] = {}
        for model in self.model.get("panels", []):
            if model.get("type") == "row":
                row = model
                yield from self._expand_panel(model, {})
            nested = model.get("panels", []) if model.get("type") == "row" else [model]
            for scope in self._repeats(row, {}):
                for one in nested:
                    yield from self._expand_panel(one, scope)

    def _expand_panel(self, model: dict[str, Any], scope: dict[str, Variable]) -> Iterator[Panel]:
        is_row = model.get("type") == "row"
        for inner in self._repeats(model, scope):
            variables = {**self.variables, **inner}
            title = interpolate(model.get("title", ""), self._constants | variables, "text")
            yield Panel(title, {**model, "targets": []} if is_row else model, variables)

    def _repeats(
        self, model: dict[str, Any], scope: dict[str, Variable]
    ) -> list[dict[str, Variable]]:
        name = model.get("repeat")
        if not name:
            return [scope]
        if name not in self.variables:
            raise DashboardError(
                f"{model.get('title')!r} repeats for ${name}, which does not exist"
            )
        variable = self.variables[name]
        return [
            {**scope, name: replace(variable, value=value, text=value, is_raw=False)}
            for value in variable.values
        ]

    def _target_queries(self, panel: Panel, target: dict[str, Any]) -> list[Query]:
        known = self._constants | panel.variables
        ref_id = str(target.get("refId", "?"))
        try:
            self._check_data_source(panel.title, {**panel.model, **target}, known)
            width = int(panel.model.get("gridPos", {}).get("w", COLUMNS))
            intervals = choose_intervals(
                self.source.end_s - self.source.start_s,
                points=panel.model.get("maxDataPoints") or width * SCREEN_PX // COLUMNS,
                scrape_interval_s=self.source.scrape_interval_s,
                panel_minimum=interpolate(panel.model.get("interval") or "", known),
                target_minimum=_target_minimum(target.get("interval") or "", known),
                factor=target.get("intervalFactor") or 1,
            )
            built = built_in(self.source.start_s, self.source.end_s, intervals)
            expression = interpolate(target.get("expr", ""), known | built)
            interpolate(target.get("legendFormat") or "", known | built)
        except DashboardError as error:
            raise DashboardError(f"panel {panel.title!r}, target {ref_id}: {error}") from error
        if not expression.strip():
            raise DashboardError(f"panel {panel.title!r}, target {ref_id}: no expression")
        instant = bool(target.get("instant"))
        kinds = [False, True] if instant and target.get("range") else [instant]
        hidden = bool(target.get("hide"))
        return [Query(panel.title, ref_id, expression, kind, hidden, intervals) for kind in kinds]

    def _check_data_source(
        self, what: str, model: dict[str, Any], known: Mapping[str, Variable]
    ) -> None:
        source = model.get("datasource") or {}
        if source.get("type", "prometheus") != "prometheus":
            raise DashboardError(f"{what!r} asks a data source of type {source['type']!r}")
        interpolate(str(source.get("uid", "")), known)


def _needs(model: dict[str, Any]) -> set[str]:
    texts = (model.get("query"), model.get("regex"), model.get("datasource"))
    return references(json.dumps([text for text in texts if text])) - {str(model["name"])}


def _target_minimum(text: str, known: Mapping[str, Variable]) -> str:
    # The built-in variables are filled in last, by the data source.
    return text if text.strip("${}").startswith("__") else interpolate(text, known)

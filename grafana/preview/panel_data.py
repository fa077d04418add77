"""The data to draw: panels with the answers to their queries, in the rows of a dashboard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from grafana.preview.fields import (
    Field,
    fill_display_name,
    fill_legend,
    find_field,
)
from grafana.preview.interpolation import interpolate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from grafana.preview.dashboard import Dashboard, Panel
    from grafana.preview.datasource import Frame, Result


@dataclass(frozen=True, slots=True)
class Mark:
    """An annotation.

    Attributes:
        start_s: When it begins, in Unix seconds.
        end_s: When it ends; the same for a single moment.
        colour: Its name in Grafana.
    """

    start_s: float
    end_s: float
    colour: str


@dataclass(frozen=True, slots=True)
class Series:
    """A line of a panel.

    Attributes:
        name: Its name in the legend.
        frame: Its points.
        field: The panel's settings for it.
    """

    name: str
    frame: Frame
    field: Field


@dataclass(frozen=True, slots=True)
class PanelData:
    """A panel with its data.

    Attributes:
        title: Its title, with variables filled in.
        model: Its JSON.
        results: The answers to its queries.
        start_s: Where the time range begins, Unix seconds.
        end_s: Where it ends.
        marks: The annotations.
    """

    title: str
    model: dict[str, Any]
    results: list[Result]
    start_s: float
    end_s: float
    marks: Sequence[Mark] = ()

    @property
    def kind(self) -> str:
        """Return the name of its plugin."""
        return str(self.model["type"])

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of its plugin."""
        return dict(self.model.get("options") or {})

    @property
    def is_empty(self) -> bool:
        """Return whether there is nothing to draw."""
        return not any(result.frames for result in self.results)

    def series(self) -> list[Series]:
        """Return the lines, in the order in which they are coloured."""
        legends = {
            target["refId"]: target.get("legendFormat") or ""
            for target in self.model.get("targets") or []
        }
        return [
            self._name(frame, legends.get(result.query.ref_id, ""), result.query.ref_id)
            for result in self.results
            if not result.query.is_hidden
            for frame in result.frames
        ]

    def _name(self, frame: Frame, legend: str, ref_id: str) -> Series:
        name = fill_legend(legend, frame.labels)
        field = find_field(self.model, {name, "Value"}, ref_id)
        if shown := field.settings.get("displayName"):
            name = fill_display_name(shown, frame.labels)
        return Series(name, frame, field)


@dataclass(frozen=True, slots=True)
class Board:
    """A dashboard with its data.

    Attributes:
        title: Its name.
        variables: The label and value of each variable.
        rows: Its rows, each with its panels.
    """

    title: str
    variables: list[tuple[str, str]]
    rows: list[BoardRow]


@dataclass(frozen=True, slots=True)
class BoardRow:
    """A row of a dashboard.

    Attributes:
        title: Its heading; empty for panels above the first row.
        is_folded: Whether the panels are hidden.
        panels: Its panels.
    """

    title: str
    is_folded: bool
    panels: list[PanelData]

    @property
    def is_closed(self) -> bool:
        """Return whether only the heading is to be drawn."""
        return self.is_folded or all(panel.is_empty for panel in self.panels)


def load_board(dashboard: Dashboard) -> Board:
    """Send the queries of all panels of a dashboard that are not folded away.

    Args:
        dashboard: The dashboard, with its variables resolved.
    """
    marks = list(_load_marks(dashboard))
    rows: list[BoardRow] = []
    folded = {
        id(model)
        for row in dashboard.model["panels"]
        if row["type"] == "row"
        for model in row.get("panels") or []
    }
    for panel in dashboard.panels:
        if panel.kind == "row":
            rows.append(BoardRow(panel.title, bool(panel.model.get("collapsed")), []))
        elif id(panel.model) not in folded:
            if not rows:
                rows.append(BoardRow("", is_folded=False, panels=[]))
            rows[-1].panels.append(_load_panel(dashboard, panel, marks))
    shown = [
        (str(model.get("label") or model["name"]), dashboard.variables[model["name"]].text)
        for model in dashboard.model["templating"]["list"]
        if not model.get("hide") and model["type"] != "datasource"
    ]
    return Board(str(dashboard.model["title"]), shown, rows)


def _load_panel(dashboard: Dashboard, panel: Panel, marks: Sequence[Mark]) -> PanelData:
    model = dict(panel.model)
    model["targets"] = [
        {**target, "legendFormat": interpolate(target.get("legendFormat") or "", panel.variables)}
        for target in model.get("targets") or []
    ]
    source = dashboard.source
    results = dashboard.run(panel)
    return PanelData(panel.title, model, results, source.start_s, source.end_s, marks)


def _load_marks(dashboard: Dashboard) -> Iterator[Mark]:
    models = {
        f"annotation {model['name']}": model
        for model in dashboard.model.get("annotations", {}).get("list", [])
    }
    for query in dashboard.annotation_queries():
        model = models[query.panel]
        colour = str(model["iconColor"])
        result = dashboard.source.run(query)
        for frame in result.frames:
            if model.get("useValueForTime"):
                moments = dict.fromkeys(value / 1000 for _, value in frame.samples)
                yield from (Mark(moment, moment, colour) for moment in moments)
            else:
                yield from find_spans(frame, query.intervals.step_s, colour)


def find_spans(frame: Frame, step_s: float, colour: str) -> Iterator[Mark]:
    """Merge points at consecutive steps into one annotation.

    Args:
        frame: What an annotation's query found; a value of 0 is ignored.
        step_s: Seconds from one point to the next.
        colour: The name of its colour in Grafana.
    """
    times = [time_s for time_s, value in frame.samples if value]
    starts = [
        index
        for index, time_s in enumerate(times)
        if index == 0 or time_s - times[index - 1] > 1.5 * step_s
    ]
    for start, end in zip(starts, [*starts[1:], len(times)], strict=True):
        yield Mark(times[start], times[end - 1], colour)

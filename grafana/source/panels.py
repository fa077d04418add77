"""The parts that panels of all kinds have in common: their texts and their queries."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from grafana.source.sdk import (
    common,
    common_models,
    dashboard,
    heatmap,
    models,
    prometheus,
    prometheus_models,
    stat,
    table,
    timeseries,
    xychart,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

DATASOURCE = common_models.DataSourceRef(type_val="prometheus", uid="${datasource}")

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"

COUNT = "locale"
"""Grafana's unit for whole numbers: 1,024, and not 1.02 K."""

Panel = TypeVar(
    "Panel",
    stat.Panel,
    table.Panel,
    timeseries.Panel,
    heatmap.Panel,
    xychart.Panel,
)


@dataclass(frozen=True, slots=True)
class Query:
    """A query for Prometheus.

    Attributes:
        expression: PromQL.
        legend: The name of each series, made from its labels.
        style: How a line is drawn. An edge is thin and grey and not in the legend: it bounds
            the band around the line of interest.
    """

    expression: str
    legend: str = ""
    style: Literal["line", "dashed", "edge"] = "line"


@dataclass(frozen=True, slots=True)
class About:
    """The texts and settings that every panel must have.

    Attributes:
        title: What it shows.
        description: How to read it, and what to do if it looks bad.
        unit: Grafana's id of the unit.
        steps: Colours, with the value from which each applies; the first is for all below.
        decimals: Digits after the decimal point; by default, Grafana's choice.
        minimum: Where the axis begins, by default Grafana's choice; 0 where a zoomed axis would
            mislead.
        limits: Draw the values of the steps as lines.
        names: Words for values.
        nothing: The text shown if there is no data.
    """

    title: str
    description: str
    unit: str = "short"
    steps: tuple[tuple[float | None, str], ...] = ((None, GREEN),)
    decimals: int | None = None
    minimum: float | None = None
    limits: bool = True
    names: tuple[tuple[str, str, str], ...] = ()
    nothing: str = ""


STATES = (
    ("0", "training", BLUE),
    ("1", "finished", GREEN),
    ("2", "vanished", RED),
    ("3", "terminated", YELLOW),
    ("4", "stalled", RED),
)
"""The state of a run, in words and colours: see ``run:dllogger_state:last1h``."""


def describe(panel: Panel, about: About, width: int, height: int) -> Panel:
    """Give a panel the texts and settings that every panel must have."""
    panel.title(about.title).description(about.description).datasource(DATASOURCE)
    panel.unit(about.unit).span(width).height(height)
    if about.decimals is not None:
        panel.decimals(about.decimals)
    if about.minimum is not None:
        panel.min(about.minimum)
    if about.nothing:
        panel.no_value(about.nothing)
    if about.names:
        panel.mappings([mapping(about.names)])
    steps = [models.Threshold(value=value, color=color) for value, color in about.steps]
    panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    return panel


def mapping(names: Sequence[tuple[str, str, str]]) -> models.ValueMap:
    """Return words and colours for values."""
    return models.ValueMap(
        options={
            value: models.ValueMappingResult(text=text, color=color, index=index)
            for index, (value, text, color) in enumerate(names)
        }
    )


def ask(panel: Panel, queries: Sequence[Query], *, instant: bool, as_table: bool) -> Panel:
    """Give a panel its queries.

    Args:
        panel: Any panel.
        queries: Its queries, named A, B and so on.
        instant: Query only the end of the time range.
        as_table: Return labels as columns.
    """
    for ref_id, query in zip(string.ascii_uppercase, queries, strict=False):
        target = prometheus.Dataquery().expr(query.expression).ref_id(ref_id)
        target.datasource(DATASOURCE).editor_mode(prometheus_models.QueryEditorMode.CODE)
        target.legend_format(query.legend or "__auto")
        if as_table:
            target.format(prometheus_models.PromQueryFormat.TABLE)
        panel.with_target(target.instant() if instant else target.range())
    return panel


def legend(*calcs: str, worst_first: bool = False) -> common.VizLegendOptions:
    """Return a legend below the panel, with these calculated values for each series."""
    options = common.VizLegendOptions().show_legend(True).calcs(list(calcs))
    options.display_mode(common_models.LegendDisplayMode.TABLE)
    if worst_first:
        options.sort_by("Last *").sort_desc(True)
    return options.placement(common_models.LegendPlacement.BOTTOM)


def tooltip() -> common.VizTooltipOptions:
    """Return a tooltip for all series at once, the largest value first."""
    options = common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI)
    return options.sort(common_models.SortOrder.DESCENDING)

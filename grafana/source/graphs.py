"""The panels with drawings: lines, large values, heat maps, curves."""

from __future__ import annotations

import string
from typing import Any

from grafana.source.panels import COUNT, GREEN, RED, About, Query, ask, describe, legend, tooltip
from grafana.source.promql import RUN
from grafana.source.sdk import (
    Builder,
    common,
    common_models,
    heatmap,
    heatmap_models,
    models,
    stat,
    timeseries,
    xychart,
    xychart_models,
)


def lines(
    about: About,
    *queries: Query,
    width: int = 12,
    height: int = 9,
    worst_first: bool = False,
) -> timeseries.Panel:
    """Draw values over time.

    Args:
        about: The texts and settings that every panel has.
        queries: The values to draw.
        width: In columns of the dashboard, which has 24.
        height: In units of the dashboard's grid.
        worst_first: Sort the legend by the last value, the largest first.
    """
    panel = describe(timeseries.Panel(), about, width, height)
    ask(panel, queries, instant=False, as_table=False)
    panel.legend(legend("lastNotNull", worst_first=worst_first)).tooltip(tooltip())
    panel.line_width(2).fill_opacity(0).show_points(common_models.VisibilityMode.AUTO)
    panel.span_nulls(False)
    if len(about.steps) > 1 and about.limits:
        mode = common_models.GraphThresholdsStyleMode.DASHED
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(mode))
    for ref_id, query in zip(string.ascii_uppercase, queries, strict=False):
        if query.style != "line":
            panel.override_by_query(
                ref_id,
                [
                    models.DynamicConfigValue(id_val=name, value=value)
                    for name, value in _STYLES[query.style].items()
                ],
            )
    return panel


def stack(about: About, query: Query, *, width: int = 12, height: int = 9) -> timeseries.Panel:
    """Draw the shares of a whole over time, one on the other.

    Args:
        about: The texts and settings that every panel has.
        query: The shares, which add up to 1.
        width: In columns of the dashboard, which has 24.
        height: In units of the dashboard's grid.
    """
    panel = lines(about, query, width=width, height=height).max(1).line_width(0).fill_opacity(80)
    stacking = common.StackingConfig().group("A").mode(common_models.StackingMode.NORMAL)
    return panel.stacking(stacking)


_DASHES = {"fill": "dash", "dash": [4, 6]}
_STYLES: dict[str, dict[str, Any]] = {
    "dashed": {"custom.lineStyle": _DASHES},
    "edge": {
        "custom.lineWidth": 1,
        "custom.lineStyle": _DASHES,
        "color": {"mode": "fixed", "fixedColor": "gray"},
        "custom.hideFrom": {"legend": True, "tooltip": False, "viz": False},
    },
}


def tally(
    title: str, what: str, counter: str, *, by: str, name: str, width: int = 12
) -> timeseries.Panel:
    """Draw the value of a counter: in total, and split by a label.

    Args:
        title: What is counted.
        what: The same as the beginning of a sentence that goes on to say since when.
        counter: The counter with its matchers.
        by: The labels to split by, beside the run.
        name: The legend of the parts.
        width: In columns of the dashboard, which has 24.
    """
    about = About(
        title,
        f"{what} A step in the line shows when it happened.",
        unit=COUNT,
        steps=((None, GREEN), (1, RED)),
        decimals=0,
        minimum=0,
        limits=False,
        nothing="None",
    )
    return lines(
        about,
        Query(f"sum by ({RUN}) ({counter})", "all {{run}}", style="dashed"),
        Query(f"sum by ({RUN}, {by}) ({counter}) > 0", f"{name} {{{{run}}}}"),
        width=width,
    )


def figure(
    about: About, query: Query, *, width: int = 4, height: int = 4, instant: bool = False
) -> stat.Panel:
    """Show one value per series, large.

    Args:
        about: The texts and settings that every panel has.
        query: The value.
        width: In columns of the dashboard, which has 24.
        height: In units of the dashboard's grid.
        instant: Query only the end of the time range, without the past behind it: for
            values that are sums over the whole range.
    """
    panel = describe(stat.Panel(), about, width, height)
    ask(panel, [query], instant=instant, as_table=False)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.color_mode(
        common_models.BigValueColorMode.BACKGROUND
        if len(about.steps) > 1
        else common_models.BigValueColorMode.VALUE
    )
    panel.graph_mode(
        common_models.BigValueGraphMode.NONE if instant else common_models.BigValueGraphMode.AREA
    )
    panel.text_mode(common_models.BigValueTextMode.AUTO)
    return panel


def figures(about: About, *queries: Query, width: int = 4, height: int = 4) -> stat.Panel:
    """Show several values with their names, where a value alone would not be understood.

    Args:
        about: The texts and settings that every panel has.
        queries: The values.
        width: In columns of the dashboard, which has 24.
        height: In units of the dashboard's grid.
    """
    panel = figure(about, queries[0], width=width, height=height)
    panel.targets([])
    ask(panel, queries, instant=False, as_table=False)
    return panel.text_mode(common_models.BigValueTextMode.VALUE_AND_NAME)


def distribution(about: About, query: Query, *, width: int = 12, height: int = 9) -> heatmap.Panel:
    """Draw how many ranks are in each class over time; each class is a series."""
    panel = describe(heatmap.Panel(), about, width, height)
    ask(panel, [query], instant=False, as_table=False)
    panel.max_data_points(120).calculate(False).cell_gap(1).show_legend()
    panel.rows_frame(
        heatmap.RowsHeatmapOptions().layout(common_models.HeatmapCellLayout.UNKNOWN).value("ranks")
    )
    panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_models.HeatmapColorMode.SCHEME)
        .scheme("Oranges")
        .steps(64)
        .fill("dark-orange")
        .exponent(0.5)
    )
    panel.y_axis(heatmap.YAxisConfig().unit(about.unit).axis_label("of the median"))
    panel.filter_values(heatmap.FilterValueRange().le(1e-9))
    return panel


def curves(
    about: About,
    x: Query,
    y: Query,
    *,
    x_label: str,
    x_unit: str,
    width: int = 12,
    height: int = 12,
) -> xychart.Panel:
    """Draw one query over another, a line for each set of labels that both have.

    Prometheus cannot shift each run by a different time, so x is a query like y. Both come as
    tables, are merged where time and labels agree, and are split again by labels.
    """
    panel = describe(xychart.Panel(), about, width, height)
    # Both queries read all ranks for each point, so ask for no more points than a curve needs.
    panel.max_data_points(120)
    ask(panel, [x, y], instant=False, as_table=True)
    fields = ["job", "run", "stage", "metric", "granularity", "unit"]
    naming: dict[str, Any] = {"asLabels": True}
    panel.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        models.DataTransformerConfig(
            id_val="partitionByValues",
            options={"fields": fields, "keepFields": False, "naming": naming},
        )
    )
    panel.mapping(xychart_models.SeriesMapping.AUTO)
    panel.series(
        [
            xychart.XYSeriesConfig()
            .x(xychart.XychartXYSeriesConfigX().matcher(_ByName("Value #A")))
            .y(xychart.XychartXYSeriesConfigY().matcher(_ByName("Value #B")))
        ]
    )
    panel.show(xychart_models.XYShowMode.LINES).line_width(2)
    panel.override_by_name(
        "Value #A",
        [
            models.DynamicConfigValue(id_val="unit", value=x_unit),
            models.DynamicConfigValue(id_val="custom.axisLabel", value=x_label),
        ],
    )
    panel.override_by_name(
        "Value #B",
        [
            models.DynamicConfigValue(
                id_val="displayName",
                value="${__field.labels.job} ${__field.labels.run} ${__field.labels.metric} "
                "${__field.labels.unit} ${__field.labels.granularity}",
            )
        ],
    )
    return panel.legend(legend()).tooltip(tooltip())


class _ByName(Builder[xychart_models.MatcherConfig]):
    """A builder for a matcher of a field; the SDK takes only builders here."""

    def __init__(self, name: str) -> None:
        self._name = name

    def build(self) -> xychart_models.MatcherConfig:
        return xychart_models.MatcherConfig(id_val="byName", options=self._name)

"""The parts that all dashboards have in common: links, annotations, ids."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grafana.source import promql
from grafana.source.panels import DATASOURCE
from grafana.source.sdk import Builder, JSONEncoder, dashboard, models

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TAG = "otel-dllogger"


def new_board(
    title: str,
    uid: str,
    description: str,
    variables: Sequence[Builder[models.VariableModel]],
) -> dashboard.Dashboard:
    """Begin a dashboard.

    Args:
        title: Its name in Grafana.
        uid: Its id in URLs; alerts and links use it, so it never changes.
        description: The question that it answers.
        variables: Its variables, in order: each may use those before it.
    """
    board = dashboard.Dashboard(title).uid(uid).description(description).tags([TAG])
    board.time("now-1h", "now").refresh("30s").timezone("browser").readonly()
    board.tooltip(models.DashboardCursorSync.CROSSHAIR)
    board.variables(list(variables))
    has_metrics = any(variable.build().name == "metric" for variable in variables)
    board.annotations(_annotations(', metric=~"$metric"' if has_metrics else ""))
    link = dashboard.DashboardLink("Training dashboards").type(models.DashboardLinkType.DASHBOARDS)
    link.tags([TAG]).include_vars(True).keep_time(True).as_dropdown(False)
    board.link(link.icon("external link").tooltip("").url(""))
    return board


def _annotations(chosen: str) -> list[Builder[models.AnnotationQuery]]:
    runs = promql.RUNS
    # Over the annotation's own interval, so that a run shorter than that has its marks as well.
    started = (
        "1000 * min_over_time(run:dllogger_attempt_start_timestamp_seconds:min"
        f'{{{runs}, attempt%s"1"}}[$__interval])'
    )
    state = f"max_over_time(run:dllogger_state:last1h{{{runs}}}[$__interval])"
    nonfinite = (
        f"sum by (job, run, metric) (rank:dllogger_nonfinite_total:nonzero{{{runs}{chosen}}}%s)"
    )
    logged = f"run:dllogger_last_event_timestamp_seconds:min{{{runs}}}"
    alerts = f'ALERTS{{{runs}, alertstate="firing", severity!="info"}}'
    return [
        _annotation("Start", "green", started % "=", "{{run}} started", at_value=True),
        _annotation(
            "Restart",
            "orange",
            started % "!=",
            "{{run}} restarted: attempt {{attempt}}",
            at_value=True,
        ),
        _annotation("Finish", "blue", f"{state} == 1", "{{run}} finished"),
        _annotation("Told to end", "yellow", f"{state} == 3", "{{run}} was told to end"),
        _annotation(
            "Events",
            "semi-dark-blue",
            f"1000 * max_over_time({logged}[$__interval])",
            "{{event}}: {{run}}",
            at_value=True,
        ),
        _annotation(
            "NaN or Inf",
            "red",
            # Not an increase over the interval, which misses what falls between two intervals.
            f"{nonfinite % ''} - ({nonfinite % ' offset $__interval'} or 0 * {nonfinite % ''}) > 0",
            "{{metric}} is not finite in {{run}}",
        ),
        _annotation(
            "Alert",
            "purple",
            f"max by (job, run, alertname, severity) ({alerts}) > 0",
            "{{alertname}}: {{run}}",
        ),
    ]


def _annotation(
    name: str, color: str, expression: str, title: str, *, at_value: bool = False
) -> dashboard.AnnotationQuery:
    annotation = dashboard.AnnotationQuery().name(name).datasource(DATASOURCE).enable(True)
    annotation.icon_color(color).expr(expression).title_format(title).text_format("")
    return annotation.step("").tag_keys("run").use_value_for_time(at_value).hide(False)


def add_row(
    board: dashboard.Dashboard, title: str, *panels: Builder[models.Panel], folded: bool = False
) -> None:
    """Add panels under a heading.

    Args:
        board: The dashboard.
        title: The heading.
        panels: From left to right, 24 columns to a line.
        folded: Show only the heading until it is clicked; the panels send no queries before.
    """
    row = dashboard.Row(title)
    if folded:
        for panel in panels:
            row.with_panel(panel)
    board.with_row(row)
    if not folded:
        for panel in panels:
            board.with_panel(panel)


def render(board: dashboard.Dashboard) -> str:
    """Return a dashboard as the JSON that Grafana reads from a file."""
    content = json.loads(json.dumps(board.build(), cls=JSONEncoder))
    for number, panel in enumerate(_panels(content["panels"]), start=1):
        panel["id"] = number
        if panel["type"] == "table":
            # The SDK writes the first option, which Grafana 12.4 no longer has, and omits the
            # second, which it requires.
            panel["options"].pop("footer", None)
            panel["fieldConfig"]["defaults"]["custom"]["cellOptions"] = {"type": "auto"}
    # The SDK would hide links and annotations in a menu, and give every variable the keys of an
    # interval.
    for one in (*content["links"], *content["annotations"]["list"]):
        one.pop("placement", None)
    for variable in content["templating"]["list"]:
        for key in ("auto", "auto_count", "auto_min"):
            variable.pop(key, None)
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _panels(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels") or [])

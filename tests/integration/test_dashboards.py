"""The dashboards as files: up to date and well formed.

What needs no Grafana and no data. That every panel shows something is tested elsewhere,
against a Prometheus that scraped real ranks.
"""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.dashboards import (
    BOARDS,
    CHECKS,
    FOLDER,
    TOTALS_AS_THEY_ARE,
    annotations_of,
    check_annotations,
    check_counters,
    check_datasources,
    check_fields,
    check_grid,
    check_identity,
    check_labels,
    check_legends,
    check_links,
    check_merges,
    check_names_are_kept,
    check_panel_ids,
    check_panels_explain_themselves,
    check_runs,
    check_several_values,
    check_targets,
    check_time,
    check_types,
    check_units,
    check_variables,
    check_windows,
    panels_of,
    variables_of,
)
from tests.support.paths import ROOT
from tests.support.promql import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.newest_only

# Links and bookmarks hold them: another uid is another dashboard.
UIDS = {
    "compare-runs.json": "otel-dllogger-compare",
    "fleet.json": "otel-dllogger-fleet",
    "ranks.json": "otel-dllogger-ranks",
    "training-overview.json": "otel-dllogger-overview",
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", UIDS)
def test_a_dashboard_keeps_the_rules(name: str, check: Callable[..., list[str]]) -> None:
    """Nothing is found that Grafana would refuse, hide or show wrongly."""
    named = {"name": name} if check is check_counters else {}
    problems = check(BOARDS[name], **named)
    assert [] == problems, "\n".join(problems)


def test_the_dashboards_keep_their_addresses() -> None:
    """Every dashboard is where links and bookmarks look for it, and no title is there twice."""
    assert UIDS == {name: board["uid"] for name, board in BOARDS.items()}
    assert len(UIDS) == len({board["title"] for board in BOARDS.values()})


def test_exceptions_are_needed() -> None:
    """Nothing is excused that is not there any more."""
    for (name, title), totals in TOTALS_AS_THEY_ARE.items():
        panels = [panel for panel in panels_of(BOARDS[name]) if panel["title"] == title]
        expressions = [target["expr"] for panel in panels for target in panel["targets"]]
        assert totals <= set().union(*(read(text).names for text in expressions)), title


def test_the_files_are_what_the_source_writes(tmp_path: Path) -> None:
    """No file was edited by hand, none is missing, and none is left over."""
    pytest.importorskip(
        "grafana_foundation_sdk", reason="needs grafana-foundation-sdk, and that Python 3.11"
    )
    command = [sys.executable, "-m", "grafana.source", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert written.keys() == committed.keys()
    for name, text in written.items():
        assert text == committed[name], f"{name}: run python -m grafana.source"


# --- That the rules find what they are there for ---------------------------------------------


def panel_of(board: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(panel for panel in panels_of(board) if panel["type"] == kind)


def merged_table(board: dict[str, Any]) -> dict[str, Any]:
    """Return the first table of two queries."""
    return next(panel for panel in panels_of(board) if panel["title"] == "Best so far")


def first_target(board: dict[str, Any]) -> dict[str, Any]:
    return panel_of(board, "timeseries")["targets"][0]


def overrides_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    return panel_of(board, "timeseries")["fieldConfig"]["overrides"]


def folded_row(board: dict[str, Any]) -> dict[str, Any]:
    return next(panel for panel in board["panels"] if panel.get("panels"))


def variable_of(board: dict[str, Any], name: str) -> dict[str, Any]:
    return next(variable for variable in variables_of(board) if variable["name"] == name)


def ask(expression: str) -> Callable[[dict[str, Any]], None]:
    """Put an expression in place of one that is right."""
    return lambda board: first_target(board).update(expr=expression)


def change_panel(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda board: panel_of(board, "timeseries").update(settings)


def change_link(**settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda board: board["links"][0].update(settings)


def change_variable(variable: str, **settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda board: variable_of(board, variable).update(settings)


def change_defaults(kind: str, **settings: Any) -> Callable[[dict[str, Any]], None]:
    return lambda board: panel_of(board, kind)["fieldConfig"]["defaults"].update(settings)


def same_place(board: dict[str, Any]) -> None:
    first, second = [panel for panel in board["panels"] if panel["type"] == "stat"][:2]
    second["gridPos"] = first["gridPos"]


def same_place_when_folded(board: dict[str, Any]) -> None:
    row = folded_row(board)
    row["panels"].append(copy.deepcopy(row["panels"][0]))


def rows_swapped(board: dict[str, Any]) -> None:
    first, second = [panel for panel in board["panels"] if panel["type"] == "row"][:2]
    first["gridPos"], second["gridPos"] = second["gridPos"], first["gridPos"]


NO_COLUMN = {"id": "byName", "options": "x"}
IN_RUN = 'job=~"$job", run=~"$run"'
BROKEN: list[tuple[Callable[..., list[str]], Callable[[dict[str, Any]], Any], str]] = [
    (check_identity, lambda board: board.update(__inputs=[]), "__inputs"),
    (check_identity, lambda board: board.update(__requires=[]), "__requires"),
    (check_identity, lambda board: board.update(schemaVersion=39), "schemaVersion 39"),
    (check_identity, lambda board: board.update(id=7), "an id"),
    (check_identity, lambda board: board.update(editable=True), "editable"),
    (check_panel_ids, lambda board: folded_row(board)["panels"][0].update(id=1), "id 1 twice"),
    (check_panel_ids, lambda board: folded_row(board)["panels"][0].pop("id"), "id None"),
    (check_targets, lambda board: first_target(board).update(refId="B"), "refIds"),
    (check_targets, lambda board: first_target(board).pop("refId"), "refIds"),
    (check_targets, change_panel(targets=[]), "refIds"),
    (check_targets, lambda board: first_target(board).update(refId="Z"), "overrides A"),
    (check_fields, lambda board: merged_table(board)["targets"].pop(), "no field Value #A"),
    (check_fields, lambda board: overrides_of(board)[0].update(matcher=NO_COLUMN), "no column x"),
    (
        check_fields,
        lambda board: panel_of(board, "table")["options"].update(sortBy=[{"displayName": "x"}]),
        "no column x",
    ),
    (check_merges, lambda board: merged_table(board)["targets"][0].update(expr="run:x"), "keeps"),
    (check_grid, same_place, "overlaps"),
    (check_grid, same_place_when_folded, "overlaps"),
    (check_grid, rows_swapped, "out of order"),
    (check_grid, change_panel(gridPos={"x": 20, "y": 900, "w": 5, "h": 1}), "sticks out"),
    (check_grid, change_panel(gridPos={"x": 0, "y": 0, "w": 1, "h": 1}), "above its row"),
    (check_grid, lambda board: folded_row(board).update(collapsed=False), "only a folded row"),
    (
        check_grid,
        lambda board: folded_row(board)["panels"][0]["gridPos"].update(y=0),
        "sticks out",
    ),
    (check_variables, ask("x{run=~'$gone'}"), "$gone is not defined"),
    (check_variables, ask("x{run=~'${gone:regex}'}"), "$gone is not defined"),
    (check_variables, ask("x{run=~'[[gone]]'}"), "$gone is not defined"),
    (check_variables, change_panel(title="of $gone"), "$gone is not defined"),
    (check_variables, change_panel(repeat="gone"), "$gone is not defined"),
    (check_variables, change_link(url="/d/x?a=${gone}"), "$gone is not defined"),
    (
        check_variables,
        lambda board: annotations_of(board)[0].update(titleFormat="$gone"),
        "$gone is not defined",
    ),
    (
        check_variables,
        lambda board: first_target(board).update(legendFormat="$gone"),
        "$gone is not defined",
    ),
    (check_variables, lambda board: variables_of(board).reverse(), "$run is before $job"),
    (
        check_variables,
        lambda board: variables_of(board).append({"name": "k", "type": "custom", "query": "1"}),
        "$k is not used",
    ),
    (check_variables, lambda board: variables_of(board).append(variables_of(board)[1]), "twice"),
    (check_several_values, change_variable("job", allValue=""), "$job: All without a value"),
    (check_several_values, ask('x{run="$run"}'), "$run after ="),
    (check_several_values, ask('x{run!="${run}"}'), "$run after !="),
    (check_several_values, ask('x{run!~"$run"}'), "$run after !~"),
    (check_several_values, ask("x > $rank"), "$rank outside"),
    (
        check_datasources,
        lambda board: first_target(board).update(datasource={"type": "prometheus", "uid": "abc"}),
        "abc",
    ),
    (check_datasources, change_panel(datasource=None), "None"),
    (check_datasources, change_variable("run", datasource=None), "variable run"),
    (check_datasources, lambda board: annotations_of(board)[0].pop("datasource"), "annotation"),
    (check_datasources, lambda board: variables_of(board).reverse(), "first variable"),
    (check_panels_explain_themselves, change_panel(title=""), "title"),
    (check_panels_explain_themselves, change_panel(description=""), "description"),
    (check_panels_explain_themselves, change_panel(options={}), "legend"),
    (check_panels_explain_themselves, change_defaults("stat", unit=None), "unit"),
    (check_panels_explain_themselves, change_defaults("stat", thresholds={}), "thresholds"),
    (
        check_panels_explain_themselves,
        change_defaults("stat", thresholds={"steps": [{"color": "green", "value": 0}]}),
        "thresholds",
    ),
    (check_legends, lambda board: first_target(board).pop("legendFormat"), "no legend"),
    (check_legends, lambda board: first_target(board).update(legendFormat="{{rnak}}"), "rnak"),
    (check_labels, ask("sum by (rnak) (x)"), "no label rnak"),
    (check_labels, ask('x{rnak="0"}'), "no label rnak"),
    (check_counters, ask(f"sum(dllogger_steps_total{{{IN_RUN}}})"), "as it is"),
    (check_counters, ask("max_over_time(dllogger_steps_total[$__range])"), "as it is"),
    (check_counters, ask("rate(sum(dllogger_steps_total)[$__range:])"), "as it is"),
    (check_counters, ask("rate(dllogger_iteration[$__range])"), "rate of dllogger_iteration"),
    (check_counters, ask('{__name__=~"dl.+"}'), "a pattern of more"),
    (check_names_are_kept, ask('rate({__name__=~"dl_.+"}[$__range])'), "many names"),
    (check_names_are_kept, ask('max_over_time(({__name__=~"dl_.+"} > 0)[$__range:])'), "many"),
    (check_windows, ask("rate(x_total[5m])"), "5m"),
    (check_windows, ask("rate(x_total[$__interval])"), "$__interval"),
    (check_windows, ask("max_over_time(x[$__range:1m])"), "1m"),
    (check_windows, ask("x offset 1h"), "1h"),
    (check_runs, ask("dllogger_epoch"), "dllogger_epoch of all runs"),
    (check_runs, ask(f'x{{{IN_RUN}}} / y{{run="a"}}'), "y of all runs"),
    (check_links, change_link(keepTime=False), "links"),
    (check_links, change_link(includeVars=False), "links"),
    (check_links, change_link(tags=[]), "links"),
    (check_links, change_link(title="New", placement="inControlsMenu"), "New: hidden"),
    (check_links, change_panel(links=[{"url": "/d/gone/x"}]), "no such dashboard"),
    (check_links, change_panel(links=[{"url": "/d/otel-dllogger-ranks?var-x=1"}]), "no var-x"),
    (check_links, change_panel(links=[{"url": "/d/otel-dllogger-ranks?a=1"}]), "loses datasource"),
    (check_annotations, lambda board: annotations_of(board).pop(), "Alert: None"),
    (check_annotations, lambda board: annotations_of(board)[0].update(enable=False), "Start"),
    (check_time, lambda board: board.update(refresh=""), "no refresh"),
    (check_time, lambda board: board.update(time={"from": "2026-01-01"}), "time"),
    (check_units, change_defaults("timeseries", unit="sci"), "all digits"),
    (
        check_units,
        lambda board: panel_of(board, "table")["fieldConfig"].update(overrides=[]),
        "Run is a number",
    ),
    (check_types, lambda board: board.update(graphToolTip=1), "graphToolTip"),
    (check_types, lambda board: panel_of(board, "stat").update(color="red"), "color"),
    (
        check_types,
        lambda board: panel_of(board, "stat")["options"].update(colorMode="backgroud"),
        "backgroud",
    ),
    (check_types, change_defaults("timeseries", custom={"lineWidth": "2"}), "custom/lineWidth"),
    (
        check_types,
        lambda board: overrides_of(board)[0].update(
            properties=[{"id": "custom.lineWith", "value": 1}]
        ),
        "lineWith",
    ),
    (
        check_types,
        lambda board: overrides_of(board)[0].update(properties=[{"id": "unit", "value": 1}]),
        "unit",
    ),
]


@pytest.mark.parametrize(("check", "damage", "message"), BROKEN)
def test_a_broken_dashboard_is_found(
    check: Callable[..., list[str]], damage: Callable[[dict[str, Any]], Any], message: str
) -> None:
    """Each rule says what is wrong where something is."""
    board = copy.deepcopy(BOARDS["training-overview.json"])
    before = check(board)
    damage(board)
    found = [problem for problem in check(board) if problem not in before]
    assert any(message in problem for problem in found), found

"""The dashboards as files: up to date, well formed, and about metrics that exist.

What needs no Grafana and no data. That every panel shows something is tested elsewhere,
against a Prometheus that scraped real ranks.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
import subprocess
import sys
import urllib.parse
from collections import Counter
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from grafana.preview.interpolation import references
from tests.support.bridge import BridgeProcess
from tests.support.paths import ROOT, TESTS
from tests.support.prometheus import find_program
from tests.support.promql import COUNTER_FUNCTIONS, Expression, Matcher, PromQLError, Selector, read
from tests.system.test_end_to_end import Rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

FOLDER = ROOT / "grafana" / "dashboards"
RULES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SCHEMAS = json.loads((TESTS / "grafana_schema" / "schema.json").read_text())

# Links and bookmarks hold them: another uid is another dashboard.
UIDS = {
    "compare-runs.json": "otel-dllogger-compare",
    "ranks.json": "otel-dllogger-ranks",
    "training-overview.json": "otel-dllogger-overview",
}
BOARDS = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}

# The version of the JSON that Grafana 12 writes: it migrates an older one at every load, and a
# newer one would not be understood.
SCHEMA_VERSION = 42
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
WINDOWS = {"$__rate_interval", "$__range"}

# What a counter is asked for other than its increase, by dashboard and panel.
TOTALS_AS_THEY_ARE = {
    # Steps are what the curves are drawn over, and "Runs" says how many there were: both want
    # the number itself, which begins anew with a restart.
    ("compare-runs.json", "Losses by step"): {"dllogger_steps_total"},
    ("compare-runs.json", "Throughput by step"): {"dllogger_steps_total"},
    ("compare-runs.json", "$metric by step"): {"dllogger_steps_total"},
    ("compare-runs.json", "Runs"): {"dllogger_steps_total"},
    # How far a rank has come, against the others. Iterations begin anew with each epoch.
    ("ranks.json", "Slowest ranks"): {"dllogger_steps_total"},
    ("ranks.json", "Iteration skew"): {"dllogger_steps_total"},
    ("ranks.json", "Ranks behind"): {"dllogger_steps_total"},
    ("training-overview.json", "Training steps"): {"dllogger_steps_total"},
    # What was counted before the first scrape is in the number itself, and in no increase.
    ("ranks.json", "Dropped"): {"dllogger_dropped_total"},
    ("training-overview.json", "NaN and Inf"): {"dllogger_nonfinite_total"},
    # Which ranks make steps at all.
    ("training-overview.json", "Steps per second"): {"dllogger_steps_total"},
}

COUNTED_FROM_THE_FIRST = {"dllogger_nonfinite_total", "dllogger_dropped_total"}

# What Grafana's types leave out, since a data source defines it: Prometheus moves it where it
# belongs (grafana/grafana packages/grafana-prometheus/src/annotations.ts), or it is text for
# the editor.
LEFT_TO_THE_DATASOURCE = {
    "annotations": {"expr", "step", "tagKeys", "textFormat", "titleFormat", "useValueForTime"},
    "templating": {"definition"},
}

# What Prometheus and its rules make themselves.
OF_PROMETHEUS = {"up", "ALERTS", "ALERTS_FOR_STATE"}
LABELS = {"job", "instance", "run", "rank", "stage", "metric", "goal", "granularity"}
LABELS |= {"host", "local_rank", "world_size", "attempt", "pid", "type", "reason", "name"}

_NAME_IN_TEXT = re.compile(r"(?<![\w:$./-])(?:dl|dllogger)_\w*|(?<![\w:$./-])[a-z]+:dl\w*:?[\w:]*")
_LOGGED = re.compile(r"dl(_[a-z0-9]+)+")
# A stage is a label, and a gauge is no total.
_NOT_LOGGED = re.compile(r"dl_(train|val|valid|validation|eval|test)_|.*_total")
_CODE = re.compile(r"^ *```(\w*)\n(.*?)^ *```|(`+)(.+?)\3", re.DOTALL | re.MULTILINE)


# --- What there is in a dashboard -----------------------------------------------------------


def panels_of(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel but rows, those of folded rows too."""
    return (panel for panel in everything_of(board["panels"]) if panel["type"] != "row")


def everything_of(panels: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for panel in panels:
        yield panel
        yield from everything_of(panel.get("panels", []))


def variables_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    return board["templating"]["list"]


def annotations_of(board: dict[str, Any]) -> list[dict[str, Any]]:
    return board["annotations"]["list"]


def query_of(variable: dict[str, Any]) -> str:
    """Return what a variable asks, or "" where it asks nothing."""
    if variable["type"] != "query":
        return ""
    query = variable["query"]
    return query["query"] if isinstance(query, dict) else query


def expression_of(variable_query: str) -> str:
    """Return the PromQL in the query of a variable, "" where there is none."""
    found = re.fullmatch(r"\s*(label_values|query_result)\((.*)\)\s*", variable_query, re.DOTALL)
    if not found:
        return ""
    if found[1] == "query_result":
        return found[2]
    selector, comma, _label = found[2].rpartition(",")
    return selector if comma else ""


def expressions_of(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every PromQL expression of a dashboard, and where it is from."""
    for panel in panels_of(board):
        for target in panel["targets"]:
            yield f"{panel['title']} {target.get('refId')}", target["expr"]
    for annotation in annotations_of(board):
        yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in variables_of(board):
        if query_of(variable):
            yield f"variable {variable['name']}", expression_of(query_of(variable))


def selectors_of(board: dict[str, Any]) -> Iterator[tuple[str, Selector]]:
    for place, text in expressions_of(board):
        for selector in read(text).selectors:
            yield place, selector


def texts_of(value: Any) -> Iterator[str]:
    """Yield every text at any depth, but not names of keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(texts_of, value.values()))
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(texts_of, value))


def used_in(value: Any) -> set[str]:
    """Return the variables that are used at any depth, the built-in ones left out."""
    names = set(itertools.chain.from_iterable(map(references, texts_of(value))))
    return {name for name in names if not name.startswith("__")}


# --- The rules: each takes a dashboard and returns what is wrong with it ----------------------


def check_identity(board: dict[str, Any]) -> list[str]:
    problems = [key for key in board if key.startswith("__")]
    if board["schemaVersion"] != SCHEMA_VERSION:
        problems.append(f"schemaVersion {board['schemaVersion']}")
    # The number is of one Grafana's database, and another one's dashboard may have it.
    if board.get("id") is not None:
        problems.append("an id")
    return problems + [f"no {key}" for key in ("title", "description", "tags") if not board[key]]


def check_panel_ids(board: dict[str, Any]) -> list[str]:
    ids = [panel.get("id") for panel in everything_of(board["panels"])]
    missing = [f"id {number!r}" for number in ids if type(number) is not int or number < 1]
    return missing + [f"id {number} twice" for number, count in Counter(ids).items() if count > 1]


def check_targets(board: dict[str, Any]) -> list[str]:
    problems = []
    for panel in panels_of(board):
        ids = [target.get("refId") for target in panel.get("targets", [])]
        if not ids or None in ids or len(set(ids)) < len(ids):
            problems.append(f"{panel['title']}: refIds {ids}")
        known = {"byFrameRefID": set(ids)}
        for override in panel["fieldConfig"]["overrides"]:
            matcher = override["matcher"]
            if matcher["options"] not in known.get(matcher["id"], {matcher["options"]}):
                problems.append(f"{panel['title']}: overrides {matcher['options']}")
    return problems


def check_fields(board: dict[str, Any]) -> list[str]:
    """What is done with a column is done with one that there is, by its name at that time."""
    problems = []
    for panel in panels_of(board):
        ids = [target.get("refId") for target in panel["targets"]]
        values = {f"Value #{one}" for one in ids} if len(ids) > 1 else {"Value"}
        shown, used = set(values), set()
        for step in panel.get("transformations", []):
            options = step["options"]
            used |= {options[key] for key in ("valueField", "rowField") if key in options}
            used |= {*options.get("indexByName", ()), *options.get("fields", ())}
            shown |= set(options.get("renameByName", {}).values())
        for series in panel["options"].get("series", []):
            used |= {series[axis]["matcher"]["options"] for axis in "xy"}
        changed = {one["displayName"] for one in panel["options"].get("sortBy", [])}
        changed |= {
            one["matcher"]["options"]
            for one in panel["fieldConfig"]["overrides"]
            if one["matcher"]["id"] == "byName"
        }
        problems += [f"{panel['title']}: no field {name}" for name in used - values - LABELS]
        problems += [f"{panel['title']}: no column {name}" for name in changed - shown]
    return problems


def check_grid(board: dict[str, Any]) -> list[str]:
    """A folded row has a grid of its own, below it."""
    problems = _check_one_grid(board["panels"], top=0)
    row_y = -1
    for panel in board["panels"]:
        if panel["type"] != "row":
            problems += [f"{panel['title']}: above its row"] * (panel["gridPos"]["y"] <= row_y)
            continue
        problems += [f"{panel['title']}: out of order"] * (panel["gridPos"]["y"] <= row_y)
        row_y = panel["gridPos"]["y"]
        problems += _check_one_grid(panel["panels"], top=row_y + 1)
        if bool(panel["panels"]) != panel["collapsed"]:
            problems.append(f"{panel['title']}: only a folded row holds its panels")
    return problems


def _check_one_grid(panels: list[dict[str, Any]], *, top: int) -> list[str]:
    problems = []
    taken: dict[tuple[int, int], str] = {}
    for panel in panels:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        if x < 0 or w < 1 or h < 1 or x + w > COLUMNS or y < top:
            problems.append(f"{panel['title']}: sticks out")
        cells = list(itertools.product(range(x, x + w), range(y, y + h)))
        over = {taken[cell] for cell in cells if cell in taken}
        problems += [f"{panel['title']}: overlaps {other}" for other in sorted(over)]
        taken.update(dict.fromkeys(cells, panel["title"]))
    return problems


def check_variables(board: dict[str, Any]) -> list[str]:
    defined = [variable["name"] for variable in variables_of(board)]
    repeats = [panel["repeat"] for panel in everything_of(board["panels"]) if panel.get("repeat")]
    used = used_in(board) | set(repeats)
    problems = [f"${name} is not defined" for name in sorted(used - set(defined))]
    for place, variable in enumerate(variables_of(board)):
        name = variable["name"]
        others = {**board, "templating": {"list": variables_of(board)[place + 1 :]}}
        if name not in used_in(others) | set(repeats):
            problems.append(f"${name} is not used")
        early = used_in([variable["query"], variable.get("regex")]) - set(defined[:place])
        problems += [f"${name} is before ${needed}" for needed in sorted(early)]
    return problems + [f"${name} twice" for name, count in Counter(defined).items() if count > 1]


def check_several_values(board: dict[str, Any]) -> list[str]:
    """A variable of several values is a part of a regex, and All is one that Prometheus takes."""
    variables = variables_of(board)
    problems = [
        f"${variable['name']}: All without a value"
        for variable in variables
        if variable.get("includeAll") and not variable.get("allValue")
    ]
    several = {one["name"] for one in variables if one.get("multi") or one.get("includeAll")}
    for place, text in expressions_of(board):
        expression = read(text)
        outside = several & set().union(*map(references, expression.bare_variables))
        problems += [f"{place}: ${name} outside of a matcher" for name in sorted(outside)]
        problems += [
            f"{place}: ${name} after {matcher.operator}"
            for selector in expression.selectors
            for matcher in selector.matchers
            if matcher.operator != "=~"
            for name in sorted(several & references(matcher.value))
        ]
    return problems


def check_datasources(board: dict[str, Any]) -> list[str]:
    first = variables_of(board)[0]
    problems = []
    if (first["type"], first["name"], first["query"]) != ("datasource", "datasource", "prometheus"):
        problems.append("the first variable is not the data source")
    asking: dict[str, dict[str, Any]] = {}
    for panel in panels_of(board):
        asking[panel["title"]] = panel
        asking |= {f"{panel['title']} {one.get('refId')}": one for one in panel["targets"]}
    asking |= {f"annotation {one['name']}": one for one in annotations_of(board)}
    asking |= {f"variable {one['name']}": one for one in variables_of(board) if query_of(one)}
    return problems + [
        f"{name}: data source {one.get('datasource')}"
        for name, one in asking.items()
        if one.get("datasource") != DATASOURCE
    ]


def check_panels_explain_themselves(board: dict[str, Any]) -> list[str]:
    problems = []
    for panel in panels_of(board):
        defaults = panel["fieldConfig"]["defaults"]
        steps = [step["value"] for step in defaults.get("thresholds", {}).get("steps", [])]
        legend = panel["options"].get("legend", {})
        has_legend = {"stat": True, "table": True, "heatmap": legend.get("show") is True}
        wanted = {
            "title": panel.get("title"),
            "description": panel.get("description"),
            "unit": defaults.get("unit"),
            "thresholds": steps[:1] == [None] and steps[1:] == sorted(set(steps[1:])),
            "legend": has_legend.get(panel["type"], "showLegend" in legend),
        }
        problems += [f"{panel.get('title')}: {what}" for what, there in wanted.items() if not there]
    return problems


def check_legends(board: dict[str, Any]) -> list[str]:
    """Each line has a name of labels that there are; the columns of a table are named by it."""
    problems = []
    for panel in panels_of(board):
        for target in panel["targets"]:
            legend, place = target.get("legendFormat"), f"{panel['title']} {target.get('refId')}"
            if target.get("format") == "table":
                continue
            if legend in (None, "", "__auto"):
                problems.append(f"{place}: no legend")
            labels = set(re.findall(r"{{\s*(\w+)\s*}}", legend or ""))
            made = set(re.findall(r'count_values[^(]*\([^(]*\(\s*"(\w+)"', target["expr"]))
            problems += [f"{place}: no label {one}" for one in sorted(labels - LABELS - made)]
    return problems


def check_labels(board: dict[str, Any]) -> list[str]:
    return [
        f"{place}: no label {label}"
        for place, text in expressions_of(board)
        for label in sorted(read(text).labels - LABELS)
    ]


def check_counters(board: dict[str, Any], name: str = "") -> list[str]:
    """The height of a counter says nothing: it begins at 0 with each process."""
    problems = []
    for place, selector in selectors_of(board):
        allowed = TOTALS_AS_THEY_ARE.get((name, place.rpartition(" ")[0]), set())
        if place == "annotation NaN or Inf":  # against what it was before, and so not as it is
            allowed = {"dllogger_nonfinite_total"}
        function = selector.functions[-1] if selector.has_range and selector.functions else ""
        if selector.name.endswith("_total"):
            # What a counter began with belongs to its increase, and is nowhere else.
            first = selector.name in COUNTED_FROM_THE_FIRST and function in (
                "min_over_time",
                "last_over_time",
            )
            if function not in COUNTER_FUNCTIONS and not first and selector.name not in allowed:
                problems.append(f"{place}: {selector.name} as it is")
        elif function in ("rate", "increase", "irate"):
            problems.append(f"{place}: {function} of {selector.name or 'a selector'}")
        elif selector.has_many_names and not any(
            one.label == "__name__" and one.operator == "=~" and one.value.startswith("dl_")
            for one in selector.matchers
        ):
            problems.append(f"{place}: a pattern of more than what was logged")
    return problems


def check_names_are_kept(board: dict[str, Any]) -> list[str]:
    return [
        f"{place}: a function over time of many names"
        for place, selector in selectors_of(board)
        if selector.has_many_names and selector.drops_names
    ]


def check_windows(board: dict[str, Any]) -> list[str]:
    problems = []
    for place, text in expressions_of(board):
        expression = read(text)
        # An annotation's step is a minute or more: its own interval has scrapes in it.
        allowed = {*WINDOWS, "$__interval"} if place.startswith("annotation ") else WINDOWS
        wrong = [one for one in expression.windows if one.strip().rstrip(":") not in allowed]
        problems += [f"{place}: {one}" for one in {*wrong, *expression.durations}]
    return problems


def check_runs(board: dict[str, Any]) -> list[str]:
    """Nothing is asked of all runs there ever were, but which runs there are."""
    return [
        f"{place}: {selector.name or 'a selector'} of all runs"
        for place, selector in selectors_of(board)
        if not place.startswith("variable ")
        if Matcher("run", "=~", "$run") not in selector.matchers
    ]


def check_links(board: dict[str, Any]) -> list[str]:
    """The dashboards are found from each other, and keep what was chosen."""
    links = [
        {key: link.get(key) for key in ("type", "keepTime", "includeVars", "tags")}
        for link in board["links"]
    ]
    # The SDK asks for a place by itself, and Grafana hides the link in a menu.
    problems = [f"{link['title']}: hidden" for link in board["links"] if "placement" in link]
    if links != [
        {"type": "dashboards", "keepTime": True, "includeVars": True, "tags": board["tags"]}
    ]:
        problems.append(f"links {links}")
    for text in texts_of(board["panels"]):
        if text.startswith("/d/"):
            problems += [f"{text}: {what}" for what in _check_link(text)]
    return problems


def _check_link(text: str) -> list[str]:
    """A dashboard that is opened by a link has what the link says, and else its defaults."""
    url = urllib.parse.urlsplit(text)
    board = {board["uid"]: board for board in BOARDS.values()}.get(url.path.split("/")[2])
    if board is None:
        return ["no such dashboard"]
    known = {f"var-{variable['name']}" for variable in variables_of(board)}
    set_here = {part.partition("=")[0] for part in url.query.split("&")}
    unknown = {name for name in set_here if name.startswith("var-")} - known
    lost = {"__url_time_range", "datasource"} - references(url.query)
    return [*(f"no {name}" for name in sorted(unknown)), *(f"loses {one}" for one in sorted(lost))]


def check_annotations(board: dict[str, Any]) -> list[str]:
    asked = {one["name"]: read(one["expr"]).names for one in annotations_of(board) if one["enable"]}
    wanted = {
        "Start": {"dllogger_run_start_timestamp_seconds", "dllogger_rank_info"},
        "Restart": {"dllogger_run_start_timestamp_seconds", "dllogger_rank_info"},
        "Finish": {"dllogger_run_finished"},
        "NaN or Inf": {"dllogger_nonfinite_total"},
    }
    return [f"{name}: {asked.get(name)}" for name in wanted if wanted[name] != asked.get(name)]


def check_time(board: dict[str, Any]) -> list[str]:
    time = board["time"]
    problems = [f"time {time}"] * (time.get("to") != "now" or not time.get("from"))
    return problems + ["no refresh"] * (not board.get("refresh"))


def check_types(board: dict[str, Any]) -> list[str]:
    """What Grafana's own types say, for the dashboard and for each kind of panel."""
    plain = copy.deepcopy(board)
    for part, keys in LEFT_TO_THE_DATASOURCE.items():
        for one in plain[part]["list"]:
            for key in keys:
                one.pop(key, None)
    # One by one, or all that is said of a wrong one is that it is neither panel nor row.
    plain["panels"] = []
    problems = _mismatches(SCHEMAS["Board"], plain, "dashboard")
    for panel in everything_of(board["panels"]):
        definition = "RowPanel" if panel["type"] == "row" else "Panel"
        alone = {**panel, "panels": []} if panel["type"] == "row" else panel
        problems += _mismatches(_definition(definition), alone, panel["title"])
    for panel in panels_of(board):
        config = panel["fieldConfig"]
        kind = SCHEMAS[panel["type"]]
        custom = config["defaults"].get("custom", {})
        has = {"options": panel["options"], "custom": custom}
        problems += _mismatches(kind, has, panel["title"])
        for override in config["overrides"]:
            for setting in override["properties"]:
                schema, key = _schema_of_setting(kind, setting["id"])
                problems += _mismatches(schema, {key: setting["value"]}, panel["title"])
    return problems


def _definition(name: str) -> dict[str, Any]:
    return {**SCHEMAS["Board"], "$ref": f"#/definitions/{name}"}


def _schema_of_setting(kind: dict[str, Any], name: str) -> tuple[dict[str, Any], str]:
    """Return the schema of an override: of a standard setting, or of one of the kind."""
    if not name.startswith("custom."):
        return _definition("FieldConfig"), name
    (definition,) = kind["definitions"].values()
    return {**definition["properties"]["custom"], "required": []}, name.removeprefix("custom.")


def _mismatches(schema: dict[str, Any], value: Any, place: str) -> list[str]:
    return [
        f"{place}/{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in jsonschema.Draft7Validator(schema).iter_errors(value)
    ]


CHECKS: list[Callable[..., list[str]]] = [
    check_annotations,
    check_counters,
    check_datasources,
    check_fields,
    check_grid,
    check_identity,
    check_labels,
    check_legends,
    check_links,
    check_names_are_kept,
    check_panel_ids,
    check_panels_explain_themselves,
    check_runs,
    check_several_values,
    check_targets,
    check_time,
    check_types,
    check_variables,
    check_windows,
]


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
    committed = {path.name: path.read_text() for path in FOLDER.iterdir()}
    assert written.keys() == committed.keys()
    for name, text in written.items():
        assert text == committed[name], f"{name}: run python -m grafana.source"


# --- That the rules find what they are there for ---------------------------------------------


def panel_of(board: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(panel for panel in panels_of(board) if panel["type"] == kind)


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
    (check_panel_ids, lambda board: folded_row(board)["panels"][0].update(id=1), "id 1 twice"),
    (check_panel_ids, lambda board: folded_row(board)["panels"][0].pop("id"), "id None"),
    (check_targets, lambda board: first_target(board).update(refId="B"), "refIds"),
    (check_targets, lambda board: first_target(board).pop("refId"), "refIds"),
    (check_targets, change_panel(targets=[]), "refIds"),
    (check_targets, lambda board: first_target(board).update(refId="Z"), "overrides A"),
    (check_fields, lambda board: panel_of(board, "table")["targets"].pop(), "no field Value #A"),
    (check_fields, lambda board: overrides_of(board)[0].update(matcher=NO_COLUMN), "no column x"),
    (
        check_fields,
        lambda board: panel_of(board, "table")["options"].update(sortBy=[{"displayName": "x"}]),
        "no column x",
    ),
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
    (check_annotations, lambda board: annotations_of(board).pop(), "NaN or Inf: None"),
    (check_annotations, lambda board: annotations_of(board)[0].update(enable=False), "Start"),
    (check_time, lambda board: board.update(refresh=""), "no refresh"),
    (check_time, lambda board: board.update(time={"from": "2026-01-01"}), "time"),
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


# --- Names of metrics, wherever they stand ---------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return every name on the page of a rank that had everything happen to it."""
    rank = Rank(tmp_path_factory.mktemp("rank"), text_parameters=True)
    try:
        rank.wait_started()
        rank.call("metadata", "loss", {"GOAL": "MINIMIZE", "STAGE": "TRAIN"})
        rank.call("log", "PARAMETER", {"lr": 0.1, "optimizer": "sgd"})
        rank.call("log", [0, 1], {"loss": 0.5})
        rank.call("log", [0, 2], {"loss": float("nan")})
        page = rank.page().decode()
    finally:
        rank.process.kill()
        rank.process.communicate()
    return sample_names(page)


def sample_names(page: str) -> set[str]:
    families = text_string_to_metric_families(page)
    return {sample.name for family in families for sample in family.samples}


@pytest.fixture(scope="module")
def of_the_bridge(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names on the page of a bridge that follows nothing."""
    folder = tmp_path_factory.mktemp("bridge")
    with BridgeProcess(folder, folder=folder) as bridge:
        return {name for name, *_labels in bridge.page()}


def groups_of(path: Path) -> list[dict[str, Any]]:
    return yaml.safe_load(path.read_text())["groups"]


def rules_of(path: Path) -> list[dict[str, Any]]:
    return [rule for group in groups_of(path) for rule in group["rules"]]


def recorded() -> set[str]:
    return {rule["record"] for path in RULES for rule in rules_of(path) if "record" in rule}


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every expression there is in dashboards, rules and text, and where it is from."""
    for name, board in BOARDS.items():
        for place, text in expressions_of(board):
            yield f"{name}: {place}", text
    for path in RULES:
        for rule in rules_of(path):
            yield f"{path.name}: {rule.get('record') or rule['alert']}", rule["expr"]
    for path in TEXTS:
        for language, code in code_of(path.read_text()):
            if language == "promql":
                yield from ((f"{path.name}: {text}", text) for text in split_promql(code))


def code_of(markdown: str) -> list[tuple[str, str]]:
    """Return blocks of code with their language, and spans of code without."""
    return [(found[1] or "", found[2] or found[4]) for found in _CODE.finditer(markdown)]


def split_promql(code: str) -> list[str]:
    """Part a block into expressions: one a line, and lines that go on are indented or close."""
    lines = [line for line in code.splitlines() if not re.fullmatch(r"\s*(#.*)?", line)]
    result: list[str] = []
    for line in lines:
        is_open = bool(result) and sum(map(result[-1].count, "({[")) > sum(
            map(result[-1].count, ")}]")
        )
        goes_on = re.match(r"\s|[)}\]*/+<>=-]|(?:and|or|unless|by|on)\b", line)
        if result and (is_open or goes_on):
            result[-1] += f"\n{line}"
        else:
            result.append(line)
    return result


def wrong_name(name: str, exported: set[str], recorded: set[str]) -> bool:
    """Return whether nothing is exported, recorded or logged under this name."""
    if name in exported | recorded | OF_PROMETHEUS:
        return False
    return not _LOGGED.fullmatch(name) or bool(_NOT_LOGGED.match(name))


def wrong_names_in_text(text: str, exported: set[str], recorded: set[str]) -> list[str]:
    """Return the names in a text that nothing has; one that ends in ``_`` stands for many."""
    names = sorted(set(_NAME_IN_TEXT.findall(text)))
    whole = [name for name in names if not name.endswith(("_", ":"))]
    return [name for name in whole if wrong_name(name, exported, recorded)]


def test_there_are_rules() -> None:
    """The rules that come with the package are where the other tests look for them."""
    assert recorded()
    assert any("alert" in rule for path in RULES for rule in rules_of(path))


def test_every_expression_is_about_metrics_that_exist(exported: set[str]) -> None:
    """Dashboards, rules and text ask for what a rank exports, a rule records or a user logs."""
    rules = recorded()
    wrong = {
        place: names
        for place, text in expressions()
        if (names := {one for one in read(text).names if wrong_name(one, exported, rules)})
    }
    assert {} == wrong


def test_every_metric_of_the_package_is_in_the_readme(exported: set[str]) -> None:
    """The README's table has no gap, and the page of the test's rank has everything."""
    readme = "\n".join(code for _, code in code_of((ROOT / "README.md").read_text()))
    named = set(re.findall(r"\bdllogger_\w+", readme))
    assert {name for name in exported if name.startswith("dllogger_")} == named


def test_every_name_in_a_text_is_of_a_metric_that_exists(
    exported: set[str], of_the_bridge: set[str]
) -> None:
    """No code in the text, comment of a rule or description of a panel names what is not there."""
    texts = {path.name: "\n".join(code for _, code in code_of(path.read_text())) for path in TEXTS}
    texts |= {path.name: path.read_text() for path in RULES}
    texts |= {name: "\n".join(texts_of(board)) for name, board in BOARDS.items()}
    named = recorded() | {group["name"] for path in RULES for group in groups_of(path)}
    found = {
        name: wrong
        for name, text in texts.items()
        if (wrong := wrong_names_in_text(text, exported | of_the_bridge, named))
    }
    assert {} == found


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("dl_loss dl_ips_per_second dl_90_latency_milliseconds dl_<name> dl_.+ dl_", []),
        ("dllogger_epoch run:dl:max dllogger_", []),
        ("otel_dllogger grafana/otel_dllogger_x.json $dl_x", []),
        ("dl_train_loss", ["dl_train_loss"]),
        ("dl_Loss dl_a__b", ["dl_Loss", "dl_a__b"]),
        ("dl_steps_total", ["dl_steps_total"]),
        ("dllogger_epochs", ["dllogger_epochs"]),
        ("run:dl:mean", ["run:dl:mean"]),
    ],
)
def test_wrong_names_are_found_in_texts(text: str, wrong: list[str]) -> None:
    """A misspelt name is told from one of a user's metrics, and from what is no metric."""
    assert wrong == wrong_names_in_text(text, {"dllogger_epoch"}, {"run:dl:max"})


def test_code_is_found_in_markdown() -> None:
    """Blocks, spans and expressions over several lines are found."""
    text = "`a` and ``b`c``\n```promql\nx\n# no\nsum(\n  y\n)\n  / z\n```\n    ```yaml\nk: v\n```\n"
    code = code_of(text)
    assert ["", "", "promql", "yaml"] == [language for language, _ in code]
    assert ["a", "b`c"] == [found for _, found in code[:2]]
    assert ["x", "sum(\n  y\n)\n  / z"] == split_promql(code[2][1])


# --- That Prometheus takes it ----------------------------------------------------------------


def without_variables(expression: str) -> str:
    """Put something harmless where Grafana puts values: a time in brackets, else a number."""
    variable = r"(?:\$\w+|\$\{[^}]+\}|\[\[\w+(?::\w+)?\]\])"
    timed = re.sub(rf"\[\s*{variable}\s*(:?)\s*\]", r"[1m\1]", expression)
    timed = re.sub(rf"(offset\s+){variable}", r"\g<1>1m", timed)
    return re.sub(variable, "1", timed)


def refused(asked: list[str], folder: Path) -> str:
    """Return what promtool has against expressions, "" where it takes them all."""
    rules = [
        {"record": f"expression:{number}", "expr": without_variables(text)}
        for number, text in enumerate(asked)
    ]
    file = folder / "expressions.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}, width=1000))
    command = [find_program("promtool"), "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr if done.returncode else ""


def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    """No expression in dashboards, rules and text has an error of syntax or type."""
    assert "" == refused([text for _, text in expressions()], tmp_path)


@pytest.mark.parametrize("text", ["rate(x_total)", "sum(x", "x{a=b}", "[$__range]", "topk(x)"])
def test_prometheus_refuses_what_is_wrong(tmp_path: Path, text: str) -> None:
    """An error of syntax or type is found among expressions that are right."""
    assert "expression:1" in refused(["up", text, 'x{a=~"$a"}[$__range:] > $k'][:2], tmp_path)


# --- What is read of PromQL ------------------------------------------------------------------

FULL = 'a{b="c",d=~"$e"}'
READ = [
    ("up", {"up"}, set()),
    (FULL, {"a"}, {"b", "d"}),
    ('{__name__="a", b!="c"}', {"a"}, {"b"}),
    ('{__name__=~"a.+"}', set(), set()),
    ("sum by (run, rank) (rate(a_total[$__rate_interval]))", {"a_total"}, {"run", "rank"}),
    ("sum(a) by (run)", {"a"}, {"run"}),
    ("SUM without(run) (a)", {"a"}, {"run"}),
    ("a * on (run) group_left (host, pid) b", {"a", "b"}, {"run", "host", "pid"}),
    ("a and on () b or c unless ignoring (x) d atan2 e", set("abcde"), {"x"}),
    ('{__name__=~"a"} or {b="c"}', set(), {"b"}),
    ("a / on (run) group_right b", {"a", "b"}, {"run"}),
    ("topk by (run) ($k, a > bool 1.5e-3)", {"a"}, {"run"}),
    ("time() - a offset 5m @ end()", {"a"}, set()),
    ("quantile_over_time(0.5, (a + b)[1h:5m])", {"a", "b"}, set()),
    ("run:dl:max / ignoring(x) job:y:sum5m", {"run:dl:max", "job:y:sum5m"}, {"x"}),
    ('label_replace(a, "new", "$1", "old", "(.*)")', {"a"}, set()),
    ('count_values by (run) ("of", a)', {"a"}, {"run"}),
    ("a == Inf or b != NaN or c > 0x1F", {"a", "b", "c"}, set()),
    ('a{b="}\\"{"} # c{', {"a"}, {"b"}),
    ("a{b='\"', c=`\\`}\n+\nrate", {"a", "rate"}, {"b", "c"}),
    ("-a ^ 2 % 3", {"a"}, set()),
    ("absent(a) or vector(1)", {"a"}, set()),
    ("a[[[x]]]", {"a"}, set()),
    ("${x} * a", {"a"}, set()),
]


@pytest.mark.parametrize(("text", "names", "labels"), READ)
def test_metrics_are_told_from_everything_else(
    text: str, names: set[str], labels: set[str]
) -> None:
    """Functions, keywords, labels and strings are no metrics."""
    expression = read(text)
    assert (names, labels) == (expression.names, expression.labels)


def test_an_expression_is_read() -> None:
    """Matchers, functions, times and variables are where they stand."""
    text = 'max by (run) (rate(a_total{b=~"$c"}[5m] offset 1h)) > $k or x_over_time(d[$r:30s])'
    assert Expression(
        selectors=[
            Selector("a_total", (Matcher("b", "=~", "$c"),), ("max", "rate"), has_range=True),
            Selector("d", (), ("x_over_time",), has_range=True),
        ],
        labels={"run", "b"},
        durations=["5m", "1h", "30s"],
        windows=["5m", "$r:30s"],
        bare_variables=["$k"],
    ) == read(text)


@pytest.mark.parametrize(
    ("text", "drops_names"),
    [
        ('{__name__=~"a"}', False),
        ('rate({__name__=~"a"}[5m])', True),
        ('avg_over_time((sum by (x) ({__name__=~"a"}))[5m:])', False),
        ('sum(max_over_time({__name__=~"a"}[5m]))', True),
    ],
)
def test_it_is_known_where_names_are_dropped(text: str, drops_names: bool) -> None:
    """Under a function over time they are, unless something aggregates before."""
    (selector,) = read(text).selectors
    assert selector.has_many_names
    assert drops_names == selector.drops_names


@pytest.mark.parametrize("text", ["a}", "a{b}", "a{b=c}", "(a", "a)", "a[5m", 'a{b="c}', "a ; b"])
def test_what_is_no_promql_is_an_error(text: str) -> None:
    """Nothing is passed over in silence."""
    with pytest.raises(PromQLError):
        read(text)

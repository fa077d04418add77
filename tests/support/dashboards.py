"""The dashboards, functions that find their parts, and the rules that they must obey."""

from __future__ import annotations

import copy
import itertools
import json
import re
import urllib.parse
from collections import Counter
from typing import TYPE_CHECKING, Any

import jsonschema

from grafana.queries.interpolation import references
from tests.support.paths import ROOT, TESTS
from tests.support.promql import COUNTER_FUNCTIONS, Matcher, Selector, read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FOLDER = ROOT / "grafana" / "dashboards"
SCHEMAS = json.loads((TESTS / "grafana_schema" / "schema.json").read_text())
BOARDS = {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}

# The version of the JSON that Grafana 12 writes: it would migrate an older one at every load, and
# would not understand a newer one.
SCHEMA_VERSION = 42
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24
WINDOWS = {"$__rate_interval", "$__range"}

# The counters that are queried for something other than their increase, by dashboard and panel.
TOTALS_AS_THEY_ARE = {
    # The progress of a rank compared with the others. Iterations begin again with each epoch.
    ("ranks.json", "Ranks behind"): {"dllogger_steps_total"},
}

# Fields that Grafana's types leave out, since a data source defines them: Prometheus moves them
# where they belong (grafana/grafana packages/grafana-prometheus/src/annotations.ts), or they are
# text for the editor.
LEFT_TO_THE_DATASOURCE = {
    "annotations": {"expr", "step", "tagKeys", "textFormat", "titleFormat", "useValueForTime"},
    "templating": {"definition"},
}
LABELS = {
    *("job", "instance", "run", "rank", "stage", "metric", "goal", "granularity"),
    *("kind", "unit", "scope"),
}
LABELS |= {"host", "local_rank", "world_size", "attempt", "pid", "type", "reason", "name"}
LABELS |= {"kind", "unit", "scope", "of_median", "part", "phase", "event"}
# Of Prometheus's own alerts, of node_exporter, of dcgm-exporter.
LABELS |= {"alertname", "alertstate", "severity", "mode", "nodename", "gpu"}
LABELS |= {"UUID", "modelName", "GPU_I_PROFILE"}
# What is not of a run: the exporters are asked by host, and the rules are there or not.
OF_NO_RUN = re.compile(r"(?:node|DCGM)_\w+|dllogger:threshold:\w+")


# --- What there is in a dashboard -----------------------------------------------------------


def panels_of(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel except rows, including those in folded rows."""
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
    """Return the query of a variable, or "" if it has none."""
    if variable["type"] != "query":
        return ""
    query = variable["query"]
    return query["query"] if isinstance(query, dict) else query


def expression_of(variable_query: str) -> str:
    """Return the PromQL in the query of a variable, "" if there is none."""
    found = re.fullmatch(r"\s*(label_values|query_result)\((.*)\)\s*", variable_query, re.DOTALL)
    if not found:
        return ""
    if found[1] == "query_result":
        return found[2]
    selector, comma, _label = found[2].rpartition(",")
    return selector if comma else ""


def expressions_of(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every PromQL expression of a dashboard, and where it comes from."""
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
    """Yield every text at any depth, but not the names of keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from itertools.chain.from_iterable(map(texts_of, value.values()))
    elif isinstance(value, list):
        yield from itertools.chain.from_iterable(map(texts_of, value))


def used_in(value: Any) -> set[str]:
    """Return the variables that are used at any depth, except built-in ones."""
    names = set(itertools.chain.from_iterable(map(references, texts_of(value))))
    return {name for name in names if not name.startswith("__")}


# --- The rules: each takes a dashboard and returns what is wrong with it ----------------------


def check_identity(board: dict[str, Any]) -> list[str]:
    problems = [key for key in board if key.startswith("__")]
    problems += ["editable"] * board["editable"]  # changes would be lost with the next version
    if board["schemaVersion"] != SCHEMA_VERSION:
        problems.append(f"schemaVersion {board['schemaVersion']}")
    # The number belongs to one Grafana's database; in another one it may be a different dashboard.
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
    """Check that transformations and overrides name columns that exist at that point."""
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
            if step["id"] == "groupingToMatrix":  # which names the first column so
                shown.add(f"{options['rowField']}\\{options['columnField']}")
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


def check_merges(board: dict[str, Any]) -> list[str]:
    """Check that rows can be merged: the names of metrics, as columns, would keep them apart."""
    named = re.compile(
        r"(?:run|rank):|(?:min|max|avg|last)_over_time"
        r"|(?:top|bottom)k by \([^)]*\) \((?!\$worst, max by)"
    )
    return [
        f"{panel['title']} {target['refId']}: keeps the names of metrics"
        for panel in panels_of(board)
        if any(step["id"] == "merge" for step in panel.get("transformations", []))
        if panel["type"] == "table"
        for target in panel["targets"]
        if named.match(target["expr"])
    ]


def check_units(board: dict[str, Any]) -> list[str]:
    """Check that Grafana writes labels in tables as they are, and powers of ten with few digits."""
    problems = []
    for panel in panels_of(board):
        defaults = panel["fieldConfig"]["defaults"]
        if defaults.get("unit") == "sci" and "decimals" not in defaults:
            problems.append(f"{panel['title']}: all digits of sci")
        texts = {
            rule["matcher"]["options"]
            for rule in panel["fieldConfig"]["overrides"]
            if {"id": "unit", "value": "string"} in rule["properties"]
        }
        for step in panel.get("transformations", []):
            for field, title in step["options"].get("renameByName", {}).items():
                if not field.startswith("Value") and title not in texts:
                    problems.append(f"{panel['title']}: {title} is a number")
    return problems


def check_grid(board: dict[str, Any]) -> list[str]:
    """Check the grid, where each folded row has a grid of its own below it."""
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
    """Check that variables of several values are used in a regex, and All is a valid one."""
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
    """Check that legends use only labels that exist; they also name the columns of a table."""
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
    """Check that counters are not shown as they are, since they begin at 0 with each process."""
    problems = []
    for place, selector in selectors_of(board):
        allowed = TOTALS_AS_THEY_ARE.get((name, place.rpartition(" ")[0]), set())
        function = selector.functions[-1] if selector.has_range and selector.functions else ""
        if selector.name.endswith("_total"):
            if function not in COUNTER_FUNCTIONS and selector.name not in allowed:
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
        # An annotation's step is a minute or more, so its own interval contains scrapes.
        allowed = {*WINDOWS, "$__interval"} if place.startswith("annotation ") else WINDOWS
        wrong = [one for one in expression.windows if one.strip().rstrip(":") not in allowed]
        problems += [f"{place}: {one}" for one in {*wrong, *expression.durations}]
    return problems


def check_runs(board: dict[str, Any]) -> list[str]:
    """Check that no query covers all runs there ever were, except those that list the runs."""
    return [
        f"{place}: {selector.name or 'a selector'} of all runs"
        for place, selector in selectors_of(board)
        if not place.startswith("variable ") and not OF_NO_RUN.fullmatch(selector.name)
        if Matcher("run", "=~", "$run") not in selector.matchers
    ]


def check_links(board: dict[str, Any]) -> list[str]:
    """Check that the dashboards link to each other, and that links keep the selection."""
    links = [
        {key: link.get(key) for key in ("type", "keepTime", "includeVars", "tags")}
        for link in board["links"]
    ]
    # The SDK sets a placement by itself, and Grafana then hides the link in a menu.
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
    """Check a link: the dashboard that it opens takes its values, and defaults otherwise."""
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
    started, state = "run:dllogger_attempt_start_timestamp_seconds:min", "run:dllogger_state:last1h"
    wanted = {
        "Start": {started},
        "Restart": {started},
        "Finish": {state},
        "Told to end": {state},
        "NaN or Inf": {"rank:dllogger_nonfinite_total:nonzero"},
        "Alert": {"ALERTS"},
    }
    return [f"{name}: {asked.get(name)}" for name in wanted if wanted[name] != asked.get(name)]


def check_time(board: dict[str, Any]) -> list[str]:
    time = board["time"]
    problems = [f"time {time}"] * (time.get("to") != "now" or not time.get("from"))
    return problems + ["no refresh"] * (not board.get("refresh"))


def check_types(board: dict[str, Any]) -> list[str]:
    """Check the dashboard and each kind of panel against Grafana's own types."""
    plain = copy.deepcopy(board)
    for part, keys in LEFT_TO_THE_DATASOURCE.items():
        for one in plain[part]["list"]:
            for key in keys:
                one.pop(key, None)
    # One by one: otherwise the only message for a wrong one is that it is neither panel nor row.
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
    """Return the schema of an override of a standard setting, or of one of the panel kind."""
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
]

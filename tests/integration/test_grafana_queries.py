"""The stand-in for Grafana: it fills in, asks and refuses as Grafana would."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from grafana.pictures.board import load_board
from grafana.pictures.run import find_dashboards
from grafana.queries.dashboard import Dashboard
from grafana.queries.datasource import DataSource
from grafana.queries.interpolation import (
    DashboardError,
    Intervals,
    Variable,
    built_in,
    choose_intervals,
    interpolate,
    references,
    round_interval,
)
from tests.support.prometheus import Prometheus, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

PAGE = b"""\
# TYPE dl_loss gauge
dl_loss{run="a.b",rank="0",stage="train"} 0.5
dl_loss{run="a.b",rank="2",stage="train"} 0.25
dl_loss{run="a.b",rank="10",stage="val"} NaN
dl_loss{run="c (2)",rank="0",stage="train"} 2
# TYPE steps counter
steps_total{run="a.b"} 7
"""

RUN = Variable("run", "a.b")
RUNS = Variable("runs", ["a.b", "c (2)"], "a.b + c (2)", is_list=True)
ONE_RUN = Variable("one", ["a.b"], is_list=True)
ALL_RANKS = Variable("rank", ".+", "All", is_list=True, is_raw=True, options=["0", "2", "10"])
PATH = Variable("path", r"C:\it's")
PATHS = Variable("paths", [r"C:\it's"], is_list=True)
KNOWN = {one.name: one for one in (RUN, RUNS, ONE_RUN, ALL_RANKS, PATH, PATHS)}

INTERPOLATED = [
    ('x{run="$run"}', 'x{run="a.b"}'),
    ('x{run="${run}"}', 'x{run="a.b"}'),
    ('x{run="[[run]]"}', 'x{run="a.b"}'),
    # A variable of several values is part of a regex, even with one value in it.
    ('x{run=~"$one"}', r'x{run=~"a\\.b"}'),
    ('x{run=~"$runs"}', r'x{run=~"(a\\.b|c \\(2\\))"}'),
    # A format of its own takes the place of the data source's: one backslash, not two.
    ('x{run=~"${runs:regex}"}', r'x{run=~"(a\.b|c \(2\))"}'),
    ('x{run=~"${one:regex}"}', r'x{run=~"a\.b"}'),
    ('x{run=~"${runs:pipe}"}', 'x{run=~"a.b|c (2)"}'),
    ('x{run=~"[[runs:pipe]]"}', 'x{run=~"a.b|c (2)"}'),
    ("${runs:raw}", "a.b,c (2)"),
    ("${runs:csv}", "a.b,c (2)"),
    ("${runs:glob}", "{a.b,c (2)}"),
    ("${runs:json}", '["a.b", "c (2)"]'),
    ("${runs:doublequote}", '"a.b","c (2)"'),
    ("${runs:singlequote}", "'a.b','c (2)'"),
    ("${runs:text}", "a.b + c (2)"),
    ('x{rank=~"$rank"}', 'x{rank=~".+"}'),
    ('x{rank=~"${rank:regex}"}', 'x{rank=~".+"}'),
    ("${rank:text}", "All"),
    ("$path", r"C:\\it\\'s"),
    ("$paths", r"C:\\\\it's"),
    (
        'label_replace(x, "a", "$1", "b", "(.*)") ${1}',
        'label_replace(x, "a", "$1", "b", "(.*)") ${1}',
    ),
    ('x{run=~"a$"}', 'x{run=~"a$"}'),
    ("rate(x[$__rate_interval]) or x[$__interval]", "rate(x[60s]) or x[15s]"),
    ("$__interval_ms ${__rate_interval_ms}", "15000 60000"),
    ("[$__range] $__range_s ${__range_ms}", "[3600s] 3600 3600000"),
    ("$__from ${__to} ${__from:date:seconds}", "1000000 4600000 1000"),
    ("${__from:date:iso} ${__from:date}", "1970-01-01T00:16:40.000Z 1970-01-01T00:16:40.000Z"),
]


@pytest.mark.parametrize(("text", "expected"), INTERPOLATED)
def test_a_variable_is_filled_in_as_by_grafana(text: str, expected: str) -> None:
    """Each format gives what Grafana gives, and the data source's own is the default."""
    known = KNOWN | built_in(1000, 4600, Intervals(15.0, 60.0))
    assert expected == interpolate(text, known)


@pytest.mark.parametrize("text", ["$rnu", "${rnu}", "[[rnu]]", "${run.field}", "${run:no_format}"])
def test_what_grafana_would_leave_as_text_is_an_error(text: str) -> None:
    """A variable or a format that is not there is named in the error."""
    with pytest.raises(DashboardError, match=r"rnu|field|no_format"):
        interpolate(text, KNOWN)


def test_references_are_found_in_every_spelling() -> None:
    """All three spellings count, and the groups of label_replace do not."""
    assert {"a", "b", "c", "d"} == references("$a [[b]] ${c:raw} $1 ${d.e} $")


@pytest.mark.parametrize(
    ("options", "step_s", "rate_s"),
    [
        # An hour on 800 pixels is 4.5 s a point, less than a scrape.
        ({"range_s": 3600, "points": 800}, 15, 60),
        ({"range_s": 3600, "points": 100}, 30, 60),
        # 216 s a point is rounded to 5 m; a rate needs one scrape more.
        ({"range_s": 86400, "points": 400}, 300, 315),
        ({"range_s": 3600, "points": 800, "panel_minimum": "1m"}, 60, 75),
        ({"range_s": 3600, "points": 800, "target_minimum": "1m"}, 60, 240),
        ({"range_s": 3600, "points": 800, "target_minimum": "$__rate_interval"}, 60, 60),
        ({"range_s": 3600, "points": 800, "target_minimum": "$__interval"}, 15, 60),
        ({"range_s": 3600, "points": 800, "factor": 2}, 30, 60),
        # No more than about 11,000 points, whatever the panel asks for: 78.5 s become 1 m. The
        # rate goes by the 10 s that were asked for.
        ({"range_s": 864_000, "points": 100_000}, 60, 60),
    ],
)
def test_the_step_is_chosen_as_by_grafana(
    options: dict[str, Any], step_s: float, rate_s: float
) -> None:
    """Range, width and minima give the step, and the scrape interval gives the rate's."""
    assert Intervals(step_s, rate_s) == choose_intervals(scrape_interval_s=15, **options)


def test_intervals_are_rounded_as_by_grafana() -> None:
    """A bound belongs to the interval above it."""
    given = [0.003, 0.0149, 1.4, 1.5, 17.4, 17.5, 5400, 100_000]
    assert [0.001, 0.01, 1, 2, 15, 20, 7200, 86400] == [round_interval(one) for one in given]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataSource]:
    """Run a Prometheus that scrapes one page that stays as it is."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(PAGE)

        def log_message(self, *_arguments: object) -> None:
            pass

    page = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=page.serve_forever, args=(0.05,))
    thread.start()
    folder = tmp_path_factory.mktemp("grafana")
    target = {"targets": [f"127.0.0.1:{page.server_port}"]}
    (folder / "page.json").write_text(json.dumps([target]))
    start_s = time.time()
    try:
        with Prometheus(folder / "prometheus", discovery=folder) as server:
            # Two scrapes, so that an instant at the end and a range have points.
            wait_for(lambda: server.query("count_over_time(steps_total[1m]) > 1"), bool)
            yield DataSource(server.url, start_s=start_s, end_s=time.time(), scrape_interval_s=1)
    finally:
        page.shutdown()
        thread.join()
        page.server_close()


def variable(name: str, query: Any, **options: Any) -> dict[str, Any]:
    """Return a variable as Grafana writes it."""
    uid = {"type": "prometheus", "uid": "${source}"}
    return {"name": name, "type": "query", "datasource": uid, "query": query, **options}


def target(expr: str, ref_id: str = "A", **options: Any) -> dict[str, Any]:
    """Return a target as Grafana writes it."""
    return {"refId": ref_id, "expr": expr, "range": True, **options}


def panel(title: str, *targets: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return a panel as Grafana writes it."""
    place = {"gridPos": {"h": 8, "w": 12, "x": 0, "y": 0}}
    return {"title": title, "type": "timeseries", "targets": [*targets], **place, **options}


SOURCE = {"name": "source", "type": "datasource", "query": "prometheus"}


def dashboard(
    source: DataSource, *panels: dict[str, Any], variables: Any = (), **chosen: Any
) -> Dashboard:
    """Return a small dashboard with its variables filled in."""
    templating = {"list": [*variables, SOURCE]}
    return Dashboard(
        {"uid": "small", "panels": [*panels], "templating": templating}, source, **chosen
    )


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (variable("v", "label_values(run)"), "a.b"),
        (variable("v", "label_values(dl_loss, run)", sort=2), "c (2)"),
        (variable("v", {"qryType": 1, "query": 'label_values(dl_loss{run="a.b"},rank)'}), "0"),
        (variable("v", "label_values(dl_loss, rank)", sort=4), "10"),
        (variable("v", "label_values(dl_loss, rank)", sort=3, regex="/[1-9].*/"), "2"),
        (variable("v", "label_values(dl_loss, run)", regex="/^(.)/", sort=2), "c"),
        (variable("v", "label_values(dl_loss, run)", regex="a"), ""),
        (variable("v", "metrics(dl_.*)"), "dl_loss"),
        (variable("v", "query_result(steps_total)", regex='/.*run="(?<value>[^"]*)".*/'), "a.b"),
        (variable("v", "query_result(sum(steps_total))", regex="/ ([0-9]+) /"), "7"),
        (variable("v", "steps_total", regex='/run="([^"]*)"/'), "a.b"),
        (variable("v", "label_values(dl_loss, run)", current={"value": "c (2)"}), "c (2)"),
        (variable("v", "label_values(dl_loss, run)", current={"value": "gone"}), "a.b"),
        (variable("v", "label_values(dl_loss, run)", multi=True), ["a.b"]),
        (variable("v", "label_values(dl_loss, run)", includeAll=True), ["a.b", "c (2)"]),
        (
            variable("v", "label_values(dl_loss, run)", includeAll=True, multi=True, allValue=".+"),
            ".+",
        ),
        (
            variable(
                "v", "label_values(run)", includeAll=True, current={"value": ["c (2)"]}, multi=True
            ),
            ["c (2)"],
        ),
        ({"name": "v", "type": "custom", "query": "one : 1,two : 2"}, "1"),
        ({"name": "v", "type": "custom", "query": "1,2", "includeAll": True}, ["1", "2"]),
        ({"name": "v", "type": "custom", "query": "p50,p99", "current": {"value": "p99"}}, "p99"),
        ({"name": "v", "type": "textbox", "query": "any", "current": {"value": "mine"}}, "mine"),
        ({"name": "v", "type": "constant", "query": "fixed"}, "fixed"),
        ({"name": "v", "type": "interval", "query": "1m,5m", "current": {"value": "5m"}}, "5m"),
        ({"name": "v", "type": "interval", "query": "1m", "auto": True, "auto_min": "10s"}, "10s"),
        (SOURCE | {"name": "v"}, "prometheus"),
    ],
)
def test_a_variable_takes_the_value_that_grafana_gives_it(
    source: DataSource, made: dict[str, Any], expected: Any
) -> None:
    """Query, regex, sort, All and what was saved decide the value that a user meets first."""
    assert expected == dashboard(source, variables=[made]).variables["v"].value


def test_variables_are_resolved_in_the_order_of_their_needs(source: DataSource) -> None:
    """A variable that stands before what it needs is filled in after it, by what is chosen."""
    chain = [
        variable("rank", 'label_values(dl_loss{run="$run",stage=~"$stage"}, rank)', sort=4),
        variable("stage", 'label_values(dl_loss{run="$run"}, stage)', includeAll=True, multi=True),
        variable("run", "label_values(dl_loss, run)"),
    ]
    first = dashboard(source, variables=chain)
    assert "10" == first.variables["rank"].value
    assert ["train", "val"] == first.variables["stage"].value
    chosen = dashboard(source, variables=chain, stage=["train"])
    assert "2" == chosen.variables["rank"].value
    assert "0" == dashboard(source, variables=chain, run="c (2)").variables["rank"].value


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ([variable("a", "label_values($b)"), variable("b", "label_values($a)")], "need each other"),
        ([variable("a", "label_values(x{, run)")], "'a'"),
        ([variable("a", "label_values(x{run='$gone'}, run)")], r"\$gone"),
        ([variable("a", "")], "no query"),
        ([{"name": "a", "type": "adhoc"}], "adhoc"),
    ],
)
def test_a_broken_variable_is_an_error(
    source: DataSource, variables: list[Any], message: str
) -> None:
    """Circles, refused selectors, undefined and unknown variables say which one it is."""
    with pytest.raises(DashboardError, match=message):
        dashboard(source, variables=variables)


def test_panels_answer_with_labels_and_values(source: DataSource) -> None:
    """Range, instant, both, hidden and nested targets are asked, as their options say."""
    board = dashboard(
        source,
        panel("Now", target("dl_loss", instant=True, range=False)),
        {
            "type": "row",
            "title": "Row",
            "panels": [
                panel(
                    "Loss of $run",
                    target('dl_loss{run="$run"}', instant=True, legendFormat="{{rank}} of $run"),
                    target("steps_total", "B", hide=True),
                )
            ],
        },
        variables=[variable("run", "label_values(dl_loss, run)")],
    )
    now, row, nested = board.panels
    (instant,) = board.run(now)
    assert {"a.b": 0.5, "c (2)": 2.0} == {
        frame.labels["run"]: frame.samples[0][1]
        for frame in instant.frames
        if frame.labels["rank"] == "0"
    }
    assert [[], [0.25], [0.5], [2.0]] == sorted(frame.finite for frame in instant.frames)
    assert [] == board.run(row)
    assert "Loss of a.b" == nested.title
    ranged, at_end, hidden = board.run(nested)
    assert [False, True, False] == [one.query.is_instant for one in (ranged, at_end, hidden)]
    assert [False, False, True] == [one.query.is_hidden for one in (ranged, at_end, hidden)]
    assert [3, 3, 1] == [len(one.frames) for one in (ranged, at_end, hidden)]
    assert 4 == board.series_drawn(now)
    assert 6 == board.series_drawn(nested)
    assert {7.0} == set(hidden.frames[0].finite)


def test_a_table_draws_rows(source: DataSource) -> None:
    """The targets of a table are columns, so its rows are those of the longest."""
    options = {"instant": True, "range": False, "format": "table"}
    targets = target("dl_loss", **options), target("steps_total", "B", **options)
    board = dashboard(source, panel("Table", *targets, type="table"))
    assert 4 == board.series_drawn(board.panels[0])


def test_repeated_panels_and_rows_are_asked_for_each_value(source: DataSource) -> None:
    """A panel and a row, open or closed, stand once for each value of their variable."""
    runs = variable("run", "label_values(dl_loss, run)", includeAll=True, multi=True, allValue=".*")
    count = panel("Ranks of $run", target('count(dl_loss{run=~"$run"})'))
    board = dashboard(
        source,
        {**count, "repeat": "run"},
        {"type": "row", "title": "Closed $run", "repeat": "run", "panels": [count]},
        {"type": "row", "title": "Open", "repeat": "run"},
        count,
        variables=[runs],
    )
    drawn = [one for one in board.panels if one.kind != "row"]
    assert ["Ranks of a.b", "Ranks of c (2)"] * 3 == [one.title for one in drawn]
    counts = [board.run(one)[0].frames[0].finite[0] for one in drawn]
    assert [3.0, 1.0] * 3 == counts


def test_annotations_are_asked(source: DataSource) -> None:
    """Old and new annotations ask Prometheus, Grafana's own nothing."""
    board = dashboard(source)
    board.model["annotations"] = {
        "list": [
            {"name": "Alerts of Grafana", "builtIn": 1, "datasource": {"uid": "-- Grafana --"}},
            {"name": "old", "expr": "steps_total", "step": "1s"},
            {"name": "new", "target": {"expr": "dl_loss", "interval": "1s"}},
        ]
    }
    answers = [source.run(query) for query in board.annotation_queries()]
    assert ["annotation old", "annotation new"] == [one.query.panel for one in answers]
    assert [1, 4] == [len(one.frames) for one in answers]


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (panel("Speed", target("rate(dl_loss)")), r"'Speed', target A: .*\n +rate\(dl_loss\)"),
        (panel("Speed", target("dl_loss{run='$gone'}")), r"'Speed', target A: .*\$gone"),
        (panel("Speed", target("dl_loss", legendFormat="$gone")), r"'Speed', target A: .*\$gone"),
        (panel("Speed", target("")), "'Speed', target A: no expression"),
        (panel("Speed"), "'Speed' has no target"),
        (panel("Speed", target("x", datasource={"type": "loki"})), "loki"),
        (panel("Speed", target("x"), datasource={"uid": "$gone"}), r"\$gone"),
    ],
)
def test_a_broken_panel_says_which_it_is(
    source: DataSource, broken: dict[str, Any], message: str
) -> None:
    """A refused query, an undefined variable and an empty panel name panel and query."""
    board = dashboard(source, broken)
    with pytest.raises(DashboardError, match=message):
        board.run(board.panels[0])


def test_what_is_not_there_is_an_error(source: DataSource) -> None:
    """A title's or a repeat's variable must be defined, and a chosen one as well."""
    for broken in (panel("$gone"), panel("x", repeat="gone")):
        with pytest.raises(DashboardError, match="gone"):
            dashboard(source, broken)
    with pytest.raises(DashboardError, match="gone"):
        dashboard(source, gone="1")
    runs = variable("run", "label_values(run)", multi=True)
    for missing in (["gone"], ["$__all"]):
        with pytest.raises(DashboardError, match="does not offer"):
            dashboard(source, variables=[runs], run=missing)


@pytest.mark.parametrize("path", find_dashboards(), ids=lambda path: path.stem)
def test_a_picture_has_every_panel_and_every_answer(source: DataSource, path: Path) -> None:
    """What the renderer reads is JSON that leaves out no panel, and no query of one."""
    board = Dashboard.load(path, source)
    read = json.loads(json.dumps(load_board(board), allow_nan=False))
    panels = [panel for row in read["rows"] for panel in row["panels"]]
    expected = [one for one in board.panels if one.kind != "row"]
    assert [(one.title, len(board.queries(one))) for one in expected] == [
        (one["title"], len(one["answers"])) for one in panels
    ]
    titles = [one.title for one in board.panels if one.kind == "row"]
    assert titles == [row["title"] for row in read["rows"]]


def test_a_picture_has_answers_as_they_are(source: DataSource) -> None:
    """Labels, values that are not finite, legends, hidden targets and steps."""
    name = "Loss of $run"
    targets = [
        target("dl_loss", legendFormat="{{rank}} of $run", instant=True, range=False),
        target("steps_total", "B", hide=True, interval="7s", format="table"),
    ]
    board = dashboard(
        source,
        panel(name, *targets),
        {"type": "alertlist", "title": "Alerts", "gridPos": {}},
        variables=[variable("run", "label_values(dl_loss, run)", label="Run")],
    )
    board.model |= {"title": "Small"}
    read = load_board(board)
    assert ("Small", [{"label": "Run", "text": "a.b"}]) == (read["title"], read["variables"])
    assert 1000 * source.start_s == read["from_ms"]
    (row,) = read["rows"]
    loss, alerts = row["panels"]
    assert ("", "Loss of a.b", "Alerts") == (row["title"], loss["title"], alerts["title"])
    assert "a.b" == loss["variables"]["run"]
    assert [] == alerts["answers"]
    shown, hidden = loss["answers"]
    assert ("{{rank}} of a.b", "time_series", None) == (
        shown["legend"],
        shown["format"],
        shown["step_ms"],
    )
    assert {("a.b", "0", 0.5), ("a.b", "2", 0.25), ("a.b", "10", "nan"), ("c (2)", "0", 2.0)} == {
        (one["labels"]["run"], one["labels"]["rank"], one["samples"][-1][1])
        for one in shown["series"]
    }
    assert (False, True) == (shown["is_hidden"], hidden["is_hidden"])
    assert ("table", 7000) == (hidden["format"], hidden["step_ms"])


def test_a_picture_is_refused_for_an_annotation_that_is_broken(source: DataSource) -> None:
    """Annotations are not drawn, but asked."""
    board = dashboard(source)
    board.model["annotations"] = {"list": [{"name": "Broken", "expr": "dl_loss{"}]}
    with pytest.raises(DashboardError, match="annotation Broken"):
        load_board(board)

"""The pictures of the dashboards: values, names and tables as Grafana has them, then drawn."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import yaml

from tests.support.paths import ROOT

pytest.importorskip("matplotlib")

from PIL import Image

from grafana.preview import colours
from grafana.preview.axes import choose_range
from grafana.preview.charts import name_curves
from grafana.preview.dashboard import Dashboard
from grafana.preview.datasource import DataSource, Frame, Query, Result
from grafana.preview.draw import DRAWERS, WIDTH_PX, draw_board, place
from grafana.preview.fields import fill_display_name, fill_legend, find_field
from grafana.preview.interpolation import Intervals
from grafana.preview.panel_data import (
    Board,
    BoardRow,
    Mark,
    PanelData,
    find_spans,
    load_board,
)
from grafana.preview.table_panel import sort_rows
from grafana.preview.training import SHIPPED, lapse, make_plans
from grafana.preview.transform import (
    TRANSFORMATIONS,
    Table,
    grouping_to_matrix,
    make_tables,
    merge,
    organize,
    partition_by_values,
    transform,
)
from grafana.preview.units import format_ticks, format_value
from tests.support.prometheus import Prometheus, find_program, wait_for

pytestmark = pytest.mark.newest_only

DASHBOARDS = sorted((ROOT / "grafana" / "dashboards").glob("*.json"))
START_S, STEP_S = 1_700_000_000.0, 15.0

FORMATTED = [
    (0.0, "short", None, "0"),
    (3.0, "short", None, "3"),
    (0.12345, "short", None, "0.123"),
    (12.345, "short", None, "12.3"),
    (123.45, "short", None, "123"),
    (1234.5, "short", None, "1.23 K"),
    (1000.0, "short", None, "1 K"),
    (51_234_567.0, "short", None, "51.2 Mil"),
    (-2500.0, "short", None, "-2.50 K"),
    (1.0166, "short", 0, "1"),
    (0.5, "short", 0, "1"),
    (2.5e-7, "s", None, "250 ns"),
    (0.00012, "s", None, "120 µs"),
    (0.0183, "s", None, "18.3 ms"),
    (1.5, "s", None, "1.50 s"),
    (90.0, "s", None, "1.50 mins"),
    (5400.0, "s", None, "1.50 hours"),
    (129_600.0, "s", None, "1.50 days"),
    (0.0, "s", None, "0 s"),
    (1500.0, "ms", None, "1.50 s"),
    (20.0, "ms", None, "20 ms"),
    (1.271, "percentunit", None, "127%"),
    (0.0123, "percentunit", None, "1.23%"),
    (2048.0, "bytes", None, "2 KiB"),
    (0.000181, "sci", None, "1.81e-4"),
    (0.0, "sci", None, "0e+0"),
    (1_700_000_000_000.0, "dateTimeAsIso", None, "2023-11-14 22:13:20"),
    (math.nan, "s", None, "NaN"),
    (math.inf, "short", None, "∞"),
    (None, "short", None, ""),
]


@pytest.mark.parametrize(("value", "unit", "decimals", "expected"), FORMATTED)
def test_values_are_written_as_grafana_writes_them(value, unit, decimals, expected):
    """Three digits unless told otherwise, scaled by the unit."""
    assert expected == format_value(value, unit, decimals)


def test_a_unit_that_is_not_known_is_an_error_that_says_so():
    """A wrong picture is worse than none."""
    with pytest.raises(ValueError, match="'furlongs' is not known"):
        format_value(1.0, "furlongs")


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([0.0, 0.25, 0.5], "short", ["0.00", "0.25", "0.50"]),
        ([0.0, 500.0, 1000.0, 1500.0], "short", ["0", "500", "1.0 K", "1.5 K"]),
        ([0.0, 0.01, 0.02], "s", ["0 s", "10 ms", "20 ms"]),
        ([50.0, 75.0, 100.0], "s", ["50 s", "1.25 mins", "1.67 mins"]),
        ([0.0, 100.0], "dthms", ["00:00:00", "00:01:40"]),
        ([0.5, 1.0, 1.5], "percentunit", ["50%", "100%", "150%"]),
    ],
)
def test_the_numbers_of_an_axis_tell_each_other_apart(values, unit, expected):
    """All have the decimals that their distance needs."""
    assert expected == format_ticks(values, unit)


@pytest.mark.parametrize(
    ("legend", "labels", "expected"),
    [
        ("rank {{rank}} {{run}}", {"rank": "3", "run": "a"}, "rank 3 a"),
        ("{{ rank }}", {"rank": "3"}, "3"),
        ("{{metric}} {{stage}}", {"metric": "loss"}, "loss"),
        ("__auto", {"b": "2", "a": "1", "__name__": "x"}, 'x{a="1", b="2"}'),
        ("", {"__name__": "up"}, "up"),
        ("", {}, "{}"),
    ],
)
def test_legends_are_filled_in_from_labels(legend, labels, expected):
    """A label that is not there is nothing."""
    assert expected == fill_legend(legend, labels)


def test_display_names_are_filled_in_from_labels():
    """As overrides have them."""
    text = "${__field.labels.run} ${__field.labels.metric}"
    assert "a loss" == fill_display_name(text, {"run": "a", "metric": "loss"})


def test_curves_are_named_by_what_they_do_not_have_in_common():
    """An XY chart cuts equal words off both ends of its names."""
    tables = [Table([], [], {"job": "j", "run": run, "stage": "train"}) for run in ("one", "two")]
    assert ['run="one",', 'run="two",'] == name_curves({}, tables, "Value #B")
    shown = {"id": "displayName", "value": "${__field.labels.run}"}
    matcher = {"id": "byName", "options": "Value #B"}
    model = {"fieldConfig": {"overrides": [{"matcher": matcher, "properties": [shown]}]}}
    assert ["one", "two"] == name_curves(model, tables, "Value #B")
    assert ["one"] == name_curves(model, tables[:1], "Value #B")


def test_overrides_hold_for_the_fields_that_they_match():
    """By name, by target, by pattern; the last one wins."""
    model = {
        "fieldConfig": {
            "defaults": {"unit": "s", "custom": {"lineWidth": 2}},
            "overrides": [
                {
                    "matcher": {"id": "byFrameRefID", "options": "B"},
                    "properties": [{"id": "custom.lineWidth", "value": 1}],
                },
                {
                    "matcher": {"id": "byName", "options": "Steps"},
                    "properties": [{"id": "unit", "value": "short"}],
                },
            ],
        }
    }
    assert ("s", 2) == _unit_and_width(find_field(model, {"x"}, "A"))
    assert ("s", 1) == _unit_and_width(find_field(model, {"x"}, "B"))
    assert ("short", 2) == _unit_and_width(find_field(model, {"Value #C", "Steps"}))


def test_values_are_written_by_their_mappings():
    """A mapping says what a value means; what is not mapped is a number."""
    options = {"0": {"text": "trains"}, "1": {"text": "finished"}}
    mappings = [{"type": "value", "options": options}]
    field = find_field({"fieldConfig": {"defaults": {"mappings": mappings}}}, set())
    assert ["trains", "finished", "2"] == [field.format(value) for value in (0.0, 1.0, 2.0)]


def test_colours_hold_from_their_thresholds_on():
    """The first one holds for all below, and for what has no value."""
    steps = [{"color": "green", "value": None}, {"color": "red", "value": 1}]
    green, red = colours.NAMED["green"], colours.NAMED["red"]
    found = [colours.threshold_colour(value, steps) for value in (None, 0.5, 1.0, 2.0)]
    assert [green, green, red, red] == found


def test_tables_have_time_labels_and_value():
    """Several queries have a column for each; rows come by time."""
    first = _result("A", {"run": "a", "job": "j"}, [(2.0, 5.0), (1.0, 4.0)])
    second = _result("B", {"run": "a"}, [(1.0, 6.0)])
    hidden = _result("C", {"run": "a"}, [(1.0, 6.0)], hidden=True)
    tables = make_tables([first, second, hidden, _result("D", None, [])])
    assert (
        Table(
            ["Time", "job", "run", "Value #A"], [[1000.0, "j", "a", 4.0], [2000.0, "j", "a", 5.0]]
        )
        == tables[0]
    )
    assert Table(["Time", "run", "Value #B"], [[1000.0, "a", 6.0]]) == tables[1]
    assert ["Time", "run", "Value"] == make_tables([second])[0].columns


def test_merge_joins_rows_that_agree_in_the_columns_of_all():
    """A row without a partner stays, with empty cells."""
    left = Table(["rank", "host", "Value #A"], [["0", "x", 1.0], ["1", "y", 2.0]])
    right = Table(["rank", "Value #B"], [["1", 20.0], ["2", 30.0]])
    expected = Table(
        ["rank", "host", "Value #A", "Value #B"],
        [["0", "x", 1.0, None], ["1", "y", 2.0, 20.0], ["2", None, None, 30.0]],
    )
    assert [expected] == merge([left, right], {})


def test_merge_does_not_join_rows_that_contradict_each_other():
    """Two values of one column are two rows."""
    left = Table(["run", "Value"], [["a", 1.0]])
    right = Table(["run", "Value"], [["a", 2.0]])
    assert [["a", 1.0], ["a", 2.0]] == merge([left, right], {})[0].rows


def test_organize_leaves_out_orders_and_renames():
    """What has no place in the order comes last."""
    table = Table(["Time", "extra", "run", "Value"], [[1.0, "e", "a", 2.0]])
    options = {
        "excludeByName": {"Time": True, "run": False},
        "indexByName": {"Value": 0, "run": 1},
        "renameByName": {"Value": "Steps"},
    }
    organized = organize([table], options)[0]
    assert ["Steps", "run", "extra"] == organized.columns
    assert [[2.0, "a", "e"]] == organized.rows
    assert ["Value", "run", "extra"] == organized.sources


def test_grouping_to_matrix_makes_rows_and_columns_of_values():
    """A pair that is not there is an empty cell."""
    table = Table(
        ["name", "run", "Value"], [["lr", "a", 0.1], ["lr", "b", 0.2], ["size", "a", 8.0]]
    )
    options = {"rowField": "name", "columnField": "run", "valueField": "Value"}
    expected = Table(["name\\run", "a", "b"], [["lr", 0.1, 0.2], ["size", 8.0, None]])
    assert [expected] == grouping_to_matrix([table], options)


def test_partition_makes_a_table_for_each_set_of_values():
    """The values become labels of the table."""
    table = Table(["Time", "run", "x"], [[1.0, "a", 5.0], [1.0, "b", 6.0], [2.0, "a", 7.0]])
    options = {"fields": ["run", "stage"], "naming": {"asLabels": True}}
    expected = [
        Table(["Time", "x"], [[1.0, 5.0], [2.0, 7.0]], {"run": "a"}),
        Table(["Time", "x"], [[1.0, 6.0]], {"run": "b"}),
    ]
    assert expected == partition_by_values([table], options)


def test_a_transformation_that_is_not_known_is_an_error():
    """It would be another table than Grafana's."""
    with pytest.raises(ValueError, match="'pivot' is not known"):
        transform([], [{"id": "pivot"}])


def test_rows_are_sorted_as_the_panel_says():
    """Numbers by size; cells that are empty come last where the largest comes first."""
    table = Table(["rank", "time"], [["0", 2.0], ["1", None], ["2", 10.0]])
    rows = sort_rows(table, [{"displayName": "time", "desc": True}])
    assert ["2", "0", "1"] == [row[0] for row in rows]
    assert table.rows == sort_rows(table, [{"displayName": "gone", "desc": True}])


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1.0, 2.0], (0.9, 2.1)), ([0.0, 10.0], (0.0, 11.0)), ([4.0], (0.0, 4.4)), ([], (0.0, 1.1))],
)
def test_an_axis_has_some_room_but_does_not_cross_zero(values, expected):
    """What is never negative begins at zero or above."""
    assert pytest.approx(expected) == choose_range(values)


def test_panels_stand_where_grafana_puts_them():
    """24 columns side by side, units of 38 pixels one below the other."""
    left = place({"x": 0, "y": 5, "w": 12, "h": 9}, 5, 100.0)
    right = place({"x": 12, "y": 5, "w": 12, "h": 9}, 5, 100.0)
    assert (16.0, 100.0, 9 * 38 - 8) == (left.x, left.y, left.height)
    assert pytest.approx(8) == right.x - left.right
    assert pytest.approx(WIDTH_PX - 16) == right.right


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_everything_in_the_dashboards_can_be_drawn(path):
    """Panels, transformations, units and overrides."""
    for panel in _panels(json.loads(path.read_text())["panels"]):
        if panel["type"] == "row":
            continue
        assert panel["type"] in DRAWERS
        for one in panel.get("transformations", []):
            assert one["id"] in TRANSFORMATIONS
        field = find_field(panel, {"Value"}, "A")
        assert field.format(1.0)
        for override in panel["fieldConfig"]["overrides"]:
            units = [one["value"] for one in override["properties"] if one["id"] == "unit"]
            assert all(format_value(1.0, unit) for unit in units)


@pytest.mark.slow
@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_drawn_from_frames(path, tmp_path):
    """Every panel of it, into a small file in which every panel has something to see."""
    rows: list[BoardRow] = []
    for model in json.loads(path.read_text())["panels"]:
        if model["type"] == "row":
            rows.append(BoardRow(model["title"], bool(model.get("collapsed")), []))
        else:
            rows[-1].panels.append(_panel(model))
    file = tmp_path / "board.png"
    draw_board(Board(path.stem, [("Run", "a")], rows)).save(file)
    picture = Image.open(file)
    assert WIDTH_PX == picture.width
    assert picture.height > 1000
    assert 10_000 < file.stat().st_size < 400_000
    top = 96
    for row in rows:
        top += 38
        if row.is_closed:
            continue
        start = min(panel.model["gridPos"]["y"] for panel in row.panels)
        for panel in row.panels:
            box = place(panel.model["gridPos"], start, top)
            # Below the title: nothing but the background would be one colour.
            area = (int(box.x) + 6, int(box.y) + 32, int(box.right) - 6, int(box.bottom) - 4)
            seen = len(picture.crop(area).convert("RGB").getcolors(1 << 20))
            assert seen > 3, panel.title
        top += 38 * max(
            panel.model["gridPos"]["y"] + panel.model["gridPos"]["h"] - start
            for panel in row.panels
        )


def test_rows_without_data_are_closed_and_take_no_room():
    """As are those that are folded; a panel without data in another row says so."""
    model = json.loads(DASHBOARDS[0].read_text())["panels"][1]
    empty = PanelData("empty", model, [], START_S, START_S + 60)
    closed = draw_board(Board("b", [], [BoardRow("row", False, [empty])]))
    opened = draw_board(Board("b", [], [BoardRow("row", False, [empty, _panel(model)])]))
    assert closed.height + model["gridPos"]["h"] * 38 == opened.height


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_prometheus_without_runs_is_asked_and_drawn(path, tmp_path):
    """Nothing is there, so every row is closed; what is asked and drawn is all right."""
    (tmp_path / "discovery").mkdir()
    with Prometheus(tmp_path / "prometheus", discovery=tmp_path / "discovery") as prometheus:
        end_s = time.time()
        source = DataSource(prometheus.url, start_s=end_s - 60, end_s=end_s)
        board = load_board(Dashboard.load(path, source))
    assert [True] * len(board.rows) == [row.is_closed for row in board.rows]
    assert ("Run", "") in [
        (label, value if value != "All" else "") for label, value in board.variables
    ]
    assert draw_board(board).height < 96 + 38 * (len(board.rows) + 2)


def test_annotations_of_points_that_follow_each_other_are_one():
    """As Grafana joins them; a point that is 0 is none."""
    samples = [(0.0, 1.0), (15.0, 1.0), (30.0, 0.0), (60.0, 1.0)]
    found = list(find_spans(Frame({}, samples), 15.0, "red"))
    assert [Mark(0.0, 15.0, "red"), Mark(60.0, 60.0, "red")] == found


def test_the_shipped_configuration_runs_faster_and_is_otherwise_as_it_is(tmp_path):
    """Intervals and folders change, nothing else."""
    shipped = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    faster = lapse(shipped, [tmp_path / "a", tmp_path / "b"], SHIPPED / "rules")
    assert "2s" == faster["global"]["scrape_interval"] == faster["global"]["evaluation_interval"]
    discovery = faster["scrape_configs"][0]["file_sd_configs"][0]
    assert [f"{tmp_path}/a/*.json", f"{tmp_path}/b/*.json"] == discovery["files"]
    assert [str(SHIPPED / "rules" / "*.yml")] == faster["rule_files"]
    for name in shipped.keys() - {"global", "rule_files", "scrape_configs"}:
        assert shipped[name] == faster[name]
    expected = {**shipped["scrape_configs"][0], "file_sd_configs": [discovery]}
    assert expected == faster["scrape_configs"][0]


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_the_runs_have_names_and_a_time_of_their_own(ranks):
    """The first one ends, then comes the second one, which trains when the picture is taken."""
    first, second = make_plans(ranks)
    assert first.run != second.run
    assert first.begin + first.length < second.begin < 1
    assert second.begin + second.length > 1


def test_without_prometheus_it_says_so_in_one_line(tmp_path):
    """What is missing, and how to get it."""
    done = subprocess.run(
        [sys.executable, "-m", "grafana.preview", "--output", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 1 == done.returncode
    assert ["grafana.preview: no prometheus on PATH; install it (apt-get install prometheus)"] == (
        done.stderr.splitlines()
    )


def is_alive(process):
    """Tell whether a process still runs, which one that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_an_interrupt_ends_everything_that_was_started(tmp_path):
    """Ctrl-C leaves no Prometheus, no rank and no folder."""
    find_program("prometheus")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "grafana.preview",
            "--ranks",
            "2",
            "--output",
            str(tmp_path / "out"),
        ],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # Prometheus, and the one rank of the first run.
        own = psutil.Process(process.pid)
        started = wait_for(own.children, lambda children: len(children) >= 2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (130, "") == (process.returncode, errors)
    assert output.startswith("training for 240 s")
    # They were waited for; whose parent has gone may lie there until init has looked.
    wait_for(lambda: [child for child in started if is_alive(child)], lambda alive: not alive)
    assert [tmp_path / "out"] == list(tmp_path.iterdir())


def _unit_and_width(field):
    return field.unit, field.settings["custom.lineWidth"]


def _panels(panels):
    for panel in panels:
        yield panel
        yield from _panels(panel.get("panels") or [])


def _result(ref_id, labels, samples, *, hidden=False):
    query = Query("panel", ref_id, "up", False, hidden, Intervals(STEP_S, 4 * STEP_S))
    return Result(query, [] if labels is None else [Frame(labels, samples)], 0.0)


def _panel(model):
    """Give each target of a panel two lines with a gap in them."""
    results = []
    for target in model["targets"]:
        query = Query("p", target["refId"], "up", False, False, Intervals(STEP_S, 4 * STEP_S))
        frames = []
        for number in (1, 2):
            labels = {
                "job": "j",
                "run": f"run-{number}",
                "rank": str(number),
                "host": "h",
                "metric": "loss",
                "stage": "train",
                "granularity": "epoch",
                "name": "lr",
                "of_median": str(number / 2),
            }
            samples = [
                (START_S + index * STEP_S, math.nan if index == 7 else number + index / 10)
                for index in range(20)
            ]
            frames.append(Frame(labels, samples[-1:] if target.get("instant") else samples))
        results.append(Result(query, frames, 0.0))
    marks = [Mark(START_S + 60, START_S + 60, "red"), Mark(START_S + 90, START_S + 120, "blue")]
    return PanelData(model["title"], model, results, START_S, START_S + 300, marks)

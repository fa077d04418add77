"""What the scripts of charts work out before anything is drawn, in a real Chromium."""

from __future__ import annotations

import math

import pytest

from tests.support.browser import open_browser
from tests.support.paths import ROOT

pytestmark = pytest.mark.newest_only

PAGE = ROOT / "otel_dllogger" / "view" / "page"
SCRIPTS = ("numbers", "smoothing", "colours", "scales", "lines", "tooltip")
SETTINGS = {
    "smoothing_half_life": 0,
    "is_log": False,
    "show_all_lines": False,
    "highlighted": [],
    "hidden": [],
}


@pytest.fixture(scope="module")
def page():
    with open_browser() as browser:
        page = browser.new_page()
        for name in SCRIPTS:
            page.add_script_tag(path=PAGE / f"{name}.js")
        yield page


def line(rank, mean, *, segment=0, is_redone=False, nonfinite=()):
    return {
        "run": "a",
        "rank": rank,
        "segment": segment,
        "is_redone": is_redone,
        "mean": mean,
        "least": mean,
        "greatest": mean,
        "nonfinite": list(nonfinite),
    }


def curves(lines, places, **more):
    ranks = len({each["rank"] for each in lines})
    columns = zip(*(each["mean"] for each in lines), strict=True)
    median = [sorted(column, key=str)[len(column) // 2] for column in columns]
    band = {"run": "a", "ranks": ranks, "least": median, "median": median, "greatest": median}
    facts = {"metric": "m", "is_exact": True, "axis": "step", "axis_title": "", "title": "m"}
    return {
        **facts,
        "unit": "",
        "marks": [],
        "places": places,
        "lines": lines,
        "bands": [band],
    } | more


def choose(page, found, **settings):
    return page.evaluate(
        "([curves, settings]) => chooseLines(curves, settings)", [found, SETTINGS | settings]
    )


def smooth(page, places, values, half_life):
    return page.evaluate("(given) => smooth(...given)", [places, values, half_life])


def test_smoothing_keeps_constants_and_begins_at_the_first_value(page):
    assert smooth(page, [0, 1, 5, 6], [2, 2, 2, 2], 3) == pytest.approx([2, 2, 2, 2])
    assert smooth(page, [0, 1, 2], [8, 0, 0], 1)[0] == 8


def test_a_half_life_is_in_steps(page):
    """A step down is half gone after it, however far apart the places are."""
    for stride in (1, 4):
        places = list(range(0, 400, stride))
        values = [1.0 if place < 200 else 0.0 for place in places]
        found = smooth(page, places, values, 20)
        after = found[places.index(220 - stride)]  # it stands for all up to the next place
        assert after == pytest.approx(0.5, abs=0.02)


def test_smoothing_leaves_gaps(page):
    assert smooth(page, [0, 1, 2], [1, None, 3], 5)[1] is None


@pytest.mark.parametrize(
    ("values", "is_log", "kind"),
    [([1, 2], False, "linear"), ([1, 2], True, "log"), ([0, 2], True, "asinh")],
)
def test_the_scale_fits_the_values(page, values, is_log, kind):
    assert page.evaluate("(given) => chooseScale(...given).kind", [[values], is_log]) == kind


@pytest.mark.parametrize("is_log", [False, True])
@pytest.mark.parametrize("values", [[], [None], [0.5], [-3, 1e6], [1e-30, 1e30], [0, 0]])
def test_there_always_is_a_range_that_holds_the_values(page, values, is_log):
    known = [value for value in values if value is not None]
    low, high, ticks = page.evaluate(
        """([values, isLog]) => {
          const known = values.filter((value) => value !== null);
          const scale = chooseScale([values], isLog);
          const range = known.length
            ? valueRange(scale, Math.min(...known), Math.max(...known))
            : valueRange(scale, null, null);
          return [...range, valueTicks(scale, ...range, 5)];
        }""",
        [values, is_log],
    )
    assert math.isfinite(low)
    assert low < high
    assert all(low <= value <= high for value in known)
    assert 1 <= len(ticks) <= 14
    assert ticks == sorted(ticks)


def test_a_place_with_nan_only_is_a_gap_and_one_without_a_record_is_not(page):
    found = curves([line(0, [1, None, 3, None, 5], nonfinite=[[1, 2]])], [0, 1, 2, 3, 4])
    kinds = page.evaluate(
        "([curves, settings]) => chooseLines(curves, settings).lines[0].mean.map((value) =>"
        " value === null ? 'gap' : typeof value)",
        [found, SETTINGS],
    )
    assert kinds == ["number", "gap", "number", "undefined", "number"]


def test_steps_that_were_done_again_are_apart(page):
    lines = [
        line(0, [1, 2, 3, 4, None], is_redone=True),
        line(0, [None, None, 5, 6, 7], segment=1),
    ]
    found = choose(page, curves(lines, [0, 1, 2, 3, 4], bands=[]))["lines"]
    drawn = [(each["is_redone"], [v for v in each["mean"] if v is not None]) for each in found]
    assert drawn == [(False, [1, 2, 3]), (True, [3, 4]), (False, [5, 6, 7])]
    assert len({each["order"] for each in found}) == 1


def test_above_eight_ranks_the_worst_three_and_the_chosen_ones_have_lines(page):
    lines = [line(rank, [1.0 + (rank in (4, 7, 9)) * rank] * 4) for rank in range(20)]
    found = curves(lines, [0, 1, 2, 3])
    drawing = choose(page, found, highlighted=[["a", 2]], hidden=[["a", 9]])
    assert drawing["is_many"]
    assert [each["rank"][1] for each in drawing["lines"]] == [2, 4, 7]
    assert len({each["order"] for each in drawing["lines"]}) == 3
    assert len(choose(page, found, show_all_lines=True)["lines"]) == 20


def test_the_worst_three_change_only_if_others_are_clearly_worse(page):
    """Or a live chart would show other lines each second."""
    lines = [line(rank, [1.0 + {4: 7, 7: 7, 9: 7, 11: 7.5}.get(rank, 0)] * 4) for rank in range(20)]
    given = [curves(lines, [0, 1, 2, 3]), SETTINGS, ["a", 4], ["a", 7], ["a", 9]]
    found = page.evaluate(
        "([curves, settings, ...before]) => chooseLines(curves, settings,"
        " new Set(before.map(keyOf))).lines.map((line) => line.rank[1])",
        given,
    )
    assert found == [4, 7, 9]
    assert 11 in {each["rank"][1] for each in choose(page, given[0])["lines"]}


def test_colours_keep_their_ranks_when_others_are_hidden(page):
    found = curves([line(rank, [1, 2]) for rank in range(8)], [0, 1])
    drawing = choose(page, found, hidden=[["a", 0]])
    assert [each["order"] for each in drawing["lines"]] == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.123456, "0.1235"), (12345.6, "12,346"), (1.5e-7, "1.5e-7"), (2e12, "2e12")],
)
def test_numbers_are_short(page, value, text):
    assert page.evaluate("(value) => formatNumber(value)", value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.5, "0.5 s"), (90, "1 min 30 s"), (7200, "2 h"), (90061, "1 d 1 h")]
)
def test_durations_have_two_units(page, seconds, text):
    assert page.evaluate("(value) => formatSeconds(value)", seconds) == text

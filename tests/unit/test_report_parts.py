"""The parts of a report: its size, its words, its markup, its events."""

from __future__ import annotations

import gzip
import json
import random
import struct

import pytest

from otel_dllogger.record import Event
from otel_dllogger.view.assessment import assess_past
from otel_dllogger.view.model import Model
from otel_dllogger.view.report import words
from otel_dllogger.view.report.curve_data import pack_curves, title_of
from otel_dllogger.view.report.html_page import make_page
from otel_dllogger.view.report.markdown import make_markdown
from otel_dllogger.view.report.markup import Markup, element, raw_element
from otel_dllogger.view.report.past_events import MAX_EVENTS, PastEvents
from otel_dllogger.view.report.past_runs import PastRuns
from otel_dllogger.view.report.summary import summarise

pytestmark = pytest.mark.newest_only

START_S = 1_760_000_000.0


def fill(*, ranks, metrics, steps, segments=1, run="a"):
    """Return what is known of a run whose metrics are noise, which does not compress."""
    model = Model()
    chance = random.Random(7)
    for number in range(ranks):
        rank = model.rank(run, number)
        rank.start(START_S, 1)
        rank.last_log_s = START_S + steps
        for name in range(metrics):
            labels = {"metric": f"noise{name}", "granularity": "iteration"}
            history = model.series(rank, f"dl_noise{name}", labels).history
            for step in range(steps):
                segment = step * segments // steps
                history.append(chance.random(), (float(step), START_S + step, segment))
    return PastRuns([assess_past(run) for run in model.runs.values()], [], {}, {})


def header_of(packed):
    content = gzip.decompress(packed.content)
    (size,) = struct.unpack("<I", content[:4])
    return json.loads(content[4 : 4 + size])


@pytest.mark.slow
def test_eight_ranks_with_twenty_metrics_of_noise_stay_below_two_mebibytes():
    past = fill(ranks=8, metrics=20, steps=100_000)
    page = make_page(summarise(past), pack_curves(past.runs))
    assert 1 << 20 < len(page.encode()) < 2 << 20


def test_more_series_have_fewer_places():
    past = fill(ranks=16, metrics=8, steps=1_000)
    packed = pack_curves(past.runs, max_bytes=250_000)
    assert len(packed.content) <= 250_000
    assert (packed.places, packed.drawn, packed.has_all_ranks) == (128, 8, True)


def test_of_many_ranks_those_that_need_help_have_lines_and_all_are_in_the_band():
    past = fill(ranks=100, metrics=2, steps=100)
    packed = pack_curves(past.runs, max_bytes=100_000)
    assert len(packed.content) <= 100_000
    assert not packed.has_all_ranks
    for chart in header_of(packed)["charts"]:
        assert len({line["rank"] for line in chart["lines"]}) == 16
        assert [band["ranks"] for band in chart["bands"]] == [100]
    assert "those that need help" in make_page(summarise(past), packed)


def test_of_many_metrics_the_last_have_no_curves():
    past = fill(ranks=1, metrics=300, steps=40)
    packed = pack_curves(past.runs, max_bytes=30_000)
    assert len(packed.content) <= 30_000
    assert packed.drawn + packed.left_out == 300
    assert f"{packed.left_out} more metrics without curves" in make_page(summarise(past), packed)


def test_many_attempts_stay_within_the_bound():
    past = fill(ranks=4, metrics=3, steps=2_000, segments=200)
    assert len(pack_curves(past.runs, max_bytes=60_000).content) <= 60_000


def test_values_are_exact_in_the_tables_and_short_to_read():
    past = fill(ranks=1, metrics=1, steps=10)
    least = past.runs[0].run.ranks[0].series
    (series,) = least.values()
    value = series.history.least.value
    page = make_page(summarise(past), pack_curves(past.runs))
    assert f'<data value="{value!r}" title="{value!r}">{value:.6g}</data>' in page


def test_markup_escapes_texts_and_attributes():
    assert element("p", "<b>", Markup("<i></i>"), None, title='"&', class_="x") == (
        '<p title="&quot;&amp;" class="x">&lt;b&gt;<i></i></p>'
    )


def test_no_script_ends_its_own_element():
    assert raw_element("script", "1 < 2") == "<script>1 < 2</script>"
    for content in ("x</SCRIPT>", "<!-- x"):
        with pytest.raises(ValueError, match="would end"):
            raw_element("script", content)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "250 ms"),
        (59.5, "59.5 s"),
        (7_800, "2 h 10 min"),
        (3_599.9, "1 h"),
        (86_400 * 3, "3 d"),
        (None, "–"),  # noqa: RUF001 - the dash of an empty cell
    ],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(3, "3"), (1e6, "1,000,000"), (0.12345678, "0.123457"), (1e300, "1e+300"), (-0.0, "0")],
)
def test_numbers_are_as_long_as_helps(value, text):
    assert words.number(value) == text


def test_a_time_beyond_the_calendar_is_left_out():
    assert words.moment(1e18) == words.NOTHING
    assert words.moment(0.9) == "1970-01-01 00:00:00"


def test_titles_say_what_names_do_not():
    assert title_of("train.loss", "train", "iteration") == "train.loss"
    assert title_of("loss", "val", "epoch") == "loss · val · per epoch"


def test_markdown_shows_every_text_as_it_is():
    past = fill(ranks=1, metrics=1, steps=3, run="a|b\n# <i>*c*")
    text = make_markdown(summarise(past))
    assert r"### a\|b \# \<i\>\*c\*: unfinished" in text


def event(name, time_s, step=None, data=None):
    return Event(round((START_S + time_s) * 1e6), 0, name, data, step)


def test_ranks_share_an_event_at_the_same_step_of_one_attempt():
    events = PastEvents()
    events.take(event("saved", 12, step=(0, 5), data={"path": "a", "n": [1]}), 0, attempt=1, x=5)
    events.take(event("saved", 11, step=(0, 5), data={"path": "b"}), 1, attempt=1, x=4)
    events.take(event("saved", 30, step=(0, 5)), 1, attempt=2, x=5)
    events.take(event(" ", 31), 1, attempt=2, x=5)
    first, second, blank = events.in_order()
    assert blank.name == '" "'
    assert first.to_plain() == {
        "time_s": START_S + 11,
        "name": "saved",
        "ranks": [0, 1],
        "step": 5,
        "step_logged": "[0, 5]",
        "data": "rank 0: path: a, n: [1]; other ranks have other data",
    }
    assert second.ranks == [1]
    assert events.marks() == [(5, '" "'), (5, "saved")]


def test_frequent_events_have_no_marks_and_too_many_are_counted():
    events = PastEvents()
    events.take(event("began", 0), 0, attempt=1, x=0)
    for x in range(MAX_EVENTS + 5):
        events.take(event("saved", x), 0, attempt=1, x=x)
    assert events.marks() == [(0, "began")]
    assert (len(events.in_order()), events.left_out) == (MAX_EVENTS, 6)

"""A report in a real Chromium: from a file, with the network off."""

from __future__ import annotations

import json

import pytest

from tests.support.browser import find_barriers, open_browser, open_page, save_picture
from tests.support.command import otel_dllogger
from tests.support.past_run import HOSTILE, write_past_run

pytestmark = pytest.mark.newest_only

WIDE = {"width": 1400, "height": 900}
NARROW = {"width": 400, "height": 900}
# How many pixels of each canvas are coloured: lines, in contrast to grey axes.
COLOURED = """
() => [...document.querySelectorAll(".chart canvas")].map((canvas) => {
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let count = 0;
  for (let at = 0; at < data.length; at += 4) {
    const [red, green, blue, alpha] = data.subarray(at, at + 4);
    count += alpha > 128 && Math.max(red, green, blue) - Math.min(red, green, blue) > 30;
  }
  return count;
})
"""

# The darkest of what is drawn, from 0 to 255.
DARKEST = """
() => {
  const canvas = document.querySelector(".chart canvas");
  const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let least = 255;
  for (let at = 0; at < data.length; at += 4) {
    if (data[at + 3] > 200 && data[at] === data[at + 1]) {
      least = Math.min(least, data[at]);
    }
  }
  return least;
}
"""


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def write_report(folder, **options):
    write_past_run(folder / "logs", **options)
    done = otel_dllogger("report", str(folder / "logs"), "-o", str(folder / "report.html"))
    assert done.returncode == 0, done.stderr
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    return write_report(tmp_path_factory.mktemp("report"), hostile=True)


@pytest.fixture
def page(browser, url):
    with open_page(browser, url, offline=True, viewport=WIDE) as page:
        page.wait_for_selector("#no-curves", state="hidden")
        yield page


def draw_all(page):
    """Scroll until every chart is drawn."""
    for place in page.locator(".chart-place").all():
        place.scroll_into_view_if_needed()
        place.locator("canvas").wait_for()
    page.evaluate("scrollTo(0, 0)")


def picture(canvas):
    """Return what is drawn on a canvas, without the cursor and what else is above it."""
    return canvas.evaluate("(canvas) => canvas.toDataURL()")


def drag(page, from_x, to_x, y):
    page.mouse.move(from_x, y)
    page.mouse.down()
    page.mouse.move(to_x, y, steps=3)
    page.mouse.up()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_a_file_shows_the_curves_of_all_metrics(browser, url, tmp_path, scheme, size):
    with open_page(browser, url, offline=True, viewport=size, color_scheme=scheme) as page:
        page.wait_for_selector("#no-curves", state="hidden")
        draw_all(page)
        titles = page.locator(".chart-title").all_text_contents()
        assert titles[0] == "train.loss"
        assert set(titles) == {
            "train.loss",
            "train.ips",
            "train.lr",
            "train.step_time",
            "val.accuracy · per epoch",
            HOSTILE,
        }
        page.wait_for_function(f"() => ({COLOURED})().every((count) => count > 10)")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"]
        save_picture(page, tmp_path / "report.png")


def test_hostile_names_stay_text(page):
    assert HOSTILE in page.locator("main").inner_text()
    assert page.locator("img").count() == 0


def test_best_values_are_those_of_json(page, url):
    folder = url.removeprefix("file://").rpartition("/")[0]
    done = otel_dllogger("report", f"{folder}/logs", "--format", "json")
    best = {one["value"] for one in json.loads(done.stdout)["runs"][0]["best"]}
    table = page.locator("section", has=page.get_by_role("heading", name="Best values"))
    shown = [data.get_attribute("value") for data in table.locator("data").all()]
    assert {float(value) for value in shown} == best


def test_controls_change_the_curves(page):
    draw_all(page)
    loss = page.locator(".chart").first
    before = picture(loss.locator("canvas"))
    page.get_by_label("Smoothing").select_option(index=2)
    smooth = picture(loss.locator("canvas"))
    page.get_by_label("Log scale").check()
    assert "log" in loss.locator(".chart-note").inner_text()
    assert len({before, smooth, picture(loss.locator("canvas"))}) == 3


def test_a_rank_of_the_table_is_emphasized(page):
    draw_all(page)
    canvas = page.locator(".chart canvas").first
    before = picture(canvas)
    rank = page.get_by_role("button", name="2", exact=True)
    rank.click()
    assert rank.get_attribute("aria-pressed") == "true"
    page.locator(".chart-place").first.scroll_into_view_if_needed()
    assert picture(canvas) != before
    rank.click()
    assert rank.get_attribute("aria-pressed") == "false"


def test_a_click_on_a_line_emphasizes_its_rank(page):
    draw_all(page)
    chart = page.locator(".chart", has=page.get_by_role("heading", name="train.step_time"))
    over = chart.locator(".u-over")
    height = over.bounding_box()["height"]
    slow = {"x": 90, "y": height * 0.12}  # where the line of rank 2 is alone
    over.dblclick(position=slow)  # which shows all, and chooses nothing
    over.click(position={"x": 90, "y": height * 0.92})
    chosen = page.locator('button.rank[aria-pressed="true"]')
    chosen.wait_for()
    assert chosen.all_text_contents() != ["2"]
    over.click(position=slow)
    page.locator('button.rank[value*=",2]"][aria-pressed="true"]').wait_for()
    assert chosen.count() == 2


def test_zoom_is_that_of_all_charts_until_a_double_click(page):
    draw_all(page)
    over = page.locator(".u-over")
    canvas = page.locator(".chart canvas").nth(2)
    before = picture(canvas)
    box = over.first.bounding_box()
    drag(page, box["x"] + 50, box["x"] + 150, box["y"] + 40)
    assert picture(canvas) != before
    over.first.dblclick()
    same = "([canvas, before]) => canvas.toDataURL() === before"
    page.wait_for_function(same, arg=[canvas.element_handle(), before])


def test_the_keyboard_reads_values_and_nan_in_words(page):
    draw_all(page)
    chart = page.locator(".chart").first
    chart.locator(".chart-plot").focus()
    page.keyboard.press("Home")
    words = chart.locator(".chart-live").inner_text()
    assert words.startswith("step 0; rank ")
    assert "median of 4" in words
    for _ in range(20):
        page.keyboard.press("Shift+ArrowRight")
    words = chart.locator(".chart-live").inner_text()
    assert "step 200" in words
    assert "rank 1: NaN or infinite" in words


def test_what_is_printed_is_light_and_complete(browser, url, tmp_path):
    with open_page(browser, url, offline=True, color_scheme="dark", viewport=WIDE) as page:
        page.wait_for_selector("#no-curves", state="hidden")
        page.pdf(path=tmp_path / "report.pdf")  # tells the page before and after
        assert page.locator(".chart canvas").count() == 6
        page.emulate_media(media="print")
        back = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert back == "rgb(255, 255, 255)"
        canvas = page.locator(".chart canvas").first
        on_screen = picture(canvas)
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        printed = "([canvas, before]) => canvas.isConnected && canvas.toDataURL() !== before"
        page.wait_for_function(printed, arg=[canvas.element_handle(), on_screen])
        assert page.evaluate(DARKEST) < 100  # the labels of axes, which are light on the screen
        save_picture(page, tmp_path / "print.png")


@pytest.mark.parametrize("is_scripted", [True, False], ids=["old browser", "no scripts"])
def test_without_curves_the_tables_remain(browser, url, is_scripted):
    context = browser.new_context(java_script_enabled=is_scripted, offline=True)
    context.add_init_script("delete window.DecompressionStream")
    page = context.new_page()
    page.goto(url)
    page.get_by_text("The tables do not.").wait_for()
    text = page.locator("main").inner_text()
    for words in ("Best values", "0.342772", "NaN and infinity", "Restarts", "batch_size"):
        assert words in text
    context.close()


def test_many_ranks_have_a_band_and_a_switch(browser, tmp_path):
    url = write_report(tmp_path, ranks=12, steps=80, slow=7)
    with open_page(browser, url, offline=True, viewport=WIDE) as page:
        page.wait_for_selector(".chart canvas")
        draw_all(page)
        chart = page.locator(".chart", has=page.get_by_role("heading", name="train.step_time"))
        assert "median and range of 12 ranks" in chart.inner_text()
        assert chart.locator(".chart-legend-item").count() == 3
        assert "7" in chart.locator(".chart-legend-item").all_text_contents()
        page.get_by_label("All lines").check()
        assert chart.locator(".chart-legend-item").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_there_are_no_serious_barriers(browser, url, scheme):
    assert find_barriers(browser, url, ".chart canvas", color_scheme=scheme) == []

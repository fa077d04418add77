"""The live page in a real Chromium, with real ranks that train."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time

import pytest

from tests.support.bridge import append, log_line, steps
from tests.support.browser import find_barriers, open_browser, open_page
from tests.support.rank import Rank
from tests.support.view import ViewProcess

pytestmark = pytest.mark.newest_only

HOSTILE = "<img src=x onerror=alert(1)>"
RUN = f"night {HOSTILE}"
LOSS = "train.loss"
CHART = "#charts > div"
DRAWN = "#charts > div:not(.is-empty)"
WIDE = {"width": 1400, "height": 900}
NARROW = {"width": 400, "height": 800}


class LiveRun:
    """Ranks that log a step again and again, each until it is told to stop."""

    def __init__(self, folder, ranks):
        self.ranks = [Rank(folder, rank=n, world_size=ranks, run=RUN) for n in range(ranks)]
        self.logging = set(range(ranks))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._log)

    def __enter__(self):
        for rank in self.ranks:
            rank.wait_started()
        self._thread.start()
        return self

    def __exit__(self, *_error):
        self._over.set()
        self._thread.join()
        for rank in self.ranks:
            rank.process.kill()  # one that is stopped would not end otherwise
            rank.process.communicate()

    def _log(self):
        step = 0
        while not self._over.wait(0.1):
            for number in sorted(self.logging):
                loss = 4 / (1 + step / 20) + number / 10
                data = {LOSS: loss, "train.ips": 100 - 30 * (number == 2), HOSTILE: number - 1}
                self.ranks[number].call("log", [0, step], data)
            step += 1


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live")
    past = folder / "logs" / "past_rank0.json"
    parameters = {"lr": 0.1, "note": HOSTILE, HOSTILE: "value"}
    append(past, log_line("PARAMETER", parameters, time_us=1_700_000_000_000_000))
    append(past, steps(0, 50))
    append(past, log_line([0, 50], {"loss": float("nan")}, time_us=1_700_000_010_000_000))
    append(past, log_line([], {"loss": 0.1}, time_us=1_700_000_011_000_000))
    with (
        LiveRun(folder, 4) as run,
        ViewProcess(folder / "discovery", folder / "logs") as view,
    ):
        view.wait_for_ranks(5)
        run.view = view
        yield run


@pytest.fixture(scope="module")
def browser():
    with open_browser() as found:
        yield found


@contextlib.contextmanager
def shown(browser, live, fragment="", **options):
    with open_page(browser, live.view.link + fragment, viewport=WIDE, **options) as page:
        page.wait_for_selector(DRAWN)
        yield page


def wait_for(page, condition):
    """Wait until a condition holds in a page, whose policy forbids it to evaluate that itself."""
    deadline_s = time.monotonic() + 20
    while not page.evaluate(condition):
        assert time.monotonic() < deadline_s, condition
        page.wait_for_timeout(50)


def read_end(page, chart=0):
    """Return what the cursor reads at the end of a chart: the step, and the value of each rank."""
    box = page.locator(f"{CHART} .chart-plot").nth(chart)
    box.focus()
    page.keyboard.press("End")
    said = page.locator(f"{CHART} .chart-live").nth(chart).text_content()
    step = re.match(r"step ([\d,]+)", said)
    values = dict(re.findall(r"; rank (\d) ([-\d.]+)", said))
    return int(step[1].replace(",", "")) if step else -1, values


def advance(page):
    """Return once the curves of all ranks have got longer."""
    before, values = read_end(page)
    for _ in range(100):
        after, values = read_end(page)
        if after > before >= 0 and len(values) == 4:
            return after
        page.wait_for_timeout(100)
    raise AssertionError((before, after, values))


def test_four_lines_advance_without_a_reload(browser, live):
    """Each rank has its line, and each event makes it longer."""
    with shown(browser, live) as page:
        page.evaluate("window.isSame = true")
        legend = page.locator(f"{CHART} .chart-legend").first
        assert "".join(re.findall(r"\d", legend.text_content())) == "0123"
        first = advance(page)
        assert advance(page) > first
        assert page.evaluate("window.isSame")
        assert page.locator("#connection").text_content() == "live"
        assert page.locator("#summary .state").text_content() == "● training"


def test_metric_axis_and_scale_change(browser, live):
    """Each choice changes the charts, and a link keeps all of them."""
    with shown(browser, live) as page:
        charts = page.locator(CHART)
        assert charts.count() == 3
        page.get_by_role("checkbox", name="train.ips").uncheck()
        wait_for(page, f"document.querySelectorAll('{CHART}').length === 2")
        page.get_by_label("x axis").select_option("relative")
        page.get_by_label("log scale").check()
        wait_for(page, "document.querySelector('.chart-note').textContent === 'log'")
        notes = page.locator(".chart-note").all_text_contents()
        assert notes == ["log", "asinh, since some values are not positive"]
        page.get_by_label("smoothing").select_option("30 s")
        wait_for(page, "location.hash.includes('smooth=30')")
        page.locator("#ranks tbody button", has_text="rank 2").click()
        wait_for(page, "location.hash.includes('rank=2')")
        link = page.url
    with open_page(browser, link, viewport=WIDE) as page:
        page.wait_for_selector(DRAWN)
        assert page.get_by_label("x axis").input_value() == "relative"
        assert page.get_by_label("log scale").is_checked()
        assert page.get_by_label("smoothing").input_value() == "30"
        assert page.locator(CHART).count() == 2
        assert page.locator("#ranks tr.is-chosen").text_content().startswith("rank 2")
        page.locator(f"{CHART} .chart-plot").first.focus()
        page.keyboard.press("End")
        wait_for(page, r"/^[\d.]+ (s|min)/.test(document.querySelector('.chart-live').textContent)")


def test_several_runs_are_on_one_plot(browser, live):
    """Lines, table and parameters are those of all runs that are ticked."""
    with shown(browser, live) as page:
        page.get_by_role("checkbox", name="past").check()
        wait_for(page, "document.querySelectorAll('#summary .run').length === 2")
        assert "past" in page.url
        wait_for(page, "document.querySelectorAll('#ranks tbody tr').length === 5")
        page.wait_for_selector("#parameters table")
        names = page.locator("#summary h2").all_text_contents()
        assert sorted(names) == sorted([RUN, "past"])


def test_what_is_zoomed_stays_where_it_is(browser, live):
    """New data do not move it, and a button says that there are some."""
    with shown(browser, live) as page:
        advance(page)
        plot = page.locator(".u-over").first
        box = plot.bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] * 0.1, middle)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
        page.mouse.up()
        wait_for(page, "/from=.*&to=/.test(location.hash)")
        zoomed = page.url
        button = page.get_by_role("button", name="New data: show everything")
        button.wait_for()
        assert page.url == zoomed
        end, _ = read_end(page)
        button.click()
        wait_for(page, "!location.hash.includes('from=')")
        assert advance(page) > end


def test_hostile_names_stay_text(browser, live):
    """Of runs, metrics and parameters: nothing in them becomes an element."""
    fragment = "#run=past"
    with shown(browser, live, fragment) as page:
        assert HOSTILE in page.locator("#parameters").text_content()
        assert page.locator("img, main script").count() == 0
    with shown(browser, live) as page:
        assert page.locator("#summary h2").text_content() == RUN
        assert HOSTILE in page.locator("#charts").text_content()
        assert page.title().startswith(RUN)
        assert page.locator("img, main script").count() == 0


def test_a_finished_run_says_so(browser, live):
    """With its NaN, its best value and its parameters."""
    with shown(browser, live, "#run=past") as page:
        assert page.locator("#summary .state").text_content() == "✓ finished"
        assert "best" in page.locator("#best h2").text_content().lower()
        assert "0.1" in page.locator("#best").text_content()
        assert page.locator("#ranks td.is-wrong").first.text_content() == "1"
        assert "NaN" in page.locator("#summary .findings").text_content()


def test_the_keyboard_reaches_everything(browser, live):
    """The table is sorted, and a rank highlighted, without a mouse."""
    with shown(browser, live) as page:
        head = page.locator("#ranks thead button", has_text="loss")
        head.focus()
        for order, first in (("ascending", "rank 0"), ("descending", "rank 3")):
            page.keyboard.press("Enter")
            assert page.locator("#ranks th[aria-sort=" + order + "]").text_content() == "loss"
            assert page.locator("#ranks tbody th").first.text_content() == first
        page.keyboard.press("Enter")
        assert page.locator("#ranks th[aria-sort]:not([aria-sort=none])").count() == 0
        rank = page.locator("#ranks tbody button", has_text="rank 1")
        rank.focus()
        page.keyboard.press("Space")
        page.wait_for_selector("#ranks tbody button[aria-pressed=true]")
        assert page.evaluate("document.activeElement.textContent") == "rank 1"
        page.wait_for_timeout(1500)  # events do not take the focus away
        assert page.evaluate("document.activeElement.textContent") == "rank 1"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [WIDE, NARROW])
def test_there_are_no_barriers(browser, live, scheme, viewport):
    """axe-core finds nothing serious, and nothing is wider than the screen."""
    for fragment in ("", "#run=past"):
        url = live.view.link + fragment
        ready = DRAWN
        assert find_barriers(browser, url, ready, color_scheme=scheme, viewport=viewport) == []
    with open_page(browser, live.view.link, color_scheme=scheme, viewport=viewport) as page:
        page.wait_for_selector(DRAWN)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_a_hidden_page_leaves_its_connection_to_others(browser, live):
    """A browser opens six to a host: with more pages than that, each still gets its data."""
    context = browser.new_context(viewport=WIDE)
    for _ in range(8):
        page = context.new_page()
        page.goto(live.view.link)
        page.wait_for_selector(DRAWN)
        # Headless Chromium hides no page, so what hiding one does is done here.
        page.evaluate(
            "Object.defineProperty(document, 'hidden', {get: () => true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )
    page.evaluate("delete document.hidden; document.dispatchEvent(new Event('visibilitychange'))")
    advance(page)
    context.close()


def test_without_events_the_page_asks(browser, live):
    """Behind a proxy that keeps events, it asks every two seconds, and goes on."""
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    page.route("**/events?*", lambda _route: None)  # never answered
    page.goto(live.view.link)
    page.wait_for_selector(DRAWN)
    assert page.locator("#connection").text_content() == "live, every 2 s"
    advance(page)
    page.close()
    context.close()


def test_a_rank_that_stops_is_marked(browser, live):
    """Within 15 s, while the others go on."""
    with shown(browser, live) as page:
        live.logging.discard(3)
        row = "#ranks tbody tr:has(button:text-is('rank 3'))"
        page.wait_for_selector(f"{row} .state[data-state=quiet]", timeout=15_000)
        assert page.locator("#ranks tbody button").first.text_content() == "rank 3"
        os.kill(live.ranks[3].process.pid, signal.SIGSTOP)
        page.wait_for_selector(f"{row} .state[data-state=vanished]", timeout=15_000)
        assert "Rank 3" in page.locator("#summary .findings").text_content()


def test_a_page_without_a_run_says_what_it_looks_at(browser, tmp_path):
    """It is not an error, and the run appears by itself."""
    logs = tmp_path / "run"
    logs.mkdir()
    with ViewProcess(logs) as view, open_page(browser, view.link, viewport=NARROW) as page:
        page.wait_for_selector("#notice-title:text-is('No run yet')")
        assert str(logs) in page.locator("#notice-words").text_content()
        append(logs / "log_rank0.json", steps(0, 20))
        page.wait_for_selector(DRAWN)
        assert page.locator("#notice").is_hidden()


def test_a_server_that_ends_is_said_and_comes_back(browser, tmp_path):
    """What was there stays to be seen; with a server again, the page goes on by itself."""
    logs = tmp_path / "run"
    append(logs / "log_rank0.json", steps(0, 20))
    context = browser.new_context(viewport=WIDE)
    page = context.new_page()
    with ViewProcess(logs) as view:
        page.goto(view.link)
        page.wait_for_selector(DRAWN)
        view.end()
    page.wait_for_selector("#notice-title:text-is('The server does not answer')")
    assert page.locator(DRAWN).count() > 0
    append(logs / "log_rank0.json", steps(20, 40))
    with ViewProcess(logs, listen=f"127.0.0.1:{view.port}"):
        page.wait_for_selector("#notice", state="hidden")
        wait_for(page, "document.querySelector('#summary dl').textContent.includes('39')")
        assert page.locator("#connection").text_content() == "live"
    context.close()


def test_a_link_with_a_token_opens_the_page(browser, tmp_path):
    """The token leaves the address, the view in the link stays, and so does the page."""
    logs = tmp_path / "run"
    append(logs / "log_rank0.json", steps(0, 20))
    with (
        ViewProcess(logs, "--token", "abc") as view,
        open_page(browser, f"{view.link}#log=1", viewport=WIDE) as page,
    ):
        page.wait_for_selector(DRAWN)
        assert page.url == f"http://127.0.0.1:{view.port}/#log=1"
        assert page.get_by_label("log scale").is_checked()

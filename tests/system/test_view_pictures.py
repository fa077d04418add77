"""The pictures of ``watch`` and of the live page in the README, from a real training.

``make view-pictures`` keeps them; without ``PICTURES`` they are only made.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from tests.support.browser import open_browser, open_page, save_picture
from tests.support.command import COMMAND, environment
from tests.support.tmux import Tmux
from tests.support.view import ViewProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.newest_only

COLUMNS = 110
DRAWN = "#charts > div:not(.is-empty)"
SECONDS = 40 if "PICTURES" in os.environ else 12
NARROWEST = 1_000  # pixels


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Return the folder that pictures go to."""
    return Path(os.environ.get("PICTURES") or tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Iterator[tuple[Path, list[str], str]]:
    """Train in the demo until it is nearly over; yield its folder, and its last screen."""
    folder = tmp_path_factory.mktemp("training")
    (folder / "demo" / "discovery").mkdir(parents=True)
    command = [*COMMAND, "watch", "demo"]
    demo = [*COMMAND, "demo", "--seconds", str(SECONDS), "--directory", "demo"]
    values = environment(LC_ALL="C.UTF-8", COLORTERM="truecolor")
    with (
        Tmux(demo, environ=values, cwd=folder, columns=COLUMNS, lines=40) as trained,
        Tmux(command, environ=values, cwd=folder, columns=COLUMNS, lines=18) as watched,
    ):
        trained.wait_for(lambda lines: any(f"{SECONDS - 4} of " in line for line in lines))
        watched.wait_for(lambda lines: any("8 ranks" in line for line in lines))
        yield folder, watched.lines("-e")


def size_of(path: Path) -> tuple[int, int]:
    """Return the width and the height of a picture in PNG."""
    head = path.read_bytes()[:24]
    assert head.startswith(b"\x89PNG")
    return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")


def test_watch(training, pictures) -> None:
    """The terminal as it is, with its colours."""
    _folder, lines = training
    text = Text.from_ansi("\n".join(lines))
    assert "rank" in text.plain
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(text)
    html = console.export_html(inline_styles=True, theme=MONOKAI)
    html = html.replace("<body>", '<body style="margin:0;width:max-content">')
    html = html.replace(
        '<pre style="', '<pre style="margin:0;padding:16px;font-size:15px;line-height:1.3;'
    )
    with open_browser() as browser:
        page = browser.new_page(viewport={"width": 400, "height": 100}, device_scale_factor=1.5)
        page.set_content(html)
        page.locator("pre").screenshot(path=pictures / "watch.png")
    assert size_of(pictures / "watch.png")[0] > NARROWEST


def test_live_page(training, pictures) -> None:
    """All of the page, once its charts are drawn."""
    folder, _lines = training
    path = pictures / "live-page.png"
    with ViewProcess("demo", cwd=folder) as view, open_browser() as browser:
        view.wait_for_ranks(8)
        options = {"viewport": {"width": 1_320, "height": 1_640}, "color_scheme": "light"}
        with open_page(browser, view.link, **options) as page:
            page.wait_for_selector(DRAWN)
            page.wait_for_function(f"document.querySelectorAll('{DRAWN}').length >= 4")
            save_picture(page, path)
    assert size_of(path)[0] > NARROWEST

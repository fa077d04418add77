"""A real Chromium, in which nothing may go wrong unseen."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING, Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_AXE = ROOT / "frontend" / "node_modules" / "axe-core" / "axe.min.js"
_AXE_RUN = """
async (axe) => {
  new Function(axe)();
  const found = await window.axe.run(document, {resultTypes: ["violations"]});
  return found.violations.map(({id, impact, help, nodes}) =>
    ({id, impact, help, nodes: nodes.slice(0, 3).map(({html}) => html)}));
}
"""


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    """Start the machine's Chromium, and end it."""
    chromium = shutil.which("chromium")
    assert chromium, "the tests need Chromium: scripts/install-missing chromium"
    # As root, which only containers are, it has no sandbox.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield browser
        browser.close()


@contextlib.contextmanager
def open_page(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """Open a page; at the end, it must have had no error and asked no other host.

    Args:
        browser: The browser.
        url: The address.
        options: Of the browser's context, such as its ``color_scheme``.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(20_000)
    page.goto(url)
    yield page
    origin = url.partition("?")[0].partition("#")[0].rpartition("/")[0] + "/"
    assert said == []
    assert [one for one in asked if not one.startswith(origin)] == []
    context.close()


def find_barriers(browser: Browser, url: str, ready: str, **options: Any) -> list[dict[str, Any]]:
    """Return what axe-core finds of serious barriers on a page, once an element is there."""
    # axe-core is evaluated, which the page's policy rightly forbids.
    context = browser.new_context(bypass_csp=True, **options)
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(ready)
    found = page.evaluate(_AXE_RUN, _AXE.read_text(encoding="utf-8"))
    context.close()
    return [one for one in found if one["impact"] in ("serious", "critical")]


def save_picture(page: Page, path: Path) -> None:
    """Save a picture of all of a page."""
    page.screenshot(path=path, full_page=True)

"""Links in the documents lead somewhere, and the first page is short."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.newest_only

PAGES = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    if name and (ROOT / name).is_file()
]
_BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_SPAN = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(<?([^)\s>]+)>?(?: \"[^\"]*\")?\)")


def anchors_of(text: str) -> set[str]:
    """Return the anchors of a page's headings, as Git hosts make them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", text), re.MULTILINE)
    plain = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def wrong_links(page, text: str) -> list[str]:
    """Return the relative links of a page that lead nowhere."""
    wrong = []
    for target in _LINK.findall(_SPAN.sub("", _BLOCK.sub("", text))):
        path, _, fragment = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = (page.parent / path) if path else page
        if not file.exists() or (
            fragment and file.suffix == ".md" and fragment not in anchors_of(file.read_text())
        ):
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """To a file, and to a heading in it."""
    assert [] == wrong_links(page, page.read_text(encoding="utf-8"))


def test_a_wrong_link_is_found(tmp_path):
    """Of a file or of a heading; code and addresses are not links of ours."""
    (tmp_path / "other.md").write_text("# What `a` is\n```\n# not one\n```\n")
    text = "[a](other.md#what-a-is) [b](other.md#not-one) [c](none.md) `[d](x)` [e](https://x.y/z)"
    assert ["other.md#not-one", "none.md"] == wrong_links(tmp_path / "page.md", text)


def test_the_readme_is_read_in_a_minute_or_two():
    """What does not fit has a place in docs/."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.split()) <= 900

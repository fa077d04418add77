"""Alerts and their page belong together: whoever is called at night finds a section."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.support.paths import ROOT

pytestmark = pytest.mark.newest_only

PAGE = "docs/reference/alerts.md"
TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
RULES = [
    rule
    for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
    for group in yaml.safe_load(path.read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
]
SECTIONS = dict(re.findall(r"^## (.+)\n\n((?:(?!## ).*\n?)*)", TEXT, re.MULTILINE))


def anchor(heading: str) -> str:
    """Return what a heading's anchor is on GitHub and GitLab."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_every_alert_has_a_section_and_every_section_an_alert():
    """In any order; a section of an alert that was renamed would explain nothing."""
    assert RULES
    assert sorted(SECTIONS) == sorted(rule["alert"] for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_the_url_of_an_alert_leads_to_its_section(rule):
    """A path in the repository: what stands before it, only the one who serves the page knows."""
    page, _, fragment = rule["annotations"]["runbook_url"].partition("#")
    assert page == PAGE
    assert fragment == anchor(rule["alert"])
    assert fragment in {anchor(heading) for heading in SECTIONS}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_section_says_how_bad_it_is_where_to_look_and_what_to_do(rule):
    """The severity is the rule's; a page that calls a critical alert a warning misleads."""
    text = SECTIONS[rule["alert"]]
    assert text.startswith(f"{rule['labels']['severity'].capitalize()}. ")
    assert re.findall(r"^- \*\*(\w+):\*\* \S", text, re.MULTILINE) == ["Look", "Do"]

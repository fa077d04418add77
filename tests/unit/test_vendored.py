"""What is vendored is what its packages published."""

from __future__ import annotations

import hashlib
import json

import pytest

from tests.support.paths import ROOT

VENDOR = ROOT / "otel_dllogger" / "view" / "page" / "vendor"
FACTS = json.loads((VENDOR / "uplot.json").read_text())

pytestmark = pytest.mark.newest_only


def test_files_are_those_of_the_npm_package():
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.iterdir()
        if path.name != "uplot.json"
    }
    assert found == FACTS["sha256"]


def test_version_and_licence_are_recorded():
    script = (VENDOR / "uplot.js").read_text()
    assert f"(v{FACTS['version']})" in script.splitlines()[0]
    assert "MIT License" in (VENDOR / "uplot.LICENSE").read_text()
    assert FACTS["license"] == "MIT"

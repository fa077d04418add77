"""The files of the live page: each is in the wheel, and each is loaded."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from otel_dllogger.view.server.files import INDEX, PAGE, load_files
from tests.support.paths import ROOT

pytestmark = [pytest.mark.newest_only, pytest.mark.slow]

SERVED = load_files()


def test_the_wheel_has_the_files_of_the_page(tmp_path) -> None:
    """Those that are served, and the licences of those that others wrote."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "otel_dllogger", source / "otel_dllogger")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", tmp_path, source]
    subprocess.run(command, check=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    wanted = {path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()}
    assert {*SERVED, "vendor/uplot.LICENSE"} <= wanted
    assert {f"otel_dllogger/view/page/{name}" for name in wanted} <= packed


def test_each_file_is_loaded_by_the_page() -> None:
    """The page names the files that there are, by relative addresses, and holds no script."""
    index = SERVED[INDEX].body.decode()
    named = set(re.findall(r'(?:src|href)="([^"]+)"', index))
    of_report = {name for name in SERVED if name.startswith("report.")}
    assert named == {*SERVED} - {INDEX} - of_report
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|style=", index)
    assert "://" not in index

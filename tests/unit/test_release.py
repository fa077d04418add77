"""What a release repeats in several files says the same in all of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import yaml

from otel_dllogger import __version__
from tests.support.paths import ROOT
from tests.support.pyproject import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

ADDRESS = PROJECT["urls"]["Homepage"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
CHANGES = (ROOT / "CHANGELOG.md").read_text()
HEADING = re.compile(r"^## (\S+) - (unreleased|\d{4}-\d\d-\d\d)$", re.MULTILINE)
VERSION = "otel_dllogger/version.py"
FILES = ["CHANGELOG.md", "CITATION.cff", VERSION]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=60)


def test_the_version_is_that_of_the_citation_and_of_the_changes():
    """A checkout is of a version to come, unless it is the commit of a release."""
    version, date = HEADING.search(CHANGES).groups()
    is_released = date != "unreleased"
    assert __version__ == version + ("" if is_released else ".dev0")
    assert CITATION["version"] == __version__
    assert str(CITATION.get("date-released", "unreleased")) == date


def test_each_section_of_the_changes_has_a_date_or_is_the_next_version():
    """Only the first may be unreleased."""
    headings = re.findall(r"^## .*$", CHANGES, re.MULTILINE)
    found = [HEADING.fullmatch(heading) for heading in headings]
    assert all(found), headings
    assert all(one[2] != "unreleased" for one in found[1:])


def test_the_summary_of_a_version_is_short():
    """At most 150 words stand before the entries."""
    summary = CHANGES.partition("\n## ")[2].partition("\n### ")[0].partition("\n")[2]
    assert len(summary.split()) <= 150


def test_all_addresses_of_the_project_follow_the_first():
    """Whoever moves the project finds here what to correct."""
    assert all(url.startswith(ADDRESS) for url in PROJECT["urls"].values())
    assert CITATION["repository-code"] == ADDRESS
    config = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text())
    assert all(link["url"].startswith(f"{ADDRESS}/") for link in config["contact_links"])


def test_the_licence_and_the_keywords_are_the_same():
    """Of the package and of the citation."""
    assert CITATION["license"] == PROJECT["license"]
    assert CITATION["keywords"] == PROJECT["keywords"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with the files of a version, as they are before a release."""
    for name in (*FILES, "scripts/release"):
        target = tmp_path / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, target)
    for name, pattern, text in (
        ("CHANGELOG.md", HEADING.pattern, "## 7.8.9 - unreleased"),
        ("otel_dllogger/version.py", r'^(__version__.*) ".*"$', r'\1 "7.8.9.dev0"'),
        ("CITATION.cff", r"^version: .*$(\ndate-released: .*$)?", "version: 7.8.9.dev0"),
    ):
        path = tmp_path / name
        content = re.sub(pattern, text, path.read_text(), count=1, flags=re.MULTILINE)
        path.write_text(content)
    run("git", "init", "--quiet", cwd=tmp_path)
    run("git", "config", "user.name", "A maintainer", cwd=tmp_path)
    run("git", "config", "user.email", "maintainer@example.org", cwd=tmp_path)
    run("git", "add", "--all", cwd=tmp_path)
    assert run("git", "commit", "--quiet", "-m", "Before", cwd=tmp_path).returncode == 0
    return tmp_path


def release(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, checkout / "scripts/release", *arguments, cwd=checkout)


def test_a_release_is_one_commit_and_one_tag(checkout):
    """The three files say the version and the day; then the next version begins."""
    done = release(checkout, "7.8.9")
    assert (done.returncode, done.stderr) == (0, "")
    assert run("git", "describe", "--exact-match", cwd=checkout).stdout == "v7.8.9\n"
    changed = run("git", "show", "--name-only", "--format=%s", cwd=checkout).stdout.split("\n")
    assert changed == ["Release 7.8.9", "", *FILES, ""]
    date = HEADING.search((checkout / "CHANGELOG.md").read_text())[2]
    assert f"version: 7.8.9\ndate-released: {date}\n" in (checkout / "CITATION.cff").read_text()
    assert '__version__: Final = "7.8.9"\n' in (checkout / VERSION).read_text()

    done = release(checkout, "--begin", "7.9.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert '__version__: Final = "7.9.0.dev0"\n' in (checkout / VERSION).read_text()
    assert "version: 7.9.0.dev0\nlicense" in (checkout / "CITATION.cff").read_text()
    headings = HEADING.findall((checkout / "CHANGELOG.md").read_text())[:2]
    assert headings == [("7.9.0", "unreleased"), ("7.8.9", date)]
    assert run("git", "status", "--porcelain", cwd=checkout).stdout == ""


def state(checkout: Path) -> list[str]:
    """Return the history, the tags, and what differs from the last commit."""
    asked = (("log", "--format=%H"), ("tag",), ("status", "--porcelain"), ("diff", "HEAD"))
    return [run("git", *arguments, cwd=checkout).stdout for arguments in asked]


def assert_refused(checkout: Path, words: str, *arguments: str) -> None:
    """Nothing has changed, and the last line says why."""
    before = state(checkout)
    done = release(checkout, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("scripts/release: ")
    assert words in last
    assert state(checkout) == before


def edit(checkout: Path, name: str, old: str, new: str) -> None:
    content = (checkout / name).read_text()
    assert old in content
    (checkout / name).write_text(content.replace(old, new))
    assert run("git", "commit", "-qam", f"Edit {name}", cwd=checkout).returncode == 0


@pytest.mark.parametrize("version", ["7.9.0", "7.8", "v7.8.9", "7.08.9", "7.8.9.1"])
def test_a_version_that_is_not_the_next_is_refused(checkout, version):
    """With one line, and without a commit."""
    done = release(checkout, version)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "Before\n" == run("git", "log", "--format=%s", cwd=checkout).stdout


def test_a_working_tree_with_changes_is_refused(checkout):
    """What is not committed would be in the release."""
    (checkout / "CHANGELOG.md").write_text("")
    done = release(checkout, "7.8.9")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "commit or stash" in done.stderr


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("CHANGELOG.md", "## 7.8.9 - unreleased", "## 7.8.9", "no section '7.8.9 - unreleased'"),
        ("CITATION.cff", "version: 7.8.9.dev0\n", "", "CITATION.cff has 0 places"),
        ("CITATION.cff", "7.8.9.dev0", "7.8.9.dev0\ndate-released: 2025-01-01", "date-released"),
        (VERSION, "7.8.9.dev0", "7.8.9", "begin the next one with --begin"),
        (VERSION, "__version__: Final", "version", "version.py has no line"),
    ],
)
def test_a_file_without_what_is_replaced_is_found_before_any_is_written(
    checkout, name, old, new, words
):
    """Each of them is as it was."""
    edit(checkout, name, old, new)
    assert_refused(checkout, words, "7.8.9")


def test_a_tag_that_is_there_is_found_before_the_commit(checkout):
    """For a release, and for the version that begins."""
    for tag in ("v7.8.9", "v7.9.0"):
        assert run("git", "tag", tag, cwd=checkout).returncode == 0
    assert_refused(checkout, "tag v7.8.9 is there already", "7.8.9")
    assert_refused(checkout, "tag v7.9.0 is there already", "--begin", "7.9.0")


def test_a_committer_without_a_name_is_told_how_to_get_one(checkout, monkeypatch):
    """Before git would ask for it with many lines."""
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"):
        monkeypatch.setenv(name, "")
    assert_refused(checkout, "set user.name and user.email", "7.8.9")


@pytest.mark.parametrize("step", ["commit", "tag"])
def test_a_step_that_fails_undoes_those_before(checkout, step):
    """A hook that refuses the commit, and a tag that cannot be signed."""
    if step == "commit":
        hook = checkout / ".git/hooks/pre-commit"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\nexit 1\n")
        hook.chmod(0o755)
    else:
        run("git", "config", "tag.gpgSign", "true", cwd=checkout)
        run("git", "config", "gpg.program", "false", cwd=checkout)
    assert_refused(checkout, f"git {step} failed", "7.8.9")


def test_a_version_begins_after_the_release_of_the_one_before(checkout):
    """It is higher, and not in the changes yet."""
    assert_refused(checkout, "7.8.9.dev0 is not released yet", "--begin", "7.9.0")
    assert release(checkout, "7.8.9").returncode == 0
    for lower in ("7.8.8", "7.7.10", "0.9.0"):
        assert_refused(checkout, "does not come after 7.8.9", "--begin", lower)
    assert_refused(checkout, "is there already", "--begin", "7.8.9")
    edit(checkout, "CHANGELOG.md", "\n## 7.8.9 ", "\n## 7.10.0 - 2025-01-01\n\n## 7.8.9 ")
    assert_refused(checkout, "has a section 7.10.0 already", "--begin", "7.10.0")
    edit(checkout, "CITATION.cff", "date-released", "released")
    assert_refused(checkout, "CITATION.cff has 0 places", "--begin", "7.11.0")

"""What the hooks of MkDocs make of the documents, in a real build of a small site."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.newest_only

CONFIGURATION = """\
site_name: small
hooks: [{hooks}]
theme: {{name: material, font: false}}
plugins:
  - mkdocstrings: {{handlers: {{python: {{paths: [{root}]}}}}}}
markdown_extensions: [mkdocs-click, attr_list, fenced_code]
validation: {{links: {{not_found: warn}}}}
"""


REPOSITORY = "https://github.com/example/repository"


def build(
    folder: Path, pages: dict[str, str], *, address: str = ""
) -> subprocess.CompletedProcess[str]:
    """Build a site of some pages, strictly, into the folder ``site``.

    Args:
        folder: An empty folder.
        pages: The text of each page, by name.
        address: That of the repository, in the metadata of the package.
    """
    for name, text in pages.items():
        path = folder / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    installed = folder / "installed" / "otel_dllogger-1.dist-info"
    installed.mkdir(parents=True)
    urls = f"Project-URL: Issues, {address}/issues\nProject-URL: Homepage, {address}\n"
    metadata = "Metadata-Version: 2.1\nName: otel-dllogger\nVersion: 1\n"
    (installed / "METADATA").write_text(metadata + urls * bool(address))
    hooks = ROOT / "scripts" / "mkdocs_hooks.py"
    (folder / "mkdocs.yml").write_text(CONFIGURATION.format(hooks=hooks, root=ROOT))
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--no-directory-urls"],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": f"{installed.parent}:{ROOT}",
            "NO_MKDOCS_2_WARNING": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def article(folder: Path, page: str) -> str:
    """Return what a page of the site holds, as HTML."""
    return (folder / "site" / page).read_text()


LINKS = """\
# Links

[`deploy/bridge`](../../deploy/bridge), [a guide](../../SECURITY.md#x), [LICENSE](../../LICENSE),
[here](other.md), [there](https://example.org/a)
"""


def test_links_to_the_repository_are_links_if_it_has_an_address(tmp_path: Path) -> None:
    """To its files and folders; links within the site and to elsewhere stay."""
    pages = {"index.md": "# Home", "guides/links.md": LINKS, "guides/other.md": "# Other"}
    done = build(tmp_path, pages, address=REPOSITORY)
    assert done.returncode == 0, done.stderr
    found = re.findall(r'href="([^"]*)"[^>]*>(.*?)</a>', article(tmp_path, "guides/links.html"))
    links = {text: target for target, text in found}
    assert links["<code>deploy/bridge</code>"] == f"{REPOSITORY}/tree/main/deploy/bridge"
    assert links["a guide"] == f"{REPOSITORY}/blob/main/SECURITY.md#x"
    assert links["here"] == "other.html"
    assert links["there"] == "https://example.org/a"
    page = article(tmp_path, "guides/links.html")
    assert "example/repository" in page
    assert 'data-md-component="source"' not in page  # the browser would ask the Git host


def test_links_to_a_repository_without_an_address_are_text(tmp_path: Path) -> None:
    """It says which file is meant."""
    pages = {"index.md": "# Home", "guides/links.md": LINKS, "guides/other.md": "# Other"}
    done = build(tmp_path, pages)
    assert done.returncode == 0, done.stderr
    page = article(tmp_path, "guides/links.html")
    assert (
        "<code>deploy/bridge</code>, a guide (<code>SECURITY.md</code>), <code>LICENSE</code>,"
    ) in page


def test_a_link_to_a_file_that_does_not_exist_fails_the_build(tmp_path: Path) -> None:
    """With the page and the file."""
    done = build(tmp_path, {"index.md": "# Home\n\n[a file](../nowhere.yml)"})
    assert done.returncode != 0
    assert "index.md links to ../nowhere.yml, which does not exist" in done.stderr


TABLE = """\
# Table

| a | b |
|---|---|
| `x \\| y` | z |
"""


def test_a_bar_in_a_table_is_shown_as_on_a_git_host(tmp_path: Path) -> None:
    """The backslash only keeps it from ending the cell."""
    done = build(tmp_path, {"index.md": TABLE})
    assert done.returncode == 0, done.stderr
    assert "<td><code>x | y</code></td>" in article(tmp_path, "index.html")


COMMANDS = """\
# Commands

::: mkdocs-click
    :module: otel_dllogger.cli.main
    :command: cli
"""


def test_examples_in_the_help_of_commands_are_blocks_of_code(tmp_path: Path) -> None:
    """Each line on its own, as in the terminal."""
    done = build(
        tmp_path,
        {"index.md": "# Home", "reference/cli.md": COMMANDS, "reference/formats.md": "# Formats"},
    )
    assert done.returncode == 0, done.stderr
    page = article(tmp_path, "reference/cli.html")
    (block,) = re.findall(
        r"<pre><code[^>]*>(otel-dllogger report runs/\n.*?)</code>", page, re.DOTALL
    )
    assert len(block.strip().splitlines()) == 4
    assert '<a href="formats.html">formats.md</a>' in page
    assert "\b" not in page


API = """\
# API

::: otel_dllogger.Logger
::: otel_dllogger.log
"""


def test_names_in_docstrings_are_links(tmp_path: Path) -> None:
    """To what the pages describe, and to nothing else."""
    done = build(tmp_path, {"index.md": "# Home", "reference/api/logger.md": API})
    assert done.returncode == 0, done.stderr
    page = article(tmp_path, "reference/api/logger.html")
    assert re.search(r'href="#otel_dllogger.Logger.log"[^>]*><code>Logger.log</code></a>', page)
    assert "<code>init</code>" in page

"""The site of the documentation has every page, every public name and every command.

Whether it builds, and whether its links lead somewhere, is tested by ``make docs``.
"""

from __future__ import annotations

import ast
import importlib
import re
from typing import TYPE_CHECKING

import pytest
import yaml

from otel_dllogger.cli.main import cli
from tests.support.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.newest_only

DOCS = ROOT / "docs"
MODULES = ("", ".training", ".logs", ".testing", ".integrations.mmengine")


class Loader(yaml.SafeLoader):
    """A loader that passes over the functions that mkdocs.yml names."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def pages_of(entry: object) -> Iterator[str]:
    """Return the pages of a part of the navigation, which is a page, a list or a section."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from pages_of(part)


def test_every_page_is_in_the_navigation() -> None:
    """Once, and the navigation has no page that does not exist."""
    configuration = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    pages = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    assert pages == sorted(pages_of(configuration["nav"]))


def test_nothing_comes_from_the_network() -> None:
    """The site works where there is none: fonts and scripts are its own."""
    configuration = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    assert configuration["theme"]["font"] is False
    for name in ("extra_css", "extra_javascript"):
        assert [one for one in configuration.get(name, []) if "//" in one] == []


def public_names(path: Path) -> list[str]:
    """Return ``__all__`` of a module, which may need packages that are not installed."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise AssertionError(f"{path} has no __all__")


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """Once, by the name that users import it by, and nothing else is."""
    path = ROOT.joinpath("otel_dllogger", *module.split("."))
    names = public_names(path / "__init__.py" if path.is_dir() else path.with_suffix(".py"))
    # What has the name of a module, as track has, is found inside of that only.
    expected = [f"{name}.{name}" if (path / f"{name}.py").exists() else name for name in names]
    text = "\n".join(page.read_text() for page in (DOCS / "reference" / "api").glob("*.md"))
    described = re.findall(rf"^::: otel_dllogger{module}\.(\S+)$", text, re.MULTILINE)
    others = tuple(f"{one[len(module) + 1 :]}." for one in MODULES if len(one) > len(module))
    assert sorted(expected) == sorted(name for name in described if not name.startswith(others))


def test_every_command_is_in_the_reference() -> None:
    """The page is made from the group that has all of them, and none of them is hidden."""
    page = (DOCS / "reference" / "cli.md").read_text()
    module, command = re.findall(r"^    :(?:module|command): (\S+)$", page, re.MULTILINE)
    assert getattr(importlib.import_module(module), command) is cli
    assert ":list_subcommands: True" in page
    assert [name for name, one in cli.commands.items() if one.hidden or not one.help] == []

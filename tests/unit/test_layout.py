"""Tests stay small enough to be worked with, and each stands on its own."""

from __future__ import annotations

import ast
import re

import pytest

from tests.support.paths import ROOT, TESTS

pytestmark = pytest.mark.newest_only

MAX_LINES = 600
FOLDERS = ("frameworks", "integration", "system", "unit")
FILES = sorted(path.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py"))
# In a string as well: of a script that a test starts.
_IMPORTS = re.compile(
    rf"\b(?:from|import)\s+tests\s*\.\s*((?:{'|'.join(FOLDERS)})\b[\w.]*)"
    rf"|\bfrom\s+tests\s+import\s.*\b({'|'.join(FOLDERS)})\b"
    r"|^\s*(?:from|import)\s+((?:test_|conftest\b)\w*)"
    r"|^\s*from\s+(\.[\w.]*)\s+import\b",
    re.MULTILINE,
)


def imports_of_tests(text: str, own: str = "") -> list[str]:
    """Return what a file imports of tests, but for itself, in a script that it starts."""
    found = ["".join(groups) for groups in _IMPORTS.findall(text)]
    return [name for name in found if name != own]


def test_all_tests_are_seen() -> None:
    """This file is among them, and so is one of each folder."""
    assert "unit/test_layout.py" in FILES
    assert {name.partition("/")[0] for name in FILES} >= set(FOLDERS)


def test_each_file_lies_in_the_folder_of_its_kind() -> None:
    """Directly, so that it is found by its name."""
    assert [
        name for name in FILES if not re.fullmatch(rf"({'|'.join(FOLDERS)})/\w+\.py", name)
    ] == []


def test_no_file_is_long() -> None:
    """Each can be read in one go."""
    lines = {name: (TESTS / name).read_text(encoding="utf-8").count("\n") for name in FILES}
    assert {} == {name: number for name, number in lines.items() if number > MAX_LINES}


def test_no_test_imports_another() -> None:
    """What several files need is in ``tests/support``, or a fixture in a ``conftest.py``."""
    found = {}
    for name in FILES:
        own = name.removesuffix(".py").replace("/", ".")
        found[name] = imports_of_tests((TESTS / name).read_text(encoding="utf-8"), own)
    assert {} == {name: names for name, names in found.items() if names}


@pytest.mark.parametrize("folder", ["scripts", "soak", "support"])
def test_what_tests_import_imports_no_test(folder: str) -> None:
    """Helpers know nothing of the tests that use them."""
    paths = list((TESTS / folder).glob("*.py"))
    assert paths
    found = {path.name: imports_of_tests(path.read_text(encoding="utf-8")) for path in paths}
    assert {} == {name: names for name, names in found.items() if names}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("from TESTS.unit.test_a import B", ["unit.test_a"]),
        ("import TESTS.system.test_a as a", ["system.test_a"]),
        ("from TESTS.frameworks import test_a", ["frameworks"]),
        ("from TESTS import unit", ["unit"]),
        ("    from test_a import B", ["test_a"]),
        ("from .test_a import B", [".test_a"]),
        ("code = 'from TESTS.unit.test_a import B'", ["unit.test_a"]),
        ("from TESTS.support.units import a", []),
        ("from TESTS.unit.test_own import a", []),
        ("from testing import test_a", []),
    ],
)
def test_an_import_of_a_test_is_found(line: str, names: list[str]) -> None:
    """In each form, in a string as well; helpers, libraries and the file itself are none."""
    line = line.replace("TESTS", "tests")  # so that this file has no such import in a string
    assert imports_of_tests(line, "unit.test_own") == names


def test_no_name_of_a_test_is_there_twice() -> None:
    """Two files of one name cannot be collected together, and a second test hides the first."""
    names = [name.rpartition("/")[2] for name in FILES]
    assert sorted(set(names)) == sorted(names)
    hidden = {}
    for name in FILES:
        body = ast.parse((TESTS / name).read_bytes()).body
        functions = [node.name for node in body if isinstance(node, ast.FunctionDef)]
        twice = {one for one in functions if functions.count(one) > 1}
        if twice:
            hidden[name] = twice
    assert {} == hidden


def test_the_guide_names_the_folders() -> None:
    """CONTRIBUTING says what belongs into each."""
    guide = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert [folder for folder in FOLDERS if f"`tests/{folder}`" not in guide] == []

"""The document about what is promised names tests that exist and that pytest runs."""

from __future__ import annotations

import ast
import re

import pytest

from otel_dllogger.diagnostics import OTLP, PROCESS, REASONS
from tests.support.paths import ROOT, TESTS

pytestmark = pytest.mark.newest_only

TEXT = (ROOT / "docs" / "reference" / "promises.md").read_text(encoding="utf-8")

_QUOTED = re.compile(r"`([^`\n]+)`")
_TEST = re.compile(r"(test_\w+\.py)(?:::(test_\w+))?")


def named_in(text):
    """Return what a text names as a test, rightly or wrongly spelt."""
    return [one for one in _QUOTED.findall(text) if one.startswith("test_") or "::" in one]


def found_in(path):
    """Return the names of the tests that pytest finds in a file, None where there is no file.

    Those are its own functions: neither functions within others, nor one whose name a later
    statement of the module takes.
    """
    if not path.is_file():
        return None
    owners = {}
    for node in ast.parse(path.read_bytes()).body:
        for name in _names_given_by(node):
            owners[name] = node
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        name
        for name, node in owners.items()
        if name.startswith("test_") and isinstance(node, functions)
    }


def _names_given_by(node):
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return [node.name]
    return [
        one.id
        for one in ast.walk(node)
        if isinstance(one, ast.Name) and isinstance(one.ctx, (ast.Store, ast.Del))
    ]


def wrong_in(text, folder=TESTS):
    """Return what a text names as a test and pytest would not run."""
    wrong = []
    for name in named_in(text):
        match = _TEST.fullmatch(name)
        tests = match and found_in(next(folder.rglob(match[1]), folder / match[1]))
        if not tests or (match[2] and match[2] not in tests):
            wrong.append(name)
    return wrong


@pytest.mark.slow
def test_every_test_that_is_named_is_there():
    """Whoever looks a promise up finds what holds it."""
    assert wrong_in(TEXT) == []
    files = {name.partition("::")[0] for name in named_in(TEXT)}
    assert len(files) > 40


@pytest.mark.parametrize(
    ("name", "is_wrong"),
    [
        ("test_some.py", False),
        ("test_some.py::test_one", False),
        ("test_some.py::test_two", True),
        ("test_some.py::test_within", True),
        ("test_some.py::test_taken", True),
        ("test_some.py::helper", True),
        ("test_some.py:test_one", True),
        ("some.py::test_one", True),
        ("test_some", True),
        ("test_other.py", True),
        ("test_empty.py", True),
    ],
)
def test_a_wrong_name_is_found(name, is_wrong, tmp_path):
    """Of a file, of a test, of what is not run, and one that is not spelt as a name."""
    (tmp_path / "test_some.py").write_text(
        "def test_one():\n    def test_within():\n        pass\n"
        "def helper():\n    pass\n"
        "def test_taken():\n    pass\n"
        "test_taken = None\n"
    )
    (tmp_path / "test_empty.py").touch()
    assert wrong_in(f"| a promise | `{name}` |", tmp_path) == [name] * is_wrong


def test_every_row_of_a_promise_names_a_test():
    """A promise that nothing holds says so."""
    tables = re.findall(r"^\|.*\| held by \|\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    rows = "".join(tables).splitlines()
    assert len(tables) == len(re.findall(r"^## \d", TEXT, re.MULTILINE)) == 9
    assert len(rows) > 60
    without = [row for row in rows if not named_in(row.split("|")[-2])]
    assert [] == [row for row in without if not row.endswith("| no test yet |")]


def test_the_table_of_reasons_has_them_all():
    """Each once, and no other, with its unit and the words in which ``check`` says it."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*?) \|", TEXT, re.MULTILINE)
    known = {**REASONS[PROCESS], **REASONS[OTLP]}
    assert sorted(known) == sorted(name for name, *_ in rows)
    assert [] == [row for row in rows if row[1] != known[row[0]].unit]
    assert [] == [row for row in rows if not row[2].startswith(known[row[0]].words)]
    assert {"lines", "values", "events"} == {unit for _, unit, _ in rows}


def test_readers_are_led_to_it():
    """From where people begin to read."""
    for name in ("README.md", "CONTRIBUTING.md"):
        assert "](docs/reference/promises.md)" in (ROOT / name).read_text(encoding="utf-8"), name

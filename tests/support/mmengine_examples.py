"""Run the examples in the document about MMEngine's logging."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from otel_dllogger.identity import host_name
from tests.support.paths import ROOT

DOC = ROOT / "docs" / "reference" / "mmengine.md"
TEXT = DOC.read_text(encoding="utf-8")

_MARK = "=== the end of an example ==="
_FENCED = re.compile(
    r"^(?:## (?P<section>[^\n]*)\n|(?:<!-- (?P<kind>\w+) -->\n)?```python\n(?P<source>.*?)^```\n"
    r"(?:\n```text\n(?P<printed>.*?)^```\n)?)",
    re.MULTILINE | re.DOTALL,
)
_RUN_ALL = f"""
import json, sys
names = {{"__name__": "__main__"}}
for source in json.load(sys.stdin):
    exec(compile(source, "example.py", "exec"), names)
    print({_MARK!r}, flush=True)
"""
# What differs from run to run, in lines that begin with the time.
_VOLATILE = (
    (re.compile(r"\d\d/\d\d \d\d:\d\d:\d\d"), "08/21 02:58:41"),
    (re.compile(r"eta: \d+:\d\d:\d\d"), "eta: 0:00:00"),
    (re.compile(r"time: \d+\.\d+"), "time: 0.0001"),
)
_DATED = re.compile(r"(in the file: \d{4}/)?\d\d/\d\d \d\d:\d\d:\d\d - ")
_YEAR = re.compile(r"(?<=in the file: )\d{4}")


@dataclass(frozen=True, slots=True)
class Example:
    """A block of Python and what it prints.

    Attributes:
        section: The heading that it is under.
        number: The number of the block among those of its kind in the section, from 1.
        source: The block.
        printed: The block of text that follows, or "".
    """

    section: str
    number: int
    source: str
    printed: str

    def __str__(self) -> str:
        return f"{self.section}, {self.number}"


def examples(kind: str) -> list[Example]:
    """Return the document's examples of a kind.

    Args:
        kind: The text of the comment before them: "mmengine", "config" for lines of a
            configuration, or "" if there is no comment.
    """
    found: list[Example] = []
    section = ""
    for match in _FENCED.finditer(TEXT):
        if match["section"]:
            section = match["section"]
        elif (match["kind"] or "") == kind:
            number = 1 + sum(example.section == section for example in found)
            found.append(Example(section, number, match["source"], match["printed"] or ""))
    return found


@functools.cache
def printed_by(section: str, kind: str) -> list[str]:
    """Run a section's examples one after another, and return what each of them prints."""
    sources = [example.source for example in examples(kind) if example.section == section]
    printed = output_of(_RUN_ALL, json.dumps(sources)).split(f"{_MARK}\n")
    assert len(printed) == len(sources) + 1
    return printed[:-1]


def output_of(program: str, given: str) -> str:
    """Run a program in its own folder, and return what it prints."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OTEL_EXPORTER_PROMETHEUS_PORT": "0",
        "OTEL_DLLOGGER_RAISE": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", program],
            input=given,
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=folder,
            env=environment,
            timeout=200,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


def steady(text: str) -> str:
    """Return a text in which everything that differs from run to run is replaced."""
    lines = []
    for line in text.replace(f"_{host_name()}_", "_node3_").splitlines():
        if _DATED.match(line):
            for pattern, replacement in _VOLATILE:
                line = pattern.sub(replacement, line)  # noqa: PLW2901
            line = _YEAR.sub("2025", line)  # noqa: PLW2901
        lines.append(line.rstrip())
    return "\n".join(lines)

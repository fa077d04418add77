"""Helpers of the tests of a rank's logger: checks of its lines, and a process to run it in."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.support.command import environment

DEADLINE_S = 120
CONSOLE = r"\d\d/\d\d \d\d:\d\d:\d\d - "
FILE = r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d - "


def assert_lines(text, *patterns):
    """Check that a text has as many lines as there are patterns, each matching its own."""
    lines = text.splitlines()
    assert len(patterns) == len(lines), text
    for pattern, line in zip(patterns, lines, strict=True):
        assert re.fullmatch(pattern, line), line


def python(code, *arguments, stdout=subprocess.PIPE, shell="", **environ):
    """Run a script in its own process; return its stdout, stderr and exit code."""
    wrapper = ["sh", "-c", f'exec "$@" {shell}', "sh"] if shell else []
    done = subprocess.run(
        [*wrapper, sys.executable, "-X", "dev", "-c", code, *map(str, arguments)],
        env=environment(**environ),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.stdout, done.stderr, done.returncode


PLAIN = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def levels_of(text):
    """Return the levels in a text's lines, with their colours."""
    return tuple(line.split(" - ")[2] for line in text.splitlines())

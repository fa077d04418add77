"""SIGKILL at random moments: what log() has returned from is in the file."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys

import pytest

from tests.support.paths import TESTS

pytestmark = pytest.mark.newest_only

SCRIPT = TESTS / "scripts" / "kill_writers.py"
DEADLINE_S = 100
WRITERS = ((80, 0), (60, 20_000), (60, 1_000_000))
"""Kills, and bytes of filler in a line of about 120 B, 20 KB, 1 MB."""

WHOLE = re.compile(rb'DLLL \{.*"step": \[(\d+), (\d+)\], "data": \{"loss":(\d+),"text":"(x*)"\}\}')
STEP = re.compile(rb'"step": \[(\d+), ')


def check(path, size, writers):
    """Return how many lines are torn, after all that must hold did."""
    *lines, rest = path.read_bytes().split(b"\n")
    assert b"" == rest
    found = [[] for _writer in writers]
    torn = []
    for line in lines:
        whole = WHOLE.fullmatch(line)
        if whole is None:
            torn.append(line)
            continue
        writer, number = json.loads(line[5:])["step"]
        assert (size, number) == (len(whole[4]), int(whole[3]))
        found[writer].append(number)
    for numbers, (acknowledged, opened, counted, torn_before) in zip(found, writers, strict=True):
        # The one line more is a call that was killed after its write, before it returned.
        assert list(range(len(numbers))) == numbers
        assert acknowledged <= len(numbers) <= acknowledged + 1
        assert torn_before == counted or not opened
    # Half a line is the beginning of one line, of a writer that tore no other.
    assert all(line[:6] == b"DLLL {"[: len(line)] and not line.count(b"DLLL", 1) for line in torn)
    steps = [STEP.search(line) for line in torn]
    torn_writers = [step[1] for step in steps if step]
    assert sorted(set(torn_writers)) == sorted(torn_writers)
    return len(torn)


def test_200_kills_lose_no_line(tmp_path):
    """No line that log() returned from is lost, and a kill tears one line at most."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    started = [
        subprocess.Popen(
            [sys.executable, SCRIPT, tmp_path / str(size), str(kills), str(size), str(seed)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for kills, size in WRITERS
    ]
    try:
        printed = [process.communicate(timeout=DEADLINE_S)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert [0, 0, 0] == [process.returncode for process in started]
    expected = 200
    assert expected == sum(kills for kills, _size in WRITERS)
    for (kills, size), text in zip(WRITERS, printed, strict=True):
        writers = json.loads(text)
        torn = check(tmp_path / str(size), size, writers)
        lines = sum(writer[0] for writer in writers)
        print(f"lines of {size} B and more: {lines} acknowledged, {torn} torn by {kills} kills")
        assert (kills, True) == (len(writers), torn <= kills)
        assert lines > kills

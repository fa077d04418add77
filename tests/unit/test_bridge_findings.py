"""Bridge and backfill say what they found and what makes it doubtful, as ``check`` does."""

from __future__ import annotations

import os
import time

import pytest

from tests.support.bridge import BridgeProcess
from tests.support.command import environment, otel_dllogger
from tests.support.http import wait_until

pytestmark = pytest.mark.newest_only

UNTAGGED = "each step is there 4 times: several ranks pass for one"


def untagged(first, last):
    """Give a log of four ranks without tags, with the present day."""
    day = time.strftime("%Y-%m-%d")
    return "".join(
        f"DLL {day} 00:{step:02}:00.{rank:06} - {step} train.loss : {step}.5\n"
        for step in range(first, last)
        for rank in range(4)
    )


@pytest.fixture
def runs(tmp_path):
    """A folder with a doubtful log and a log that has not grown for a day."""
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "resnet.log").write_text(untagged(1, 9))
    (folder / "bert.log").write_text(untagged(1, 9))
    day_ago = time.time() - 86400
    os.utime(folder / "bert.log", (day_ago, day_ago))
    return folder


def test_a_bridge_says_what_it_found(runs, tmp_path):
    """Logs, runs, ranks, what is too old, and what is doubtful, each once."""
    log = runs / "resnet.log"
    with BridgeProcess("runs", folder=tmp_path, variables=environment()) as bridge:
        wait_until(lambda: UNTAGGED in bridge.errors())
        with log.open("a") as stream:
            stream.write(untagged(9, 12))
        bridge.wait_for_value(44, "dllogger_records_total", "type=log", "run=resnet")
    assert [
        "1 log found",
        f"1 log is not read, since nothing was added within --expire 15m: {runs / 'bert.log'}",
        "1 rank of 1 run: resnet (1 rank)",
    ] == [line.partition(": ")[2].partition("; ")[0] for line in bridge.errors().splitlines()[1:4]]
    assert 1 == bridge.errors().count(UNTAGGED)
    assert f"otel-dllogger: {log}: {UNTAGGED}" in bridge.errors()


def test_a_quiet_bridge_says_nothing(runs, tmp_path):
    """With -q, what is doubtful is for ``check`` to say."""
    done = otel_dllogger("backfill", "-q", "runs", "--to", "openmetrics", "o.om", cwd=tmp_path)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)


def test_backfill_says_each_finding_once(runs, tmp_path):
    """A finding of several logs is one line on stderr, with the first of them."""
    done = otel_dllogger("backfill", "runs", "--to", "openmetrics", "o.om", cwd=tmp_path)
    assert 1 == done.stderr.count(UNTAGGED)
    assert f"otel-dllogger: {runs / 'bert.log'} and 1 more: {UNTAGGED}" in done.stderr
    assert UNTAGGED not in done.stdout


def test_backfill_says_how_steps_are_read(tmp_path):
    """A decision about steps is said with its reason, as it was before it was a finding."""
    (tmp_path / "a.log").write_text(
        "".join(f"DLL 2023-09-25 10:00:0{n} - ({n}, 48) loss : 0.5\n" for n in range(1, 9))
    )
    done = otel_dllogger("backfill", "a.log", "--to", "openmetrics", "o.om", cwd=tmp_path)
    assert 1 == done.stderr.count("steps are read as (iteration, all iterations): ")

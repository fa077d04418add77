"""The pictures of the dashboards: the training that they show, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest
import yaml

from grafana.pictures.run import find_dashboards
from grafana.pictures.training import SHIPPED, lapse, make_plans
from tests.support.paths import ROOT
from tests.support.prometheus import find_program, wait_for

pytestmark = pytest.mark.newest_only


OTHERS = {"live-page", "watch"}  # which make view-pictures takes


def test_every_dashboard_has_a_picture():
    """Those of the README, and whichever is added."""
    pictures = {path.stem for path in (ROOT / "docs" / "images").glob("*.png")}
    assert {path.stem for path in find_dashboards()} == pictures - OTHERS
    assert pictures > OTHERS


def test_the_shipped_configuration_runs_faster_and_is_otherwise_as_it_is(tmp_path):
    """Intervals and folders change, and what does not watch ranks is left out."""
    shipped = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    faster = lapse(shipped, [tmp_path / "a", tmp_path / "b"], SHIPPED / "rules")
    assert "2s" == faster["global"]["scrape_interval"] == faster["global"]["evaluation_interval"]
    discovery = faster["scrape_configs"][0]["file_sd_configs"][0]
    assert [f"{tmp_path}/a/*.json", f"{tmp_path}/b/*.json"] == discovery["files"]
    assert [str(SHIPPED / "rules" / "*.yml")] == faster["rule_files"]
    assert "alerting" not in faster
    for name in shipped.keys() - {"global", "rule_files", "scrape_configs", "alerting"}:
        assert shipped[name] == faster[name]
    # A second job with these files would scrape each rank twice.
    (job,) = faster["scrape_configs"]
    assert {**shipped["scrape_configs"][0], "file_sd_configs": [discovery]} == job


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_the_runs_have_names_and_a_time_of_their_own(ranks):
    """The first one ends, then comes the second one, which trains when the picture is taken."""
    first, second = make_plans(ranks)
    assert first.run != second.run
    assert first.begin + first.length < second.begin < 1
    assert second.begin + second.length > 1


def test_without_prometheus_it_says_so_in_one_line(tmp_path):
    """What is missing, and how to get it."""
    done = subprocess.run(
        [sys.executable, "-m", "grafana.pictures", "--output", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert 1 == done.returncode
    assert ["grafana.pictures: no prometheus on PATH; install it (apt-get install prometheus)"] == (
        done.stderr.splitlines()
    )


def is_alive(process):
    """Tell whether a process still runs, which one that only waits to be reaped does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.slow
def test_an_interrupt_ends_everything_that_was_started(tmp_path):
    """Ctrl-C leaves no Prometheus, no rank and no folder."""
    find_program("prometheus")
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("node", "chromium"):  # they are not needed until the training is over
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "grafana.pictures",
            "--ranks",
            "2",
            "--output",
            str(tmp_path / "out"),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "TMPDIR": str(tmp_path),
            "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # Prometheus, and the one rank of the first run.
        own = psutil.Process(process.pid)
        started = wait_for(own.children, lambda children: len(children) >= 2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert (130, "") == (process.returncode, errors)
    assert output.startswith("training for 240 s")
    # They were waited for; whose parent has gone may lie there until init has looked.
    wait_for(lambda: [child for child in started if is_alive(child)], lambda alive: not alive)
    assert [tmp_path / "out", programs] == sorted(tmp_path.iterdir())

"""Children by fork, spawn and forkserver, while the parent logs from threads and is scraped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
from collections import Counter
from contextlib import contextmanager, suppress

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_dllogger import JSONStreamBackend, PrometheusBackend
from tests.support.command import uncovered
from tests.support.http import ask, wait_until
from tests.support.paths import TESTS

SCRIPTS = TESTS / "scripts"
DEADLINE_S = 60


@contextmanager
def script(name, *arguments):
    """Run a script until the block ends; its whole group of processes goes with it."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", SCRIPTS / name, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=uncovered(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def read_report(path):
    """Wait for a report, and read it."""
    wait_until(path.exists, DEADLINE_S)
    return json.loads(path.read_text())


def logged_in(path):
    """Count the data of every LOG line; a line that is not whole fails."""
    lines = [json.loads(line[5:]) for line in path.read_text().splitlines()]
    return Counter(tuple(*line["data"].items()) for line in lines if line["type"] == "LOG")


def series_of(port):
    """Scrape a page whose every series must be there once."""
    page = ask(port).body.decode()
    series = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            key = (sample.name, *sorted(sample.labels.items()))
            assert key not in series
            series[key] = sample.value
    return series


def value_of(series, name, **labels):
    """Return the one value of a name with these labels."""
    (value,) = [
        value
        for (found, *pairs), value in series.items()
        if found == name and labels.items() <= dict(pairs).items()
    ]
    return value


@pytest.mark.parametrize(
    ("method", "count"), [("fork", 60), ("mp-fork", 40), ("spawn", 8), ("forkserver", 12)]
)
def test_children_leave_everything_as_it_was(method, count, tmp_path):
    """No child hangs, repeats a line or a series, or ends what is its parent's."""
    (tmp_path / "children").mkdir()
    (tmp_path / "discovery").mkdir()
    with script("fork_children.py", tmp_path, method, count) as process:
        discovery = tmp_path / "discovery"
        wait_until(lambda: list(discovery.glob("*.json")), DEADLINE_S)
        (target,) = discovery.glob("*.json")
        address = json.loads(target.read_text())[0]["targets"][0]
        port = urllib.parse.urlsplit(f"//{address}").port
        scrapes = 0
        deadline_s = time.monotonic() + DEADLINE_S
        while not (tmp_path / "parent.json").exists():
            series_of(port)
            scrapes += 1
            assert time.monotonic() < deadline_s
        parent = read_report(tmp_path / "parent.json")
        children = [read_report(tmp_path / "children" / str(one)) for one in range(count)]
        last = series_of(port)
        assert [target] == list(discovery.glob("*.json"))
        process.stdin.close()
        assert 0 == process.wait(DEADLINE_S)
    assert [0] * count == parent["codes"]
    assert [{"sockets": [], "threads": []}] * count == children
    expected = {("child", number): 1 for number in range(count)}
    for thread, logged in enumerate(parent["counts"]):
        expected |= {(f"thread{thread}", number): 1 for number in range(logged)}
    assert expected == logged_in(tmp_path / "log")
    # What a child logs is in the file, and is not the parent's to export.
    assert sum(parent["counts"]) == value_of(last, "dllogger_records_total", type="log")
    assert 0 == value_of(last, "dllogger_run_finished")
    assert 0 == sum(value for (name, *_), value in last.items() if name == "dllogger_dropped_total")
    assert "dl_child" not in {name for name, *_ in last}
    assert scrapes > 0
    assert not list(discovery.iterdir())  # the parent's own end does remove the file


def test_a_child_does_not_wait_for_locks_of_threads_it_has_not(tmp_path):
    """With every lock held by another thread at the fork, the child logs and ends."""
    with script("fork_once.py", "locks", tmp_path) as process:
        assert {"code": 0} == read_report(tmp_path / "report.json")
        assert 0 == process.wait(DEADLINE_S)
    assert {("loss", 1): 1} == logged_in(tmp_path / "log")


def test_a_child_does_not_write_what_its_parent_keeps(tmp_path):
    """Lines that a full disk refused are the parent's, and follow once, from the parent."""
    with script("fork_once.py", "pending", tmp_path) as process:
        assert {"code": 0} == read_report(tmp_path / "report.json")
        assert 0 == process.wait(DEADLINE_S)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [0, 3, 1, 2] == [json.loads(line[5:])["data"]["loss"] for line in lines]


def test_an_orphan_holds_neither_port_nor_file(tmp_path):
    """A child that outlives its killed parent keeps the next run from nothing."""
    with script("fork_once.py", "orphan", tmp_path) as process:
        report = read_report(tmp_path / "report.json")
        port = urllib.parse.urlsplit(report["url"]).port
        assert 1 == value_of(series_of(port), "dllogger_records_total", type="log")
        process.kill()
        process.wait(DEADLINE_S)
        backend = PrometheusBackend(1, port=port, discovery_dir=tmp_path / "discovery")
        try:
            child = psutil.Process(report["child"])
            assert psutil.STATUS_ZOMBIE != child.status()
            assert port == backend.endpoint.port
            assert 0 == value_of(series_of(port), "dllogger_records_total", type="log")
            # Its file can be emptied, as a run that does not append expects.
            JSONStreamBackend(1, tmp_path / "log").close()
            assert b"" == (tmp_path / "log").read_bytes()
        finally:
            backend.close()

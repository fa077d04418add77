"""The file that announces a rank: its content, its end, and that Prometheus reads it."""

from __future__ import annotations

import contextlib
import fnmatch
import http.server
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger.diagnostics import Diagnostics
from otel_dllogger.http import service_discovery
from otel_dllogger.http.discovery_folder import GivenBy
from otel_dllogger.http.service_discovery import DiscoveryFile
from otel_dllogger.identity import host_name
from tests.support.service_discovery import ADDRESS, DEADLINE_S, labels_of, make_topology, names
from tests.support.spoken import SpokenLog

pytestmark = pytest.mark.newest_only


@pytest.fixture
def diagnostics(monkeypatch):
    """Give the module diagnostics of its own, so that counts start at zero."""
    diagnostics = Diagnostics()
    monkeypatch.setattr(service_discovery, "DIAGNOSTICS", diagnostics)
    return diagnostics


@pytest.fixture
def caplog(caplog, diagnostics):
    """What was logged, the warnings of these diagnostics included."""
    return SpokenLog(caplog, diagnostics)


def lost(diagnostics):
    """Return the reasons that have counted anything."""
    return {reason: count for reason, count in diagnostics.dropped.items() if count}


def test_the_file_says_where_and_who(tmp_path):
    """The target stands alone, and all labels are meta labels that Prometheus drops."""
    file = DiscoveryFile(tmp_path / "a" / "b", make_topology(rank=3), address=ADDRESS)
    here = service_discovery._this_process()
    expected = [
        {
            "targets": [ADDRESS],
            "labels": {
                "__meta_dllogger_host": host_name(),
                "__meta_dllogger_pid_namespace": str(Path("/proc/self/ns/pid").readlink()),
                "__meta_dllogger_pid": str(os.getpid()),
                "__meta_dllogger_start": here.start,
                "__meta_dllogger_run": "r",
                "__meta_dllogger_rank": "3",
            },
        }
    ]
    assert expected == json.loads(file.path.read_bytes())
    assert [f"dllogger_r_3_{host_name()}.json"] == names(tmp_path / "a" / "b")


def test_prometheus_user_may_read_the_file(tmp_path):
    """A private umask does not hide the file from a Prometheus of another user."""
    umask = os.umask(0o077)
    try:
        file = DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    finally:
        os.umask(umask)
    expected = 0o644
    assert expected == stat.S_IMODE(file.path.stat().st_mode)


def test_no_glob_finds_a_temporary_file(tmp_path):
    """A file that is being written is invisible to ``*.json``."""
    assert not fnmatch.fnmatch(service_discovery._temporary_path(tmp_path).name, "*.json")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:9464", "127.0.0.1:9464"),
        ("node7:9464", "node7:9464"),
        ("0.0.0.0:9464", "here:9464"),
        ("[::]:9464", "here:9464"),
        (":::9464", "here:9464"),
        (":9464", "here:9464"),
        ("[::1]:9464", "[::1]:9464"),
        ("::1:9464", "[::1]:9464"),
    ],
)
def test_a_wildcard_is_announced_as_the_host(address, expected, tmp_path):
    """Nobody can scrape 0.0.0.0 of another machine, so the host's name stands for it."""
    file = DiscoveryFile(tmp_path, make_topology(host="here"), address=address)
    assert expected == json.loads(file.path.read_bytes())[0]["targets"][0]


@pytest.mark.parametrize(
    ("run", "host", "expected"),
    [
        ("gpt_2.b-1", "node7", "dllogger_gpt_2.b-1_0_node7.json"),
        ("a/b", "node7", "dllogger_a-b-c14cddc0_0_node7.json"),
        ("../../etc", "node7", "dllogger_..-..-etc-74ccf3c5_0_node7.json"),
        ("r", "my_node", "dllogger_r_0_my-node-e74a1c5e.json"),
    ],
)
def test_file_names_are_safe(run, host, expected, tmp_path):
    """Characters that a path or a glob could trip over are replaced, and a hash says so."""
    assert (
        expected
        == DiscoveryFile(tmp_path, make_topology(run, host=host), address=ADDRESS).path.name
    )


@given(
    st.tuples(st.text(max_size=150), st.integers(0, 11), st.text("a1_-é", min_size=1, max_size=80)),
    st.tuples(st.text(max_size=150), st.integers(0, 11), st.text("a1_-é", min_size=1, max_size=80)),
)
def test_different_ranks_have_different_files(first, second):
    """No two (run, rank, host) share a name, however odd, and every name fits a file system."""
    found = [service_discovery._file_name(make_topology(*one)) for one in (first, second)]
    assert (first == second) == (found[0] == found[1])
    assert all(len(name) <= 255 and name.isascii() and "/" not in name for name in found)


def test_separators_within_the_parts_do_not_collide():
    """A rank that could be read as part of the run or the host is not."""
    first = service_discovery._file_name(make_topology("a_1", 2, "h"))
    second = service_discovery._file_name(make_topology("a", 1, "2_h"))
    assert first != second


@pytest.mark.parametrize("below", ["file", "file/folder", "nul\0"])
def test_a_folder_that_cannot_be_is_counted(below, tmp_path, diagnostics, caplog):
    """What cannot be written never raises: it is counted, named, and removed without effect."""
    (tmp_path / "file").write_text("in the way")
    file = DiscoveryFile(tmp_path / below, make_topology(), address=ADDRESS)
    file.remove()
    expected = {"discovery": 1}
    assert expected == lost(diagnostics)
    (message,) = caplog.messages
    assert f"{str(tmp_path / below)!r}" in message
    assert "127.0.0.1:9464 must be added to Prometheus by hand; pass discovery_dir" in message
    assert message.startswith(str(file.problem))
    assert file.problem.argument == "discovery_dir"
    untouched = ["file"]
    assert untouched == names(tmp_path)


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch, diagnostics):
    """A full disk costs the announcement, not a temporary file as well."""

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    expected = ({"discovery": 1}, [])
    assert expected == (lost(diagnostics), names(tmp_path))


def test_remove_is_idempotent(tmp_path):
    """The file goes with the first call, and a second finds nothing to do."""
    file = DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    file.remove()
    file.remove()
    assert not names(tmp_path)


def test_remove_leaves_a_file_taken_over(tmp_path):
    """A file that a later attempt has replaced is that attempt's to remove."""
    first = DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    second = DiscoveryFile(tmp_path, make_topology(), address="127.0.0.1:9465")
    first.remove()
    expected = ["127.0.0.1:9465"]
    assert expected == json.loads(second.path.read_bytes())[0]["targets"]


def test_remove_accepts_a_file_that_is_gone(tmp_path, diagnostics, caplog):
    """A folder that somebody has emptied is as good as removed."""
    file = DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    file.path.unlink()
    file.remove()
    assert not caplog.messages


def test_remove_that_fails_warns(tmp_path, diagnostics, caplog, monkeypatch):
    """A file that cannot be removed is named, and training goes on."""

    def denied(source, target):
        raise PermissionError(13, "Permission denied")

    file = DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    monkeypatch.setattr(Path, "rename", denied)
    file.remove()
    (message,) = caplog.messages
    assert f"{str(file.path)!r} could not be removed" in message


def test_a_default_folder_is_nothing_to_warn_of(tmp_path, diagnostics, caplog, monkeypatch):
    """Nobody asked for it: neither what cannot be swept nor what cannot be removed is said."""

    def broken(*_arguments):
        raise RuntimeError("broken")

    def denied(source, target):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "dllogger_other.json").touch()
    monkeypatch.setattr(service_discovery._Sweep, "file", broken)
    default = {"given_by": GivenBy.DEFAULT}
    file = DiscoveryFile(tmp_path, make_topology(), address=ADDRESS, **default)
    monkeypatch.setattr(Path, "rename", denied)
    file.remove()
    assert not caplog.messages
    DiscoveryFile(tmp_path, make_topology(), address=ADDRESS, given_by=GivenBy.VARIABLE)
    assert "RuntimeError: broken" in caplog.messages[0]


def test_a_forked_child_removes_nothing(tmp_path):
    """The file belongs to the process that wrote it, not to its forks."""
    code = """
import os, sys
from otel_dllogger.http.service_discovery import DiscoveryFile
from otel_dllogger.identity import detect_topology
from tests.support.spoken import SpokenLog
file = DiscoveryFile(sys.argv[1], detect_topology({}, run="r"), address="127.0.0.1:1")
child = os.fork()
if child == 0:
    file.remove()
    os._exit(0)
_, status = os.waitpid(child, 0)
print(status, file.path.exists(), flush=True)
file.remove()
print(file.path.exists(), flush=True)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, tmp_path],
        check=True,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    expected = ("0 True\nFalse\n", "")
    assert expected == (result.stdout, result.stderr)


class _Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'dl_loss{run="r",rank="3"} 1.5\n'
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def metrics_endpoint():
    """Serve one series as a rank does, and yield its address."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Metrics)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join(DEADLINE_S)
        server.server_close()


def prometheus_config(folder, targets):
    """Write a configuration that watches ``targets``, and return its path."""
    path = folder / "prometheus.yml"
    path.write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
                "scrape_configs": [
                    {
                        "job_name": "dllogger",
                        "file_sd_configs": [
                            {"files": [f"{targets}/*.json"], "refresh_interval": "1s"}
                        ],
                    }
                ],
            }
        )
    )
    return path


@contextlib.contextmanager
def prometheus(config, storage):
    """Run a real Prometheus until the end of the block, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (storage.parent / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={storage}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(DEADLINE_S)


def poll(url, found):
    """Ask Prometheus until ``found`` is true of its answer, and return what it found."""
    deadline_s = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline_s:
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(url, timeout=DEADLINE_S) as answer,
        ):
            value = found(json.load(answer)["data"])
            if value:
                return value
        time.sleep(0.05)
    pytest.fail(f"no answer from {url} within {DEADLINE_S} s")


@pytest.mark.slow
def test_promtool_accepts_the_file(tmp_path):
    """Prometheus' own check finds the target, with the meta labels before relabelling only."""
    targets = tmp_path / "targets"
    file = DiscoveryFile(targets, make_topology(rank=3), address=ADDRESS)
    config = prometheus_config(tmp_path, targets)
    subprocess.run(["promtool", "check", "config", config], check=True, capture_output=True)
    result = subprocess.run(
        ["promtool", "check", "service-discovery", "--timeout=1s", config, "dllogger"],
        check=True,
        capture_output=True,
    )
    (found,) = json.loads(result.stdout)
    visible = {name: found["labels"][name] for name in found["labels"] if name[:2] != "__"}
    discovered = found["discoveredLabels"]
    meta = {name: discovered[name] for name in discovered if name.startswith("__meta_dllogger_")}
    expected = ({"instance": ADDRESS, "job": "dllogger"}, labels_of(file.path), set())
    assert expected == (visible, meta, meta.keys() & found["labels"].keys())


@pytest.mark.slow
def test_prometheus_scrapes_what_the_file_announces(tmp_path):
    """A real Prometheus finds the rank, keeps its run and rank, and forgets it when it goes."""
    targets = tmp_path / "targets"
    config = prometheus_config(tmp_path, targets)
    with metrics_endpoint() as address, prometheus(config, tmp_path / "data") as server:
        file = DiscoveryFile(targets, make_topology(rank=3), address=address)
        (target,) = poll(
            f"{server}/api/v1/targets",
            lambda data: [one for one in data["activeTargets"] if one["health"] == "up"],
        )
        query = urllib.parse.urlencode({"query": "dl_loss"})
        (series,) = poll(f"{server}/api/v1/query?{query}", lambda data: data["result"])
        file.remove()
        gone = poll(f"{server}/api/v1/targets", lambda data: not data["activeTargets"])
    expected = {"instance": address, "job": "dllogger"}
    assert (expected, {"__name__": "dl_loss", "run": "r", "rank": "3", **expected}, True) == (
        target["labels"],
        series["metric"],
        gone,
    )

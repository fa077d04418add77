"""The discovery folder: real ranks that live, fork and are killed, and a real Prometheus."""

from __future__ import annotations

import contextlib
import fnmatch
import http.server
import json
import os
import signal
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
from otel_dllogger.http.service_discovery import DiscoveryFile, sweep_stale
from otel_dllogger.identity import Topology, host_name
from tests.support.spoken import SpokenLog

pytestmark = pytest.mark.newest_only

DEADLINE_S = 20
ADDRESS = "127.0.0.1:9464"

RANK = """
import sys
from otel_dllogger.http.service_discovery import DiscoveryFile
from otel_dllogger.identity import detect_topology
directory, rank = sys.argv[1], int(sys.argv[2])
print("ready", flush=True)
if sys.stdin.readline():
    file = DiscoveryFile(
        directory, detect_topology({}, run="r", rank=rank), address=f"127.0.0.1:{9464 + rank}"
    )
    print(file.path.name, flush=True)
    sys.stdin.readline()
"""

HALF_WRITTEN = """
import sys
from pathlib import Path
from otel_dllogger.http.service_discovery import _temporary_path
path = _temporary_path(Path(sys.argv[1]))
path.write_text("[{")
print(path.name, flush=True)
sys.stdin.readline()
"""


def make_topology(run="r", rank=0, host=None):
    """Describe a rank as this process would."""
    return Topology(run, rank, rank, 8, 1, host or host_name(), os.getpid())


@contextlib.contextmanager
def python(code, *arguments):
    """Run code in a process of its own, which is gone afterwards."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def start_rank(process):
    """Let a rank that is ready write its file, and return the file's name."""
    process.stdin.write("go\n")
    return process.stdout.readline().strip()


@contextlib.contextmanager
def live_rank(directory, rank=0):
    """Run one rank, whose file is written when the block is entered."""
    with python(RANK, directory, rank) as process:
        process.stdout.readline()
        start_rank(process)
        yield process


def names(directory):
    """List what is in a folder."""
    return sorted(path.name for path in Path(directory).iterdir())


def labels_of(path):
    """Read the labels of the one target group of a file."""
    return json.loads(path.read_bytes())[0]["labels"]


def write_variant(path, source, **changes):
    """Write another process's file with some of its labels changed."""
    groups = json.loads(source)
    for name, value in changes.items():
        groups[0]["labels"][f"__meta_dllogger_{name}"] = value
    path.write_text(json.dumps(groups))
    return path


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


@pytest.fixture
def dead_content(tmp_path_factory):
    """Return what a rank wrote that has since been killed."""
    directory = tmp_path_factory.mktemp("dead")
    with live_rank(directory):
        (path,) = directory.iterdir()
        return path.read_bytes()


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
    assert "127.0.0.1:9464 by hand; pass discovery_dir or OTEL_DLLOGGER_DISCOVERY_DIR" in message
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
    assert f"{str(file.path)!r} stays behind" in message


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


@pytest.mark.parametrize("reaped", [False, True])
def test_the_file_of_a_killed_rank_is_swept(reaped, tmp_path):
    """A rank killed by SIGKILL is dead to the sweep, whether its parent has noticed or not."""
    with live_rank(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        expected = (1, [], 0)
        assert expected == (sweep_stale(tmp_path), names(tmp_path), sweep_stale(tmp_path))


@pytest.fixture
def clock(monkeypatch):
    """Return a function that lets time pass for the sweep, but not for the file system."""
    passed_s = [0.0]
    now = time.time
    monkeypatch.setattr(service_discovery.time, "time", lambda: now() + passed_s[0])

    def wait(seconds):
        passed_s[0] += seconds

    return wait


def announce(directory, rank=0, address=ADDRESS):
    """Start a rank in this process, as far as the folder is concerned."""
    return DiscoveryFile(directory, make_topology(rank=rank), address=address).path.name


def test_a_new_rank_sweeps_after_the_grace(tmp_path, clock):
    """A start marks what dead ranks of this host left; one ten minutes later removes it."""
    with live_rank(tmp_path, rank=1):
        (dead,) = names(tmp_path)
    left = (tmp_path / dead).read_bytes()
    new = announce(tmp_path)
    both = sorted([dead, f"{dead}.dead", new])
    marked = (names(tmp_path), (tmp_path / dead).read_bytes())
    clock(service_discovery.GRACE_S - 60)
    announce(tmp_path)
    still = names(tmp_path)
    clock(61)
    announce(tmp_path)
    assert ((both, left), both, [new]) == (marked, still, names(tmp_path))


def test_a_mark_is_no_target(tmp_path):
    """Prometheus reads *.json: the dead rank's own file, and not the mark beside it."""
    with live_rank(tmp_path, rank=1):
        pass
    announce(tmp_path)
    marks = [name for name in names(tmp_path) if not fnmatch.fnmatch(name, "*.json")]
    assert [f"dllogger_r_1_{host_name()}.json.dead"] == marks


def test_a_rank_that_starts_again_takes_its_file_at_once(tmp_path, clock):
    """Its file is overwritten and its mark goes, so that its next death has all of the grace."""
    with live_rank(tmp_path):
        pass
    sweep_stale(tmp_path, grace_s=service_discovery.GRACE_S)
    marked = names(tmp_path)
    clock(service_discovery.GRACE_S / 2)
    with live_rank(tmp_path):
        running = names(tmp_path)
    clock(service_discovery.GRACE_S / 2 + 1)
    swept = sweep_stale(tmp_path, grace_s=service_discovery.GRACE_S)
    (name,) = running
    both = [name, f"{name}.dead"]
    assert (both, 0, both) == (marked, swept, names(tmp_path))


def test_a_mark_of_an_earlier_process_does_not_count(tmp_path, clock, dead_content):
    """A mark that stayed behind says nothing of who died under that name later."""
    path = tmp_path / f"dllogger_r_0_{host_name()}.json"
    path.write_bytes(dead_content)
    path.with_name(f"{path.name}.dead").write_bytes(b"earlier")
    clock(service_discovery.GRACE_S + 1)
    swept = sweep_stale(tmp_path, grace_s=service_discovery.GRACE_S)
    mark = path.with_name(f"{path.name}.dead").read_bytes()
    assert (0, dead_content) == (swept, mark)


def test_a_mark_without_a_file_goes(tmp_path):
    """Where somebody deleted a dead rank's file, the mark follows; what is not a mark stays."""
    (tmp_path / f"dllogger_r_0_{host_name()}.json.dead").touch()
    (tmp_path / "dllogger_r_0_elsewhere.json.dead").touch()
    (tmp_path / f"other_r_0_{host_name()}.json.dead").touch()
    expected = (0, ["dllogger_r_0_elsewhere.json.dead", f"other_r_0_{host_name()}.json.dead"])
    assert expected == (sweep_stale(tmp_path), names(tmp_path))


def test_a_file_replaced_while_it_is_marked_has_no_mark(tmp_path, dead_content, monkeypatch):
    """A rank that starts between the look at its old file and the mark is not marked."""
    path = tmp_path / f"dllogger_r_0_{host_name()}.json"
    path.write_bytes(dead_content)
    write = service_discovery._write

    def taken_over(mark, content):
        path.write_bytes(b"new")
        write(mark, content)

    monkeypatch.setattr(service_discovery, "_write", taken_over)
    assert (0, [path.name]) == (
        sweep_stale(tmp_path, grace_s=service_discovery.GRACE_S),
        names(tmp_path),
    )


def test_the_file_of_a_dead_rank_whose_address_is_taken_goes_at_once(tmp_path):
    """It would keep the address announced when the rank that has it now closes."""
    with live_rank(tmp_path, rank=1):
        pass
    new = announce(tmp_path, address="127.0.0.1:9465")
    assert [new] == names(tmp_path)


def test_a_mark_that_cannot_be_written_leaves_the_file(tmp_path, dead_content, monkeypatch):
    """A full disk costs the mark, and neither the dead rank's file nor the start."""

    def full(path, content):
        raise OSError(28, "No space left on device")

    path = tmp_path / f"dllogger_r_0_{host_name()}.json"
    path.write_bytes(dead_content)
    monkeypatch.setattr(service_discovery, "_write", full)
    assert (0, [path.name]) == (
        sweep_stale(tmp_path, grace_s=service_discovery.GRACE_S),
        names(tmp_path),
    )


@pytest.mark.parametrize("targets", [[], ["a:1", "b:1"], None, 3])
def test_a_dead_file_without_one_address_has_its_grace(targets, tmp_path, dead_content):
    """An odd list of targets is nobody's address."""
    groups = json.loads(dead_content)
    groups[0]["targets"] = targets
    path = tmp_path / f"dllogger_r_1_{host_name()}.json"
    path.write_text(json.dumps(groups))
    swept = sweep_stale(tmp_path, grace_s=service_discovery.GRACE_S, taken=ADDRESS)
    assert (0, [path.name, f"{path.name}.dead"]) == (swept, names(tmp_path))


def test_the_file_of_a_live_rank_stays(tmp_path):
    """A rank that runs keeps its file, and so does the process that sweeps."""
    DiscoveryFile(tmp_path, make_topology(rank=1), address=ADDRESS)
    with live_rank(tmp_path):
        before = names(tmp_path)
        assert (0, before) == (sweep_stale(tmp_path), names(tmp_path))
        expected = 2
        assert expected == len(before)


@pytest.mark.parametrize("change", ["ticks", "boot"])
def test_the_file_of_a_recycled_pid_is_swept(change, tmp_path):
    """A pid that is alive is another process if it started at another time or boot."""
    with live_rank(tmp_path):
        (path,) = tmp_path.iterdir()
        boot, ticks = labels_of(path)["__meta_dllogger_start"].split(".")
        start = f"{boot}.{int(ticks) - 1}" if change == "ticks" else f"00000000.{ticks}"
        write_variant(path, path.read_bytes(), start=start)
        expected = 1
        assert expected == sweep_stale(tmp_path)


def test_a_live_rank_of_unknown_start_stays(tmp_path):
    """Where the system did not tell the start, a live pid is taken for the rank."""
    with live_rank(tmp_path):
        (path,) = tmp_path.iterdir()
        write_variant(path, path.read_bytes(), start="")
        expected = 0
        assert expected == sweep_stale(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"host": "elsewhere"},
        {"pid_namespace": "pid:[1]"},
        {"pid": "0"},
        {"pid": "-99999999"},
        {"pid": str(2**40)},
        {"pid": "x"},
        {"pid": None},
    ],
)
def test_what_is_not_of_this_host_stays(changes, tmp_path, dead_content):
    """Pids of other hosts and other containers say nothing here, nor do pids that cannot be."""
    path = write_variant(tmp_path / f"dllogger_r_0_{host_name()}.json", dead_content, **changes)
    assert (0, [path.name]) == (sweep_stale(tmp_path), names(tmp_path))


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"null", b"[1]", b"\xff\xfe", b"[" * 60000, b'[{"targets": ["x:1"]}]'],
)
def test_malformed_files_stay(content, tmp_path):
    """A file that this package did not write is nobody's to remove."""
    (tmp_path / f"dllogger_r_0_{host_name()}.json").write_bytes(content)
    expected = 0
    assert expected == sweep_stale(tmp_path)


def test_files_of_other_hosts_are_not_even_read(tmp_path, monkeypatch):
    """A sweep costs as much as this host has files, not as much as the cluster has."""
    for host in ("elsewhere", f"x{host_name()}", host_name()):
        DiscoveryFile(tmp_path, make_topology(host=host), address=ADDRESS)
    read = []
    monkeypatch.setattr(service_discovery, "_read", lambda path: read.append(path.name) or b"")
    sweep_stale(tmp_path)
    assert [f"dllogger_r_0_{host_name()}.json"] == read


def test_foreign_names_stay(tmp_path, dead_content):
    """Only regular files under the package's own names are looked at, links and pipes are not."""
    (tmp_path / "targets.json").write_bytes(dead_content)
    (tmp_path / f"dllogger_r_0_{host_name()}.json.bak").write_bytes(dead_content)
    (tmp_path / ".dllogger-notes.tmp").write_bytes(dead_content)
    (tmp_path / f"dllogger_link_0_{host_name()}.json").symlink_to("targets.json")
    (tmp_path / f"dllogger_folder_0_{host_name()}.json").mkdir()
    os.mkfifo(tmp_path / f"dllogger_pipe_0_{host_name()}.json")
    before = names(tmp_path)
    assert (0, before) == (sweep_stale(tmp_path), names(tmp_path))


def test_a_live_process_of_another_user_stays(tmp_path, monkeypatch):
    """A pid that may not be signalled is alive, also where /proc hides whose it is."""

    def denied(pid, number):
        raise PermissionError(1, "Operation not permitted")

    DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    monkeypatch.setattr(os, "kill", denied)
    monkeypatch.setattr(service_discovery, "read_process", lambda pid: None)
    expected = 0
    assert expected == sweep_stale(tmp_path)


def test_without_proc_the_pid_must_do(tmp_path, monkeypatch):
    """Where the system tells neither start nor namespace, files still come and go."""

    def missing(path):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(service_discovery, "read_process", lambda pid: None)
    monkeypatch.setattr(os, "readlink", missing)
    file = DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    labels = labels_of(file.path)
    with python("") as process:
        process.wait(DEADLINE_S)
    write_variant(
        tmp_path / f"dllogger_r_1_{host_name()}.json", file.path.read_bytes(), pid=str(process.pid)
    )
    expected = ("", "", 1, [file.path.name])
    assert expected == (
        labels["__meta_dllogger_start"],
        labels["__meta_dllogger_pid_namespace"],
        sweep_stale(tmp_path),
        names(tmp_path),
    )


def test_without_a_boot_id_the_ticks_must_do(tmp_path, monkeypatch):
    """A /proc without the kernel's random folder, as sandboxes have it, still tells the start."""

    def missing(path, **options):
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "read_text", missing)
    DiscoveryFile(tmp_path, make_topology(), address=ADDRESS)
    expected = 0
    assert expected == sweep_stale(tmp_path)


@pytest.mark.parametrize("missing", ["nowhere", "nul\0"])
def test_a_missing_folder_has_nothing_to_sweep(missing, tmp_path):
    """A sweep before the folder exists is no fault."""
    expected = 0
    assert expected == sweep_stale(tmp_path / missing)


def test_temporary_files_of_dead_ranks_are_swept(tmp_path):
    """A rank killed while it wrote leaves half a file, which only its death makes stale."""
    with python(HALF_WRITTEN, tmp_path) as process:
        name = process.stdout.readline().strip()
        other = tmp_path / f".dllogger-00000000-{process.pid}-0.1-0123abcd.tmp"
        other.touch()
        alive = (sweep_stale(tmp_path), names(tmp_path))
    expected = ((0, sorted([name, other.name])), (1, [other.name]))
    assert expected == (alive, (sweep_stale(tmp_path), names(tmp_path)))


def test_a_file_replaced_during_the_sweep_stays(tmp_path, dead_content, monkeypatch):
    """A new attempt that takes over a dead one's name during a sweep keeps its file."""
    path = tmp_path / f"dllogger_r_0_{host_name()}.json"
    path.write_bytes(dead_content)

    def taken_over(owner, here):
        path.write_bytes(b"new")
        return True

    monkeypatch.setattr(service_discovery, "_is_dead", taken_over)
    assert (0, [path.name], b"new") == (sweep_stale(tmp_path), names(tmp_path), path.read_bytes())


def test_eight_ranks_start_at_once_over_a_dead_run(tmp_path):
    """Ranks that sweep and write the same names at the same time all end up announced."""
    with contextlib.ExitStack() as dead:
        for rank in range(8):
            dead.enter_context(live_rank(tmp_path, rank))
        left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with contextlib.ExitStack() as stack:
        ranks = [stack.enter_context(python(RANK, tmp_path, rank)) for rank in range(8)]
        for process in ranks:
            process.stdout.readline()
        for process in ranks:
            process.stdin.write("go\n")
        announced = sorted(process.stdout.readline().strip() for process in ranks)
        assert sorted(left) == announced == names(tmp_path)  # and no mark is left behind
        assert {str(process.pid) for process in ranks} == {
            labels_of(path)["__meta_dllogger_pid"] for path in tmp_path.iterdir()
        }


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

"""Announcements of dead ranks are removed, and no others."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from otel_dllogger.http import service_discovery
from otel_dllogger.http.service_discovery import DiscoveryFile, sweep_stale
from otel_dllogger.identity import host_name
from tests.support.service_discovery import ADDRESS, DEADLINE_S, labels_of, make_topology, names

pytestmark = pytest.mark.newest_only

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


def write_variant(path, source, **changes):
    """Write another process's file with some of its labels changed."""
    groups = json.loads(source)
    for name, value in changes.items():
        groups[0]["labels"][f"__meta_dllogger_{name}"] = value
    path.write_text(json.dumps(groups))
    return path


@pytest.fixture
def dead_content(tmp_path_factory):
    """Return what a rank wrote that has since been killed."""
    directory = tmp_path_factory.mktemp("dead")
    with live_rank(directory):
        (path,) = directory.iterdir()
        return path.read_bytes()


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


@pytest.mark.slow
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

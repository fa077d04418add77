"""The identity of a rank: tables of launchers, and real processes that must agree."""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_dllogger import identity
from otel_dllogger.diagnostics import Diagnostics
from otel_dllogger.errors import ConfigurationError
from otel_dllogger.identity import ProcessStat, clean_run, detect_topology, read_process
from tests.support.spoken import SpokenLog

pytestmark = pytest.mark.newest_only

DEADLINE_S = 30

RANK = """
import json, os
from dataclasses import asdict
from otel_dllogger.identity import detect_topology
os.write(1, json.dumps(asdict(detect_topology())).encode() + b"\\n")  # whole: ranks share it
"""

LAUNCHER = """
import json, os, subprocess, sys
wrapper, rank = json.loads(sys.argv[1]), sys.argv[2]
ranks = [
    subprocess.Popen(
        [*(wrapper if number else []), sys.executable, "-c", rank],
        env={**os.environ, "RANK": str(number), "WORLD_SIZE": "3", "LOCAL_RANK": str(number)},
    )
    for number in range(3)
]
sys.exit(max(process.wait() for process in ranks))
"""


def clean_environ() -> dict[str, str]:
    """Leave out whatever launcher the tests themselves run under."""
    prefixes = (
        *("SLURM_", "TORCHELASTIC_", "OMPI_", "PMI_", "PADDLE_", "MV2_", "LSB_", "PBS_"),
        *("LOCAL_", "MASTER_"),
    )
    names = ("RANK", "WORLD_SIZE", "OTEL_DLLOGGER_RUN")
    return {
        name: value
        for name, value in os.environ.items()
        if name not in names and not name.startswith(prefixes)
    }


def run_python(code: str, *arguments: str) -> list[dict]:
    """Run Python code in a new process and read its lines of JSON."""
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=clean_environ(),
        stdout=subprocess.PIPE,
        timeout=DEADLINE_S,
        check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


def launch(wrapper: list[str] | None = None) -> list[dict]:
    """Start three ranks as torchrun does, all but the first through ``wrapper``."""
    ranks = run_python(LAUNCHER, json.dumps(wrapper or []), RANK)
    return sorted(ranks, key=lambda found: found["rank"])


@pytest.fixture
def diagnostics(monkeypatch):
    """Give the module diagnostics of its own, so that no warning is held back."""
    diagnostics = Diagnostics()
    monkeypatch.setattr(identity, "DIAGNOSTICS", diagnostics)
    return diagnostics


@pytest.fixture
def caplog(caplog, diagnostics):
    """What was logged, the warnings of these diagnostics included."""
    return SpokenLog(caplog, diagnostics)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, (0, 0, 1)),
        ({"RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16"}, (9, 1, 16)),
        ({"SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NTASKS": "16"}, (9, 1, 16)),
        (
            {
                "OMPI_COMM_WORLD_RANK": "9",
                "OMPI_COMM_WORLD_LOCAL_RANK": "1",
                "OMPI_COMM_WORLD_SIZE": "16",
            },
            (9, 1, 16),
        ),
        ({"PMI_RANK": "9", "MPI_LOCALRANKID": "1", "PMI_SIZE": "16"}, (9, 1, 16)),
        (
            {"PADDLE_TRAINER_ID": "9", "PADDLE_LOCAL_RANK": "1", "PADDLE_TRAINERS_NUM": "16"},
            (9, 1, 16),
        ),
        (
            {
                "MV2_COMM_WORLD_RANK": "9",
                "MV2_COMM_WORLD_LOCAL_RANK": "1",
                "MV2_COMM_WORLD_SIZE": "16",
            },
            (9, 1, 16),
        ),
        ({"RANK": "-1", "LOCAL_RANK": "-1", "WORLD_SIZE": "-1"}, (0, 0, 1)),
        ({"RANK": " 3 "}, (3, 0, 4)),
        ({"RANK": ""}, (0, 0, 1)),
        # torchrun within a Slurm job, which counts nodes:
        (
            {
                "RANK": "9",
                "WORLD_SIZE": "16",
                "SLURM_PROCID": "1",
                "SLURM_LOCALID": "5",
                "SLURM_NTASKS": "2",
            },
            (9, 0, 16),
        ),
        # LOCAL_RANK alone is no launcher's family:
        ({"LOCAL_RANK": "7", "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, (1, 0, 2)),
    ],
)
def test_ranks_come_from_the_first_family_alone(environ, expected):
    """Each launcher's variables are read as a family, and families are never mixed."""
    found = detect_topology(environ)
    assert expected == (found.rank, found.local_rank, found.world_size)


@pytest.mark.parametrize("garbage", ["two", "1.0", "-2", "1_0", "٣", "9" * 5000, "\udc80"])
def test_garbage_is_ignored_with_one_line(garbage, diagnostics, caplog):
    """A variable that is no number is skipped, and the warning names it."""
    with caplog.at_level(logging.WARNING, "otel_dllogger"):
        found = detect_topology({"RANK": garbage, "SLURM_PROCID": "3", "SLURM_NTASKS": "4"})
    expected = (3, 4)
    assert expected == (found.rank, found.world_size)
    (message,) = caplog.messages
    assert f"RANK={garbage[:40]!r} is ignored: it must be a whole number" in message
    assert not any(diagnostics.dropped.values())


def test_the_rank_argument_wins():
    """A rank that is passed replaces the one of the environment, and -1 is 0."""
    environ = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
    expected = [2, 0]
    assert expected == [detect_topology(environ, rank=rank).rank for rank in (2, -1)]


def test_an_impossible_rank_argument_is_refused():
    """An argument below -1 is the caller's mistake, and says so."""
    with pytest.raises(ConfigurationError, match="rank=-2 is not a whole number from -1 "):
        detect_topology({}, rank=-2)


def test_the_run_comes_from_the_first_source_that_has_one():
    """Taking the sources away one by one shows their order, from argument to process."""
    sources = {
        "OTEL_DLLOGGER_RUN": "named",
        "TORCHELASTIC_RUN_ID": "elastic",
        "SLURM_JOB_ID": "4242",
        "PBS_JOBID": "7.server",
        "LSB_JOBID": "99",
    }
    found = [detect_topology(sources, run="given").run]
    environ = dict(sources)
    for name in sources:
        found.append(detect_topology(environ, run="").run)
        del environ[name]
    assert ["given", *sources.values()] == found


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TORCHELASTIC_RUN_ID": "none", "SLURM_JOB_ID": "4242"}, "4242"),
        ({"OTEL_DLLOGGER_RUN": " \n", "SLURM_JOB_ID": "4242"}, "4242"),
        ({"OTEL_DLLOGGER_RUN": "\x00\udc80", "SLURM_JOB_ID": "4242"}, "4242"),
        ({"OTEL_DLLOGGER_RUN": " a\nb\x1b[0m "}, "ab[0m"),
        ({"SLURM_JOB_ID": "4250", "SLURM_ARRAY_JOB_ID": "4242"}, "4250"),
        (
            {
                "SLURM_JOB_ID": "4250",
                "SLURM_ARRAY_JOB_ID": "4242",
                "SLURM_ARRAY_TASK_ID": "7",
            },
            "4242_7",
        ),
        ({"LSB_JOBID": "99", "LSB_JOBINDEX": "0"}, "99"),
        ({"LSB_JOBID": "99", "LSB_JOBINDEX": ""}, "99"),
        ({"LSB_JOBID": "99", "LSB_JOBINDEX": "3"}, "99[3]"),
    ],
)
def test_run_sources_with_a_catch(environ, expected):
    """Placeholders, empty names and job arrays do not make two runs one."""
    assert expected == detect_topology(environ).run


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 1),
        ({"TORCHELASTIC_RESTART_COUNT": "0"}, 1),
        ({"TORCHELASTIC_RESTART_COUNT": "1"}, 2),
        ({"SLURM_RESTART_COUNT": "2"}, 3),
        ({"TORCHELASTIC_RESTART_COUNT": "0", "SLURM_RESTART_COUNT": "1"}, 2),
    ],
)
def test_attempts_count_from_one(environ, expected):
    """The second attempt is the one after the first restart."""
    assert expected == detect_topology(environ).attempt


@given(st.text(st.characters(), max_size=300))
def test_any_text_becomes_a_label_value(text):
    """A run's name is printable, bounded, encodable, and clean already when cleaned."""
    name = clean_run(text)
    name.encode("utf-8")
    assert (True, True, name, name) == (
        name.isprintable(),
        len(name) <= 128,
        name.strip(),
        clean_run(name),
    )


def test_long_names_stay_apart():
    """Two names that agree in their first 128 characters are two runs."""
    expected = 2
    assert expected == len({clean_run("x" * 128 + "1"), clean_run("x" * 128 + "2")})


@pytest.mark.parametrize(
    ("nodename", "expected"),
    [
        ("node7.cluster.example", "node7"),
        ("node7", "node7"),
        ("", "unknown"),
        ("\udc80", "unknown"),
    ],
)
def test_the_host_is_its_first_label(nodename, expected, monkeypatch):
    """A host's name is short, and there is always one."""
    uname = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((uname[0], nodename, *uname[2:])))
    assert expected == detect_topology({}).host


def test_ranks_of_one_launcher_agree():
    """Real children of one real launcher find one run, and their own ranks."""
    ranks = launch()
    expected = 1
    assert expected == len({found["run"] for found in ranks})
    expected = [(0, 0, 3), (1, 1, 3), (2, 2, 3)]
    assert expected == [
        (found["rank"], found["local_rank"], found["world_size"]) for found in ranks
    ]


def test_two_launches_disagree():
    """The same command launched again is another run."""
    first = launch()[0]["run"]
    time.sleep(1.1)  # runs are named after seconds
    assert first != launch()[0]["run"]


def test_ranks_behind_wrapper_scripts_agree():
    """A shell between launcher and rank, as numactl wrappers are, does not part the ranks."""
    ranks = launch(["sh", "-c", '"$@"; true', "wrapper"])
    expected = 1
    assert expected == len({found["run"] for found in ranks})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://me:hunter2@bucket/run", "s3://[redacted]@bucket/run"),
        ("run of ghp_" + "aB3" * 12, "run of [redacted]"),
        ("tokens=300B,pass=two", "tokens=300B,pass=two"),
    ],
)
def test_a_run_has_no_secrets_of_a_known_form(text, expected):
    """A URL with a password does not become a label; what only has a name keeps runs apart."""
    assert expected == clean_run(text) == detect_topology({}, run=text).run


def test_a_recycled_launcher_pid_is_another_run(monkeypatch):
    """The same pid started at another time is another launcher."""
    environ = {"RANK": "0"}
    first = detect_topology(environ).run
    monkeypatch.setattr(
        identity,
        "read_process",
        lambda pid: replace(read_process(pid), start_ticks=read_process(pid).start_ticks + 500),
    )
    assert first != detect_topology(environ).run


def test_a_script_without_a_launcher_is_named_after_itself_and_its_start():
    """``train-20261128-171447``, in local time, as the clock on the wall shows it."""
    started_s = psutil.Process().create_time()
    around = {
        "train-" + time.strftime("%Y%m%d-%H%M%S", time.localtime(started_s + offset_s))
        for offset_s in (-1, 0, 1)
    }
    with argv("/home/me/train.py", "--lr", "0.1"):
        assert detect_topology({}).run.removesuffix(f"-{os.getpid()}") in around


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        ("train.py", "train"),
        ("/a/b/my train.py", "my train"),
        ("/a/trainer/__main__.py", "trainer"),
        ("train", "train"),
        ("train.v2", "train.v2"),
        ("tr\nain.py", "train"),
        ("-c", "python"),
        ("-m", "python"),
        ("", "python"),
        ("/a/", "python"),
    ],
)
def test_the_script_is_the_program_that_was_called(program, expected):
    """Without folder and ending; a package's main module has the name of the package."""
    with argv(program):
        assert expected == identity._script_name()


@contextlib.contextmanager
def argv(*arguments):
    """Let this process have been called with other arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", list(arguments))
        yield


SWEEP = """
import subprocess, sys, time
time.sleep(1.05 - time.clock_gettime(time.CLOCK_BOOTTIME) % 1)
pipe = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
other = subprocess.Popen(["cat"], **pipe)
trials = [subprocess.Popen([sys.executable, "-c", sys.argv[1]], **pipe) for _ in range(3)]
for line in [trial.stdout.readline() for trial in trials]:  # all of them run until the last is done
    print(line.decode(), end="")
for process in (*trials, other):
    process.communicate()
"""


def test_trials_that_one_shell_starts_at_once_are_runs_of_their_own():
    """The first is named after the second in which it started, the others after their pids too."""
    trials = run_python(SWEEP, f"{RANK}import sys; sys.stdin.read()")
    first, *others = sorted(trials, key=lambda trial: trial["pid"])
    assert re.fullmatch(r"python-\d{8}-\d{6}", first["run"])
    assert [f"{first['run']}-{other['pid']}" for other in others] == [
        other["run"] for other in others
    ]


@pytest.mark.parametrize("children", [OSError, PermissionError])
def test_where_nobody_tells_the_siblings_a_run_has_its_pid(children, monkeypatch):
    """Some kernels do not list children."""
    read = identity._read_proc

    def guarded(name):
        if name.endswith("/children"):
            raise children
        return read(name)

    identity._is_one_of_several.cache_clear()
    monkeypatch.setattr(identity, "_read_proc", guarded)
    assert detect_topology({}).run.endswith(f"-{os.getpid()}")
    identity._is_one_of_several.cache_clear()


HOSTS = {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8", "LOCAL_RANK": "1"}
ADDRESS = {"MASTER_ADDR": "node1.cluster", "MASTER_PORT": "29500"}


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({**HOSTS, **ADDRESS}, "train-node1-29500"),
        ({**HOSTS, **ADDRESS, "TORCHELASTIC_RUN_ID": "none"}, "train-node1-29500"),
        ({**HOSTS, **ADDRESS, "TORCHELASTIC_RUN_ID": "abc"}, "abc"),
        ({**HOSTS, **ADDRESS, "MASTER_ADDR": "10.0.0.1"}, "train-10.0.0.1-29500"),
        ({**HOSTS, **ADDRESS, "MASTER_ADDR": "fe80::1"}, "train-fe80::1-29500"),
        # as in a pod of Kubernetes: nothing says how many ranks are on the host
        ({"WORLD_SIZE": "16", **ADDRESS}, "train-node1-29500"),
        ({"WORLD_SIZE": "16", **ADDRESS, "MASTER_ADDR": "127.0.0.1"}, None),
        ({"WORLD_SIZE": "16", **ADDRESS, "MASTER_ADDR": "localhost"}, None),
        # one host
        ({**HOSTS, **ADDRESS, "LOCAL_WORLD_SIZE": "16"}, None),
        ({"WORLD_SIZE": "1", **ADDRESS}, None),
        (ADDRESS, None),
    ],
)
def test_ranks_of_several_hosts_are_named_after_what_they_have_in_common(
    environ, expected, diagnostics, caplog
):
    """All ranks, on whatever host, find one name; on a single host it has the start."""
    with argv("train.py"), caplog.at_level(logging.WARNING, "otel_dllogger"):
        runs = {detect_topology({**environ, "RANK": str(rank)}).run for rank in (0, 9)}
    (run,) = runs
    assert run == expected or (expected is None and re.match(r"train-\d{8}-\d{6}", run))
    assert [] == caplog.messages


@pytest.mark.parametrize(
    ("environ", "is_warned"),
    [
        (HOSTS, True),
        ({**HOSTS, "MASTER_ADDR": "node1"}, True),
        ({"WORLD_SIZE": "16", "LOCAL_RANK": "1"}, True),
        ({**HOSTS, "LOCAL_WORLD_SIZE": "16"}, False),
        ({"WORLD_SIZE": "16"}, False),
        ({**HOSTS, "OTEL_DLLOGGER_RUN": "mine"}, False),
    ],
)
def test_hosts_that_cannot_agree_are_warned_of(environ, is_warned, diagnostics, caplog):
    """At once, with the variable that helps."""
    with caplog.at_level(logging.WARNING, "otel_dllogger"):
        detect_topology({**environ, "RANK": "9"})
    assert is_warned == ("OTEL_DLLOGGER_RUN" in "".join(caplog.messages))


def test_without_proc_the_pid_must_do(monkeypatch):
    """Where the system does not say when a process started, the run has host and pid."""
    monkeypatch.setattr(identity, "read_process", lambda pid: None)
    host = identity.host_name()
    with argv("train.py"):
        runs = [detect_topology(environ).run for environ in ({}, {"RANK": "0"})]
    assert [f"train-{host}-{os.getpid()}", f"train-{host}-{os.getppid()}"] == runs


@pytest.mark.parametrize(
    ("unreadable", "is_dated"), [("nothing else", True), ("stat", False), ("{pid}/stat", False)]
)
def test_unreadable_proc_files_cost_a_detail_at_most(unreadable, is_dated, monkeypatch):
    """A launcher of another user is taken as it is; what is not known is left out of the run."""
    read, pid = identity._read_proc, os.getpid()
    refused = {f"{pid}/environ", unreadable.format(pid=pid)}

    def guarded(name):
        if name in refused:
            raise PermissionError(13, "Permission denied")
        return read(name)

    monkeypatch.setattr(identity, "_read_proc", guarded)
    monkeypatch.setattr(os, "getppid", lambda: pid)
    with argv("train.py"):
        run = detect_topology({"RANK": "0"}).run
    undated = f"train-{identity.host_name()}-{pid}"
    assert is_dated == (re.match(r"train-\d{8}-\d{6}", run) is not None) == (run != undated)


def test_the_first_process_of_a_container_is_the_last_ancestor(monkeypatch):
    """Where every ancestor was given a rank, as in a pod, the topmost stands for the launcher."""
    monkeypatch.setattr(identity, "_was_started_with", lambda variable, pid: True)
    monkeypatch.setattr(identity, "_run_from_process", lambda _host, pid: f"started by {pid}")
    assert "started by 1" == detect_topology({"RANK": "0"}).run


def _spawned_with_argument(rank, results):
    results.put(detect_topology(clean_environ(), rank=rank))


def _spawned_with_environ(rank, results):
    os.environ["RANK"] = str(rank)
    results.put(detect_topology({**clean_environ(), "RANK": str(rank)}))


def _spawned_as_a_trial(number, results):
    results.put(detect_topology(clean_environ()))


def spawn(target) -> tuple[list[identity.Topology], set[int]]:
    """Start two processes as torch.multiprocessing.spawn does, and collect what they find."""
    context = multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [context.Process(target=target, args=(number, results)) for number in range(2)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join(DEADLINE_S)
    return sorted(found, key=lambda one: one.rank), {process.exitcode for process in processes}


@pytest.mark.slow
@pytest.mark.parametrize("target", [_spawned_with_argument, _spawned_with_environ])
def test_spawned_ranks_agree(target):
    """Ranks that multiprocessing started agree, told by argument or by their environment."""
    ranks, exit_codes = spawn(target)
    expected = detect_topology({}).run
    assert ({0}, [(expected, 0), (expected, 1)]) == (
        exit_codes,
        [(found.run, found.rank) for found in ranks],
    )


def test_spawned_processes_without_a_rank_are_runs_of_their_own():
    """Two trials of a search, both rank 0, are two runs rather than one with two rank 0."""
    trials, _ = spawn(_spawned_as_a_trial)
    expected = 3
    assert expected == len({detect_topology({}).run, *(found.run for found in trials)})


def test_a_program_name_does_not_confuse_the_process_table():
    """Parentheses and spaces in a program's name do not shift the fields after it."""
    code = """
import json, os
from pathlib import Path
from dataclasses import asdict
from otel_dllogger.identity import read_process
from tests.support.spoken import SpokenLog
plain = read_process(os.getpid())
Path("/proc/self/comm").write_text("a) Z 1 (b c")
print(json.dumps([asdict(plain), asdict(read_process(os.getpid()))]))
"""
    ((plain, renamed),) = run_python(code)
    assert plain == renamed
    assert (os.getpid(), False) == (renamed["parent_pid"], renamed["ended"])


def test_a_process_that_ended_is_told_from_a_live_one():
    """A killed child counts as ended before its parent notices, and is gone afterwards."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    alive = read_process(child.pid)
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    ended = read_process(child.pid)
    child.communicate(timeout=DEADLINE_S)
    assert (False, ProcessStat(os.getpid(), alive.start_ticks, ended=True), None) == (
        alive.ended,
        ended,
        read_process(child.pid),
    )


def test_import_reads_nothing():
    """Importing the module opens no file but code, and reads no environment variable."""
    code = """
import json, os, sys
import otel_dllogger.errors, otel_dllogger.diagnostics, pathlib, zlib
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
class Forbidden(dict):
    def __getitem__(self, name): raise AssertionError(name)
    get = __getitem__
os.environ = Forbidden()
import otel_dllogger.identity
print(json.dumps([path for path in opened if not path.endswith((".py", ".pyc"))]))
"""
    (read,) = run_python(code)
    assert not read


def test_a_topology_is_a_value():
    """A topology cannot be changed, and is read by name."""
    found = detect_topology({"RANK": "1", "WORLD_SIZE": "2"}, run="r")
    assert {
        "run": "r",
        "rank": 1,
        "local_rank": 0,
        "world_size": 2,
        "attempt": 1,
        "host": identity.host_name(),
        "pid": os.getpid(),
    } == asdict(found)
    with pytest.raises(AttributeError):
        found.rank = 2
    assert not hasattr(found, "__dict__")
    assert Path(f"/proc/{found.pid}").exists()

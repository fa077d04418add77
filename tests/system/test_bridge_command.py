"""``otel-dllogger bridge`` as it is called: mistakes, and the files of ``deploy/bridge``."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from otel_dllogger.cli.log_source import parse_address
from otel_dllogger.cli.terminal import UserError
from tests.support.bridge import BridgeProcess, append, parse_page, steps, value_of
from tests.support.collector import free_port
from tests.support.command import COMMAND, assert_user_error, environment, otel_dllogger
from tests.support.http import ask, wait_until
from tests.support.paths import ROOT

pytestmark = pytest.mark.newest_only

DEPLOY = ROOT / "deploy" / "bridge"
UNIT = DEPLOY / "otel-dllogger-bridge.service"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--listen", "127.0.0.1"], ("--listen 127.0.0.1", "127.0.0.1:9464")),
        (["--listen", "127.0.0.1:70000"], ("65535",)),
        (["--listen", "192.0.2.1:0"], ("not an address of this machine", "--listen")),
        (["--expire", "soon"], ("'soon' is not a duration", "15m")),
        (["--expire", "0s"], ("too short", "1s or more")),
        (["--pattern", "{rnk}.json"], ("{rnk}", "{rank}")),
        (["--timezone", "Mars/Base"], ("Mars/Base",)),
        (["--checkpoint", "missing/file"], ("missing/file", "not a folder")),
        (["--checkpoint", "."], ("is a folder", "name a file")),
        (["--checkpoint", "/proc/self/file"], ("/proc/self/file",)),
        (["--checkpoint", "log_rank0.json"], ("log_rank0.json", "is a log")),
        (["--otlp", "collector:4318"], ("collector:4318",)),
        (["--otlp", "ftp://collector"], ("ftp://collector",)),
        (["--nothing"], ("--nothing", "--help")),
    ],
)
def test_a_mistake_is_one_line(tmp_path, options, words):
    """It names what is wrong and what to do, and nothing is left behind."""
    log = tmp_path / "log_rank0.json"
    log.write_bytes(steps(0, 1))
    given = [] if "--listen" in options else ["--listen", "127.0.0.1:0"]
    assert_user_error(otel_dllogger("bridge", ".", *given, *options, cwd=tmp_path), *words)
    assert [log] == list(tmp_path.iterdir())
    assert log.read_bytes() == steps(0, 1)


def test_a_log_with_a_banner_is_no_checkpoint(tmp_path):
    """Whatever a log that is followed begins with, it is not written over."""
    log = tmp_path / "train.log"
    log.write_bytes(b"=== training ===\n" + steps(0, 1))
    before = log.read_bytes()
    given = ("--listen", "127.0.0.1:0", "--checkpoint", "train.log")
    assert_user_error(otel_dllogger("bridge", ".", *given, cwd=tmp_path), "train.log", "is a log")
    assert log.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train.py", b"import torch\n"),
        ("mine.json", b'{"format": "mine"}'),
        ("data.bin", b"\0\0data"),
        ("state.otlp", b'{"name": "state"}\n'),
    ],
)
def test_a_file_of_somebody_else_is_no_checkpoint(tmp_path, name, content):
    """It is neither written over, nor is the file beside it, which is for the collector."""
    file = tmp_path / name
    file.write_bytes(content)
    given = ("--listen", "127.0.0.1:0", "--otlp", "http://127.0.0.1:1")
    checkpoint = ("--checkpoint", name.removesuffix(".otlp"))
    done = otel_dllogger("bridge", "logs", *given, *checkpoint, cwd=tmp_path)
    assert_user_error(done, f"--checkpoint {name}", "is not a checkpoint", "name another file")
    assert file.read_bytes() == content


def test_a_pipe_or_a_device_is_no_checkpoint(tmp_path):
    """A pipe is not waited for, and a device is not replaced by a file."""
    os.mkfifo(tmp_path / "pipe")
    for path in ("pipe", "/dev/null"):
        given = ("--listen", "127.0.0.1:0", "--checkpoint", path)
        done = otel_dllogger("bridge", "logs", *given, cwd=tmp_path)
        assert_user_error(done, f"--checkpoint {path} is not a regular file", "another file")


@pytest.mark.parametrize("damage", ["whole", "indented", "half", "short", "zeros", "empty"])
def test_what_a_crash_leaves_of_a_checkpoint_is_accepted(tmp_path, damage):
    """The bridge starts, and writes a whole one when it ends."""
    log, checkpoint = tmp_path / "log_rank0.json", tmp_path / "checkpoint"
    log.write_bytes(steps(0, 3))
    given = (log, "--checkpoint", checkpoint)
    with BridgeProcess(*given, folder=tmp_path) as bridge:
        bridge.wait_for_value(3, "dllogger_bridge_lines_total")
        bridge.stop()
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(
        {
            "whole": whole,
            "indented": json.dumps(json.loads(whole), indent=1).encode(),
            "half": whole[: len(whole) // 2],
            "short": whole[:5],
            "zeros": bytes(len(whole)),
            "empty": b"",
        }[damage]
    )
    with BridgeProcess(*given, folder=tmp_path) as bridge:
        bridge.wait_for_value(1, "dllogger_bridge_files")
        bridge.stop()
    assert json.loads(checkpoint.read_bytes())["format"] == "otel_dllogger.follow"


def test_beside_a_rank_it_takes_the_next_port(tmp_path):
    """Whose page has the usual one; what expects the bridge there is told of."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # something else may have it
            stack.enter_context(socket.create_server(("127.0.0.1", 9464)))
        bridge = stack.enter_context(BridgeProcess(".", folder=tmp_path, listen=None))
        assert bridge.port > 9464
        assert re.search(
            r"^otel-dllogger: port 9464 is taken; .*--listen$", bridge.errors(), re.MULTILINE
        )


def test_a_taken_port_is_one_line(tmp_path):
    """The page is where it was asked for, or nowhere."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = otel_dllogger("bridge", ".", "--listen", address, cwd=tmp_path)
        assert_user_error(done, "taken", "--listen")
    assert_user_error(otel_dllogger("bridge", cwd=tmp_path), "PATH")


def test_addresses():
    """A host with a port, in brackets where it has colons, or a port alone."""
    for text, expected in {
        "127.0.0.1:9464": ("127.0.0.1", 9464),
        "[::1]:0": ("::1", 0),
        ":9464": ("127.0.0.1", 9464),
        "9464": ("127.0.0.1", 9464),
        " gpu7:1 ": ("gpu7", 1),
    }.items():
        assert expected == parse_address(text)
    for text in ("", "gpu7", "gpu7:", "gpu7:x", "gpu7:-1", "gpu7:65536", "gpu7:٣"):
        with pytest.raises(UserError):
            parse_address(text)


def test_what_is_not_there_yet_is_waited_for(tmp_path):
    """A path, or a glob that finds nothing, is named once, and read as soon as it is there."""
    (tmp_path / "here.json").touch()
    paths = ("here.json", "her*.json", "later/log.json", "more_*.json")
    with BridgeProcess(*paths, folder=tmp_path, variables=environment()) as bridge:
        assert bridge.port
        for path in ("later/log.json", "more_*.json"):
            assert f"otel-dllogger: {path} is not there yet; waiting for it\n" in bridge.errors()
        assert 2 == len(bridge.complaints())
        append(tmp_path / "later" / "log.json", steps(0, 3))
        append(tmp_path / "more_1.json", steps(0, 4))
        bridge.wait_for_value(3, "dllogger_records_total", "run=later", "type=log")
        bridge.wait_for_value(4, "dllogger_records_total", "run=more_1", "type=log")


def test_systemd_takes_the_unit(tmp_path):
    """Every section, directive and value is one that systemd knows."""
    program = shutil.which("systemd-analyze")
    assert program is not None, "systemd-analyze is missing: apt-get install systemd"
    unit = tmp_path / UNIT.name
    text = UNIT.read_text()
    unit.write_text(text.replace("/opt/otel-dllogger/bin/otel-dllogger", "/bin/true"))
    checked = subprocess.run(
        [program, "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (0, "", "") == (checked.returncode, checked.stdout, checked.stderr)


def test_the_command_of_the_unit_works(tmp_path):
    """What systemd makes of ExecStart follows the logs and keeps its checkpoint."""
    (command,) = re.findall(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    append(tmp_path / "a" / "run_rank0.json", steps(0, 3))
    append(tmp_path / "b" / "other_rank0.json", steps(3, 7))
    port = free_port()
    values = {
        "LOGS": f"{tmp_path}/a {tmp_path}/b",
        "OPTIONS": f"--listen 127.0.0.1:{port} --expire 1h",
        "STATE_DIRECTORY": str(tmp_path),
    }
    program, *arguments = shlex.split(command)
    assert "/opt/otel-dllogger/bin/otel-dllogger" == program
    # A variable that is a word of its own becomes several, one in braces does not.
    words = []
    for argument in arguments:
        if argument.startswith("$") and argument[1] != "{":
            words += values.pop(argument[1:]).split()
        else:
            words.append(re.sub(r"\$\{(\w+)\}", lambda found: values.pop(found[1]), argument))
    assert {} == values
    with subprocess.Popen(
        [*COMMAND, *words], env=environment(), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    ) as process:
        assert f":{port}/metrics" in process.stderr.readline()

        def is_read():
            page = parse_page(ask(port).body.decode())
            return value_of(page, "dllogger_bridge_lines_total") == 7

        wait_until(is_read, 20)
        process.terminate()
        assert 0 == process.wait(20)
        assert 2 == process.stderr.read().count("\n")  # how many logs and runs there are
    assert (tmp_path / "bridge.json").exists()


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""

TRAINING = """
import os, sys, time
from pathlib import Path
from otel_dllogger import JSONStreamBackend, Logger
folder = Path(os.environ["LOGS"], os.uname().nodename.partition(".")[0])
folder.mkdir(parents=True, exist_ok=True)
logger = Logger([JSONStreamBackend(1, str(folder / "log_rank0.json"))])
for number in range(20):
    logger.log((0, number), {"loss": 1 / (1 + number)})
while not Path("seen").exists():
    time.sleep(0.01)
logger.log((), {"loss": 0})
sys.exit(7)
"""


def test_the_batch_script_shows_training_and_ends_with_its_code(tmp_path):
    """It is on the page while it trains; nothing is left but the log and the checkpoint."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (tmp_path / "tmp").mkdir()
    for name, text in {
        "srun": SRUN,
        "otel-dllogger": f'#!/bin/bash\nexec {" ".join(COMMAND)} "$@"\n',
    }.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "train.py").write_text(TRAINING)
    port = free_port()
    variables = environment(
        PATH=f"{programs}:{os.environ['PATH']}",
        TRAIN=f"{sys.executable} train.py",
        LISTEN=f"127.0.0.1:{port}",
        TMPDIR=str(tmp_path / "tmp"),
        LINGER_SECONDS="0.1",
        PYTHONPATH=str(ROOT),
        SLURM_SUBMIT_DIR=str(tmp_path),
        SLURM_JOB_ID="4711",
        SLURM_NNODES="1",
    )
    job = [shutil.which("bash"), DEPLOY / "train.sbatch"]
    with subprocess.Popen(
        job, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:

        def is_shown():
            try:
                page = parse_page(ask(port).body.decode())
            except OSError:
                return False
            labels = ("run=4711", "rank=0", "type=log")
            return value_of(page, "dllogger_records_total", *labels) == 20

        wait_until(is_shown, 30)
        (tmp_path / "seen").touch()
        errors = process.communicate(timeout=30)[1]
    assert (7, True) == (process.returncode, "metrics of the logs" in errors)
    assert 3 == errors.count("\n"), errors  # where the page is, logs and runs
    with pytest.raises(ProcessLookupError):  # all that it started is gone
        os.killpg(process.pid, 0)
    (host,) = (tmp_path / "logs" / "4711").iterdir()
    left = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    left -= {Path("bin/srun"), Path("bin/otel-dllogger"), Path("train.py"), Path("seen")}
    log = host.relative_to(tmp_path) / "log_rank0.json"
    assert {log, Path("tmp/otel-dllogger-4711.json")} == left

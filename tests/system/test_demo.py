"""``otel-dllogger demo``: real ranks that train, are watched, stopped and killed."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.support.command import COMMAND, TIMEOUT_S, assert_user_error, environment, otel_dllogger
from tests.support.paths import ROOT

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="there is no prometheus on PATH"
)


def read_log(path):
    """Give the records of a log."""
    return [json.loads(line[5:]) for line in path.read_text().splitlines()]


def start(*options, cwd, stdout=subprocess.PIPE):
    """Start a demo of two ranks."""
    return subprocess.Popen(
        [*COMMAND, "demo", "--ranks", "2", *options],
        cwd=cwd,
        env=environment(COLUMNS="100"),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_children(process, count, name):
    """Wait until the demo has so many processes of a name, and give them."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        found = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if any(name in word for word in child.cmdline())
        ]
        if len(found) == count:
            return found
        time.sleep(0.01)
    raise TimeoutError(f"no {count} processes {name}")


def read_until(process, text):
    """Read what the demo prints until a line has this text, and give it all."""
    lines = []
    while text not in (lines[-1] if lines else ""):
        lines.append(process.stdout.readline())
        assert lines[-1], (lines, process.stderr.read())
    return "".join(lines)


def test_two_ranks_train_and_leave_their_logs(tmp_path):
    """A demo ends by itself: losses fall, one rank is slow, one meets a NaN, logs stay."""
    done = otel_dllogger(
        "demo", "--ranks", "2", "--seconds", "6", "--directory", "here", cwd=tmp_path
    )
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "here"
    assert [] == list((folder / "discovery").iterdir())
    throughput = []
    for rank in range(2):
        assert f"  rank {rank}  http://127.0.0.1:" in done.stdout
        assert f"here/log_rank{rank}.json" in done.stdout
        assert f"\n  rank {rank}  finished\n" in done.stdout
        records = [one for one in read_log(folder / f"log_rank{rank}.json") if one["type"] == "LOG"]
        steps = [one["data"] for one in records if len(one["step"]) == 2]
        epochs = [one["data"] for one in records if len(one["step"]) == 1]
        losses = [one["train.loss"] for one in steps]
        broken = [loss for loss in losses if loss != loss]
        assert len(broken) == (1 if rank == 1 else 0)
        assert losses[-1] < 0.9 * losses[0]
        if len(epochs) > 1:  # else the machine was too busy for a second one
            assert epochs[-1]["val.loss"] < epochs[0]["val.loss"]
        assert records[-1]["step"] == []
        assert records[-1]["data"]["total_steps"] == len(steps)
        throughput.append(len(steps))
    assert throughput[1] < 0.8 * throughput[0]
    run = re.search(r"^Run (demo-\S+): 2 ranks", done.stdout)[1]
    assert re.search(rf"^\d of 6 s: {run}: \w+, \d ranks?, ", done.stdout, re.MULTILINE)
    (end,) = re.findall(rf"^at the end: {run}: (.*)", done.stdout, re.MULTILINE)
    assert end.startswith("finished, 2 ranks, epoch ")
    assert f"; critical: train.loss of run {run}, rank 1 was NaN or Inf once" in end
    snippet = f'files: ["{folder}/discovery/*.json"]'
    assert snippet in done.stdout
    assert snippet in (folder / "prometheus.yml").read_text()
    for rank in range(2):
        check = otel_dllogger("check", str(folder / f"log_rank{rank}.json"))
        assert check.returncode == 0
        assert ("'train.loss' was NaN or Inf 1 time" in check.stdout) == (rank == 1)


@needs_prometheus
def test_prometheus_answers(tmp_path):
    """A Prometheus of the demo's own scrapes both ranks, answers, and is gone afterwards."""
    # Prometheus takes note of new ranks every 5 s: the second one may have to wait for that.
    process = start("--seconds", "15", "--with-prometheus", cwd=tmp_path)
    with process:
        head = read_until(process, "Prometheus, with all of them: ")
        url = head.split()[-1]
        (prometheus,) = wait_for_children(process, 1, "web.listen-address")
        data = next(word for word in prometheus.cmdline() if "tsdb.path=" in word).partition("=")[2]
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    answers = out.partition("What Prometheus answered last:\n")[2]
    for rank in range(2):
        pattern = rf"^    rank {rank} +0\.\d+$"
        assert len(re.findall(pattern, answers, re.MULTILINE)) == 2, answers
    (total,) = re.findall(r"^    all ranks +([\d.e+]+)$", answers, re.MULTILINE)
    assert float(total) > 100
    assert not prometheus.is_running()
    assert not Path(data).exists()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_demo_leaves_nothing_behind(tmp_path, number):
    """Ctrl-C, SIGTERM and a closed terminal end all processes, and no file announces them."""
    process = start("--seconds", "600", cwd=tmp_path)
    with process:
        head = read_until(process, "scrape_configs")
        ranks = wait_for_children(process, 2, "demo.train")
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    assert "nothing is left running" in out
    assert all(f"\n  rank {rank}  stopped\n" in out for rank in range(2))
    assert not [rank for rank in ranks if rank.is_running()]
    assert [] == list((tmp_path / "demo-run" / "discovery").iterdir())
    for port in re.findall(r"127\.0\.0\.1:(\d+)", head):
        with pytest.raises(OSError, match="refused"):
            urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5)
    for rank in range(2):
        assert read_log(tmp_path / "demo-run" / f"log_rank{rank}.json")[-1]["step"] == []


def test_a_demo_that_is_killed_takes_its_ranks_along(tmp_path):
    """Ranks whose demo is gone end by themselves."""
    process = start("--seconds", "600", cwd=tmp_path)
    with process:
        read_until(process, "scrape_configs")
        ranks = wait_for_children(process, 2, "demo.train")
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    _gone, alive = psutil.wait_procs(ranks, timeout=20)
    assert not alive


def test_a_rank_that_dies_is_named(tmp_path):
    """The others go on; the demo says how it ended, and which log to read."""
    process = start("--seconds", "2", cwd=tmp_path)
    with process:
        read_until(process, "scrape_configs")
        ranks = wait_for_children(process, 2, "demo.train")
        next(rank for rank in ranks if rank.environ()["RANK"] == "1").kill()
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert err == "otel-dllogger: rank 1 died (killed by SIGKILL); read demo-run/rank1.out\n"
    assert "\n  rank 0  finished\n  rank 1  died: killed by SIGKILL\n" in out
    assert [] == list((tmp_path / "demo-run" / "discovery").iterdir())


SLOW_ROW = re.compile(r"^ +3 .*straggler", re.MULTILINE)
REDRAWN = re.compile(r"\x1b\[\d+A")  # the cursor goes up, to draw over the last frame


@pytest.fixture(scope="module")
def on_terminal(tmp_path_factory):
    """Run a demo on a terminal of 80 columns, until its table has moved and has all it should."""
    folder = tmp_path_factory.mktemp("demo") / 'a "b" \\ é'
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "demo", "--seconds", "600", "--port", "23481", "--directory", folder],
        env=environment(COLUMNS="80", LINES="30", TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    received = b""
    deadline_s = time.monotonic() + TIMEOUT_S
    is_told = False
    try:
        while chunk := os.read(ours, 65536):
            received += chunk
            text = received.decode(errors="replace")
            has_all = SLOW_ROW.search(text) and REDRAWN.search(text)
            if not is_told and (has_all or time.monotonic() > deadline_s):
                is_told = True
                process.send_signal(signal.SIGINT)
    except OSError:
        pass  # how a terminal ends on Linux
    os.close(ours)
    assert process.wait(TIMEOUT_S) == 0
    return folder, received.decode()


def test_on_a_terminal_the_table_moves(on_terminal):
    """It is drawn over itself, 80 columns are enough, and the end is said below it."""
    _folder, text = on_terminal
    assert REDRAWN.search(text)
    assert SLOW_ROW.search(text)
    assert re.search(r"^\d+ of 600 s", text, re.MULTILINE)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text[REDRAWN.search(text).end() :])
    assert max(map(len, drawn.splitlines()[:8])) < 80
    assert "nothing is left running" in text
    assert text.endswith("\r\n")


def test_ports_count_up_from_the_one_asked_for(on_terminal):
    """With --port, the ranks have the ports from there on."""
    _folder, text = on_terminal
    for rank in range(4):
        assert f"rank {rank}  http://127.0.0.1:{23481 + rank}/metrics" in text


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on PATH")
def test_the_configuration_is_one_that_prometheus_takes(on_terminal):
    """The written prometheus.yml is right, also in a folder with an odd name."""
    folder, _text = on_terminal
    promtool = ["promtool", "check", "config", folder / "prometheus.yml"]
    subprocess.run(promtool, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "65535"], ("no room for 4 ranks",)),
        (["--directory", "/proc/demo"], ("'/proc/demo'", "--directory")),
        (["--directory", "/dev/null/x"], ("/dev/null/x", "--directory")),
    ],
)
def test_what_keeps_the_demo_from_starting_is_one_line(tmp_path, options, words):
    """A folder or a port that cannot be is refused with the next step."""
    assert_user_error(otel_dllogger("demo", *options, cwd=tmp_path), *words)


def test_without_rich_it_says_what_to_install(tmp_path):
    """The extra is named with the command that installs it."""
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ImportError('no rich')")
    done = otel_dllogger(
        "demo", cwd=tmp_path, PYTHONPATH=os.pathsep.join((str(tmp_path), str(ROOT)))
    )
    assert_user_error(done, "pip install 'otel-dllogger[view]'")


def test_without_prometheus_it_says_what_to_install(tmp_path):
    """Where there is no prometheus on PATH, the next step is said."""
    done = otel_dllogger(
        "demo", "--with-prometheus", cwd=tmp_path, PATH=str(Path(sys.executable).parent)
    )
    assert_user_error(done, "apt-get install prometheus")

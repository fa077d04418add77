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
import urllib.parse
import urllib.request
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.support.command import COMMAND, TIMEOUT_S, assert_user_error, environment, otel_dllogger
from tests.support.paths import ROOT

PROMETHEUS = shutil.which("prometheus")
STEPS_PER_EPOCH = 40
STEPS_PER_CHECKPOINT = 200


def read_log(path):
    """Give the records of a log."""
    return [json.loads(line[5:]) for line in path.read_text().splitlines()]


def start(*options, cwd, ranks=2):
    """Start a demo."""
    return subprocess.Popen(
        [*COMMAND, "demo", "--ranks", str(ranks), *options],
        cwd=cwd,
        env=environment(COLUMNS="100"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command_of(process):
    """Give the words of a process's command; none if it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_for_children(process, count, name):
    """Wait until the demo has so many processes of a name, and give them."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        found = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if any(name in word for word in command_of(child))
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


def wait_for_training(process):
    """Wait until all ranks of a demo train, and give what it printed until then."""
    return read_until(process, " of 600 s: ")


def prometheus_of(process):
    """Give the process of the demo's Prometheus, and the folder of its data."""
    (server,) = wait_for_children(process, 1, "web.listen-address")
    data = next(word for word in server.cmdline() if "tsdb.path=" in word)
    return server, Path(data.partition("=")[2])


def link_in(head):
    """Give the address of the live page, which is in the first line."""
    return re.match(r"Live page:  (http://127\.0\.0\.1:\d+/)\n", head)[1]


def assert_refused(url):
    """Check that nothing answers at an address any more."""
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)


def fetch_json(url, is_there):
    """Ask until the answer has what is waited for, and give that."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if found := is_there(json.load(answer)):
                    return found
        except OSError:
            pass  # not ready yet
        time.sleep(0.1)
    raise TimeoutError(url)


class Trained(NamedTuple):
    """A demo of four ranks that ended by itself."""

    folder: Path
    page: dict
    scraped: set
    prometheus: tuple
    out: str

    def logs(self):
        """Give the records of each rank."""
        return [
            [one for one in read_log(self.folder / f"log_rank{rank}.json") if one["type"] == "LOG"]
            for rank in range(4)
        ]


def steps_of(records):
    """Give the place of each training step, and its values."""
    return [
        (STEPS_PER_EPOCH * one["step"][0] + one["step"][1], one["data"])
        for one in records
        if len(one["step"]) == 2
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Run a demo that is long enough for a restart, and look at its page and its Prometheus."""
    cwd = tmp_path_factory.mktemp("trained")
    options = ["--with-prometheus"] if PROMETHEUS else []
    process = start("--seconds", "14", "--directory", "here", *options, cwd=cwd, ranks=4)
    scraped, prometheus = set(), ()
    with process:
        head = read_until(process, " of 14 s: ")
        link = link_in(head)
        page = fetch_json(
            f"{link}runs.json",
            lambda runs: next((run for run in runs if len(run["rows"]) == 4), None),
        )
        if PROMETHEUS:
            url = re.search(r"^Prometheus: (\S+)$", head, re.MULTILINE)[1]
            prometheus = (url, *prometheus_of(process))
            query = urllib.parse.quote('dl_data_time_seconds{granularity="iteration"}')
            scraped = fetch_json(
                f"{url}/api/v1/query?query={query}",
                lambda answer: (
                    len(found := {one["metric"]["rank"] for one in answer["data"]["result"]}) == 4
                    and found
                ),
            )
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    assert_refused(link)
    return Trained(cwd / "here", page, scraped, prometheus, head + out)


def test_ranks_train_and_leave_their_logs(trained):
    """Losses fall, one rank is slow, one meets a NaN, one is restarted from its checkpoint."""
    assert [] == list((trained.folder / "discovery").iterdir())
    logs = trained.logs()
    counts = []
    for rank, records in enumerate(logs):
        steps = [data for _step, data in steps_of(records)]
        losses = [one["train.loss"] for one in steps]
        assert sum(loss != loss for loss in losses) == (rank == 1)
        assert losses[-1] < 0.9 * losses[0]
        assert all(one["train.data_time"] < one["train.step_time"] for one in steps)
        epochs = [one["data"] for one in records if len(one["step"]) == 1]
        assert epochs[-1]["val.accuracy"] > epochs[0]["val.accuracy"]
        assert (trained.folder / f"rank{rank}.npz").stat().st_size > 1_000
        assert records[-1]["step"] == []
        counts.append(len(steps))
        starts = [one for one in records if one["step"] == "PARAMETER"]
        assert len(starts) == (2 if rank == 2 else 1)
    assert counts[3] < 0.85 * counts[0]
    ((last, first),) = went_back(logs[2])
    assert first == last // STEPS_PER_CHECKPOINT * STEPS_PER_CHECKPOINT
    assert logs[2][-1]["data"]["total_steps"] < counts[2]


def went_back(records):
    """Give the steps after which a rank did steps again, each with the one where it went on."""
    places = [step for step, _data in steps_of(records)]
    return [(before, after) for before, after in pairwise(places) if after <= before]


def test_it_says_what_was_seen(trained):
    """What it says at the end is what the logs hold."""
    out, logs = trained.out, trained.logs()
    seen = out.partition("Seen of 4 ranks in 1")[2].partition("\n\n")[0]
    pattern = r"^  rank (\d) was (\d+)% slower than the median, because of train.data_time$"
    (slow,) = re.findall(pattern, seen, re.MULTILINE)
    assert slow[0] == "3"
    assert 25 < int(slow[1]) < 60
    broken = next(
        step for step, data in steps_of(logs[1]) if data["train.loss"] != data["train.loss"]
    )
    assert f"\n  rank 1 had a NaN in train.loss at step {broken:,}\n" in seen
    ((last, first),) = went_back(logs[2])
    assert (
        f"\n  rank 2 died after step {last:,} and was restarted: it went on at step {first:,}\n"
        in seen
    )
    best = max(one["data"].get("val.accuracy", 0.0) for records in logs for one in records)
    assert f"\n  best val.accuracy: {best:.4g} %, rank " in seen
    (shares,) = re.findall(r"^  Goodput (.*)$", seen, re.MULTILINE)
    parts = dict(re.findall(r"([a-z_ ]+) (\d+\.\d)%", shares))
    assert {" data_wait", " checkpoint", " redone", " down"} <= set(parts)


def test_it_says_how_to_go_on(trained):
    """The commands at its end name the folder, and work there."""
    commands = re.findall(r"^  otel-dllogger (.*)$", trained.out, re.MULTILINE)
    assert commands == ["view here", "report here", "run your_train.py", "watch"]
    done = otel_dllogger("report", "here", cwd=trained.folder.parent)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert (trained.folder.parent / "report.html").stat().st_size > 10_000


def test_its_page_shows_what_its_terminal_shows(trained):
    """The run has one name, on the live page as in what is printed."""
    run = trained.page["name"]
    assert re.fullmatch(r"demo-\d{8}-\d{6}-\d+", run)
    assert re.search(rf"^\d+ of 14 s: {run}: \w+, 4 ranks, ", trained.out, re.MULTILINE)
    (end,) = re.findall(rf"^at the end: {run}: (.*)", trained.out, re.MULTILINE)
    assert end.startswith("finished, 4 ranks, epoch ")
    assert f"; critical: train.loss of run {run}, rank 1 was NaN or Inf once" in end
    snippet = f'files: ["{trained.folder}/discovery/*.json"]'
    assert snippet in (trained.folder / "prometheus.yml").read_text()


@pytest.mark.skipif(PROMETHEUS is None, reason="there is no prometheus on PATH")
def test_prometheus_scrapes_all_ranks_and_is_gone_afterwards(trained):
    """A Prometheus of the demo's own, whose answer is shown."""
    assert trained.scraped == {"0", "1", "2", "3"}
    url, server, data = trained.prometheus
    assert not server.is_running()
    assert not data.exists()
    assert_refused(url)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_demo_leaves_nothing_behind(tmp_path, number):
    """Ctrl-C, SIGTERM and a closed terminal end all processes, and no file announces them."""
    process = start("--seconds", "600", cwd=tmp_path)
    with process:
        head = wait_for_training(process)
        ranks = wait_for_children(process, 2, "demo.train")
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    assert "nothing is left running" in out
    assert not [rank for rank in ranks if rank.is_running()]
    (folder,) = (tmp_path / "demo-run").iterdir()
    assert [] == list((folder / "discovery").iterdir())
    assert f"Logs:       demo-run/{folder.name}\n" in head
    assert_refused(link_in(head))
    for rank in range(2):
        assert read_log(folder / f"log_rank{rank}.json")[-1]["step"] == []


def test_a_demo_can_be_stopped_while_a_rank_is_away(tmp_path):
    """Between the death of a rank and its restart, there is nothing to end twice."""
    process = start("--seconds", "12", cwd=tmp_path, ranks=1)
    with process:
        read_until(process, " of 12 s: ")
        (rank,) = wait_for_children(process, 1, "demo.train")
        wait_for_children(process, 0, "demo.train")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    assert "nothing is left running" in out
    assert "restarted" not in out
    assert not rank.is_running()
    assert [] == list(tmp_path.glob("demo-run/*/discovery/*"))


def test_two_demos_at_once_do_not_mix(tmp_path):
    """Each has a page, a folder and a run of its own; one whose reader leaves ends by itself."""
    both = [start("--seconds", "600", cwd=tmp_path) for _ in range(2)]
    with both[0], both[1]:
        heads = [wait_for_training(process) for process in both]
        ranks = [wait_for_children(process, 2, "demo.train") for process in both]
        assert len(set(map(link_in, heads))) == 2
        folders = [re.search(r"^Logs: +(\S+)$", head, re.MULTILINE)[1] for head in heads]
        assert len(set(folders)) == 2
        for head, folder in zip(heads, folders, strict=True):
            link = f"{link_in(head)}runs.json"
            (run,) = fetch_json(link, lambda runs: len(runs[0]["rows"]) == 2 and runs)
            assert run["name"] == Path(folder).name
        third = otel_dllogger("demo", "--directory", folders[0], cwd=tmp_path)
        assert_user_error(third, "another demo is running in", folders[0], "--directory")
        both[0].stdout.close()
        both[1].send_signal(signal.SIGINT)
        assert [process.wait(TIMEOUT_S) for process in both] == [0, 0]
        assert [process.stderr.read() for process in both] == ["", ""]
    assert not [rank for rank in (*ranks[0], *ranks[1]) if rank.is_running()]
    assert [] == list(tmp_path.glob("demo-run/*/discovery/*"))


def test_a_demo_that_is_killed_takes_its_ranks_along(tmp_path):
    """Ranks whose demo is gone end by themselves, and so does its Prometheus."""
    options = ["--with-prometheus"] if PROMETHEUS else []
    process = start("--seconds", "600", *options, cwd=tmp_path)
    with process:
        wait_for_training(process)
        started = psutil.Process(process.pid).children(recursive=True)
        data = prometheus_of(process)[1] if PROMETHEUS else tmp_path / "none"
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    _gone, alive = psutil.wait_procs(started, timeout=20)
    for one in alive:
        one.kill()
    assert not alive
    assert not data.exists()


def test_ranks_that_still_start_when_the_demo_is_killed_do_not_train(tmp_path):
    """They have another parent before they can look who it is."""
    process = start("--seconds", "600", cwd=tmp_path)
    with process:
        ranks = wait_for_children(process, 2, "demo.train")
        for rank in ranks:
            rank.suspend()  # in the middle of its imports
        process.kill()
        process.communicate(timeout=TIMEOUT_S)
    for rank in ranks:
        rank.resume()
    _gone, alive = psutil.wait_procs(ranks, timeout=20)
    for rank in alive:
        rank.kill()
    assert not alive


def test_a_rank_that_dies_is_named(tmp_path):
    """The others go on; the demo says how it ended, and which log to read."""
    process = start("--seconds", "2", "--directory", "here", cwd=tmp_path)
    with process:
        ranks = wait_for_children(process, 2, "demo.train")
        read_until(process, " of 2 s: ")
        next(rank for rank in ranks if rank.environ()["RANK"] == "1").kill()
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert err == "otel-dllogger: rank 1 died (killed by SIGKILL); read here/rank1.out\n"
    assert "died" not in out
    assert [] == list((tmp_path / "here" / "discovery").iterdir())


def test_a_time_too_short_for_the_failure_is_said(tmp_path):
    """What its help promises is not missed without a word."""
    done = otel_dllogger("demo", "--ranks", "1", "--seconds", "2", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n  no rank was killed and restarted: the time was too short for that\n" in done.stdout


SLOW_ROW = re.compile(r"^ +7 .*straggler", re.MULTILINE)
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
    ports = set()
    try:
        while chunk := os.read(ours, 65536):
            received += chunk
            text = received.decode(errors="replace")
            has_all = SLOW_ROW.search(text) and REDRAWN.search(text)
            if not is_told and (has_all or time.monotonic() > deadline_s):
                is_told = True
                for path in (folder / "discovery").glob("*.json"):
                    (announced,) = json.loads(path.read_text())
                    ports.update(announced["targets"])
                process.send_signal(signal.SIGINT)
    except OSError:
        pass  # how a terminal ends on Linux
    os.close(ours)
    assert process.wait(TIMEOUT_S) == 0
    return folder, received.decode(), ports


def test_on_a_terminal_the_table_moves(on_terminal):
    """It is drawn over itself, 80 columns are enough, and the end is said below it."""
    _folder, text, _ports = on_terminal
    assert REDRAWN.search(text)
    assert SLOW_ROW.search(text)
    assert re.search(r"^\d+ of 600 s", text, re.MULTILINE)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text[REDRAWN.search(text).end() :])
    assert max(map(len, drawn.splitlines()[:8])) < 80
    assert "nothing is left running" in text
    assert text.endswith("\r\n")


def test_ports_count_up_from_the_one_asked_for(on_terminal):
    """With --port, the ranks have the ports from there on."""
    _folder, _text, ports = on_terminal
    assert ports == {f"127.0.0.1:{23481 + rank}" for rank in range(8)}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="there is no promtool on PATH")
def test_the_configuration_is_one_that_prometheus_takes(on_terminal):
    """The written prometheus.yml is right, also in a folder with an odd name."""
    folder, _text, _ports = on_terminal
    promtool = ["promtool", "check", "config", folder / "prometheus.yml"]
    subprocess.run(promtool, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "65535"], ("no room for 8 ranks",)),
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

"""Real processes that hang: their stacks, the event, the page, and what is not a hang."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress

import pytest

from tests.support.command import uncovered
from tests.support.http import ask, wait_until
from tests.support.paths import TESTS

pytestmark = pytest.mark.newest_only

LIMIT_S = 1.0
DEADLINE_S = 60
SCRIPT = TESTS / "scripts" / "hang.py"


class Training:
    """A training that hangs, and what it leaves."""

    def __init__(self, folder, how):
        self.log = folder / "rank3.json"
        self.stacks = folder / "rank3.json.stacks"
        self.process = subprocess.Popen(
            [sys.executable, SCRIPT, self.log, str(LIMIT_S), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=uncovered() | {"RANK": "3", "WORLD_SIZE": "4", "OTEL_DLLOGGER_RUN": "r"},
            text=True,
            start_new_session=True,
        )

    def written(self):
        """Return the stacks so far."""
        return self.stacks.read_text() if self.stacks.exists() else ""

    def events(self):
        """Return the events in the log."""
        lines = [json.loads(line[5:]) for line in self.log.read_text().splitlines()]
        return [line for line in lines if line["type"] == "EVENT"]

    def go_on(self):
        """End what waits for a line."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self):
        """Wait for a normal end, and return what it said on standard error."""
        _, said = self.process.communicate("\n", timeout=DEADLINE_S)
        assert self.process.returncode == 0
        return said


@contextmanager
def training(folder, how):
    """Start one, and kill it when the block ends."""
    one = Training(folder, how)
    try:
        one.port = one.process.stdout.readline().strip()
        yield one
    finally:
        with suppress(ProcessLookupError):
            os.killpg(one.process.pid, signal.SIGKILL)
        one.process.communicate()


def line_of(function):
    """Return how a stack names a function of the script."""
    return f"in {function}\n"


def samples_of(port, name):
    """Return the lines of a page that begin with a name."""
    page = ask(int(port)).body.decode()
    return [line for line in page.splitlines() if line.startswith(name)]


def test_a_main_thread_that_waits(tmp_path):
    """The stacks name its line; the log, the page and standard error name the file."""
    with training(tmp_path, "asleep") as one:
        wait_until(one.events, DEADLINE_S)
        heading, *stacks = one.written().splitlines(keepends=True)
        assert f"run r, rank 3, pid {one.process.pid}, host " in heading
        assert "last step [0, 4], open phases: none" in heading
        assert any(line.endswith(line_of("asleep")) for line in stacks)
        (event,) = one.events()
        assert (event["name"], event["step"]) == ("hang", [0, 4])
        assert event["data"]["file"] == str(one.stacks)
        assert event["data"]["open_phases"] == []
        assert event["data"]["seconds"] == pytest.approx(LIMIT_S, abs=1.0)
        (dumps,) = samples_of(one.port, "dllogger_hang_dumps_total{")
        assert dumps.endswith(" 1.0")
        (last_event,) = samples_of(one.port, "dllogger_last_event_timestamp_seconds{")
        (last_log,) = samples_of(one.port, "dllogger_last_log_timestamp_seconds{")
        assert float(last_event.split()[-1]) - float(last_log.split()[-1]) > LIMIT_S / 2
        one.go_on()
        said = one.end()
    assert said.count(str(one.stacks)) == 1
    assert len(one.events()) == 1


FILL = "x" * 1_000_000

IN_THE_WAY = {
    "link": (lambda path: path.symlink_to("elsewhere"), "it is a symbolic link: remove what is"),
    "folder": (lambda path: path.mkdir(), "Is a directory: remove what is in its place"),
    "pipe": (os.mkfifo, "it is a pipe or a socket: remove what is in its place"),
    "no room": (lambda path: path.write_text(FILL), "File too large: make it shorter, or raise"),
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_a_hang_whose_stacks_no_file_takes(tmp_path, what):
    """They are on standard error, with the event, the counter, and the reason."""
    block, reason = IN_THE_WAY[what]
    block(tmp_path / "rank3.json.stacks")
    with training(tmp_path, "asleep") as one:
        if what == "no room":  # the log is far shorter
            resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, (len(FILL), len(FILL)))
        wait_until(one.events, DEADLINE_S)
        (event,) = one.events()
        assert (event["name"], event["step"], list(event["data"])) == (
            "hang",
            [0, 4],
            ["seconds", "open_phases"],
        )
        (dumps,) = samples_of(one.port, "dllogger_hang_dumps_total{")
        assert dumps.endswith(" 1.0")
        one.go_on()
        said = one.end()
    assert f"hang: run r, rank 3, pid {one.process.pid}, host " in said
    assert line_of("asleep") in said
    assert f"are on standard error, since {one.stacks} cannot be written ({reason}" in said
    assert not (tmp_path / "elsewhere").exists()


def test_a_c_loop_that_never_gives_the_gil_back(tmp_path):
    """Nothing of Python runs any more, and yet the stacks name the line."""
    with training(tmp_path, "in_a_c_loop") as one:
        wait_until(lambda: line_of("in_a_c_loop") in one.written(), DEADLINE_S)
        assert one.events() == []


def test_a_c_call_that_gives_the_gil_back(tmp_path):
    """The event comes late, and the line below the stacks says whose they are."""
    with training(tmp_path, "in_a_c_call") as one:
        wait_until(one.events, DEADLINE_S)
        stacks, _, below = one.written().partition("--- ")
        assert line_of("in_a_c_call") in stacks
        assert f"pid {one.process.pid}" in below
        assert one.events()[0]["data"]["seconds"] >= 2 * LIMIT_S
        one.end()
    assert len(one.events()) == 1


def test_a_phase_explains_a_c_call_that_holds_the_gil(tmp_path):
    """The timer was armed before it began; a line says that the stacks are not a hang's."""
    with training(tmp_path, "in_a_checkpoint_in_c") as one:
        assert one.process.stdout.readline().startswith("done ")
        wait_until(lambda: "--- " in one.written(), DEADLINE_S)
        said = one.end()
    stacks, _, below = one.written().partition("--- ")
    assert line_of("in_a_c_call") in stacks
    assert "not those of a hang, since a phase explains the silence: run r, rank 3" in below
    assert one.events() == []
    assert said == ""


def test_a_phase_after_a_hang_explains_nothing(tmp_path):
    """Even if it is what the watch sees first."""
    with training(tmp_path, "in_steps_in_c") as one:
        wait_until(one.events, DEADLINE_S)
        assert "those of a hang in which no other thread could run" in one.written()
        assert "open phases: none" in one.written()
        one.go_on()
        one.end()


def test_each_hang_is_written_once(tmp_path):
    """A record arms the watch again."""
    with training(tmp_path, "twice") as one:
        wait_until(one.events, DEADLINE_S)
        one.go_on()
        wait_until(lambda: len(one.events()) == 2, DEADLINE_S)
        assert [event["step"] for event in one.events()] == [[0, 4], [0, 98]]
        assert one.written().count("--- ") == 2


def test_a_wait_for_data_explains_nothing(tmp_path):
    """It is a part of a step, and the heading names it."""
    with training(tmp_path, "waiting_for_data") as one:
        wait_until(one.events, DEADLINE_S)
        assert "open phases: data_wait" in one.written()
        assert one.events()[0]["data"]["open_phases"] == ["data_wait"]


@pytest.mark.parametrize("how", ["in_a_checkpoint", "after_the_summary", "before_the_first_step"])
def test_silences_that_are_not_hangs(tmp_path, how):
    """An open phase explains one, nothing follows a summary, and a start takes long."""
    with training(tmp_path, how) as one:
        last = one.process.stdout.readline()
        assert last.startswith("done ")
        assert "otel-dllogger-hangs" in last
        one.end()
    assert one.events() == []
    assert not one.stacks.exists()


def test_a_child_of_a_process_with_an_armed_timer_ends(tmp_path):
    """An armed timer would hang it at its exit; the parent's timer is armed again."""
    with training(tmp_path, "in_children") as one:
        assert one.process.stdout.readline() == "7 0\n"
        one.end()

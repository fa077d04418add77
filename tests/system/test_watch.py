"""``otel-dllogger watch``: real ranks on a real terminal, and in a pipe."""

from __future__ import annotations

import http.server
import json
import math
import re
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.bridge import append, steps
from tests.support.command import COMMAND, TIMEOUT_S, assert_user_error, environment, otel_dllogger
from tests.support.paths import TESTS
from tests.support.tmux import Tmux

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

pytestmark = pytest.mark.newest_only

WIDE = {"LC_ALL": "C.UTF-8"}
MARKED_S = 15.0
BLOCKS = re.compile("[\u2581-\u2588]")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]")


def row_of(lines: Sequence[str], rank: int) -> str:
    """Return the row of a rank, empty if it has none."""
    return next((line for line in lines if re.match(rf" *{rank} +\S", line)), "")


def ranks_in_order(lines: Sequence[str]) -> list[int]:
    """Return the ranks in the order of their rows."""
    found = (re.match(r" *(\d+) +\S+ +\d+/\d+ ", line) for line in lines)
    return [int(each[1]) for each in found if each]


def write_log(
    path: Path, *, run: str = "resnet", steps: int = 20, is_finished: bool = False
) -> str:
    """Write a log that ends now, and return its name."""
    begin_s = time.time() - steps
    with path.open("w") as stream:
        for step in range(steps):
            record = {
                "timestamp": f"{begin_s + step:.6f}",
                "elapsedtime": f"{step:.6f}",
                "type": "LOG",
                "step": [0, step],
                "data": {"train.loss": 2.0 - step / steps},
            }
            stream.write(f"DLLL {json.dumps(record)}\n")
        if is_finished:
            end = {"timestamp": f"{time.time():.6f}", "elapsedtime": f"{steps}", "type": "LOG"}
            stream.write(f"DLLL {json.dumps({**end, 'step': [], 'data': {'total': steps}})}\n")
    return path.name


class Ranks:
    """Four ranks of a real training, started as torchrun starts them."""

    def __init__(self, folder: Path, run: str) -> None:
        self.discovery = folder / "discovery"
        self.discovery.mkdir()
        command = [sys.executable, "-m", "otel_dllogger.cli.demo.train", "--directory", str(folder)]
        self.processes = [
            subprocess.Popen(
                [*command, "--port", "0", "--seconds", "600"],
                env=environment(
                    RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="4", OTEL_DLLOGGER_RUN=run
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for rank in range(4)
        ]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Ranks]:
    """Ranks that train until the end of the test."""
    started = Ranks(tmp_path, "live")
    yield started
    started.end()


def test_ranks_that_train_are_shown_and_one_that_stops_is_marked(ranks, tmp_path):
    """Four rows move; stopped and killed ranks are named in words within 15 s, and go up."""
    command = [*COMMAND, "watch", ranks.discovery]
    with Tmux(command, environ=environment(**WIDE), cwd=tmp_path) as terminal:
        shown = terminal.wait_for(
            lambda lines: (
                sorted(ranks_in_order(lines)) == [0, 1, 2, 3]
                and all(len(BLOCKS.findall(row_of(lines, rank))) >= 6 for rank in range(4))
            )
        )
        assert re.match(
            r"live  training · 4 ranks · epoch \d+ · step \d+ · loss 0\.\d+ · ", shown[2]
        )
        assert re.search(r" samples/s\b.* [\dm.]+s( ·|$)", " ".join(shown[2:4]))
        assert max(map(len, shown)) < 80
        assert len(shown) <= 24
        slow = terminal.wait_for(lambda lines: "straggler" in row_of(lines, 3))
        assert re.search(r" \+\d+% ", row_of(slow, 3))
        terminal.wait_for(
            lambda lines: all(row_of(lines, rank) != row_of(slow, rank) for rank in range(4))
        )

        ranks.processes[2].send_signal(signal.SIGSTOP)
        ranks.processes[0].kill()
        for rank, words in ((0, "vanished"), (2, "quiet|vanished")):
            marked = terminal.wait_for(
                lambda lines, rank=rank, words=words: re.search(words, row_of(lines, rank)),
                within_s=MARKED_S,
            )
        assert set(ranks_in_order(marked)[:2]) == {0, 2}
        told = terminal.wait_for(lambda lines: "no longer answers" in " ".join(lines))
        assert any(line.startswith("critical: Rank 0 of run live on ") for line in told)
        others = terminal.lines()
        for rank in (1, 3):
            assert re.search("training|straggler", row_of(others, rank)), others

        terminal.resize(200, 50)
        wide = terminal.wait_for(lambda lines: max(map(len, lines)) > 150)
        assert max(map(len, wide)) < 200
        terminal.press("q")
        assert terminal.wait_for_end() == 0
        last = terminal.lines()
        assert any(line.startswith("live: training, 4 ranks, epoch ") for line in last)
        assert not any(re.match("rank +host", line) for line in last), last


@pytest.mark.parametrize(
    ("variables", "options", "is_ascii", "has_colour"),
    [
        ({"LC_ALL": "C.UTF-8"}, [], False, True),
        ({"LC_ALL": "C.UTF-8", "NO_COLOR": "1"}, [], False, False),
        ({"LC_ALL": "C"}, [], True, True),
        ({"LC_ALL": "C.UTF-8", "TERM": "linux"}, [], True, True),
        ({"LC_ALL": "C.UTF-8"}, ["--ascii"], True, True),
    ],
    ids=["all", "no-color", "locale", "console", "option"],
)
def test_colours_and_characters_are_those_that_the_terminal_has(
    tmp_path, variables, options, is_ascii, has_colour
):
    """Blocks and colours where they can be, ASCII and words elsewhere."""
    write_log(tmp_path / "resnet_rank0.json")
    command = [*COMMAND, "watch", ".", *options]
    term = variables.get("TERM", "xterm-256color")
    with Tmux(command, environ=environment(**variables), cwd=tmp_path, term=term) as terminal:
        terminal.wait_for(lambda lines: row_of(lines, 0))
        text = "\n".join(terminal.lines("-e"))
        assert text.isascii() == is_ascii
        assert bool(BLOCKS.search(text)) != is_ascii
        assert bool(COLOUR.search(text)) == has_colour
        terminal.press("C-c")
        assert terminal.wait_for_end() == 0


def test_a_terminal_without_a_cursor_gets_lines(tmp_path):
    """TERM=dumb, as in an editor: a line per interval, without codes."""
    write_log(tmp_path / "resnet_rank0.json")
    command = [*COMMAND, "watch", ".", "--interval", "500ms"]
    environ = environment(**WIDE)
    with Tmux(command, environ=environ, cwd=tmp_path, columns=200, term="dumb") as terminal:
        terminal.wait_for(lambda lines: len([one for one in lines if ": training, " in one]) >= 2)
        terminal.press("C-c")
        assert terminal.wait_for_end() == 0


def test_a_thousand_ranks_are_the_worst_and_a_summary(tmp_path):
    """80 columns and 24 lines show who needs help, and the spread of the others."""
    script = [sys.executable, TESTS / "scripts" / "many_ranks.py", "serve", "1024"]
    server = subprocess.Popen([*script, str(time.time() - 3600), tmp_path])
    try:
        announced = tmp_path / "ranks.json"
        deadline_s = time.monotonic() + TIMEOUT_S
        while not announced.exists() or not announced.read_text():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        (target,) = json.loads(announced.read_text())[0]["targets"]
        with Tmux(
            [*COMMAND, "watch", target], environ=environment(**WIDE), cwd=tmp_path
        ) as terminal:
            others = re.compile(r"([\d,]+) others: training; min/median/max: step \d+/\d+/")
            # On a busy machine, ranks are quiet until their page is read again.
            shown = terminal.wait_for(
                lambda lines: (
                    sum("straggler" in line for line in lines[4:]) >= 3
                    and others.search(re.sub(" +", " ", " ".join(lines)))
                )
            )
            assert set(ranks_in_order(shown)[:3]) == {100, 517, 900}
            assert "1,024 ranks" in shown[2]
            text = re.sub(" +", " ", " ".join(shown))
            others = others.search(text)
            assert int(others[1].replace(",", "")) == 1024 - len(ranks_in_order(shown))
            assert re.search(r"loss 1[.\d]*/1[.\d]*/1[.\d]*; imgs/s [.\d]+/6[.\d]+/[.\d]+", text)
            assert "warning: Rank " in text
            assert max(map(len, shown)) < 80
            terminal.press("q")
            assert terminal.wait_for_end() == 0
    finally:
        server.terminate()
        server.wait()


HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]re\u202ed[/red]\x9b31m"
HARMLESS = "?[2J?]0;owned?[red]re?d[/red]?31m"
PAGE = """\
dllogger_rank_info{{run="{bad}",rank="0",host="{bad}",world_size="1",attempt="1",pid="7"}} 1
dllogger_iteration{{run="{bad}",rank="0"}} 40
dllogger_steps_total{{run="{bad}",rank="0"}} 40
dllogger_records_total{{run="{bad}",rank="0",type="log"}} 40
dllogger_last_log_timestamp_seconds{{run="{bad}",rank="0"}} {now}
dllogger_nonfinite_total{{run="{bad}",rank="0",metric="{bad}",stage="train",kind="loss"}} {nan}
dl_loss{{run="{bad}",rank="0",metric="{bad}",stage="train",granularity="iteration",kind="loss"}} 1
dl_ips{{run="{bad}",rank="0",metric="ips",kind="throughput",unit="{unit}"}} 1
"""


class HostilePage(http.server.BaseHTTPRequestHandler):
    """A metrics page whose text would take the terminal over."""

    def do_GET(self):
        now = time.time()
        page = PAGE.format(bad=HOSTILE, unit=f"{HOSTILE}/s", now=now, nan=int(now))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, *_):
        pass


def test_text_of_a_page_has_no_effect_on_the_terminal(tmp_path):
    """Control characters of names are shown as question marks, and markup as it is."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), HostilePage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        command = [*COMMAND, "watch", f"127.0.0.1:{server.server_address[1]}"]
        with Tmux(command, environ=environment(**WIDE), cwd=tmp_path, columns=250) as terminal:
            shown = terminal.wait_for(lambda lines: any("critical" in line for line in lines))
            assert shown[2].startswith(f"{HARMLESS}  training · 1 rank · step 40 · loss 1 · ")
            assert any(line.startswith(f"critical: {HARMLESS} of run {HARMLESS}") for line in shown)
            assert "d[/red]?31m" in row_of(shown, 0), "the host"
            terminal.press("q")
            assert terminal.wait_for_end() == 0
        piped = subprocess.run(
            ["sh", "-c", 'exec "$@" | head -n 1', "sh", *command],
            cwd=tmp_path,
            env=environment(**WIDE),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        server.shutdown()
    assert f" {HARMLESS}: training, 1 rank" in piped.stdout.decode()
    assert not set(piped.stdout.decode()) & set("\x1b\x07\x9b\u202e")


def test_a_pipe_gets_a_line_per_interval_at_once(tmp_path):
    """Each line is flushed, and has date, run, state, ranks, step and loss."""
    write_log(tmp_path / "resnet_rank0.json")
    process = subprocess.Popen(
        [*COMMAND, "watch", ".", "--interval", "200ms"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(signal.SIGTERM)
        _rest, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, err) == (0, "")
    pattern = (
        r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d resnet: training, 1 rank, epoch 0, step 19, loss 1\.05"
    )
    assert all(re.match(pattern, line) for line in lines), lines


def test_a_reader_that_leaves_ends_it_quietly(tmp_path):
    """``watch | head -1`` ends at once, and complains about nothing."""
    write_log(tmp_path / "resnet_rank0.json")
    begun_s = time.monotonic()
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" | head -n 1', "sh", *COMMAND, "watch", ".", "--interval", "1h"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    assert time.monotonic() - begun_s < TIMEOUT_S


def test_closed_standard_output_is_an_error_in_one_line(tmp_path):
    """As some schedulers start programs."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *COMMAND, "watch", str(tmp_path)],
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "standard output is closed" in done.stderr


def test_it_waits_for_the_end_of_a_run_if_asked(tmp_path):
    """A run that is over ends it; the last state is printed."""
    log = write_log(tmp_path / "resnet_rank0.json", is_finished=True)
    done = otel_dllogger("watch", log, "--until-finished", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\S+ \S+ resnet: finished, 1 rank, .*\n", done.stdout)


def test_of_a_run_that_is_over_all_is_told(tmp_path):
    """Not only what happened in its last minutes, which may be years ago."""
    log = tmp_path / "resnet_rank0.json"
    append(log, steps(0, 50) + steps(50, 51, loss=math.nan) + steps(51, 1_000))
    done = otel_dllogger("watch", log, "--until-finished", cwd=tmp_path)
    assert "1 finding, 1 with NaN" in done.stdout
    assert "loss of run resnet, rank 0 was NaN or Inf once" in done.stdout


def test_a_run_that_vanishes_is_an_error_if_its_end_was_waited_for(ranks, tmp_path):
    """Its processes are killed: nobody said that it has finished."""
    process = subprocess.Popen(
        [*COMMAND, "watch", ranks.discovery, "--until-finished", "--interval", "200ms"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        while ": training, 4 ranks, " not in process.stdout.readline():
            assert process.poll() is None
        ranks.end()
        out, _err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    last = out.splitlines()[-1]
    assert ": vanished, 4 ranks, " in last
    assert "; critical: Run live is gone: " in last


def test_what_is_not_there_yet_is_waited_for(tmp_path):
    """It says what it looks at, and shows a run once there is one."""
    folder = tmp_path / "runs"
    folder.mkdir()
    with Tmux([*COMMAND, "watch", "runs"], environ=environment(**WIDE), cwd=tmp_path) as terminal:
        terminal.wait_for(
            lambda lines: any(line.startswith("nothing found yet; looking at ") for line in lines)
        )
        write_log(folder / "resnet_rank0.json")
        terminal.wait_for(lambda lines: row_of(lines, 0))
    discovery = environment(**WIDE, OTEL_DLLOGGER_DISCOVERY_DIR=str(tmp_path / "later"))
    with Tmux([*COMMAND, "watch"], environ=discovery, cwd=tmp_path, columns=200) as terminal:
        words = f"looking at the ranks announced in {tmp_path / 'later'}, and ports 9464 to 9527"
        terminal.wait_for(lambda lines: any(words in line for line in lines))
    assert_user_error(otel_dllogger("watch", "nope", cwd=tmp_path), "no file 'nope'; pass a log")


def test_where_it_looks_is_wrapped_in_a_narrow_terminal(tmp_path):
    """The folder, whose name is longer than the line, and what comes after it can be read."""
    later = tmp_path / f"{'folder-' * 12}end"
    discovery = environment(**WIDE, OTEL_DLLOGGER_DISCOVERY_DIR=str(later))
    with Tmux([*COMMAND, "watch"], environ=discovery, cwd=tmp_path, columns=80) as terminal:

        def is_shown(lines):
            text = "".join(line.strip() for line in lines).replace(" ", "")
            return f"announcedin{later},andports9464to9527ofthismachine" in text

        terminal.wait_for(is_shown)


def test_it_can_be_stopped_and_continued(tmp_path):
    """Ctrl-Z gives the terminal back to the shell, and fg shows the runs again."""
    write_log(tmp_path / "resnet_rank0.json")
    shell = ["bash", "--norc", "--noprofile", "-i"]
    environ = environment(**WIDE, PS1="ready> ")
    with Tmux(shell, environ=environ, cwd=tmp_path) as terminal:
        terminal.wait_for(lambda lines: lines[-1].startswith("ready>"))
        terminal.press(" ".join([*COMMAND, "watch", "."]), "Enter")
        terminal.wait_for(lambda lines: row_of(lines, 0))
        terminal.press("C-z")
        terminal.wait_for(lambda lines: any("Stopped" in line for line in lines))
        terminal.press("echo 'back' again", "Enter")
        terminal.wait_for(lambda lines: "back again" in lines)
        terminal.press("fg", "Enter")
        terminal.wait_for(lambda lines: row_of(lines, 0))
        terminal.press("q")
        terminal.wait_for(lambda lines: lines[-1].startswith("ready>"))
        terminal.press("stty -a | tr ' ;' '\\n\\n' | grep -x -e echo -e icanon", "Enter")
        terminal.wait_for(lambda lines: {"echo", "icanon"} <= set(lines))

"""The processes: started, watched, killed and started again, until the time is up."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.soak.collectors import KINDS
from tests.soak.flatness import Sizes
from tests.soak.ledger import Ended
from tests.soak.progress import COUNTERS, Progress
from tests.soak.report import ROOT, short_stacks

if TYPE_CHECKING:
    from collections.abc import Callable

TICK_S = 0.1
HANG_S = 20.0
"""Seconds without a sign of life after which a thread counts as hung; an end may take longer."""

END_S = 60.0
START_S = 60.0

FAILURES = 5
"""Lives in a row that may fail before a rank is not started again."""

_SIZES_EVERY_S = 0.5


@dataclass
class Life:
    """A process of a rank that runs.

    Attributes:
        until_s: Its age at which it is killed, or asked to end.
        beats: The signs of life of its threads, and for how many ticks there was no other.
    """

    number: int
    kind: str
    folder: Path
    process: subprocess.Popen[bytes]
    progress: Progress
    sizes: Sizes
    until_s: float
    started_s: float = field(default_factory=time.monotonic)
    beats: dict[int, tuple[int, int, float]] = field(default_factory=dict)
    how: str = ""
    asked_s: float | None = None
    looked_s: float = 0.0

    @property
    def age_s(self) -> float:
        """Return how long it has been running."""
        return time.monotonic() - self.started_s

    @property
    def home(self) -> Path:
        """Return the folder of what it leaves behind."""
        return self.folder / "lives" / str(self.number)


class Slot:
    """One rank after another in the same place.

    Args:
        rank: The number of the rank.
        kinds: The kinds of its lives, by turn.
        settings: What all ranks are told.
        collectors: The URL of each kind of collector.
        find: Called with what does not hold.
        dice: Where chance comes from.
    """

    def __init__(
        self,
        rank: int,
        kinds: list[str],
        *,
        settings: dict[str, Any],
        collectors: dict[str, str],
        find: Callable[[str], None],
        dice: random.Random,
    ) -> None:
        self.rank = rank
        self.ended: list[tuple[Path, Ended]] = []
        self.all_sizes: list[Sizes] = []
        self.counted = dict.fromkeys(COUNTERS, 0)
        self.kills = 0
        self._kinds = kinds
        self._settings = settings
        self._collectors = collectors
        self._find = find
        self._dice = dice
        self._threads: list[threading.Thread] = []
        self._number = 0
        self._closing = False
        self._failures = 0
        self.life: Life | None = self._start()

    def _start(self) -> Life:
        number, self._number = self._number, self._number + 1
        kind = self._kinds[number % len(self._kinds)]
        folder = Path(self._settings["run"], f"rank{self.rank}-{kind}")
        for name in ("logs", "kept", "theirs", f"lives/{number}"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        log, home = folder / "logs" / "log.json", folder / "lives" / str(number)
        if kind == "full" and not log.is_symlink():
            log.symlink_to("/dev/full")
        elif kind == "fifo" and not log.exists():
            os.mkfifo(log)
        settings = {
            **self._settings,
            "folder": str(folder),
            "life": number,
            "kind": kind,
            "collector": self._collectors[self._dice.choice(KINDS)],
            "end": "shutdown" if kind == "full" else self._dice.choice(("shutdown", "exit")),
        }
        progress = Progress(home / "progress")
        environment = {
            **{name: text for name, text in os.environ.items() if "OTEL" not in name},
            "PYTHONPATH": str(ROOT),
            "OTEL_DLLOGGER_RUN": "soak",
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.rank),
            "WORLD_SIZE": "3",
        }
        with (home / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "tests.soak.rank", json.dumps(settings)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        sizes = Sizes(f"{folder.name} life {number}", process.pid)
        until_s = {"steady": float("inf"), "mortal": self._dice.uniform(0.5, 8.0)}.get(
            kind, self._dice.uniform(8.0, 20.0)
        )
        life = Life(number, kind, folder, process, progress, sizes, until_s)
        self.all_sizes.append(sizes)
        self._thread(self._drain, process, random.Random(self._dice.random()))
        if kind == "fifo":
            self._thread(self._read_fifo, life, random.Random(self._dice.random()))
        return life

    def _thread(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _drain(self, process: subprocess.Popen[bytes], dice: random.Random) -> None:
        """Read a rank's standard output as a slow terminal does."""
        assert process.stdout is not None
        with process.stdout:
            while os.read(process.stdout.fileno(), 1 << 16):
                time.sleep(0.5 if dice.random() < 0.002 else 0.001)

    def _read_fifo(self, life: Life, dice: random.Random) -> None:
        """Read a rank's log at the other end of a FIFO: late, and with pauses."""
        time.sleep(dice.random())
        descriptor = os.open(life.folder / "logs" / "log.json", os.O_RDONLY | os.O_NONBLOCK)
        with (life.folder / "kept" / f"received.{life.number}").open("wb") as received:
            ended = False
            while True:
                try:
                    chunk = os.read(descriptor, 1 << 16)
                except BlockingIOError:
                    chunk = b""
                received.write(chunk)
                if not chunk:
                    if ended:
                        break
                    ended = life.process.poll() is not None
                time.sleep(0.7 if dice.random() < 0.002 else 0.002)
        os.close(descriptor)

    def is_live(self, pid: int) -> bool:
        """Tell whether a process is this rank's, and neither killed nor asked to end."""
        life = self.life
        return (
            life is not None
            and life.process.pid == pid
            and not life.how
            and life.asked_s is None
            and life.process.poll() is None
        )

    def tend(self) -> None:
        """Look after the rank: what happened, and what is due."""
        life = self.life
        if life is None:
            return
        if life.process.poll() is not None:
            self._bury(life)
            self._failures = self._failures + 1 if life.how == "failed" else 0
            done = self._closing or self._failures == FAILURES
            self.life = None if done else self._start()
            return
        if life.age_s - life.looked_s > _SIZES_EVERY_S and life.asked_s is None:
            life.looked_s = life.age_s
            life.sizes.look(life.age_s)
        if self._closing or life.age_s > life.until_s:
            self._bring_to_an_end(life)
        elif life.kind != "mortal" and self._dice.random() < 0.2 and life.beats.get(0, (0,))[0]:
            os.kill(life.process.pid, signal.SIGUSR1)
        if not life.how and (stuck := self._stuck(life)):
            self._hung(life, stuck)

    def close(self) -> None:
        """Let the life that runs be the last."""
        self._closing = True

    def kill(self) -> None:
        """Leave no process behind, whatever happened to this one."""
        if self.life is not None:
            self.life.process.kill()
            self.life.process.wait()

    def join(self) -> None:
        """Wait for the threads that read what the ranks write."""
        for thread in self._threads:
            thread.join()

    def _bring_to_an_end(self, life: Life) -> None:
        if life.kind == "mortal":
            if not life.how:
                life.how = "killed"
                self.kills += 1
                life.process.kill()
        elif life.asked_s is None and life.beats.get(0, (0,))[0]:
            life.asked_s = time.monotonic()
            life.progress.stop = True

    def _stuck(self, life: Life) -> str:
        """Say which thread has given no sign of life for too long; empty if none."""
        now_s = time.monotonic()
        if life.asked_s is not None:
            return f"did not end within {END_S} s" if now_s - life.asked_s > END_S else ""
        for thread, beats in enumerate(life.progress.beats()):
            last, ticks, since_s = life.beats.get(thread, (-1, 0, now_s))
            if last != beats:
                life.beats[thread] = beats, 0, now_s
                continue
            # Of ticks as well: on a machine that stood still, the ranks did so too.
            life.beats[thread] = beats, ticks + 1, since_s
            limit_s = HANG_S if beats else START_S
            if (beats or not thread) and now_s - since_s > limit_s and ticks * TICK_S > limit_s / 2:
                return f"thread {thread} hung for {limit_s} s"
        return ""

    def _hung(self, life: Life, stuck: str) -> None:
        life.how = "failed"
        os.kill(life.process.pid, signal.SIGUSR2)  # faulthandler writes all stacks
        time.sleep(1)
        stacks = short_stacks(_end_of(life.home / "stacks", 1 << 20))
        self._find(
            f"{life.folder.name} life {life.number} {stuck}, in {life.progress.now!r}:\n{stacks}"
        )
        life.process.kill()

    def _bury(self, life: Life) -> None:
        code = life.process.returncode
        name = f"{life.folder.name} life {life.number}"
        if not life.how:
            asked = life.asked_s is not None
            life.how = "ended" if asked and code == 0 else "failed"
            if life.how == "failed":
                self._find(
                    f"{name} ended with {code} in {life.progress.now!r} at {life.age_s:.0f} s:\n"
                    + short_stacks(_end_of(life.home / "stacks", 10_000))
                    + _end_of(life.home / "stderr")
                )
        if life.how != "failed" and (said := _end_of(life.home / "stderr")):
            self._find(f"{name} wrote to its stderr:\n{said}")
        for counter, count in life.progress.counted().items():
            self.counted[counter] += count
        _await_children(life.process.pid)
        life.progress.close()
        self.ended.append((life.folder, Ended(life.number, life.kind, life.how)))


def _end_of(path: Path, size_bytes: int = 800) -> str:
    try:
        return path.read_bytes()[-size_bytes:].decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


def _await_children(session: int) -> None:
    """Wait until the forked children that outlived a rank are gone."""
    deadline_s = time.monotonic() + END_S
    while time.monotonic() < deadline_s:
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = status.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] not in "ZX":
                break
        else:
            return
        time.sleep(0.02)

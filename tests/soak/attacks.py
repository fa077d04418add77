"""What happens to a rank, by name: one thing at a time, chosen by chance."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import random
import signal
import stat
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.soak import values
from tests.soak.progress import CHILDREN

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.soak.calls import Calls
    from tests.soak.files import LogFile

CHILD_S = 30
"""Seconds after which a forked child counts as hung."""

MOST_WARNINGS_BYTES = 100_000


class Interrupted(BaseException):
    """What a signal handler raises, as Ctrl-C does."""


class Attacks:
    """Attack the process it lives in.

    Args:
        calls: The calls of the rank.
        file: Its log file.
        dice: Where chance comes from.
        without: Names of attacks and values that are left out.
        stacks: An open file for the stacks of children that hang.
    """

    def __init__(
        self, calls: Calls, file: LogFile, dice: random.Random, without: set[str], stacks: int
    ) -> None:
        self.calls = calls
        self.file = file
        self.dice = dice
        self.without = without
        self._stacks = stacks
        self._interruptible = False
        self._handled = 0  # how many signal handlers are under way
        self._children: dict[int, float] = {}
        self._forked = 0
        self._of_signals = [self.calls.log_simple, self.metadata, self.info]
        if "signal_flush" not in without:
            self._of_signals.append(self.calls.flush)
        self._shapes = {name: one for name, one in values.SHAPES.items() if name not in without}

    def plain(self) -> None:
        """Train for a while."""
        for _step in range(10):
            self.calls.log_simple()

    def value(self) -> None:
        """Log what nobody should."""
        name = self.dice.choice(sorted(self._shapes))
        self.calls.progress.count("values")
        self.calls.log(self._shapes[name](self.dice, self.calls))

    def long_text(self) -> None:
        """Log 1 MB."""
        self.calls.log(values.long_text(self.dice, self.calls))

    def long_name(self) -> None:
        """Log a name of 1 MB."""
        self.calls.log(values.long_name(self.dice, self.calls))

    def step(self) -> None:
        """Log at what is not a step."""
        steps = values.STEPS[:-1] if "deep" in self.without else values.STEPS
        self.calls.log_at(self.dice.choice(steps)(self.dice))

    def metadata(self) -> None:
        """Describe a metric that was logged long ago, and in another way than last time."""
        name: Any = self.dice.choice(("train.loss", "name1", "name2", "lr", "\ud800", None, (1, 2)))
        self.calls.metadata(name, self.dice.choice(values.METADATA))

    def info(self) -> None:
        """Log what belongs to no step."""
        self.calls.info({"lr": 0.1, "text": "x" * self.dice.randrange(100)})

    def flush(self) -> None:
        """Flush."""
        self.calls.flush()

    def warn(self) -> None:
        """Warn through logging, whose handlers flush and log."""
        logging.getLogger("train").warning("the loss is high")

    def destroy(self) -> None:
        """Leave objects to the garbage collector that log when they go."""

        class Logs:
            def __init__(self, calls: Calls) -> None:
                self.calls = calls
                self.me = self

            def __del__(self) -> None:
                if not self.calls.deep and not self.calls.progress.stop:
                    self.calls.log_simple()

        for _one in range(self.dice.randrange(5)):
            Logs(self.calls)
        if self.dice.random() < 0.2:
            gc.collect()

    def interrupt(self) -> None:
        """Be interrupted by a signal handler that raises, in the midst of a call."""
        try:
            signal.setitimer(signal.ITIMER_REAL, self.dice.random() * 0.002 + 1e-6)
            self._interruptible = True
            for _call in range(20):
                self.calls.log_simple()
                self.calls.flush()
            self._interruptible = False
        except Interrupted:
            self.calls.progress.count("interrupts")

    def signals(self) -> None:
        """Let signals come often for a while, or not at all."""
        interval_s = self.dice.choice((0.0, 0.003, 0.02))
        signal.setitimer(signal.ITIMER_REAL, interval_s, interval_s)

    def fork(self) -> None:
        """Fork a child that logs and ends in one way or another."""
        self.reap(wait_s=0.0)
        if len(self._children) > 3 or self._forked >= CHILDREN or not self.file.reachable:
            return
        how = self.dice.choice(("os._exit", "sys.exit", "outlive", "silent"))
        self.file.unlimit()
        child, self._forked = self._forked, self._forked + 1
        gc.disable()  # a destructor that logs would take its parent's numbers
        pid = os.fork()
        if pid:
            gc.enable()
            self._children[pid] = time.monotonic()
            self.calls.progress.count("forks")
            return
        self.calls.become_child(child)
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.alarm(CHILD_S)
        faulthandler.dump_traceback_later(CHILD_S - 2, file=self._stacks)
        self._in_child(how)
        if how == "sys.exit":
            sys.exit(0)
        os._exit(0)

    def _in_child(self, how: str) -> None:
        if how == "silent":
            return
        for _line in range(4):
            self.calls.log_simple()
        self.calls.flush()
        if how == "outlive":
            time.sleep(self.dice.random() * 0.5)
            self.calls.log_simple()
        threads = [one.name for one in threading.enumerate() if one.name.startswith("otel")]
        listening = _listening_sockets()
        if threads or listening:
            self.calls.progress.wrong = f"a child has threads {threads}, listens at {listening}"

    def reap(self, *, wait_s: float) -> None:
        """Wait for children; one that does not end is hung.

        Args:
            wait_s: Seconds to wait for those that are left.
        """
        deadline_s = time.monotonic() + wait_s
        while self._children:
            for pid in list(self._children):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    del self._children[pid]
                    code = os.waitstatus_to_exitcode(status)
                    if code == -signal.SIGALRM:
                        self.calls.progress.wrong = "a forked child hung"
                    elif code:
                        self.calls.progress.wrong = f"a forked child ended with {code}"
            if time.monotonic() >= deadline_s:
                return
            time.sleep(0.002)

    def alone(self, attack: Callable[[], None]) -> Callable[[], None]:
        """Let an attack on the file wait for the children, whose losses nobody counts."""

        def attack_alone() -> None:
            self.reap(wait_s=CHILD_S)
            attack()

        return attack_alone

    def handle(self, _signal: int, _frame: Any) -> None:
        """Handle a signal by calling any of the package's functions, or by an exception.

        But not through ``logging``, whose documentation says that handlers of signals must not:
        another thread may hold the lock of a handler and wait for what this one was doing.
        """
        self.calls.progress.count("signals")
        if self._interruptible:
            self._interruptible = False
            raise Interrupted
        if self.calls.deep or self._handled > 2:
            return
        if not _has_stack():
            return
        self._handled += 1
        try:
            random.choice(self._of_signals)()  # not of the dice: who knows when this is called
        finally:
            self._handled -= 1

    def is_of_handler(self, error: RecursionError) -> bool:
        """Tell whether a signal handler had no stack left to do anything.

        Python calls handlers while it shows a value as deep as the stack is: what such a handler
        raises is nobody's fault, and comes out of the call that it interrupted.
        """
        codes = [frame.f_code for frame, _line in traceback.walk_tb(error.__traceback__)]
        return Attacks.handle.__code__ in codes


def _has_stack(levels: int = 200) -> bool:
    """Tell whether there is stack left for a call of the package's.

    Python calls handlers while it shows a value as deep as the stack is. There, a call is counted
    as failed, since nothing can be done, and the count of a rank that is killed is not known.
    """
    try:
        return levels == 0 or _has_stack(levels - 1)
    except RecursionError:
        return False


class Handler(logging.Handler):
    """A handler of logging that flushes the log, and logs to it.

    Args:
        calls: The calls of the rank.
        path: A file for what is warned of, so that a finding can be explained.
        hostile: Whether it flushes and logs, or only looks who warns.
    """

    def __init__(self, calls: Calls, path: Path, *, hostile: bool) -> None:
        super().__init__()
        self._calls = calls
        self._file = path.open("ab", buffering=0)
        self._hostile = hostile
        self._pid = os.getpid()

    def emit(self, record: logging.LogRecord) -> None:
        """Take what is warned of."""
        if record.name.startswith("otel_dllogger") and self._file.tell() < MOST_WARNINGS_BYTES:
            with contextlib.suppress(OSError):  # the disk may be full for this file, too
                self._file.write(f"{record.getMessage()}\n".encode("utf-8", "replace"))
        if os.getpid() != self._pid:
            self._calls.progress.wrong = f"a forked child warned: {record.getMessage()}"
        if self._hostile and not self._calls.deep and not self._calls.progress.stop:
            self._calls.flush()
            self._calls.log_simple()


def _listening_sockets() -> list[str]:
    table = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    listening = {row[9] for row in table if row[3] == "0A"}
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            status = link.stat()
            if stat.S_ISSOCK(status.st_mode) and str(status.st_ino) in listening:
                found.append(link.name)
    return found

"""A real terminal that tests can look at: one window of a tmux with a server of its own."""

from __future__ import annotations

import itertools
import os
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

from tests.support.command import TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from typing_extensions import Self

_NUMBERS = itertools.count()


class Tmux:
    """A terminal in which one command runs; it stays when the command has ended.

    Args:
        command: The command.
        environ: Its whole environment, to which tmux adds TERM.
        cwd: Its folder.
        columns: The width.
        lines: The height.
        term: The value of TERM.
    """

    def __init__(
        self,
        command: Sequence[object],
        *,
        environ: Mapping[str, str],
        cwd: Path,
        columns: int = 80,
        lines: int = 24,
        term: str = "xterm-256color",
    ) -> None:
        self._socket = f"dllogger-{os.getpid()}-{next(_NUMBERS)}"
        values = {name: text for name, text in environ.items() if name not in ("TERM", "TMUX")}
        words = ["env", "-i", *(f"{name}={text}" for name, text in values.items()), f"TERM={term}"]
        shown = shlex.join([*words, *map(str, command)])
        # The shell says how the command ended, and keeps the terminal as it left it; Ctrl-C reaches
        # the shell as well.
        script = f"trap : INT; {shown}; echo; echo ended with $?.; exec sleep 600"
        size = ["-x", str(columns), "-y", str(lines)]
        self._tmux("new-session", "-d", *size, "-c", str(cwd), "sh", "-c", script)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        # tmux may be gone before it has answered.
        subprocess.run(self._command("kill-server"), check=False, capture_output=True)

    def _command(self, *arguments: str) -> list[str]:
        return ["tmux", "-u", "-L", self._socket, "-f", "/dev/null", *arguments]

    def _tmux(self, *arguments: str) -> str:
        done = subprocess.run(self._command(*arguments), capture_output=True, check=True)
        return done.stdout.decode()

    def lines(self, *options: str) -> list[str]:
        """Return what is on the screen, without the empty lines at its end."""
        return self._tmux("capture-pane", "-p", *options).rstrip("\n").split("\n")

    def wait_for(
        self, is_there: Callable[[list[str]], object], within_s: float = TIMEOUT_S
    ) -> list[str]:
        """Wait until the screen shows something, and return it."""
        deadline_s = time.monotonic() + within_s
        while True:
            lines = self.lines()
            if is_there(lines):
                return lines
            assert time.monotonic() < deadline_s, "\n".join(["the screen has:", *lines])
            time.sleep(0.05)

    def resize(self, columns: int, lines: int) -> None:
        """Give the terminal another size."""
        self._tmux("resize-window", "-x", str(columns), "-y", str(lines))

    def press(self, *keys: str) -> None:
        """Press keys, by tmux's names."""
        self._tmux("send-keys", *keys)

    def wait_for_end(self) -> int:
        """Wait until the command has ended, and return its exit code."""
        lines = self.wait_for(lambda lines: any("ended with " in line for line in lines))
        return int(lines[-1].removeprefix("ended with ").rstrip("."))

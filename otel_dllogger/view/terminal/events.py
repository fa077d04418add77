"""Keys, signals and a closed pipe: what happens while a terminal shows something."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import tty
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDING = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGHUP))
_CAUGHT = _ENDING | {signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT}
_QUIT = "qQ\x03"


class Happened(NamedTuple):
    """What happened while nothing was drawn.

    Attributes:
        is_end: Whether the user wants to leave, or nobody reads the output any more.
        is_stop: Whether the process is to stop, by Ctrl-Z.
        is_unread: Whether nobody reads the output any more.
    """

    is_end: bool = False
    is_stop: bool = False
    is_unread: bool = False


class Events:
    """What comes from the user.

    Args:
        has_keys: Whether to read keys from standard input, if it is a terminal.
    """

    def __init__(self, *, has_keys: bool) -> None:
        self._has_keys = has_keys and sys.stdin is not None and sys.stdin.isatty()
        self._settings: list[Any] | None = None
        self._signals = -1

    @contextlib.contextmanager
    def opened(self) -> Iterator[Events]:
        """Catch signals and read keys until the end of the block."""
        self._signals, writer = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(writer, False)
        wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        before = {
            number: signal.signal(number, _ignore)
            for number in (_CAUGHT if self._has_keys else _ENDING)
            if signal.getsignal(number) is not signal.SIG_IGN  # as nohup sets it
        }
        self._take_keys()
        try:
            yield self
        finally:
            self._give_keys_back()
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(self._signals)
            os.close(writer)

    def wait(self, seconds: float) -> Happened:
        """Wait until something happens, but not longer than ``seconds``."""
        poll = select.poll()
        poll.register(self._signals, select.POLLIN)
        poll.register(sys.stdout.fileno(), 0)  # says that nobody reads any more
        if self._has_keys:
            poll.register(sys.stdin.fileno(), select.POLLIN)
        found = {number for number, _event in poll.poll(max(seconds, 0.0) * 1_000)}
        is_end = is_unread = sys.stdout.fileno() in found
        signals: set[int] = set()
        if self._signals in found:
            signals.update(os.read(self._signals, 4_096))
        if self._has_keys and sys.stdin.fileno() in found:
            keys = os.read(sys.stdin.fileno(), 4_096).decode(errors="replace")
            is_end = is_end or not keys or any(key in _QUIT for key in keys)
        is_end = is_end or bool(signals & _ENDING)
        return Happened(is_end, signal.SIGTSTP in signals, is_unread)

    def stop(self) -> None:
        """Stop the process until it is told to go on, as Ctrl-Z does without us."""
        self._give_keys_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take_keys()

    def _take_keys(self) -> None:
        if self._has_keys:
            self._settings = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)

    def _give_keys_back(self) -> None:
        if self._settings is not None:
            with contextlib.suppress(termios.error):  # the terminal may be gone
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._settings)
            self._settings = None


def _ignore(_number: int, _frame: object) -> None:
    """Leave a signal to the descriptor that it wakes."""

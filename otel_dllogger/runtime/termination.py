"""Find out that this process is told to end, by SIGTERM or SIGINT, without changing how it ends.

Python writes the number of every signal that it handles to one descriptor, the "wakeup fd", at
once and from any thread (https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd). A
thread reads it there, whoever installed the handler and whenever. So the script's own handlers
stay what they are, and Ctrl-C raises KeyboardInterrupt as ever.

Where the script has no handler for SIGTERM, there is nothing that Python would write. Only there
a handler of ours stands in for the system's default action: the thread lets backends say that the
process ends, and then takes the default action, so that the exit status is the same. That it is a
thread matters: the main one may wait in a collective operation for ranks that are gone, where
Python calls no handler, and the process would not end.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found] # signal.signal would take our handler for SIG_DFL
import atexit
import contextlib
import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from otel_dllogger.runtime import fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_dllogger.runtime.own_sockets import OwnSocket

MOST_WAIT_S = 20.0
"""Seconds that a process waits at most before the default action of SIGTERM ends it.

Slurm, Kubernetes and torchrun kill what is still there after 30 seconds.
"""

_LATE_S = 2.0
_LOOK_S = 0.02
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_BYTES = 4096


class Ending(Protocol):
    """A backend that says that its process was told to end."""

    def note_told(self, told_us: int) -> None:
        """Note that the process was told to end, at this time since the Unix epoch.

        It is called on any thread, possibly several times, and must not wait.
        """

    def begin_kill(self) -> float:
        """Return the seconds to wait at most before SIGTERM ends the process, usually 0."""

    def is_waiting(self) -> bool:
        """Return whether it is worth waiting any longer."""

    def end_kill(self) -> None:
        """Do what comes last, before SIGTERM ends the process."""


class _DefaultAction(int):
    """A handler that stands in for SIG_DFL, and is SIG_DFL to whoever asks ``signal.getsignal``.

    Libraries ask whether the script has a handler, to call it in their own or to leave it in place;
    the answer is the same as without this package, and what they do as well.
    """

    stand_in: Callable[[], None]

    def __call__(self, *_arguments: object) -> None:
        self.stand_in()


class Termination:
    """A watcher for the signals that tell this process to end."""

    def __init__(self) -> None:
        self._endings: dict[int, Ending] = {}
        self._action = _DefaultAction()
        self._action.stand_in = self._wait_for_the_end
        self._reset: Callable[[int, None], object] | None = None
        self._receiver: OwnSocket | None = None
        self._sender: OwnSocket | None = None
        self._fd = -1  # the sender's number, which Python writes to
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._masks: dict[int, list[Any]] = {}
        fork.register(self)

    def add(self, ending: Ending) -> None:
        """Have a backend told; nothing is watched if this is not the main thread.

        Args:
            ending: The backend, which is kept until ``remove``.
        """
        self._endings[id(ending)] = ending
        if self._thread is None and threading.current_thread() is threading.main_thread():
            self._watch()

    def remove(self, ending: Ending) -> None:
        """Forget a backend; after the last one, signals are as they were."""
        self._endings.pop(id(ending), None)
        if not self._endings:
            self._stop()

    def look(self) -> None:
        """Tell the backends of a signal that came just now, which the thread has not read yet."""
        receiver = self._receiver
        if receiver is None or self._thread is None or os.getpid() != self._pid:
            return
        import socket  # noqa: PLC0415 - loaded by now

        with contextlib.suppress(OSError):  # nothing is there, or it is being closed
            self._tell(receiver.recv(_BYTES, socket.MSG_PEEK | socket.MSG_DONTWAIT))

    def is_watching(self) -> bool:
        """Return whether a signal would be noticed if it came now."""
        if self._thread is None or self._sender is None or os.getpid() != self._pid:
            return False
        if threading.current_thread() is not threading.main_thread():
            return True  # as far as is known: only the main thread may ask for the descriptor
        own = self._sender.fileno()
        try:
            other = signal.set_wakeup_fd(own, warn_on_full_buffer=False)
        except (OSError, ValueError):  # other code has closed it, or its number is another file's
            return False
        if other != own:  # asyncio, for example, took it later, and perhaps gave it back
            signal.set_wakeup_fd(other, warn_on_full_buffer=False)
        return other == own

    def before_fork(self) -> None:
        """Hold the signals back: a child would write them to the descriptor of its parent."""
        if self._thread is not None:
            mask = _signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            self._masks.setdefault(threading.get_ident(), []).append(mask)

    def after_fork_in_parent(self) -> None:
        """Let the signals through again."""
        masks = self._masks.get(threading.get_ident())
        if masks:
            _signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def after_fork_in_child(self) -> None:
        """Leave signals as they are without this package, and the descriptor to the parent."""
        if self._thread is not None:
            self._restore()  # the sockets close themselves
        self._endings = {}
        self._thread = self._sender = self._receiver = None
        self._pid = os.getpid()
        self.after_fork_in_parent()

    def _watch(self) -> None:
        from otel_dllogger.runtime.own_sockets import own_pair  # noqa: PLC0415 - imports socket

        try:
            self._receiver, self._sender = own_pair()
            self._receiver.setblocking(True)
        except OSError:  # no more descriptors
            return
        self._fd = self._sender.fileno()
        other = signal.set_wakeup_fd(self._fd, warn_on_full_buffer=False)
        if other != -1:  # of asyncio, for example
            signal.set_wakeup_fd(other, warn_on_full_buffer=False)
            self._close()
            self._receiver.close()
            return
        self._thread = threading.Thread(
            target=self._read, args=(self._receiver,), name="otel-dllogger-signals", daemon=True
        )
        try:
            self._thread.start()
        except RuntimeError:  # no more threads
            signal.set_wakeup_fd(-1)
            self._thread = None
            self._close()
            self._receiver.close()
            return
        # Exit handlers of backends that are made after this one run before it.
        atexit.register(self._stop)
        self._reset = self._reset or _resetter()
        if self._reset is not None and _is_default():
            _signal.signal(signal.SIGTERM, self._action)

    def _stop(self) -> None:
        if self._thread is None or threading.current_thread() is not threading.main_thread():
            return
        atexit.unregister(self._stop)
        self.look()
        self._restore()
        self._thread = None
        self._close()

    def _restore(self) -> None:
        if _signal.getsignal(signal.SIGTERM) is self._action:
            _signal.signal(signal.SIGTERM, _signal.SIG_DFL)
        other = signal.set_wakeup_fd(-1)
        if other not in (self._fd, -1):
            with contextlib.suppress(OSError, ValueError):  # it is closed
                signal.set_wakeup_fd(other, warn_on_full_buffer=False)

    def _close(self) -> None:
        # The thread reads the end of the stream then, and closes the other socket itself.
        if self._sender is not None:
            self._sender.close()

    def _tell(self, numbers: bytes) -> None:
        if any(number in numbers for number in _SIGNALS):
            told_us = time.time_ns() // 1000
            for ending in tuple(self._endings.values()):
                ending.note_told(told_us)

    def _read(self, receiver: OwnSocket) -> None:
        """Read the numbers of signals, on a thread of its own.

        Each is read only after the backends were told of it, so that an exit handler that looks
        between the two finds it.
        """
        import socket  # noqa: PLC0415 - loaded by now

        with contextlib.suppress(OSError), receiver:
            while numbers := receiver.recv(_BYTES, socket.MSG_PEEK):
                self._tell(numbers)
                receiver.recv(len(numbers))
                if signal.SIGTERM in numbers and self._is_to_die():
                    self._die(receiver)
        if self._thread is threading.current_thread() and os.getpid() == self._pid:
            # The script has closed all descriptors, as daemons do. Python must not write signals
            # to what the script opens next, and lets only the main thread say so.
            _on_main_thread(self._restore)

    def _is_to_die(self) -> bool:
        # Linux does not let a default action end the first process of a container.
        return os.getpid() != 1 and _signal.getsignal(signal.SIGTERM) is self._action

    def _wait_for_the_end(self) -> None:
        """Stand in for the default action on the main thread, where nothing should go on."""
        if not self._is_to_die():
            return
        by_s = time.monotonic() + MOST_WAIT_S + _LATE_S
        thread = self._thread
        while thread is not None and thread.is_alive() and time.monotonic() < by_s:
            time.sleep(_LOOK_S)
        self._kill()

    def _die(self, receiver: OwnSocket) -> None:
        """Take the default action, after the backends are ready or a second signal has come."""
        endings = tuple(self._endings.values())
        try:
            by_s = time.monotonic() + min(
                max((ending.begin_kill() for ending in endings), default=0.0), MOST_WAIT_S
            )
            while any(ending.is_waiting() for ending in endings) and time.monotonic() < by_s:
                if select.select([receiver], [], [], _LOOK_S)[0]:
                    numbers = receiver.recv(_BYTES)
                    if not numbers or any(number in numbers for number in _SIGNALS):
                        break
            for ending in endings:
                ending.end_kill()
        finally:
            self._kill()

    def _kill(self) -> None:
        if self._reset is not None:
            self._reset(signal.SIGTERM, None)
        os.kill(os.getpid(), signal.SIGTERM)


def _resetter() -> Callable[[int, None], object] | None:
    """Return C's ``signal``, since Python lets only the main thread reset a handler."""
    try:
        import ctypes  # noqa: PLC0415 - importing the package should not

        reset = ctypes.CDLL(None).signal
    except (ImportError, OSError, AttributeError):
        return None
    reset.argtypes, reset.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    return reset


def _on_main_thread(task: Callable[[], object]) -> None:
    """Have the main thread call something as soon as it runs Python again."""
    with contextlib.suppress(ImportError, AttributeError):
        import ctypes  # noqa: PLC0415 - importing the package should not

        def call(_argument: object) -> int:
            task()
            return 0

        in_c = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(call)
        _CALLS.append(in_c)  # C has it until it is called
        ctypes.pythonapi.Py_AddPendingCall(in_c, None)


_CALLS: list[object] = []


def _is_default() -> bool:
    """Return whether SIGTERM has its default action, and no handler of a library written in C."""
    if _signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        return False
    try:
        import ctypes  # noqa: PLC0415 - importing the package should not

        look = ctypes.pythonapi.PyOS_getsig
    except (ImportError, AttributeError):
        return True
    look.argtypes, look.restype = (ctypes.c_int,), ctypes.c_void_p
    return look(signal.SIGTERM) is None  # SIG_DFL is a null pointer


TERMINATION = Termination()
"""The watcher of this process."""

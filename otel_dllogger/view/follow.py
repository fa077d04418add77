"""Keep a model current: read its sources on a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from otel_dllogger.bridge.polling import RetryingPoll
from otel_dllogger.view.log_source import LogSource

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERVAL_S = 0.25
_JOIN_S = 5.0


class ModelSource(Protocol):
    """What fills a model."""

    def poll(self) -> bool:
        """Read what is there now, and return whether there is more at once."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class Follower:
    """A thread that polls sources until it is closed.

    Args:
        sources: The sources; they are closed with it.
    """

    def __init__(self, sources: Sequence[ModelSource]) -> None:
        self._sources = list(sources)
        self._stopping = threading.Event()
        self._is_current = threading.Event()
        self._thread = threading.Thread(target=self._run, name="otel-dllogger-view", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def wait_until_current(self, timeout_s: float | None = None) -> bool:
        """Wait until all that is there has been read once; return whether it was."""
        return self._is_current.wait(timeout_s)

    @property
    def progress(self) -> tuple[int, int]:
        """Return how many bytes of logs were read, and how many there are."""
        found = [source.progress for source in self._sources if isinstance(source, LogSource)]
        return sum(read for read, _ in found), sum(size for _, size in found)

    def close(self) -> None:
        """Stop reading, and close the sources."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)
        for source in self._sources:
            source.close()

    def _run(self) -> None:
        polls = [
            (RetryingPoll("reading what is shown", source.poll, _INTERVAL_S), source)
            for source in self._sources
        ]
        due_s = dict.fromkeys(range(len(polls)), 0.0)
        while not self._stopping.is_set():
            is_behind = False
            for number, (polling, _source) in enumerate(polls):
                if time.monotonic() >= due_s[number]:
                    wait_s = polling.poll()
                    is_behind |= not wait_s
                    due_s[number] = time.monotonic() + wait_s
            if not is_behind:
                self._is_current.set()
                self._stopping.wait(_INTERVAL_S)

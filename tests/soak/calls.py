"""The package's public functions, called so that every line can be accounted for."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import otel_dllogger as dllogger
from tests.soak.progress import (
    ACKNOWLEDGED,
    BEGUN,
    FIRST_LINE_OF_CHILDREN,
    INTERRUPTED,
    LINES_OF_A_CHILD,
    WITHIN,
    Progress,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_DEPTH = 3
"""Calls within calls: of a value that logs, a handler, a signal, a destructor."""

_QUIET_WAIT_S = 5.0


class Calls:
    """Call the package, and note of each line that it began and that its call returned.

    A line is known by ``[life, number]``: its step, or what stands under ``soak``.

    Args:
        progress: Where it is noted.
        life: Which process of the rank this is, from 0.
    """

    def __init__(self, progress: Progress, life: int) -> None:
        self.progress = progress
        self.life = life
        self._numbers = itertools.count(1)
        self._depths: dict[int, int] = {}
        self._within: dict[int, list[int]] = {}
        self._quiet = False
        self._main = threading.get_ident()

    def become_child(self, child: int) -> None:
        """Number the lines of a forked child apart from its parent's."""
        first = FIRST_LINE_OF_CHILDREN + child * LINES_OF_A_CHILD
        self._numbers = itertools.count(first)
        self._depths = {}
        self._within = {}
        self._quiet = False
        self._main = threading.get_ident()

    @property
    def deep(self) -> bool:
        """Tell whether this thread is within as many calls as shall be."""
        return self._depths.get(threading.get_ident(), 0) >= MAX_DEPTH

    def log(self, data: Any) -> None:
        """Log a line that is known by its step."""
        number = next(self._numbers)
        self._call(number, dllogger.log, (self.life, number), data)

    def log_simple(self) -> None:
        """Log a line as a training loop does; the number is its value as well."""
        number = next(self._numbers)
        data = {"train.loss": 1.0 / number, "soak.number": number, "lr": 0.1}
        self._call(number, dllogger.log, (self.life, number), data)

    def log_at(self, step: Any) -> None:
        """Log a line at a step that is not one; it is known by its data."""
        number = next(self._numbers)
        self._call(number, dllogger.log, step, {"soak": [self.life, number]})

    def metadata(self, metric: Any, metadata: dict[Any, Any]) -> None:
        """Describe a metric."""
        number = next(self._numbers)
        described = {**metadata, "soak": [self.life, number]}
        self._call(number, dllogger.metadata, metric, described)

    def info(self, data: dict[Any, Any]) -> None:
        """Log what belongs to no step."""
        number = next(self._numbers)
        self._call(number, dllogger.info, {**data, "soak": [self.life, number]})

    def flush(self) -> None:
        """Flush every backend."""
        self._call(0, dllogger.flush)

    def _call(self, number: int, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.get_ident()
        depth = self._depths.get(thread, 0)
        while True:
            self._depths[thread] = depth + 1
            if depth or not self._quiet or thread == self._main:
                break
            self._depths[thread] = 0
            time.sleep(0.001)
        if depth:
            self.progress.count("nested")
        if number:
            self.progress.set_state(number, BEGUN)
        try:
            function(*arguments)
        except BaseException:
            if number:
                self.progress.set_state(number, INTERRUPTED)
            raise
        else:
            self._returned(number, self._within.setdefault(thread, []), within=depth > 0)
        finally:
            self._depths[thread] = depth

    def _returned(self, number: int, lines: list[int], *, within: bool) -> None:
        if number:
            self.progress.set_state(number, WITHIN if within else ACKNOWLEDGED)
        if within:
            lines.append(number)
            return
        while lines:
            if line := lines.pop():
                self.progress.set_state(line, ACKNOWLEDGED)

    @contextlib.contextmanager
    def quiet(self) -> Iterator[bool]:
        """Keep other threads out of the package, as long as the block lasts.

        No program can tell that its descriptor became another file's between its last look and
        its write. So that nobody is asked to, such a change is made while nobody writes.

        Yields:
            Whether all others are out; one that sleeps in a call may take too long.
        """
        deadline_s = time.monotonic() + _QUIET_WAIT_S
        self._quiet = True
        try:
            while time.monotonic() < deadline_s:
                inside = [who for who, depth in list(self._depths.items()) if depth]
                if not set(inside) - {self._main}:
                    yield True
                    return
                time.sleep(0.001)
            yield False
        finally:
            self._quiet = False

    def at_rest(self) -> None:
        """Know that the main thread is in no call, however the last one ended."""
        self._depths[self._main] = 0

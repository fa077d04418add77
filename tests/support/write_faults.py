"""A disk that fails on demand, loggers with real files, and what they lost."""

from __future__ import annotations

import errno
import json
import os
from contextlib import contextmanager
from pathlib import Path

from otel_dllogger import JSONStreamBackend, Logger
from otel_dllogger.diagnostics import DIAGNOSTICS

DEADLINE_S = 60

REFUSALS = {
    "ENOSPC": OSError(errno.ENOSPC, "No space left on device"),
    "EIO": OSError(errno.EIO, "Input/output error"),
    "EFBIG": OSError(errno.EFBIG, "File too large"),
    "EDQUOT": OSError(errno.EDQUOT, "Disk quota exceeded"),
    "EINTR": InterruptedError(errno.EINTR, "Interrupted system call"),
    "EBADF": OSError(errno.EBADF, "Bad file descriptor"),
    "0 bytes": 0,
    "1 byte": 1,
    "half": 0.5,
    "all but the newline": -1,
}


class FailingDisk:
    """A disk that writes to the real file, except for the writes in a plan (number -> fault)."""

    def __init__(self, plan) -> None:
        self.plan = plan
        self.writes = 0

    def __call__(self, fd, data):
        fault = self.plan.get(self.writes)
        self.writes += 1
        if fault is None:
            return os.write(fd, data)
        if isinstance(fault, OSError):
            if fault.errno == errno.EBADF:
                os.close(fd)
            raise fault
        size = int(len(data) * fault) if isinstance(fault, float) else fault
        return os.write(fd, data[: size if size >= 0 else len(data) + size])


class InterruptedDisk(FailingDisk):
    """A disk that writes to the real file; after some writes (from 1) a signal handler raises."""

    def __init__(self, *interrupted) -> None:
        super().__init__({})
        self.interrupted = interrupted

    def __call__(self, fd, data):
        written = super().__call__(fd, data)
        if self.writes in self.interrupted:
            raise KeyboardInterrupt
        return written


@contextmanager
def dropped(reason):
    """Yield a list that gets how many drops of a reason were counted within the block."""
    before = DIAGNOSTICS.dropped[reason]
    counted = []
    yield counted
    counted.append(DIAGNOSTICS.dropped[reason] - before)


def line_of(number):
    """Return a line whose length depends on its number."""
    return b"%06d %s\n" % (number, b"x" * (number * 7 % 40))


def lines_in(path):
    """Return the whole lines of a file, and what follows the last newline."""
    *lines, rest = Path(path).read_bytes().split(b"\n")
    return [line + b"\n" for line in lines], rest


def logger_on(path, **options):
    """Return a Logger with only a JSON file, as in a training script."""
    backend = JSONStreamBackend(1, path, **options)
    return Logger([backend]), backend


def losses_in(path):
    """Return the losses in a log, read as users' scripts do; a bad line raises an error."""
    return [json.loads(line[5:])["data"]["loss"] for line in Path(path).read_text().splitlines()]
